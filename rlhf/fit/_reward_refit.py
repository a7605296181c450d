"""A reward model of one's own comparisons in seconds: the shipped network, its head fitted anew.

What tells a good reply to a question from a bad one the network has learnt from public comparisons;
what the users of one place prefer is mostly another weighing of it. So the vectors stay as they are
and the head moves from the shipped one as far as the comparisons ask for it: the ranking loss with
a penalty on the distance, whose strength is the one that foretells left-out comparisons best. What
the vectors do not keep, a year or a turn of phrase, the reply's letters tell (`rlhf._surface`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file
from scipy.optimize import minimize
from scipy.special import expit

from retrieval.embed.heads import HEAD
from retrieval.embed.heads import load as load_heads
from retrieval.fit._student import write
from rlhf._surface import FEATURES
from rlhf.errors import TrainingError
from rlhf.fit._reward_rows import Ranking
from rlhf.fit.reward import drawn, scaled
from rlhf.objectives import shared
from rlhf.scoring import WEIGHTS, WORDS, Array, letters, render, size

#: Penalties that are tried, for all comparisons together, and parts that are left out in turn.
STRENGTHS, PARTS = (10.0, 30.0, 100.0, 300.0, 1000.0), 4
#: How much longer than the networks' vectors those of the letters are, on average: the same penalty
#: then leaves them more to say. Left-out simulated comparisons are foretold alike from 1 to 2.
LOUDER = 2.0
#: Replies that set the scale.
REFERENCE = 400
Floats = NDArray[np.float64]


def refit(base: Path, rows: Sequence[Ranking], out: Path, seed: int) -> None:
    """Write the reward model in `base`, its head fitted to comparisons, on the scale of theirs.

    Args:
        base: folder of the model to begin with.
        rows: comparisons by prompt.
        out: folder of the new one.
        seed: of the parts and of the replies that set the scale.

    Raises:
        TrainingError: there is no comparison.
        ModelNotFound, ModelUntrusted: of the model.
    """
    if not rows:
        raise TrainingError("no comparison to learn from; collect some first")
    with safe_open(base / WEIGHTS, "numpy") as file:
        about = file.metadata() or {}
    arrays = load_file(base / WEIGHTS)
    start = arrays[HEAD].astype(np.float64)
    vectors = load_heads(base / WEIGHTS, head=np.eye(start.shape[0], dtype=np.float32))
    found, loud = _pairs(rows, vectors, start.shape[1])
    parts = np.random.default_rng(seed).integers(0, PARTS, len(rows))[found.prompts]
    before = arrays.get(WORDS, np.zeros(FEATURES)).astype(np.float64) / loud
    first = np.concatenate((start.T.ravel(), before))
    lost = [_left_out(found, parts, first, strength) for strength in STRENGTHS]
    best = _fitted(found, first, STRENGTHS[int(np.argmin(lost))])
    head, words = best[: start.size].reshape(start.T.shape).T, best[start.size :] * loud
    out.mkdir(parents=True, exist_ok=True)
    arrays[HEAD], arrays[WORDS] = head.astype(np.float16), words.astype(np.float32)
    write(arrays, out / WEIGHTS, about)
    scaled(out, drawn(rows, REFERENCE, seed))


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Of each pair the better reply's features less the worse's, its weight, and its prompt."""

    gaps: Floats
    weights: Floats
    prompts: NDArray[np.int_]

    def where(self, chosen: NDArray[np.bool_]) -> _Pairs:
        return _Pairs(self.gaps[chosen], self.weights[chosen], self.prompts[chosen])

    def loss(self, head: Floats) -> float:
        return float(self.weights @ np.logaddexp(0, -(self.gaps @ head)))


def _pairs(
    rows: Sequence[Ranking], vectors: Callable[[Sequence[str]], Array], columns: int
) -> tuple[_Pairs, float]:
    """Vector, in a second column the vector times the reply's size, letters; and these' factor."""
    texts = [render(row.question, reply) for row in rows for reply in row.replies]
    found = vectors(texts).astype(np.float64)
    sizes = np.array([size(reply) for row in rows for reply in row.replies])
    loud = LOUDER * float(np.sqrt((found**2).sum(axis=1).mean()))
    by_size = [found * sizes[:, None] ** n for n in range(columns)]
    features = np.concatenate((*by_size, loud * letters(texts)), axis=1)
    each: list[tuple[int, int, float]] = []
    prompts: list[int] = []
    at = 0
    for number, row in enumerate(rows):
        each += shared(row.pairs, 1.0, at)
        prompts += [number] * len(row.pairs)
        at += len(row.replies)
    better, worse = [pair[0] for pair in each], [pair[1] for pair in each]
    gaps = features[better] - features[worse]
    return _Pairs(gaps, np.array([pair[2] for pair in each]), np.array(prompts)), loud


def _fitted(pairs: _Pairs, start: Floats, strength: float) -> Floats:
    """The head with the least loss."""

    def cost(head: Floats) -> tuple[float, Floats]:
        moved = head - start
        pull = pairs.weights * expit(-(pairs.gaps @ head))
        whole = pairs.loss(head) + strength / 2 * float(moved @ moved)
        return whole, strength * moved - pairs.gaps.T @ pull

    found: Floats = minimize(cost, start, jac=True, method="L-BFGS-B").x
    return found


def _left_out(pairs: _Pairs, parts: NDArray[np.int_], start: Floats, strength: float) -> float:
    """The loss on each part by what the others teach."""
    lost = 0.0
    for part in range(PARTS):
        there = parts == part
        if there.any() and not there.all():
            lost += pairs.where(there).loss(_fitted(pairs.where(~there), start, strength))
    return lost
