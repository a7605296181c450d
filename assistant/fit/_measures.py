"""How well probabilities tell, among labels that are known: for the cards of trained heads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from assistant.fit._guard_labels import UNKNOWN, YES

Matrix = NDArray[np.float64]


def area(labels: NDArray[np.int_], scores: Matrix) -> float:
    """Area under the receiver operating characteristic, among known labels; nan without both."""
    yes, no = scores[labels == YES], scores[labels == 0]
    if not len(yes) or not len(no):
        return float("nan")
    order = np.argsort(np.concatenate([yes, no]), kind="stable")
    ranks = np.empty(len(order))
    ranks[order] = np.arange(1, len(order) + 1)
    return float((ranks[: len(yes)].sum() - len(yes) * (len(yes) + 1) / 2) / len(yes) / len(no))


def error(labels: NDArray[np.int_], scores: Matrix) -> float:
    """Expected calibration error in 15 bins (Guo et al. 2017), among known labels."""
    known = labels != UNKNOWN
    truth, found = (labels[known] == YES).astype(float), scores[known]
    place = np.minimum((found * 15).astype(int), 14)
    gaps = [
        (place == n).mean() * abs(truth[place == n].mean() - found[place == n].mean())
        for n in range(15)
        if (place == n).any()
    ]
    return float(sum(gaps))
