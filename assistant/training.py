"""Learning from feedback as the *Train* page sees it: what there is to show and to do, no more.

`rlhf` implements `Trainer` over its files; the page knows nothing else of it, so that a chat runs
without anything that trains. All types are frozen; times are seconds since the epoch (UTC), shares
and rates are in [0, 1]. Keys are words for a program: the page has its own words for those it
knows and shows others as they are; sentences (`text`, `reason`, `detail`) are shown as they come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from assistant.schema import PolicyCard

#: The stages of a run, in order.
STAGES = ("preferences", "reward", "ppo", "gates", "candidate")

RunState = Literal["running", "cancelling", "done", "failed", "cancelled", "interrupted"]
CandidateState = Literal["live", "canary", "candidate", "previous", "rolled_back", "broken"]
Side = Literal["old", "new"]
Choice = Literal["old", "new", "equal"]


@dataclass(frozen=True, slots=True)
class Remark:
    """Something to know about the data.

    Keys: "ties" (all are ties), "duplicates", "contradictions" (`value` of them), "one_user",
    "largest" (`value` is the share of the user with the most), "across" (`value` questions stand
    in more than one split). `text` says it for a page that does not know the key.
    """

    key: str
    text: str
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class Collected:
    """What users gave with consent to training, and whether it is enough.

    `kinds` are (key, number): "comparison" (decided), "tie", "edit", "liked", "disliked",
    "demonstration", "imported". `languages` are (code, number) of comparisons and thumbs. `days`
    are (ISO date in UTC, number of all feedback), oldest first, without the days that had none.
    Of the `needed` comparisons for a fresh reward model there are `train`, and `missing` to come.
    """

    kinds: tuple[tuple[str, int], ...]
    languages: tuple[tuple[str, int], ...]
    days: tuple[tuple[str, int], ...]
    users: int
    train: int
    needed: int
    missing: int
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why no run can start.

    Keys: "policy" (the policy that answers has no weights of its own to train, `detail` its name),
    "weights" (they are not there, `detail` names the folder), "reward" (there is neither a reward
    model nor enough comparisons for one), "data" (there is nothing to ask while training), "extra"
    (a library is missing, `detail` says how to install it). A run at work is no obstacle: it is
    among the runs.
    """

    key: str
    detail: str


@dataclass(frozen=True, slots=True)
class RewardModel:
    """The reward model that runs use: how often it prefers what held-out users preferred.

    `low` and `high` are the interval of `accuracy` over `n` pairs; `baseline` is the accuracy of
    preferring the longer or the shorter answer, whichever is better; None where not measured.
    `ece` is its expected calibration error.
    """

    name: str
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    baseline: float | None = None
    ece: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Who answers, and whether that can be trained.

    `refused` is why the policy that was promoted last does not answer, "" where it does.
    """

    policy: PolicyCard
    obstacles: tuple[Obstacle, ...] = ()
    reward: RewardModel | None = None
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the loop, as its files say.

    `stage` is one of `STAGES`, at `step` of `of` (0 where that is not known). `text` is the last
    thing it said, `reason` why it failed or was cancelled. `ended` is 0 while it runs. A run whose
    process is gone is "interrupted"; `resumable` says that `Trainer.resume` goes on where it was.
    `candidate` is the id of what it made, "" before.
    """

    id: str
    state: RunState
    stage: str
    step: int
    of: int
    text: str
    started: float
    ended: float = 0.0
    reason: str = ""
    resumable: bool = False
    candidate: str = ""


@dataclass(frozen=True, slots=True)
class Point:
    """One update of a run.

    `reward` is the mean of the reward model over the answers drawn, in its own unit (mean 0 and
    deviation 1 on reference answers), without the penalty. `kl` is the sum over an answer's tokens
    against the reference, in nats, the mean over answers; it can be slightly negative, being an
    estimate. `gold` is another judge's word on held-out prompts, such as the share that is right,
    `win_rate` the share won against the policy before; None where an update was not measured so.
    """

    update: int
    reward: float
    kl: float
    win_rate: float | None = None
    gold: float | None = None


