"""Models that read nothing twice, for thousands of questions asked of one base.

A question that is asked with and without its paragraph shares most of its evidence. What comes out
is the model's, but for the last digits, as texts are read in other company.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.rerank.base import Reranker

#: Scores that are kept, of one question after the other.
SCORES = 2_000


class Answerer(Protocol):
    """Whether stretches answer a question; see `assistant.answering`."""

    @property
    def id(self) -> str:
        """Name and revision."""

    def answers(self, question: str, stretches: Sequence[str]) -> NDArray[np.float64]:
        """Logits (len(stretches),)."""


class _Memory:
    """What was made of each key; it is emptied when it is full."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: dict[tuple[str, str], NDArray[np.generic]] = {}

    def through(
        self, about: str, texts: Sequence[str], make: Callable[[list[str]], NDArray[np.generic]]
    ) -> list[NDArray[np.generic]]:
        """A row a text, made where it is new."""
        if len(self._known) > self._most:
            self._known.clear()
        new = list(dict.fromkeys(t for t in texts if (about, t) not in self._known))
        if new:
            for text, value in zip(new, make(new), strict=True):
                self._known[about, text] = value
        return [self._known[about, text] for text in texts]


class Reading:
    """A reranker."""

    def __init__(self, reader: Reranker) -> None:
        self._reader, self._memory = reader, _Memory(SCORES)
        self.id, self.calibrated = reader.id, reader.calibrated

    def rank(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """As the reranker does."""
        found = self._memory.through(query, texts, lambda new: self._reader.rank(query, new))
        return np.array(found, dtype=np.float32)


class Answering:
    """An answerability head."""

    def __init__(self, answerer: Answerer) -> None:
        self._answerer, self._memory = answerer, _Memory(SCORES)
        self.id = answerer.id

    def answers(self, question: str, stretches: Sequence[str]) -> NDArray[np.float64]:
        """As the head does."""
        found = self._memory.through(
            question, stretches, lambda new: self._answerer.answers(question, new)
        )
        return np.array(found, dtype=np.float64)
