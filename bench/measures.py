"""Measures of a two-class decision: arrays of labels, scores in [0, 1], and decisions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
NAN = float("nan")


def auprc(labels: Bools, scores: Floats) -> float:
    """Average precision: precision times the recall gained, over thresholds; ties count once."""
    if not labels.any():
        return NAN
    order = np.argsort(-scores, kind="stable")
    hits, ranked = np.cumsum(labels[order]), scores[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    precision, recall = hits[last] / (last + 1), hits[last] / hits[-1]
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def auroc(labels: Bools, scores: Floats) -> float:
    """Chance that a positive outscores a negative, ties half (Mann-Whitney)."""
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return NAN
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / positives / negatives)


def ece(labels: Bools, scores: Floats, bins: int = 15) -> float:
    """Expected calibration error over bins of equal width (Guo et al. 2017)."""
    if not len(labels):
        return NAN
    where = np.minimum((scores * bins).astype(int), bins - 1)
    gaps = [
        abs(float(labels[where == b].mean() - scores[where == b].mean())) * (where == b).mean()
        for b in np.unique(where)
    ]
    return float(sum(gaps))


def share(decisions: Bools) -> float:
    """How many are decided positive."""
    return float(decisions.mean()) if len(decisions) else NAN


def f1(labels: Bools, decisions: Bools) -> float:
    """Harmonic mean of precision and recall; 0 without a true positive, nan without a positive."""
    if not labels.any():
        return NAN
    return float(2 * (labels & decisions).sum() / (labels.sum() + decisions.sum()))


def accuracy(labels: Bools, decisions: Bools) -> float:
    """How many decisions are right."""
    return share(labels == decisions)


def spread(
    measure: Callable[[NDArray[np.intp]], float], count: int, rounds: int = 200, seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of `measure(rows)` over rows drawn with replacement."""
    if not count:
        return NAN, NAN
    draw = np.random.default_rng(seed)
    values = [measure(draw.integers(0, count, count)) for _ in range(rounds)]
    known = [v for v in values if not np.isnan(v)]
    if not known:
        return NAN, NAN
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)
