"""The whole cycle: preferences -> reward model -> PPO -> gates -> a candidate in the registry.

A run lives in a folder of its own (`_loop_status`), says there where it is, and ends after the
step it is at when asked to. A run that was broken off or cancelled goes on where it was: what a
stage has finished is not done again, and the stages that take long keep checkpoints of their own.
Nothing that answers is touched before a candidate is promoted, so a run that goes astray costs its
time only.

Every run begins with the policy of the settings, not with the last candidate: so the KL budget
means the same in every round (Gao et al. 2022 measure it from the supervised policy).
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from assistant.config import GateSettings, TrainSettings
from rlhf import _durable
from rlhf._loop_gates import Court, Measured, Side, pairs_of
from rlhf._loop_imitate import imitate
from rlhf._loop_pupil import Pupil
from rlhf._loop_reward import Judge, needed, source
from rlhf._loop_status import CANCEL, GOLD, Board, add, lines
from rlhf._loop_tasks import Asked, digest
from rlhf._loop_watch import alarmed, said
from rlhf.config import PPOSettings
from rlhf.errors import Cancelled, Diverged, RlhfError, TrainingError
from rlhf.feedme import Rated
from rlhf.gates import Gate, Paired, failing
from rlhf.ppo import PPO, Pretraining
from rlhf.preferences import PreferenceStore
from rlhf.registry import Registry
from rlhf.scoring import RewardModel
from rlhf.survey import Survey, survey
from safety.guard import Guard

logger = logging.getLogger(__name__)

PLAN, GATES, PAIRS = "plan.json", "gates.json", "pairs.jsonl"
REWARD, MODEL = "reward", "policy"


@dataclass(frozen=True)
class Parts:
    """What a run works with.

    Attributes:
        pupil: the policy that is trained.
        tasks: prompts to learn on, of training users and of lessons.
        held: prompts of the gates, of test users and of articles that nothing was trained on.
        judge: makes the reward of a run, with a reward model or without.
        live: who answers now.
        against: the version of who answers now, "" the settings' own.
        guard: judges rules; None where there is none.
        train_reward: trains a reward model into a folder, yields lines; None where it cannot be.
        refit_reward: fits the head of the one that is there to the users' comparisons, likewise.
        load_reward: loads a reward model from a folder.
        shipped: folder of the reward model that is there already; None where there is none.
        pretraining: a loss that PPO mixes in, where the settings weigh it.
        modelling: losses of the policy on plain text as it is now; None where nothing is measured.
        liked: answers that people judged, where the run imitates.
        watch: measures the policy after an update with this number (-1 before the first) beside
            the reward of the run, `gold` or more; None where it does not want to.
    """

    pupil: Pupil
    tasks: Sequence[Asked]
    held: Sequence[Asked]
    judge: Callable[[RewardModel | None], Judge]
    live: Side
    against: str
    guard: Guard | None = None
    train_reward: Callable[[Path], Iterator[str]] | None = None
    refit_reward: Callable[[Path], Iterator[str]] | None = None
    load_reward: Callable[[Path], RewardModel] | None = None
    shipped: Path | None = None
    pretraining: Pretraining | None = None
    modelling: Callable[[], Sequence[float]] | None = None
    liked: Callable[[], Sequence[Rated]] = lambda: ()
    watch: Callable[[int, Any, Judge], Mapping[str, float] | None] = field(
        default=lambda update, actor, judge: None
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is, fixed when it begins; `reward` and `why` as `_loop_reward.source` says."""

    tasks_sha256: str
    held_sha256: str
    data_sha256: str
    comparisons: int
    reward: str
    why: str
    against: str
    settings: dict[str, Any]


