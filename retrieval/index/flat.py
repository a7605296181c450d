"""Exact search by FAISS (IndexFlatIP). Right up to some 20,000 chunks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval.embed.base import Vectors
from retrieval.index import _mapped
from retrieval.index.base import Ids, Mask, Scores, chosen, places

#: Vectors turned into float32 at a time.
BATCH = 50_000


class Flat:
    """All vectors, compared one by one."""

    factory = "Flat"
    engine = _mapped.ENGINE

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._index = faiss.IndexFlatIP(dim)
        self._ids: Ids = np.zeros(0, dtype=np.int64)

    @property
    def size(self) -> int:
        """How many vectors can be found."""
        return len(self._ids)

    @property
    def ids(self) -> Ids:
        """The ids that can be found."""
        return self._ids

    def add(self, ids: Ids, vectors: Vectors | NDArray[np.float16]) -> None:
        """Add vectors (n, dim) under ids (n,)."""
        for at in range(0, len(ids), BATCH):
            self._index.add(np.ascontiguousarray(vectors[at : at + BATCH], dtype=np.float32))
        self._ids = np.concatenate([self._ids, ids])

    def remove(self, ids: Sequence[int]) -> None:
        """Forget these ids at once: one pass over the vectors."""
        gone = np.flatnonzero(np.isin(self._ids, np.asarray(list(ids), dtype=np.int64)))
        if len(gone):
            self._index.remove_ids(faiss.IDSelectorBatch(gone.astype(np.int64)))
            self._ids = np.delete(self._ids, gone)

    def search(self, vectors: Vectors, k: int, allowed: Mask | None = None) -> tuple[Scores, Ids]:
        """Return (scores, ids), each (len(vectors), k), best first; id -1 fills short rows."""
        if not self.size:
            shape = (len(vectors), k)
            return np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64)
        parameters = _mapped.only(None if allowed is None else chosen(self._ids, allowed))
        scores, rows = self._index.search(np.ascontiguousarray(vectors), k, params=parameters)
        return scores, np.where(rows < 0, -1, self._ids[rows])

    def stored(self, ids: Ids) -> tuple[Ids, Vectors]:
        """Those of `ids` that are here, and their vectors (n, dim)."""
        inside, rows = places(self._ids, ids)
        found: Vectors = self._index.reconstruct_batch(rows)
        return ids[inside], found

    def save(self, folder: Path) -> tuple[str, ...]:
        """Write the vectors and their ids."""
        return _mapped.write(self._index, self._ids, folder)

    def load(self, folder: Path) -> None:
        """Map what `save` wrote."""
        self._index, self._ids = _mapped.read(folder, self._dim)


def build(dim: int) -> Flat:
    """An empty index of `dim` columns."""
    return Flat(dim)
