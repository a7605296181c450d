"""Whether a stretch of a passage answers a question: a head beside those of `assistant.support`.

Question and stretch are read together, `question >>> title: stretch`, so much of the passage
around a sentence as can be read at once. What comes out is a calibrated logit; the policy that asks
sets its own threshold on all that it knows (`assistant.policy._ranker`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from assistant.support import units
from retrieval.text import count_tokens

#: Tokens of a stretch and of a title that are read, as `count_tokens` estimates them.
ROOM, TITLE = 84, 40
#: Sentences of a stretch.
MOST = 5


class Answerer(Protocol):
    """The trained head (`assistant.support.Trained`), or a double of it."""

    @property
    def id(self) -> str:
        """Name and revision."""
        ...

    def answers(self, question: str, stretches: Sequence[str]) -> NDArray[np.float64]:
        """Logits (len(stretches),) that each stretch (see `asked_of`) answers the question."""
        ...


def asked_of(title: str, stretch: str) -> str:
    """A stretch as the head reads it: behind the title of its document."""
    return f"{title[:TITLE]}: {stretch}" if title else stretch


def grown(passage: str, anchor: int, before: bool) -> tuple[int, int]:
    """[start, end) of the unit `anchor` of a passage with its neighbours, while they can be read.

    Args:
        passage: the text.
        anchor: index into `units(passage)`.
        before: whether the unit before it comes first, else the one behind.
    """
    spans = units(passage)
    first = last = anchor
    room = ROOM - count_tokens(passage[slice(*spans[anchor])])
    blocked = {True: False, False: False}
    while last - first + 1 < MOST and not all(blocked.values()):
        side = before if not blocked[before] else not before
        before = not before
        near = first - 1 if side else last + 1
        cost = count_tokens(passage[slice(*spans[near])]) if 0 <= near < len(spans) else room + 1
        if cost > room:
            blocked[side] = True
            continue
        room -= cost
        first, last = min(first, near), max(last, near)
    return spans[first][0], spans[last][1]
