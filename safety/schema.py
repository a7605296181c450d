"""The types safety produces. Spans are code-point offsets into the text that was judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Side = Literal["input", "passage", "output"]
Action = Literal["allow", "annotate", "quarantine", "safe_complete", "refuse", "crisis", "block"]
Category = Literal[
    "none",
    "hate",
    "harassment",
    "violence",
    "sexual",
    "minors",
    "self_harm",
    "illicit",
    "privacy",
    "attack",
    "fault",
]

#: From harmless to hard stop; the guard's verdict is the most severe of its moderators'.
SEVERITY: tuple[Action, ...] = (
    "allow",
    "annotate",
    "quarantine",
    "safe_complete",
    "crisis",
    "refuse",
    "block",
)


def stopping(category: Category, side: Side) -> Action:
    """The action that stops a text of this category on this side."""
    if side == "passage":
        return "quarantine"
    if side == "output" or category in ("minors", "fault"):
        return "block"
    return "crisis" if category == "self_harm" else "refuse"


WINDOW = "window"


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch [start, end) of the judged text, and the rule that matched there.

    The rule `WINDOW` says no more than that the stretch was judged as a whole.
    """

    start: int
    end: int
    rule: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judgement of one text.

    `score` in [0, 1]; `reason` is a stable code (category.rule) that a refusal shows and a log
    keeps; `reply` is what the user is told where the action calls for it, in the user's language;
    `safe_text` is the text with what must not pass taken out (masked secrets), equal to the
    input where nothing was. `grey` is True where the moderator is not sure (its score lies in
    the policy's grey band); `action` is then its own best reading, open to a second opinion.
    `scores` are (category, probability) for every category that the moderator scores.
    """

    action: Action
    category: Category
    score: float
    side: Side
    moderator: str
    reason: str = ""
    reply: str = ""
    safe_text: str = ""
    spans: tuple[Span, ...] = ()
    seconds: float = 0.0
    decision_id: str = ""
    grey: bool = False
    scores: tuple[tuple[str, float], ...] = ()

    @property
    def stops(self) -> bool:
        """True where the text must not go on to the next step."""
        return self.action in ("refuse", "crisis", "block", "quarantine")


@dataclass(frozen=True, slots=True)
class Context:
    """What a judgement may know beside the text.

    `language` picks the language of replies, "en" or "zh"; `earlier` holds the user's earlier
    texts, oldest first, for risk that builds over turns; `canary` is a secret string of the
    system prompt that no output may repeat; `allowed_urls` are the only targets that links and
    images of an output keep; `conversation` and `user` are ids for the audit, which keeps the
    user's as a keyed hash; `question` is the user's text that an output answers, "" where there is
    none: the audit keeps its hash.
    """

    language: str = "en"
    earlier: tuple[str, ...] = ()
    canary: str = ""
    allowed_urls: frozenset[str] = frozenset()
    conversation: str = ""
    user: str = ""
    question: str = ""
