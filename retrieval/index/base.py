"""The seam behind which vectors are searched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.embed.base import Vectors

Ids = NDArray[np.int64]
Scores = NDArray[np.float32]
#: A row per id (the row's number is the id): True means that this id may be found.
Mask = NDArray[np.bool_]


class Index(Protocol):
    """Vectors by id; inner product of unit vectors, so scores are cosines in [-1, 1].

    Searches may run side by side; a change must run alone.
    """

    @property
    def size(self) -> int:
        """How many vectors can be found."""

    @property
    def ids(self) -> Ids:
        """The ids that can be found."""

    @property
    def factory(self) -> str:
        """How the index is made, in FAISS's own notation."""

    @property
    def engine(self) -> str:
        """What wrote the files, with its version."""

    def add(self, ids: Ids, vectors: Vectors | NDArray[np.float16]) -> None:
        """Add vectors (n, dim) under ids (n,); an id is never added twice."""

    def remove(self, ids: Sequence[int]) -> None:
        """Forget these ids; unknown ones are ignored."""

    def search(self, vectors: Vectors, k: int, allowed: Mask | None = None) -> tuple[Scores, Ids]:
        """Return (scores, ids), each (len(vectors), k), best first; id -1 fills short rows.

        With `allowed`, only ids whose row is True are found; an id beyond its end is not.
        """

    def stored(self, ids: Ids) -> tuple[Ids, Vectors]:
        """Those of `ids` that are here, and their vectors (n, dim), row by row."""

    def save(self, folder: Path) -> tuple[str, ...]:
        """Write the index into an existing folder; returns the names of its files there.

        Raises:
            OSError: a file could not be written.
        """

    def load(self, folder: Path) -> None:
        """Map what `save` wrote; several processes share its pages. The files must be verified.

        Raises:
            OSError: a file could not be read or does not fit the others.
        """


def chosen(ids: Ids, allowed: Mask) -> Mask:
    """Which of `ids` are allowed: (len(ids),)."""
    inside = ids < len(allowed)
    if inside.all():
        return allowed[ids]
    mask = np.zeros(len(ids), dtype=bool)
    mask[inside] = allowed[ids[inside]]
    return mask


def places(ids: Ids, wanted: Ids) -> tuple[Mask, Ids]:
    """Which of `wanted` are in `ids`, (len(wanted),), and the rows of those."""
    rows = np.minimum(np.searchsorted(ids, wanted), max(len(ids) - 1, 0))
    inside = ids[rows] == wanted if len(ids) else np.zeros(len(wanted), dtype=bool)
    # ids ascend, except where a chunk's vector came later than those of newer chunks
    if not inside.all() and (ids[:-1] > ids[1:]).any():
        order = np.argsort(ids)
        inside, rows = places(ids[order], wanted)
        return inside, order[rows]
    return inside, rows[inside]


def best(scores: Scores, ids: Ids, k: int) -> tuple[Scores, Ids]:
    """The `k` best of scores (n, m) with ids (m,) or (n, m); ties in the order given."""
    rows, found = scores.shape
    top = np.full((rows, k), -np.inf, dtype=np.float32)
    keys = np.full((rows, k), -1, dtype=np.int64)
    named = np.broadcast_to(ids, scores.shape)
    few = min(k, found)
    for row in range(rows):
        part = np.arange(found)
        if found > 4 * k + 64:  # every tie with the last one stays, so that the order is kept
            last = np.partition(scores[row], found - k)[found - k]
            part = np.flatnonzero(scores[row] >= last)
        order = part[np.argsort(-scores[row][part], kind="stable")[:few]]
        top[row, :few], keys[row, :few] = scores[row][order], named[row][order]
    return top, keys


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as `.npy`. NumPy's own writing to a file does not notice a full disk.

    Raises:
        OSError: it did not fit.
    """
    with path.open("wb") as file:
        plain: Any = SimpleNamespace(write=file.write)
        np.save(plain, array)
