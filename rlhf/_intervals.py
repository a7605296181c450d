"""Intervals of what the gates measure. Arrays in, (low, high) out."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Interval = tuple[float, float]

#: Draws of the bootstrap held in memory at a time.
_BLOCK = 64


def wilson(hits: float, count: float, level: float = 0.95) -> Interval:
    """Score interval of a proportion (Wilson 1927); (0, 1) of nothing."""
    if count <= 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = hits / count
    middle = share + z * z / (2 * count)
    half = z * float(np.sqrt(share * (1 - share) / count + z * z / (4 * count * count)))
    scale = 1 + z * z / count
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def paired(before: Bools, after: Bools, level: float = 0.95) -> Interval:
    """Interval of mean(after) - mean(before), asked of the same rows.

    Tango's score interval (Statistics in Medicine 17, 1998): of the differences whose score test
    does not reject what was seen. Rows that are alike on both sides count by their number alone;
    where all are, the bound is z² / (n + z²), as of a share.
    """
    count = len(before)
    if not count:
        return -1.0, 1.0
    gained, lost = int((after & ~before).sum()), int((~after & before).sum())
    gap, z = (gained - lost) / count, NormalDist().inv_cdf(0.5 + level / 2)

    def tested(change: float) -> float:
        """The score statistic of a difference, its other parameter at its likeliest."""
        slope = (2 * count - gained + lost) * change - gained - lost
        product = -8 * count * lost * change * (1 - change)
        share = (np.sqrt(max(slope * slope - product, 0.0)) - slope) / (4 * count)
        spread = np.sqrt(max(count * (2 * share + change * (1 - change)), 0.0))
        return float((gained - lost - count * change) / spread) if spread else 0.0

    tiny = 1e-12
    low = -1.0 if gap - tiny <= -1 else _root(lambda v: tested(v) - z, -1 + tiny, gap - tiny)
    high = 1.0 if gap + tiny >= 1 else _root(lambda v: tested(v) + z, gap + tiny, 1 - tiny)
    return low, high


def _root(value: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function is 0; the end that is nearer where it is nowhere."""
    if value(low) <= 0:
        return low
    return high if value(high) >= 0 else float(brentq(value, low, high))


def bootstrap(
    values: Floats,
    level: float = 0.95,
    rounds: int = 2000,
    seed: int = 0,
    over: Floats | None = None,
) -> Interval:
    """Percentile interval of mean(values), or of mean(values) / mean(over) of the same rows."""
    draw = np.random.default_rng(seed)
    count = len(values)
    means = np.empty(rounds)
    for at in range(0, rounds, _BLOCK):
        rows = draw.integers(0, count, (min(_BLOCK, rounds - at), count))
        mean = values[rows].mean(1)
        means[at : at + len(rows)] = mean if over is None else mean / over[rows].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def calibration_error(right: Bools, confidence: Floats, bins: int = 10) -> float:
    """Expected calibration error over bins of equal width (Guo et al. 2017)."""
    where = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(float(right[where == b].mean() - confidence[where == b].mean())) * (where == b).mean()
        for b in np.unique(where)
    ]
    return float(sum(gaps))
