"""Learns from feedback, from the log to a candidate: `python app.py train loop --data FOLDER`.

The cycle itself is `rlhf.loop`; here it gets what it works with: the policy that quotes, or the
model that `policy.backend = local` names; prompts of users and of the training files; the guard,
the reward model and who answers now. A run that was broken off is gone on with by the same command;
`train.run` names another one.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from assistant.build import build_policy, supporter_of
from assistant.config import Settings
from assistant.errors import AssistantError
from assistant.policy import quote
from assistant.policy._promoted import FOLDER, read_pointer, settings_of, verify
from assistant.policy._quoting import Layout
from assistant.policy.base import Resources
from assistant.policy.extract import Weights, fitted, ranker
from assistant.schema import Sampling
from retrieval.errors import RetrievalError
from retrieval.fit._glossary import share
from retrieval.knowledge import KnowledgeBase, open_knowledge
from rlhf import _loop_status as status
from rlhf._loop_gates import Network, Served, Side
from rlhf._loop_pupil import Pupil
from rlhf._loop_reward import Judge, mix
from rlhf._loop_tasks import Asked, Task
from rlhf._loop_watch import MOST, Compared, Watch, compared
from rlhf.config import PPOSettings
from rlhf.errors import Cancelled, RlhfError, TrainingError
from rlhf.feedme import Rated, of_log
from rlhf.fit import reward
from rlhf.fit._causal import Writing
from rlhf.fit._lessons import Lesson, make, readers, taught
from rlhf.fit._pupils import Kind, Quotes, Writes, supports
from rlhf.fit._reward_log import comparisons, moderated
from rlhf.fit._reward_refit import refit
from rlhf.fit._reward_rows import gathered
from rlhf.fit.pretrain import WORK
from rlhf.loop import Cycle, Parts, schedule
from rlhf.preferences import PreferenceStore
from rlhf.registry import Registry
from rlhf.reward import Composite, Support
from rlhf.schema import Sample, Split
from rlhf.scoring import SCALE, WEIGHTS, RewardModel, load
from safety.errors import SafetyError
from safety.guard import Guard

#: Users' prompts that are learnt on at most, the newest ones.
PROMPTS = 2000
#: Share of the held lessons that set the confidence; the gates look at the rest.
CHECKED = 0.5


def run(data: Path, out: Path, limit: int | None, settings: Settings) -> Iterator[str]:
    """Do a run, or go on with one; yields lines to show.

    Args:
        data: folder that holds qa/ and preference/, or one of them, or none.
        out: the policy and the reward model lie in `policy` and `reward` beside it.
        limit: updates of PPO, where not the setting.
        settings: of the assistant; `settings.train` of the run.

    Raises:
        TrainingError: another run is at work, or a stage could not be done.
    """
    if limit is not None:
        own = settings.train.model_copy(update={"updates": limit})
        settings = settings.model_copy(update={"train": own})
    with status.alone(settings.home), _Bar() as bar:
        board = status.Board(_folder(settings))
        yield f"run {board.folder.name} in {board.folder}"
        for line in _whole(board, data, out, settings):
            bar.show(board.status)
            yield line


def _whole(board: status.Board, data: Path, out: Path, settings: Settings) -> Iterator[str]:
    with ExitStack() as stack:
        try:
            shop = Workshop(data, out, settings, board, stack)
            parts = yield from shop.parts()
        except Cancelled as error:
            board.end("cancelled", str(error))
            raise
        except (AssistantError, RetrievalError, RlhfError, SafetyError, OSError) as error:
            board.end("failed", str(error))
            raise
        except (KeyboardInterrupt, GeneratorExit):
            board.end("cancelled", "interrupted; what was done is kept")
            raise
        registry = Registry(settings.home, settings.promotion)
        cycle = Cycle(board, parts, shop.store, registry, settings.train, settings.gates, shop.ppo)
        yield from cycle.run()


class Workshop:
    """Brings together what a run works with.

    Args:
        data, out, settings: as `run` takes them.
        board: of the run.
        stack: closes what was opened.
    """

    def __init__(
        self, data: Path, out: Path, settings: Settings, board: status.Board, stack: ExitStack
    ) -> None:
        self._data, self._settings, self._board, self._stack = data, settings, board, stack
        named = settings.policy.backend == "quote" and settings.policy.model
        self._start = Path(settings.policy.model) if named else out.with_name("policy")
        self._shipped = out.with_name("reward")
        self._writes = settings.policy.backend == "local"
        #: The schedule of PPO, once the parts are there.
        self.ppo: PPOSettings | None = None
        #: The preference log.
        self.store = stack.enter_context(
            closing(
                PreferenceStore(settings.home / "preferences.db", settings=settings.preferences)
            )
        )

    def parts(self) -> Generator[str, None, Parts]:
        """Load and make everything; yields lines to show.

        Raises:
            TrainingError: the policy has no weights, or a training file is malformed.
            AssistantError: the model that writes cannot be loaded.
        """
        settings = self._settings
        kind = self._kind()
        self.ppo = schedule(settings.train, **kind.ppo)
        known, weights = yield from self._known()
        knowledge = open_knowledge(settings.home, settings.retrieval)
        self._stack.callback(knowledge.close)
        answerer = supporter_of(settings)
        lent = Resources(knowledge.embedder, knowledge.rarity, knowledge.reranker, answerer)
        check, gates = halves([x for x in known if x.held])
        pupil = kind.pupil(check, weights)
        tasks = kind.lessons([x for x in known if not x.held], weights)
        held = kind.lessons(gates, weights)[: settings.train.held]
        tasks += self._asked("train", kind, lent)
        held += self._asked("test", kind, lent)
        guard = moderated(settings)
        live, against = self._live(pupil, knowledge)
        plain = None
        if settings.train.pretraining > 0:
            yield "making plain text ready, for the loss that is mixed in"
            plain = kind.plain(self._data, settings.train.seed)
        train = settings.train
        watched = kind.lessons(check, weights)
        pairs = [] if watched else self._compared(kind, lent)
        people = (self._data / "preference").is_dir()
        support = supports(answerer) if self._writes else None
        return Parts(
            pupil=pupil,
            tasks=tasks,
            held=held,
            judge=lambda found: judge(found, guard, support),
            live=live,
            against=against,
            guard=guard,
            train_reward=self._train_reward if people else None,
            refit_reward=self._refit_reward,
            load_reward=self._load_reward,
            shipped=self._shipped if _is_reward(self._shipped) else None,
            pretraining=plain,
            modelling=None if plain is None else plain.measured,
            liked=lambda: self._liked(kind, lent),
            watch=Watch(watched, pairs, train.updates, train.seed),
        )

    def _known(self) -> Generator[str, None, tuple[list[Lesson], dict[str, Weights]]]:
        """Lessons of the data folder, and the ranker that goes with them."""
        if not (self._data / "qa").is_dir() or not self._settings.train.lessons:
            yield f"no questions in {self._data / 'qa'}: only users' prompts are learnt on"
            return [], ranker("", "")
        where, count = WORK / "lessons", self._settings.train.lessons
        for line in make(self._data, where, count, self._settings):
            self._board.at("preferences", text=line)
            yield line
        return taught(self._data, where, count), ranker(*readers(where))

    def _kind(self) -> Kind:
        """What is trained: the model that the settings name, or the network that quotes."""
        settings = self._settings
        if self._writes:
            return Writes(Writing(settings.policy, settings.train))
        model, layout = network(self._start, settings.policy.device)
        return Quotes(self._start, model, layout, settings.policy)

    def _asked(self, split: Split, kind: Kind, lent: Resources) -> list[Asked]:
        """Users' prompts of a split; each question once."""
        read = fitted(lent)
        newest = [*self.store.prompts(split)][-PROMPTS:]
        found: dict[tuple[str, str], Asked] = {}
        for number, sample in enumerate(newest):
            if number % 20 == 0:
                self._board.at("preferences", number, len(newest), "reading users' prompts")
            task = kind.asked(sample, read)
            if task is not None:
                found[task.user, task.question] = task
        return [*found.values()]

    def _liked(self, kind: Kind, lent: Resources) -> list[Rated]:
        """Training users' answers that were judged, as the network that quotes would say them."""
        read = fitted(lent)

        def lay(sample: Sample) -> Task | None:
            found = kind.asked(sample, read)
            return found if isinstance(found, Task) else None

        return list(of_log(self.store, lay))

    def _compared(self, kind: Kind, lent: Resources) -> list[Compared]:
        """Development users' comparisons, as the policy reads their two sides."""
        read, found = fitted(lent), []
        for one in self.store.pairs("dev"):
            about = one.origin
            sample = Sample(
                "prompt", one.prompt, turn=about.turn_id, user=about.user, language=about.language
            )
            task = kind.asked(sample, read)
            pair = None if task is None else compared(task, one.chosen, one.rejected)
            found += [] if pair is None else [pair]
        return found[-MOST:]

    def _train_reward(self, folder: Path) -> Iterator[str]:
        yield from reward.run(self._data, folder, None, self._settings)

    def _refit_reward(self, folder: Path) -> Iterator[str]:
        rows = gathered(comparisons(self.store, lambda: moderated(self._settings))).kept
        refit(self._shipped, rows, folder, self._settings.train.seed)
        yield f"step 1/1, the head of {self._shipped} fitted to {len(rows)} prompts of users"

    def _load_reward(self, folder: Path) -> RewardModel:
        own = self._settings.retrieval.embed
        return load(folder, runtime=own.runtime, device=own.device, dtype=own.dtype)

    def _live(self, pupil: Pupil, knowledge: KnowledgeBase) -> tuple[Side, str]:
        """Who answers now, and its version."""
        settings, version = self._settings, ""
        root = settings.home / FOLDER
        pointer = read_pointer(root)
        if pointer.live is not None and settings.policy.follow:
            version = pointer.live.id
            passport, _ = verify(root, version, pointer.live.manifest_sha256)
            settings = settings_of(passport, root / version, settings)
        if isinstance(pupil, Writing) and not version:
            return pupil.before(), version
        if settings.policy.backend == "quote" and not self._writes:
            folder = Path(settings.policy.model) if settings.policy.model else quote.MODEL
            model, own = network(folder, settings.policy.device)
            fits, told = quote.calibration(folder), settings.policy
            return Network(model.eval(), own, fits, told.min_confidence, told.beams), version
        policy = build_policy(settings, knowledge, supporter_of(settings))
        self._stack.callback(policy.close)
        return Served(policy, Sampling(max_tokens=settings.train.answer_tokens)), version


