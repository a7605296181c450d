"""Exact search in numpy: the reference FAISS is tested against, and what came after a snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.embed.base import Vectors
from retrieval.index.base import Ids, Mask, Scores, best, chosen, places, write_array

VECTORS, IDS = "vectors.npy", "ids.npy"


class Exact:
    """All vectors in one matrix."""

    factory = "numpy"
    engine = f"numpy {np.__version__}"

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self.vectors: Vectors = np.zeros((0, dim), dtype=np.float32)
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
        self._ids = np.concatenate([self._ids, ids])
        self.vectors = np.concatenate([self.vectors, vectors.astype(np.float32)])

    def remove(self, ids: Sequence[int]) -> None:
        """Forget these ids."""
        keep = ~np.isin(self._ids, np.asarray(list(ids), dtype=np.int64))
        self._ids, self.vectors = self._ids[keep], self.vectors[keep]

    def search(self, vectors: Vectors, k: int, allowed: Mask | None = None) -> tuple[Scores, Ids]:
        """Return (scores, ids), each (len(vectors), k), best first; id -1 fills short rows."""
        ids, mine = self._ids, self.vectors
        if allowed is not None:
            keep = chosen(ids, allowed)
            ids, mine = ids[keep], mine[keep]
        return best(vectors @ mine.T, ids, k)

    def stored(self, ids: Ids) -> tuple[Ids, Vectors]:
        """Those of `ids` that are here, and their vectors (n, dim)."""
        inside, rows = places(self._ids, ids)
        return ids[inside], self.vectors[rows]

    def save(self, folder: Path) -> tuple[str, ...]:
        """Write the matrix and the ids."""
        write_array(folder / VECTORS, self.vectors)
        write_array(folder / IDS, self._ids)
        return VECTORS, IDS

    def load(self, folder: Path) -> None:
        """Map what `save` wrote."""
        try:
            self.vectors = np.load(folder / VECTORS, mmap_mode="r")
            self._ids = np.load(folder / IDS, mmap_mode="r")
        except ValueError as error:
            raise OSError(f"{folder}: {error}") from error
        if self.vectors.shape != (len(self._ids), self._dim):
            raise OSError(f"{folder}: vectors of {self.vectors.shape[1]} columns, not {self._dim}")


def build(dim: int) -> Exact:
    """An empty index of `dim` columns."""
    return Exact(dim)
