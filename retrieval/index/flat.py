"""Exact search by FAISS: IndexIDMap2 over IndexFlatIP. Right up to about 100,000 chunks."""

from __future__ import annotations

from collections.abc import Sequence

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval.embed.base import Vectors
from retrieval.index.base import Ids


class Flat:
    """All vectors, compared one by one."""

    def __init__(self, dim: int) -> None:
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(dim))

    @property
    def size(self) -> int:
        """How many vectors can be found."""
        return int(self._index.ntotal)

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Add vectors (n, dim) under ids (n,)."""
        if len(ids):
            self._index.add_with_ids(np.ascontiguousarray(vectors), ids.astype(np.int64))

    def remove(self, ids: Sequence[int]) -> None:
        """Forget these ids at once: one pass over the vectors."""
        if len(ids):
            selector = faiss.IDSelectorBatch(np.asarray(ids, dtype=np.int64))
            self._index.remove_ids(selector)

    def search(self, vectors: Vectors, k: int) -> tuple[NDArray[np.float32], Ids]:
        """Return (scores, ids), each (len(vectors), k), best first; id -1 fills short rows."""
        scores, ids = self._index.search(np.ascontiguousarray(vectors), k)
        return scores, ids


def build(dim: int) -> Flat:
    """An empty index of `dim` columns."""
    return Flat(dim)