def schedule(settings: TrainSettings, **values: Any) -> PPOSettings:
    """The settings of PPO for a run of the loop; `values` go before."""
    chosen: dict[str, Any] = {
        "seed": settings.seed,
        "updates": settings.updates,
        "episodes": settings.episodes,
        "rate": settings.rate,
        "schedule": "linear",  # at a constant rate how readily it abstains swings to the end
        "target_kl": settings.kl,
        "pretraining": settings.pretraining,
        "value_warmup": min(5, settings.updates // 4),  # a short run learns something too
        "save_every": 5,
        "average": 0.98,
        "leave_one_out": True,
    }
    own = chosen | values
    least = int(own.get("minibatches", PPOSettings().minibatches))
    return PPOSettings(answers=_each(settings, least), **own)


def _each(settings: TrainSettings, least: int) -> int:
    """Answers to a prompt: so many as share out evenly, and leave a minibatch a prompt."""
    numbers = range(1, settings.answers + 1)
    whole = [n for n in numbers if not settings.episodes % n and settings.episodes // n >= least]
    return max(whole, default=1)


class Cycle:
    """One run.

    Args:
        board: the status of the run, in its folder.
        parts: what it works with.
        store: the preference log.
        registry: where the candidate goes.
        settings: of the run.
        gates: of the gates.
        ppo: of PPO, else as `schedule` has them.
    """

    def __init__(
        self,
        board: Board,
        parts: Parts,
        store: PreferenceStore,
        registry: Registry,
        settings: TrainSettings,
        gates: GateSettings | None = None,
        ppo: PPOSettings | None = None,
    ) -> None:
        self._board, self._parts = board, parts
        self._store, self._registry = store, registry
        self._settings, self._gates = settings, gates or GateSettings()
        self._ppo = ppo or schedule(settings)
        self._folder = board.folder
        self._pupil, self._actor = parts.pupil, parts.pupil.actor
        self._plain: Sequence[float] | None = None

    def run(self) -> Iterator[str]:
        """Go on to the end; yields lines to show. The status says how it ended.

        Raises:
            Cancelled: somebody asked; it can be resumed.
            Diverged: PPO went astray; what answers was not touched.
            TrainingError: a stage could not be done.
        """
        board = self._board
        try:
            plan = yield from self._preferences()
            model = yield from self._reward(plan)
            yield from self._train(model)
            measured = yield from self._measure(plan, model)
            yield from self._keep(plan, measured)
        except Cancelled as error:
            (self._folder / CANCEL).unlink(missing_ok=True)
            board.end("cancelled", str(error))
            raise
        except (RlhfError, OSError) as error:
            board.end("failed", str(error))
            raise
        except (KeyboardInterrupt, GeneratorExit):
            board.end("cancelled", "interrupted; what was done is kept")
            raise
        board.end("done")

    # stages -------------------------------------------------------------------------------------

    def _preferences(self) -> Generator[str, None, Plan]:
        """What there is to learn from; fixed for the whole run."""
        self._board.at("preferences", text="looking at what was collected")
        parts, found = self._parts, survey(self._store)
        plan = self._planned(found)
        path = self._folder / PLAN
        if path.exists():
            before = Plan(**json.loads(path.read_text(encoding="utf-8")))
            same = ("tasks_sha256", "held_sha256", "against", "settings")
            changed = [name for name in same if getattr(before, name) != getattr(plan, name)]
            if changed:
                raise TrainingError(
                    f"the run cannot go on, for {changed[0]} is no longer what it was when it "
                    "began (what people asked, who answers, or the settings); start a new run"
                )
            plan = before
        else:
            needed(parts.tasks, plan.reward != "none")
            _durable.write(path, json.dumps(asdict(plan), indent=1).encode() + b"\n")
        own = sum(bool(task.user) for task in parts.tasks)
        yield self._said(
            f"{plan.comparisons} comparisons of users; {len(parts.tasks)} prompts to learn on, "
            f"{own} of them users', and {len(parts.held)} for the gates"
        )
        yield self._said(plan.why)
        return plan

    def _reward(self, plan: Plan) -> Generator[str, None, RewardModel | None]:
        """Train a reward model, or take the one there is, or none."""
        board, parts, folder = self._board, self._parts, self._folder / REWARD
        board.at("reward", text=plan.why)
        if plan.reward == "none" or parts.load_reward is None:
            return None
        if plan.reward == "shipped" and parts.shipped is not None:
            return parts.load_reward(parts.shipped)
        done = self._folder / f"{REWARD}.done"
        make = parts.refit_reward if plan.reward == "refitted" else parts.train_reward
        if not done.exists() and make is not None:
            for line in make(folder):
                step, of = _steps(line)
                board.at("reward", step, of, line)
                yield line
            _durable.write(done, b"")
        return parts.load_reward(folder)

    def _train(self, model: RewardModel | None) -> Iterator[str]:
        """PPO, with the checkpoint and the log of updates in the run's folder."""
        settings, parts = self._ppo, self._parts
        self._board.at("ppo", 0, settings.updates, "PPO begins")
        if parts.modelling is not None and not parts.against:
            self._plain = parts.modelling()  # a run that goes on takes its weights up below
        judge = parts.judge(model)
        yield from self._watch(-1, judge)
        if self._settings.method == "feedme":
            yield from imitate(
                self._actor, parts.tasks, judge, parts.liked(), self._settings, self._folder,
                self._board,
            )  # fmt: skip
            yield from self._watch(settings.updates - 1, judge)
            self._export()
            self._pupil.take_over(self._folder / MODEL)
            return
        ppo = PPO(self._actor, parts.tasks, judge, settings, self._folder, parts.pretraining)
        try:
            for update in ppo.train():
                line = (
                    f"update {update.update + 1} of {settings.updates}: reward "
                    f"{update.score:.3f}, KL {update.kl:.2f}, entropy {update.entropy:.2f}"
                )
                yield line
                yield from self._watch(update.update, judge)
                self._board.at("ppo", update.update + 1, settings.updates, line)
        except Cancelled:
            ppo.save()
            raise
        except Diverged:
            logger.error("run diverged folder=%s", self._folder.name)
            raise
        # an average over fewer steps than it remembers is mostly where the run began
        if ppo.steps * (1 - settings.average) >= 3:
            with ppo.averaged():
                self._export()
        else:
            self._export()
        self._pupil.take_over(self._folder / MODEL)

    def _watch(self, update: int, judge: Judge) -> Iterator[str]:
        """Another judge's reading, where one is due."""
        seen = self._parts.watch(update, self._actor, judge)
        if seen is not None:
            add(self._folder / GOLD, {"update": update, **seen})
            if "proxy" in seen:
                yield said(seen)

    def _measure(self, plan: Plan, model: RewardModel | None) -> Generator[str, None, Measured]:
        """Both policies answer the held prompts."""
        parts, path = self._parts, self._folder / GATES
        if path.exists():
            values = json.loads(path.read_text(encoding="utf-8"))
            yield self._said("the gates were measured before")
            gates = tuple(Gate(**_tupled(row)) for row in values["gates"])
            return Measured(gates, values["metrics"], (), ())
        before = None
        own = plan.reward in ("trained", "refitted")
        if own and parts.shipped is not None and parts.load_reward is not None:
            before = parts.load_reward(parts.shipped)
        court = Court(
            parts.held, parts.live, plan.against, parts.judge(model), parts.guard, model, before,
            self._store, self._gates, self._modelling(),
        )  # fmt: skip
        new = self._pupil.side(self._folder / MODEL)
        self._board.at("gates", 0, len(parts.held), "old and new policy answer held-out prompts")
        measured = court.measure(
            new, self._actor, self._ppo.seed, lambda n, of: self._board.at("gates", n, of)
        )
        measured = alarmed(measured, lines(self._folder / GOLD))
        rows = [json.dumps(row, ensure_ascii=False)
                for row in pairs_of(parts.held, measured.old, measured.new)]  # fmt: skip
        _durable.write(self._folder / PAIRS, "".join(f"{row}\n" for row in rows).encode())
        text = json.dumps({"gates": [asdict(g) for g in measured.gates],
                           "metrics": measured.metrics}, ensure_ascii=False)  # fmt: skip
        _durable.write(path, text.encode())
        wrong = failing(measured.gates)
        yield self._said(f"{len(measured.gates) - len(wrong)} gates passed, {len(wrong)} did not")
        for line in wrong:
            yield f"  {line}"
        return measured

    def _keep(self, plan: Plan, measured: Measured) -> Iterator[str]:
        """Put the candidate into the registry; once, however often the stage is done."""
        self._board.at("candidate", text="the candidate goes into the registry")
        name = self._made()
        if not name:
            name = self._registry.add(
                self._folder / MODEL,
                policy=dict(self._pupil.policy),
                data_sha256=plan.data_sha256,
                config={"run": self._folder.name, "reward": plan.reward, **plan.settings},
                seeds=(self._ppo.seed,),
                metrics=measured.metrics,
                gates=measured.gates,
                against=plan.against,
            ).id
        self._board.candidate(name)
        yield self._said(f"candidate {name}; see `policy show {name}`")

    # inside -------------------------------------------------------------------------------------

    def _planned(self, found: Survey) -> Plan:
        parts, trains = self._parts, self._parts.train_reward is not None
        least, refits = self._settings.comparisons, self._parts.shipped is not None
        reward, why = source(found.train, self._settings, trains=trains, shipped=refits)
        data = [*(task.id for task in parts.tasks), f"comparisons {found.decided}", reward]
        settings = {**self._ppo.model_dump(exclude={"save_every"}), "comparisons": least}
        settings["method"] = self._settings.method
        return Plan(
            digest(task.id for task in parts.tasks), digest(task.id for task in parts.held),
            digest(data), found.train, reward, why, parts.against, settings,
        )  # fmt: skip

    def _export(self) -> None:
        """Write the policy as it is served."""
        part, whole = self._folder / f"{MODEL}.part", self._folder / MODEL
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            self._pupil.save(part)
            shutil.rmtree(whole, ignore_errors=True)
            part.rename(whole)
        except OSError as error:
            raise TrainingError(
                f"cannot write {whole}: {error}; make room and resume, the run goes on"
            ) from error

    def _modelling(self) -> Paired | None:
        """Losses on plain text before the run and now."""
        modelling, before = self._parts.modelling, self._plain
        return Paired(before, modelling()) if before is not None and modelling else None

    def _made(self) -> str:
        """The candidate that this run has made already, "" for none."""
        for entry in self._registry.entries():
            if entry.manifest is not None and (
                entry.manifest.config.get("run") == self._folder.name
            ):
                return entry.id
        return ""

    def _said(self, line: str) -> str:
        status = self._board.status
        self._board.at(status.stage, status.step, status.of, line)
        return line


def _steps(line: str) -> tuple[int, int]:
    """(n, m) of a line that begins "step n/m"; (0, 0) of others."""
    head = line.removeprefix("step ").partition(",")[0]
    done, slash, whole = head.partition("/")
    known = slash and line.startswith("step ") and done.isdigit() and whole.isdigit()
    return (int(done), int(whole)) if known else (0, 0)


def _tupled(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
