"""The types of learning from feedback. All frozen; times are seconds since the epoch (UTC)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from assistant.schema import Message, PolicyCard

Split = Literal["train", "dev", "test"]
PairSource = Literal["pick", "edit"]
SampleKind = Literal["comparison", "label", "demonstration", "prompt"]
Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an example comes from: the event, its turn, the pseudonymous user and their split."""

    event_id: str
    turn_id: str
    user: str
    split: Split
    language: str
    created: float


@dataclass(frozen=True, slots=True)
class Preference:
    """Of two answers to the same prompt, `chosen` was preferred to `rejected`.

    `source` "pick": both were shown, at `chosen_position` and `rejected_position` (0 = first),
    in an order that was drawn by lot where `order_randomised`. "edit": `chosen` is the user's
    own version of `rejected`; its id is "" and no policy wrote it. `weight` in (0, 1].
    """

    origin: Origin
    source: PairSource
    prompt: tuple[Message, ...]
    prompt_sha256: str
    chosen: str
    rejected: str
    chosen_id: str
    rejected_id: str
    chosen_policy: PolicyCard | None
    rejected_policy: PolicyCard
    chosen_position: int
    rejected_position: int
    order_randomised: bool
    weight: float


@dataclass(frozen=True, slots=True)
class EditExample:
    """A user rewrote `original` into `edited`: a demonstration for supervised fine-tuning."""

    origin: Origin
    prompt: tuple[Message, ...]
    prompt_sha256: str
    original: str
    edited: str
    candidate_id: str
    policy: PolicyCard


@dataclass(frozen=True, slots=True)
class ThumbExample:
    """One answer, liked (`label` True) or disliked; never half of a pair."""

    origin: Origin
    prompt: tuple[Message, ...]
    prompt_sha256: str
    completion: str
    label: bool
    reasons: tuple[str, ...]
    candidate_id: str
    policy: PolicyCard


@dataclass(frozen=True, slots=True)
class Sample:
    """One row for training, own or imported, in no format's own words.

    comparison: two `completions` or more in the order shown, with `ranks` (1 = best, equal = tie).
    label: one completion, liked (`label` True) or not; never half of a pair. demonstration: one
    completion to imitate. prompt: none. `models` names who wrote each completion, "" where nobody
    knows. `source` is "pick", "edit", "thumb" or "turn" for users' own rows, "import" for what was
    taken over from `dataset` under `licence`, which are "" for own rows. `turn` is the turn of an
    own row: its id is what the marks in the prompt follow from. `weight` in (0, 1].
    """

    kind: SampleKind
    prompt: tuple[Message, ...]
    completions: tuple[str, ...] = ()
    ranks: tuple[int, ...] = ()
    label: bool | None = None
    models: tuple[str, ...] = ()
    weight: float = 1.0
    id: str = ""
    user: str = ""
    language: str = ""
    created: float = 0.0
    source: str = ""
    dataset: str = ""
    licence: str = ""
    split: Split = "train"
    turn: str = ""


@dataclass(frozen=True, slots=True)
class Counts:
    """How much is in the log. `trainable` turns are those whose user allows training now.

    `feedback` counts the events that stand (not superseded), by kind, sorted by kind.
    """

    users: int
    deleted_users: int
    turns: int
    trainable: int
    candidates: int
    evidence: int
    feedback: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Rollout:
    """An answer that a policy drew, as tokens. Rewards are kept beside it, by name.

    Attributes:
        prompt: ids, with everything the policy was shown before its turn.
        completion: ids up to the token that ends the answer, that token included.
        actions: of each token of the completion, whether the policy chose it. Forced tokens and
            evidence that was put in are no actions: they count for no loss, no KL, no whitening.
        allowed: of each token of the completion, the tokens that it was chosen from, the token
            itself among them; None for the whole vocabulary, and None in place of the tuple where
            it was always the whole vocabulary. What is said where nothing was chosen is not read.
        finish: "stop" where the answer ended by itself, "length" where it was cut off.
        logprobs: of each token of the completion by the sampler, 0 where nothing was chosen; ()
            where the sampler did not say.
    """

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    actions: tuple[bool, ...]
    allowed: tuple[tuple[int, ...] | None, ...] | None
    finish: Finish
    logprobs: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        size = len(self.completion)
        listed = (self.actions, self.allowed or self.actions, self.logprobs or self.actions)
        if any(len(values) != size for values in listed):
            raise ValueError(f"a rollout of {size} tokens says another number of something else")
