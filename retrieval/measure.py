"""How good a ranking is: recall, reciprocal rank, nDCG, and how sure that number is.

Definitions are those of trec_eval (nDCG with linear gains, Järvelin & Kekäläinen 2002), judged
against pytrec_eval in the tests. A document counts as relevant from relevance 1 on; one that nobody
judged counts as not relevant. Rankings hold each document at most once, best first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np


def recall(ranking: Sequence[str], relevance: Mapping[str, float], k: int) -> float:
    """Share of the relevant documents that are among the first `k`; 0 where none is relevant."""
    relevant = {key for key, value in relevance.items() if value > 0}
    return len(relevant.intersection(ranking[:k])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranking: Sequence[str], relevance: Mapping[str, float], k: int = 10) -> float:
    """1 / rank of the first relevant document among the first `k`; 0 where there is none."""
    for rank, key in enumerate(ranking[:k], start=1):
        if relevance.get(key, 0) > 0:
            return 1 / rank
    return 0.0


def ndcg(ranking: Sequence[str], relevance: Mapping[str, float], k: int = 10) -> float:
    """Discounted gain of the first `k` over that of the best order; 0 where none is relevant.

    Gain is the relevance itself (negative counts as 0), the discount log2(rank + 1).
    """
    best = _gain(sorted(relevance.values(), reverse=True)[:k])
    return _gain([relevance.get(key, 0.0) for key in ranking[:k]]) / best if best > 0 else 0.0


def bootstrap(
    values: Sequence[float], rounds: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean over queries (Efron 1979); (nan, nan) of nothing."""
    if not len(values):
        return math.nan, math.nan
    sample = np.asarray(values, dtype=float)
    generator = np.random.default_rng(seed)
    # round by round: all draws at once would be gigabytes for a large set of queries
    means = [
        float(sample[generator.integers(0, len(sample), len(sample))].mean()) for _ in range(rounds)
    ]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _gain(values: Sequence[float]) -> float:
    return sum(max(value, 0.0) / math.log2(rank + 1) for rank, value in enumerate(values, start=1))