class _Bar:
    """A progress bar on the terminal; nothing where there is none."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}"),
            TimeElapsedColumn(), console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._task: TaskID | None = None

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def show(self, now: status.Status) -> None:
        """Show where a run is."""
        if self._task is None:
            self._task = self._progress.add_task(now.stage)
        self._progress.update(
            self._task, description=now.stage, completed=now.step, total=now.of or None
        )


def judge(found: RewardModel | None, guard: Guard | None, support: Support | None = None) -> Judge:
    """The reward of a run: what there is to judge by, each with its weight."""
    weights = mix(
        preference=found is not None, rules=guard is not None, support=support is not None
    )
    return Judge(Composite(weights, preference=found, guard=guard, support=support))


def network(folder: Path, device: str = "cpu") -> tuple[Any, Layout]:
    """A policy that quotes, in float32, and the layout of its prompts.

    Raises:
        TrainingError: there are no weights, or they cannot be read.
    """
    if not (folder / "model.safetensors").exists():
        raise TrainingError(
            f"the policy in {folder} has no weights to train (model.safetensors is missing); make "
            "them with `python app.py train pretrain --data FOLDER` and then `train sft`"
        )
    loading: Any = LlamaForCausalLM.from_pretrained
    try:
        made = Tokenizer.from_file(str(folder / "tokenizer.json"))
        with quote.without_bar():
            model = loading(
                folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
            ).to(device)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise TrainingError(f"cannot load the policy in {folder}: {error}; restore it") from error
    return model, Layout(made, phrases=quote.phrasebook(folder))


def _folder(settings: Settings) -> Path:
    name = settings.train.run
    if name and not status.NAME.fullmatch(name):
        raise TrainingError(f"train.run = {name!r} is no run; leave it empty for a new one")
    if name:
        return settings.home / status.FOLDER / name
    return status.unfinished(settings.home) or status.new(settings.home)


def halves(held: Sequence[Lesson]) -> tuple[list[Lesson], list[Lesson]]:
    """Lessons that set the confidence, and those of the gates; no question is in both."""
    first = [x for x in held if share(f"loop:{x.question}") < CHECKED]
    known = {x.id for x in first}
    return first, [x for x in held if x.id not in known]


def _is_reward(folder: Path) -> bool:
    return (folder / WEIGHTS).exists() and (folder / SCALE).exists()
