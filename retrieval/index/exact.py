"""A double that ships: exact search in numpy, the reference FAISS is tested against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval.embed.base import Vectors
from retrieval.index.base import Ids


class Exact:
    """All vectors in one matrix."""

    def __init__(self, dim: int) -> None:
        self._vectors: Vectors = np.zeros((0, dim), dtype=np.float32)
        self._ids: Ids = np.zeros(0, dtype=np.int64)

    @property
    def size(self) -> int:
        """How many vectors can be found."""
        return len(self._ids)

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Add vectors (n, dim) under ids (n,)."""
        self._ids = np.concatenate([self._ids, ids])
        self._vectors = np.concatenate([self._vectors, vectors])

    def remove(self, ids: Sequence[int]) -> None:
        """Forget these ids."""
        keep = ~np.isin(self._ids, np.asarray(list(ids), dtype=np.int64))
        self._ids, self._vectors = self._ids[keep], self._vectors[keep]

    def search(self, vectors: Vectors, k: int) -> tuple[NDArray[np.float32], Ids]:
        """Return (scores, ids), each (len(vectors), k), best first; id -1 fills short rows."""
        scores = np.full((len(vectors), k), -np.inf, dtype=np.float32)
        ids = np.full((len(vectors), k), -1, dtype=np.int64)
        found = vectors @ self._vectors.T
        for row in range(len(vectors)):
            best = np.argsort(-found[row], kind="stable")[:k]
            scores[row, : len(best)] = found[row][best]
            ids[row, : len(best)] = self._ids[best]
        return scores, ids


def build(dim: int) -> Exact:
    """An empty index of `dim` columns."""
    return Exact(dim)
