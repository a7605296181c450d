"""Training as the page sees it (`assistant.training.Trainer`), over files, registry and log.

A run lives in a process of its own, so that the chat goes on and a restart of it ends no run; this
module starts that process, reads what it says, and asks it to end. Nothing that trains is imported.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from assistant.config import Settings
from assistant.errors import TrainerError
from assistant.schema import Health
from assistant.training import (
    Candidate,
    Choice,
    Collected,
    Decided,
    Obstacle,
    Pair,
    Point,
    RewardModel,
    Run,
    Side,
    Standing,
)
from rlhf import _loop_status as status
from rlhf import canary
from rlhf._desk_views import OUTPUT, candidate_of, command, pair_of, remarks, run_of, shipped
from rlhf.errors import (
    CandidateBroken,
    NotPromotable,
    RegistryBusy,
    RlhfError,
    StoreBusy,
    UnknownCandidate,
)
from rlhf.preferences import PreferenceStore
from rlhf.registry import Entry, Registry
from rlhf.samples import gather
from rlhf.scoring import MODEL, SCALE, WEIGHTS
from rlhf.survey import survey

PICKS = "picks.jsonl"
#: Decisions that are shown, and pairs that wait for a pick at most.
SHOWN, WAITING = 20, 50
#: Libraries without which nothing is trained.
EXTRA = ("torch", "transformers", "safetensors")


class Desk:
    """See the module's text. Safe for several threads.

    Args:
        settings: of the assistant.
        store: the preference log.
        health: says who answers.
        command: the command line of plumbline with its settings, before the name of a command.
        models: folder of the shipped weights.
        clock: the time, in seconds since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        store: PreferenceStore,
        health: Callable[[], Health],
        command: Sequence[str],
        models: Path = MODEL.parent,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._store, self._health = settings, store, health
        self._command, self._models, self._clock = tuple(command), models, clock
        self._registry = Registry(settings.home, settings.promotion)
        self._root = settings.home / status.FOLDER
        self._lock = threading.Lock()
        self._children: list[subprocess.Popen[bytes]] = []

    # what there is ------------------------------------------------------------------------------

    def standing(self) -> Standing:
        """Who answers, and what stands against training it."""
        now = self._health()
        return Standing(now.policy, tuple(self._obstacles()), self._reward(), now.refused)

    def collected(self) -> Collected:
        """What was collected."""
        with _said():
            found = survey(self._store)
            languages: Counter[str] = Counter()
            days: Counter[str] = Counter()
            for kind in ("comparison", "label"):
                for sample in gather(self._store, kind):
                    languages[sample.language] += 1
                    days[time.strftime("%Y-%m-%d", time.gmtime(sample.created))] += 1
        needed = self._settings.train.comparisons
        kinds = {
            "comparison": found.decided,
            "tie": found.ties,
            "edit": found.edits,
            "liked": found.liked,
            "disliked": found.disliked,
            "demonstration": found.demonstrations,
            "imported": sum(rows for _, _, rows in found.datasets),
        }
        return Collected(
            tuple(kinds.items()),
            tuple(sorted(languages.items())),
            tuple(sorted(days.items())),
            found.users,
            found.train,
            needed,
            max(needed - found.train, 0),
            tuple(remarks(found)),
        )

    def runs(self) -> Sequence[Run]:
        """The runs, newest first."""
        with self._lock:  # a child that ended is there until it is asked for
            self._children = [child for child in self._children if child.poll() is None]
        with _said():
            return [run for path in status.runs(self._settings.home) if (run := run_of(path))]

    def points(self, run_id: str) -> Sequence[Point]:
        """The updates of a run."""
        folder = self._folder(run_id)
        gold = {int(row["update"]): row for row in status.lines(folder / status.GOLD)}
        found = []
        for row in status.lines(folder / status.UPDATES):
            other = gold.get(int(row["update"]), {})
            reward = row["terms"].get("preference", row["score"])
            if reward is None or row["kl"] is None:
                continue  # the update that a run which went astray ended at
            wins = other.get("win_rate")
            found.append(Point(row["update"], reward, row["kl"], wins, other.get("gold")))
        return found

    def candidates(self) -> Sequence[Candidate]:
        """The candidates, newest first."""
        with _said():
            pointer = self._registry.pointer()
            taken_back = {
                made.ref.id
                for made in self._registry.decisions()
                if made.ref is not None and made.action in ("rollback", "take back")
            }
            picks = self._picks()
            finding = canary.look(
                self._registry, self._store.path, self._settings.canary
            ) if pointer.trial else None  # fmt: skip
            live = pointer.live.id if pointer.live is not None else ""
            found = []
            for entry in self._registry.entries():
                made = candidate_of(entry, live, taken_back)
                if pointer.trial is not None and finding is not None and made.state == "canary":
                    made = replace(
                        made,
                        share=pointer.trial.share,
                        votes=(finding.candidate.up, finding.candidate.down),
                        votes_live=(finding.live.up, finding.live.down),
                    )
                chosen = Counter(p["choice"] for p in picks if p["candidate"] == entry.id)
                counts = (chosen["new"], chosen["old"], chosen["equal"])
                left = len(self._waiting(entry, picks))
                found.append(replace(made, picks=counts, pairs=left))
            return found

    def decisions(self) -> Sequence[Decided]:
        """The last decisions, newest first."""
        with _said():
            made = self._registry.decisions()[: -SHOWN - 1 : -1]
        return [Decided(d.at, d.action, d.ref.id if d.ref else "", d.who, d.reason) for d in made]

    def can_roll_back(self) -> bool:
        """Whether a candidate answers."""
        with _said():
            return self._registry.pointer().live is not None

    def pairs(self, candidate_id: str, limit: int = 1) -> Sequence[Pair]:
        """Pairs of a candidate that nobody has judged yet."""
        with _said():
            for entry in self._registry.entries():
                if entry.id == candidate_id:
                    rows = self._waiting(entry, self._picks())[:limit]
                    return [pair_of(candidate_id, row) for row in rows]
        raise TrainerError(f"no candidate {candidate_id!r}; look at the list again", "gone")

    # what there is to do ------------------------------------------------------------------------

    def start(self) -> Run:
        """Start a run in a process of its own."""
        if obstacles := self._obstacles():
            raise TrainerError(f"no run can start: {obstacles[0].detail}", "obstacle")
        return self._begin(status.new(self._settings.home, self._clock))

    def resume(self, run_id: str) -> Run:
        """Go on with a run that was broken off or cancelled."""
        folder = self._folder(run_id)
        found = run_of(folder)
        if found is None or not found.resumable:
            raise TrainerError(f"run {run_id} is {found and found.state}; start a new one", "gone")
        return self._begin(folder)

    def cancel(self, run_id: str) -> None:
        """Ask a run to end."""
        folder = self._folder(run_id)
        found = run_of(folder)
        if found is None or found.state not in ("running", "cancelling"):
            raise TrainerError(f"run {run_id} is not at work", "gone")
        try:
            (folder / status.CANCEL).touch()
        except OSError as error:
            raise TrainerError(f"cannot write into {folder}: {error}", "disk") from error

    def promote(self, candidate_id: str, *, who: str) -> None:
        """Let a candidate answer everybody."""
        with _said():
            self._registry.promote(candidate_id, who=who, reason="on the page")

    def canary(self, candidate_id: str, share: float, *, who: str) -> None:
        """Let a candidate answer a share of the conversations."""
        with _said():
            self._registry.begin_trial(candidate_id, share, who=who, reason="on the page")

    def end_canary(self, *, who: str) -> None:
        """Take the candidate on trial back."""
        with _said("nothing"):
            self._registry.end_trial(who=who, reason="on the page")

    def rollback(self, *, who: str) -> None:
        """Let the one answer that did before."""
        with _said("nothing"):
            self._registry.rollback(who=who, reason="on the page")

    def pick(self, pair_id: str, choice: Choice, *, first: Side, who: str) -> None:
        """Log a blind pick."""
        candidate, _, name = pair_id.partition("/")
        with _said():
            known = {entry.id: entry for entry in self._registry.entries()}
            with self._lock:
                waiting = (
                    self._waiting(known[candidate], self._picks()) if candidate in known else []
                )
                if name not in {row["id"] for row in waiting}:
                    raise TrainerError(f"pair {pair_id} was judged, or is gone", "gone")
                row = {"at": self._clock(), "candidate": candidate, "pair": name,
                       "choice": choice, "first": first, "who": who}  # fmt: skip
                self._root.mkdir(parents=True, exist_ok=True)
                status.add(self._root / PICKS, row)

    # inside -------------------------------------------------------------------------------------

    def _obstacles(self) -> list[Obstacle]:
        lacking = [name for name in EXTRA if importlib.util.find_spec(name) is None]
        if lacking:
            return [Obstacle("extra", f"{lacking[0]} is missing: pip install {lacking[0]}")]
        policy, found = self._settings.policy, []
        if policy.backend not in ("quote", "extract", "local"):
            return [Obstacle("policy", policy.backend)]
        if policy.backend == "local":
            if self._settings.train.adapter_rank and importlib.util.find_spec("peft") is None:
                return [Obstacle("extra", "peft is missing: pip install plumbline[adapters]")]
        else:
            named = policy.backend == "quote" and policy.model
            folder = Path(policy.model) if named else self._models / "policy"
            if not (folder / "model.safetensors").exists():
                found.append(Obstacle("weights", str(folder)))
        questions = (self._settings.train.data / "qa").is_dir()
        if not self._shipped() and not questions:
            found.append(Obstacle(
                "reward",
                f"no reward model in {self._models / 'reward'}, and no questions with answers in "
                f"{self._settings.train.data / 'qa'} (train.data)",
            ))  # fmt: skip
        return found

    def _shipped(self) -> bool:
        return all((self._models / "reward" / name).exists() for name in (WEIGHTS, SCALE))

    def _reward(self) -> RewardModel | None:
        """The reward model of the newest run that measured one, else the shipped one."""
        for folder in status.runs(self._settings.home):
            path = folder / "gates.json"
            if not path.exists():
                continue
            rows = json.loads(path.read_text(encoding="utf-8"))["gates"]
            named = {row["name"]: row for row in rows}
            mine = named.get("reward_accuracy", {})
            if mine.get("value") is not None:
                low, high = mine["interval"] or (None, None)
                ece = named.get("reward_ece", {}).get("value")
                return RewardModel(folder.name, mine["value"], low, high, mine["n"], None, ece)
        return shipped(self._models / "reward") if self._shipped() else None

    def _begin(self, folder: Path) -> Run:
        with self._lock:
            busy = next((r for r in self._at_work() if r.state in ("running", "cancelling")), None)
            if busy is not None:
                raise TrainerError(f"run {busy.id} is at work; wait for it, or cancel it", "busy")
            before = status.read(folder) if folder.exists() else None
            now = replace(
                before or status.Status(started=self._clock()), state="running", ended=0.0,
                reason="", pid=os.getpid(),
            )  # fmt: skip
            try:
                status.write(folder, now)
                (folder / status.CANCEL).unlink(missing_ok=True)
                with (folder / OUTPUT).open("ab") as output:
                    child = subprocess.Popen(
                        [
                            *self._command, "--set", f"train.run={folder.name}", "train", "loop",
                            "--data", str(self._settings.train.data), "--out", str(self._models),
                        ],
                        stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                        start_new_session=True,
                    )  # fmt: skip
                if status.read(folder) == now:  # the child has said nothing yet
                    status.write(folder, replace(now, pid=child.pid))
            except OSError as error:
                raise TrainerError(f"cannot start a run in {folder}: {error}", "disk") from error
            self._children.append(child)
        made = run_of(folder)
        assert made is not None
        return made

    def _at_work(self) -> Iterator[Run]:
        for child in self._children:
            child.poll()
        for path in status.runs(self._settings.home):
            if (run := run_of(path)) is not None:
                yield run

    def _folder(self, run_id: str) -> Path:
        folder = self._root / run_id
        if not status.NAME.fullmatch(run_id) or not folder.is_dir():
            raise TrainerError(f"no run {run_id!r}; look at the list again", "gone")
        return folder

    def _picks(self) -> list[dict[str, Any]]:
        return status.lines(self._root / PICKS)

    def _waiting(self, entry: Entry, picks: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Pairs of a candidate without a pick, in an order that stays."""
        run = str(entry.manifest.config.get("run", "")) if entry.manifest is not None else ""
        if not status.NAME.fullmatch(run):
            return []
        judged = {p["pair"] for p in picks if p["candidate"] == entry.id}
        rows = status.lines(self._root / run / "pairs.jsonl")[:WAITING]
        return [row for row in rows if row["id"] not in judged]


class Healthy(Protocol):
    """What says who answers."""

    def health(self) -> Health:
        """Who answers, and more."""
        ...


def desks(
    options: argparse.Namespace, settings: Settings, store: PreferenceStore, who: Healthy
) -> tuple[Desk, ...]:
    """The desk for a page that has room for one; nothing for other faces."""
    if options.face != "assistant.ui":
        return ()
    return (Desk(settings, store, who.health, command(options, sys.argv[0])),)


@contextmanager
def _said(why: str = "") -> Iterator[None]:
    """Errors of ours as the page knows them."""
    try:
        yield
    except RlhfError as error:
        kinds = {
            (RegistryBusy, StoreBusy): "busy",
            (UnknownCandidate,): "gone",
            (NotPromotable,): "gates",
            (CandidateBroken,): "broken",
        }
        found = next((key for types, key in kinds.items() if isinstance(error, types)), "")
        raise TrainerError(str(error), found or why or "disk") from error
    except OSError as error:
        raise TrainerError(str(error), "disk") from error
