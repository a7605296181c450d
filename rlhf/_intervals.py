"""Intervals of what the gates measure. Arrays in, (low, high) out; numpy only."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

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

    Newcombe's method 10 (Statistics in Medicine 17, 1998): two score intervals, squared and added
    with their correlation. Without one discordant row it is still as wide as the rows are few.
    """
    count = len(before)
    if not count:
        return -1.0, 1.0
    both = int((after & before).sum())
    gained, lost = int((after & ~before).sum()), int((~after & before).sum())
    neither = count - both - gained - lost
    first, second = (both + gained) / count, (both + lost) / count
    low1, high1 = wilson(both + gained, count, level)
    low2, high2 = wilson(both + lost, count, level)
    product = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    cross = both * neither - gained * lost
    tied = max(cross - count / 2, 0.0) if cross > 0 else float(cross)
    phi = tied / float(np.sqrt(product)) if product else 0.0

    def reach(down: float, up: float) -> float:
        return float(np.sqrt(max(down * down - 2 * phi * down * up + up * up, 0.0)))

    gap = first - second
    low = gap - reach(first - low1, high2 - second)
    high = gap + reach(second - low2, high1 - first)
    return max(-1.0, low), min(1.0, high)


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
