"""The seam behind which vectors are searched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.embed.base import Vectors

Ids = NDArray[np.int64]


class Index(Protocol):
    """Vectors by id; inner product of unit vectors, so scores are cosines in [-1, 1]."""

    @property
    def size(self) -> int:
        """How many vectors can be found."""

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Add vectors (n, dim) under ids (n,); an id is never added twice."""

    def remove(self, ids: Sequence[int]) -> None:
        """Forget these ids; unknown ones are ignored."""

    def search(self, vectors: Vectors, k: int) -> tuple[NDArray[np.float32], Ids]:
        """Return (scores, ids), each (len(vectors), k), best first; id -1 fills short rows."""
