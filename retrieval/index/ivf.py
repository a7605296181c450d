"""Approximate search for many vectors: FAISS inverted file of 8-bit vectors, re-ranked exactly.

The candidates of the inverted file are compared again with the stored float16 vectors, which lie in
a mapped file of their own: only the rows compared are read. Few allowed rows are compared one by
one, because an inverted file finds few of them. Below `FEWEST` vectors all are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from retrieval.embed.base import Vectors
from retrieval.index import _mapped
from retrieval.index.base import Ids, Mask, Scores, best, chosen, places

VECTORS = "vectors.f16"
#: Fewer vectors than this are not worth lists of their own.
FEWEST = 4_096
#: Up to so many allowed rows are compared exactly.
EXACT_ROWS = 20_000
#: Lists looked into, of the 2 sqrt(n) there are; twice and four times that under a filter.
PROBES = 160
#: Candidates compared exactly, at least, and per passage asked for.
RERANK, PER_K = 200, 3
#: k-means: samples per list and rounds.
SAMPLES, ROUNDS = 64, 10
BATCH = 50_000


class Inverted:
    """Lists around k-means centres, 8 bits a component, and the vectors themselves."""

    engine = _mapped.ENGINE

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._ids: Ids = np.zeros(0, dtype=np.int64)
        self._vectors: NDArray[np.float16] = np.zeros((0, dim), dtype=np.float16)
        self._alive: Mask | None = None
        self._index: Any = None

    @property
    def size(self) -> int:
        """How many vectors can be found."""
        return len(self.ids)

    @property
    def ids(self) -> Ids:
        """The ids that can be found."""
        return self._ids if self._alive is None else self._ids[self._alive]

    @property
    def factory(self) -> str:
        """How the index is made, in FAISS's own notation."""
        return f"IVF{self._index.nlist},SQ8" if self._index else "Flat"

    def add(self, ids: Ids, vectors: Vectors | NDArray[np.float16]) -> None:
        """Add vectors (n, dim) under ids (n,). A mapped float16 array is used where it lies."""
        first = len(self._ids)
        self._ids = np.concatenate([self._ids, ids])
        if first or vectors.dtype != np.float16:
            halves = vectors.astype(np.float16)
            vectors = np.concatenate([self._vectors, halves]) if first else halves
        self._vectors = vectors.view(np.float16)
        if self._alive is not None:
            self._alive = np.concatenate([self._alive, np.ones(len(ids), dtype=bool)])
        if self._index is None and len(self._ids) >= FEWEST:
            self._index, first = self._trained(), 0
        if self._index is not None:
            for at in range(first, len(self._ids), BATCH):
                self._index.add(self._vectors[at : at + BATCH].astype(np.float32))

    def _trained(self) -> Any:
        total = len(self._ids)
        lists = int(2 * total**0.5)
        index = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(self._dim),
            self._dim,
            lists,
            faiss.ScalarQuantizer.QT_8bit,
            faiss.METRIC_INNER_PRODUCT,
        )
        index.cp.niter = ROUNDS
        index.cp.min_points_per_centroid = 1
        rows = np.random.default_rng(0).permutation(total)[: SAMPLES * lists]
        index.train(self._vectors[np.sort(rows)].astype(np.float32))
        return index

    def remove(self, ids: Sequence[int]) -> None:
        """Mark these ids as not to be found; their space is freed when the index is made anew."""
        gone = np.isin(self._ids, np.asarray(list(ids), dtype=np.int64))
        self._alive = ~gone if self._alive is None else self._alive & ~gone

    def search(self, vectors: Vectors, k: int, allowed: Mask | None = None) -> tuple[Scores, Ids]:
        """Return (scores, ids), each (len(vectors), k), best first; id -1 fills short rows."""
        rows = self._alive
        if allowed is not None:
            mask = chosen(self._ids, allowed)
            rows = mask if rows is None else rows & mask
        count = len(self._ids) if rows is None else int(np.count_nonzero(rows))
        if self._index is None or count <= EXACT_ROWS:
            found = np.arange(len(self._ids)) if rows is None else np.flatnonzero(rows)
            return best(vectors @ self._vectors[found].astype(np.float32).T, self._ids[found], k)
        probes = PROBES
        if rows is not None:
            probes *= 1 if count > len(rows) / 2 else 2 if count > len(rows) / 4 else 4
        parameters = _mapped.only(rows, min(probes, self._index.nlist))
        candidates = max(RERANK, PER_K * k)
        _, near = self._index.search(np.ascontiguousarray(vectors), candidates, params=parameters)
        return self._compared(vectors, near, k)

    def _compared(self, vectors: Vectors, near: Ids, k: int) -> tuple[Scores, Ids]:
        """The best `k` of each row of candidates by their stored vectors."""
        ids = np.where(near < 0, -1, self._ids[near])
        stored = self._vectors[np.maximum(near, 0)].astype(np.float32)
        scores = np.einsum("nd,ncd->nc", vectors, stored)
        return best(np.where(near < 0, -np.inf, scores).astype(np.float32), ids, k)

    def stored(self, ids: Ids) -> tuple[Ids, Vectors]:
        """Those of `ids` that are here, and their vectors (n, dim)."""
        inside, rows = places(self._ids, ids)
        return ids[inside], self._vectors[rows].astype(np.float32)

    def save(self, folder: Path) -> tuple[str, ...]:
        """Write lists, ids and vectors; vectors that lie there already are left as they are."""
        target = folder / VECTORS
        if str(getattr(self._vectors, "filename", "")) != str(target):
            with target.open("wb") as file:
                for at in range(0, len(self._vectors), BATCH):
                    file.write(self._vectors[at : at + BATCH].astype("<f2").tobytes())
        index: Any = self._index
        if index is None:
            index = faiss.IndexFlatIP(self._dim)
            index.add(self._vectors.astype(np.float32))
        return *_mapped.write(index, self._ids, folder), VECTORS

    def load(self, folder: Path) -> None:
        """Map what `save` wrote."""
        index, self._ids = _mapped.read(folder, self._dim)
        self._index = index if hasattr(index, "nlist") else None
        self._alive = None
        shape = (len(self._ids), self._dim)
        if (folder / VECTORS).stat().st_size != 2 * shape[0] * shape[1]:
            raise OSError(f"{folder / VECTORS} does not hold {shape[0]} vectors of {shape[1]}")
        if len(self._ids):
            self._vectors = np.memmap(folder / VECTORS, dtype="<f2", mode="r", shape=shape)


def build(dim: int) -> Inverted:
    """An empty index of `dim` columns."""
    return Inverted(dim)
