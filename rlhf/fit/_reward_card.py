"""How well scores order the replies that people ordered: accuracy, calibration, and plain rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlhf.fit._reward_rows import Ranking

Floats = NDArray[np.float64]
#: Scores of a prompt's replies, in their order.
Scorer = Callable[[Ranking], Sequence[float]]
ROUNDS = 500


@dataclass(frozen=True, slots=True)
class Judged:
    """What a scorer makes of one prompt: the margin of each comparison, better less worse."""

    source: str
    lang: str
    margins: Floats

    @property
    def hits(self) -> float:
        """Comparisons it has right; equal scores count half."""
        return float((self.margins > 0).sum() + 0.5 * (self.margins == 0).sum())


def judged(rankings: Sequence[Ranking], score: Scorer) -> list[Judged]:
    """What `score` makes of each."""
    found = []
    for row in rankings:
        scores = np.asarray(score(row), dtype=np.float64)
        better, worse = (np.array([p[i] for p in row.pairs], dtype=int) for i in (0, 1))
        found.append(Judged(row.source, row.lang, scores[better] - scores[worse]))
    return found


def accuracy(found: Sequence[Judged]) -> float:
    """Share of the comparisons that are right; nan of none."""
    count = sum(len(row.margins) for row in found)
    return sum(row.hits for row in found) / count if count else float("nan")


def interval(found: Sequence[Judged], rounds: int = ROUNDS, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the accuracy, over prompts: comparisons of one hang together."""
    if not found:
        return float("nan"), float("nan")
    hits = np.array([row.hits for row in found])
    counts = np.array([len(row.margins) for row in found])
    drawn = np.random.default_rng(seed).integers(0, len(found), (rounds, len(found)))
    low, high = np.quantile(hits[drawn].sum(1) / counts[drawn].sum(1), [0.025, 0.975])
    return float(low), float(high)


def error(found: Sequence[Judged], bins: int = 10) -> float:
    """Expected calibration error of `sigmoid(margin)` (Guo et al. 2017); nan of none.

    Of each comparison the likelier side is looked at: how sure, and whether right.
    """
    margins = np.concatenate([np.zeros(0), *(row.margins for row in found)])
    if not len(margins):
        return float("nan")
    sure = 1 / (1 + np.exp(-np.clip(np.abs(margins), 0, 60)))
    right = (margins > 0) + 0.5 * (margins == 0)
    where = np.minimum(((sure - 0.5) * 2 * bins).astype(int), bins - 1)
    gaps = (
        abs(right[where == b].mean() - sure[where == b].mean()) * (where == b).mean()
        for b in np.unique(where)
    )
    return float(sum(gaps))


def longer(row: Ranking) -> list[float]:
    """Scores by length in characters: the longer, the better."""
    return [float(len(text)) for text in row.replies]


def shorter(row: Ranking) -> list[float]:
    """Scores by length in characters: the shorter, the better."""
    return [-length for length in longer(row)]


def overall(found: Sequence[Judged], plain: Sequence[Judged]) -> dict[str, float]:
    """All comparisons as one row of figures, nothing of none.

    Args:
        found: by the reward model.
        plain: of the same rankings, by the rule that longer is better; the better of it and its
            opposite is what the model has to beat.
    """
    if not found:
        return {}
    rule = accuracy(plain)
    values = zip(
        ("accuracy", "low", "high", "baseline", "ece"),
        (accuracy(found), *interval(found), max(rule, 1 - rule), error(found)),
        strict=True,
    )
    return {
        "n": sum(len(row.margins) for row in found),
        **{name: round(value, 4) for name, value in values},
    }


def table(found: Sequence[Judged], plain: Sequence[Judged]) -> Iterator[str]:
    """Lines of a table: a source and language a row; `plain` is of the rule that longer is better.

    Args:
        found: by the reward model.
        plain: of the same rankings.
    """
    yield "| set | language | comparisons | right | 95 % | longer is better | calibration error |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    keys = sorted({(row.source, row.lang) for row in found})
    for source, lang in [*keys, ("all", "en"), ("all", "zh")]:
        own, rule = (
            [r for r in rows if r.lang == lang and source in (r.source, "all")]
            for rows in (found, plain)
        )
        if own:
            low, high = interval(own)
            yield (
                f"| {source} | {lang} | {sum(len(r.margins) for r in own)} | {accuracy(own):.3f} | "
                f"{low:.3f} to {high:.3f} | {accuracy(rule):.3f} | {error(own):.3f} |"
            )
