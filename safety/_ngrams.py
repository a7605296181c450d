"""A linear model over character n-grams: what the network's word pieces do not see.

Hashed n-grams (Weinberger et al. 2009) of 2 to 5 characters within lower-case text, 1 to 3 where
the text is Chinese, each counted once, the row scaled to unit length. Hashing is over arrays of
code points, so that a text of 600 characters takes tenths of a millisecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safety._language import language_of

#: Buckets, a power of two.
BUCKETS = 1 << 17
LATIN, HAN = range(2, 6), range(1, 4)
#: Characters that are read; longer texts are the caller's to cut.
LONGEST = 2_000
_PRIME = np.uint64(0x9E3779B97F4A7C15)

Rows = NDArray[np.int64]


def buckets(text: str) -> Rows:
    """The distinct buckets of a text's n-grams, ascending."""
    low = " " + " ".join(text[:LONGEST].lower().split()) + " "
    points = np.frombuffer(low.encode("utf-32-le", "replace"), dtype="<u4").astype(np.uint64)
    found = []
    for n in HAN if language_of(text) == "zh" else LATIN:
        count = len(points) - n + 1
        if count <= 0:
            break
        value = np.full(count, n, dtype=np.uint64)
        for step in range(n):
            value = (value ^ points[step : step + count]) * _PRIME
            value ^= value >> np.uint64(29)
        found.append(value % np.uint64(BUCKETS))
    if not found:
        return np.zeros(0, dtype=np.int64)
    return np.unique(np.concatenate(found)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Linear:
    """`weights` (BUCKETS, heads) int8 with a `scale` (heads,) each, and `bias` (heads,)."""

    weights: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Logits (len(texts), heads)."""
        logits = np.tile(self.bias, (len(texts), 1)).astype(np.float32)
        for row, text in enumerate(texts):
            found = buckets(text)
            if len(found):
                summed = self.weights[found].sum(0, dtype=np.int64)
                logits[row] += summed * self.scale / len(found) ** 0.5
        return logits
