"""Rerankers for tests: exact, without weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrieval.rerank.base import Scores
from retrieval.text import query_terms, terms


class Overlap:
    """Share of the question's terms that a text holds; notes what it was given."""

    id = "overlap"
    calibrated = True

    def __init__(self) -> None:
        self.read: list[tuple[str, ...]] = []

    def rank(self, query: str, texts: Sequence[str]) -> Scores:
        """Return the shares, kept inside (0, 1)."""
        self.read.append(tuple(texts))
        asked = set(query_terms(query))
        shares = [len(asked & set(terms(text))) / max(len(asked), 1) for text in texts]
        return np.clip(np.array(shares, dtype=np.float32), 0.01, 0.99)