@dataclass(frozen=True, slots=True)
class GateRow:
    """One gate of a candidate: `rlhf.gates.Gate`, with its interval and bounds laid flat.

    `value` is None where it could not be computed; `least` and `most` are None for an open end.
    """

    name: str
    passed: bool
    value: float | None
    low: float | None
    high: float | None
    least: float | None
    most: float | None
    reason: str
    n: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """One candidate of the registry.

    `parent` is the id of the one it was trained from, "" for the policy of the settings.
    `rolled_back` is a candidate that answered or was tried and was taken back. `blockers` say why
    it cannot be promoted now, () where it can. `share` of the conversations is its while
    "canary"; `votes` are then thumbs (up, down) for it and `votes_live` for the other side.
    `picks` are blind picks so far: new better, old better, equally good. `error` says what is
    broken. `pairs` is how many pairs wait for a pick.
    """

    id: str
    parent: str
    created: float
    state: CandidateState
    gates: tuple[GateRow, ...] = ()
    blockers: tuple[str, ...] = ()
    share: float = 0.0
    votes: tuple[int, int] = (0, 0)
    votes_live: tuple[int, int] = (0, 0)
    picks: tuple[int, int, int] = (0, 0, 0)
    pairs: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A passage that an answer quotes: `[number]` in its text."""

    number: int
    title: str
    quote: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of a pair; `text` carries `[n]` marks of `evidence`."""

    text: str
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """The same question answered by the policy before (`old`) and by a candidate (`new`)."""

    id: str
    candidate: str
    question: str
    language: str
    old: Answer
    new: Answer


@dataclass(frozen=True, slots=True)
class Decided:
    """A line of the registry's log; `action` is "promote", "rollback", "trial" or the like."""

    at: float
    action: str
    candidate: str
    who: str
    reason: str = ""


class Trainer(Protocol):
    """Everything the page asks for. Every call is safe from any thread and reads files afresh.

    The page asks for `runs` and `points` every few seconds while a run is at work, so they must
    be quick; the others are asked when the page opens and after every verb. What cannot be read or
    done raises `assistant.errors.TrainerError`. `who` is written into the log of decisions.
    """

    def standing(self) -> Standing:
        """Who answers, and what stands against training it."""

    def collected(self) -> Collected:
        """What was collected."""

    def runs(self) -> Sequence[Run]:
        """The runs, newest first; at most one is running or cancelling."""

    def points(self, run_id: str) -> Sequence[Point]:
        """The updates of a run so far, in order; empty for a run that has none."""

    def candidates(self) -> Sequence[Candidate]:
        """The candidates, newest first."""

    def decisions(self) -> Sequence[Decided]:
        """What was decided on them, newest first, the last 20 or so."""

    def can_roll_back(self) -> bool:
        """Whether a candidate answers now, so that the one before it can be called back."""

    def pairs(self, candidate_id: str, limit: int = 1) -> Sequence[Pair]:
        """Pairs of a candidate that nobody has judged yet, always in the same order."""

    def start(self) -> Run:
        """Start a run; it goes on in a process of its own."""

    def resume(self, run_id: str) -> Run:
        """Go on with an interrupted or cancelled run."""

    def cancel(self, run_id: str) -> None:
        """Ask a run to end; it does so after the step it is at."""

    def promote(self, candidate_id: str, *, who: str) -> None:
        """Let a candidate answer everybody; never past its gates."""

    def canary(self, candidate_id: str, share: float, *, who: str) -> None:
        """Let a candidate answer a share in (0, 1) of the conversations."""

    def end_canary(self, *, who: str) -> None:
        """Take the candidate on trial back."""

    def rollback(self, *, who: str) -> None:
        """Let the one answer that did before the live one."""

    def pick(self, pair_id: str, choice: Choice, *, first: Side, who: str) -> None:
        """Log a blind pick; `first` is the side that was shown first (left or above), by lot."""
