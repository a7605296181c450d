"""What a reply says letter by letter: hashed n-grams of its characters (Weinberger et al. 2009).

What people of one place like often stands in the letters themselves, a year or a turn of phrase,
and a network's vector keeps little of that. Characters serve both languages alike.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Buckets, and lengths of the n-grams.
FEATURES, LENGTHS = 4096, (2, 4)


def surface(replies: Sequence[str]) -> NDArray[np.float64]:
    """A vector (n, FEATURES) of each reply; its length is 1, that of an empty one's 0."""
    found: NDArray[np.float64] = _hashing().transform(replies).toarray()
    return found


@functools.cache
def _hashing() -> Any:
    # a second to import, for models that look at letters only
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        analyzer="char", ngram_range=LENGTHS, n_features=FEATURES, alternate_sign=False,
        lowercase=False,
    )  # fmt: skip
