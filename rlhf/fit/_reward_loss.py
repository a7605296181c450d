"""The K-wise ranking loss (Ouyang et al. 2022, section 3.5): a pure function."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Pairs = Sequence[tuple[int, int, float]]


def ranking(scores: Tensor, pairs: Pairs) -> Tensor:
    """Sum over pairs of `-weight * log sigmoid(score of the better - score of the worse)`.

    Args:
        scores: (n,), of the replies.
        pairs: (better, worse, weight), places among the scores. The comparisons of one prompt
            share a weight that does not depend on how many replies it has: see `shared`.
    """
    if not pairs:
        return scores.sum() * 0
    better, worse = (torch.tensor([p[i] for p in pairs], device=scores.device) for i in (0, 1))
    weight = torch.tensor([p[2] for p in pairs], device=scores.device, dtype=scores.dtype)
    return -(weight * nn.functional.logsigmoid(scores[better] - scores[worse])).sum()


def shared(pairs: Pairs, weight: float, start: int = 0) -> list[tuple[int, int, float]]:
    """The comparisons of one prompt, each with its part of the prompt's weight.

    With K ranked replies that is `weight / C(K, 2)`; a comparison that itself weighs less than 1
    (an edit, a split vote) takes away from the prompt's weight and gives nothing to the others.

    Args:
        pairs: (better, worse, weight in (0, 1]), counted within the prompt.
        weight: of the prompt.
        start: the place of the prompt's first reply among the scores.
    """
    return [(b + start, w + start, own * weight / len(pairs)) for b, w, own in pairs]
