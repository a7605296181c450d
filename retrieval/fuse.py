"""Joining first stages and reranker: min-max normalised scores, weighted. Pure functions.

Over 29 BEIR rows min-max beats reciprocal rank fusion in 27 (castorini/pyserini fusion page), and
it keeps how far apart the candidates are, which ranks throw away. The weights are fitted on
labelled questions (`python app.py train fusion`) and lie in models/fusion/weights.json, per encoder
and language of the question.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

WEIGHTS = Path(__file__).resolve().parent.parent / "models" / "fusion" / "weights.json"


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each stage counts for questions of one language.

    Attributes:
        dense: weight of the dense side in [0, 1], the lexical side has the rest.
        floor: cosine below which the dense side brings no passage of its own.
        rerank: weight of the reranker's score in [0, 1], the fused score has the rest.
    """

    dense: float = 0.5
    floor: float = -1.0
    rerank: float = 0.8


@functools.cache
def fitted(embedder: str, reranker: str, language: str) -> Weights:
    """The weights fitted for an encoder, a reranker ("" = none) and a language.

    For a reranker that was not among those fitted, the encoder's own weights with the default for
    the reranker; for an encoder that was not, the defaults.
    """
    if not WEIGHTS.is_file():
        return Weights()
    fits = json.loads(WEIGHTS.read_text(encoding="utf-8"))["fits"]
    known = [f for f in fits if f["embedder"] == embedder and language in f["languages"]]
    known.sort(key=lambda f: (f["reranker"] == reranker, f["reranker"] == ""), reverse=True)
    if not known:
        return Weights()
    values = known[0]["languages"][language]
    if known[0]["reranker"] != reranker:
        values = {**values, "rerank": Weights().rerank}
    return Weights(values["dense"], values["floor"], values["rerank"])


def fuse(
    dense: Mapping[int, float], lexical: Mapping[int, float], dense_weight: float
) -> list[tuple[int, float]]:
    """Return (id, score) best first, score in [0, 1].

    Args:
        dense: id -> cosine. lexical: id -> BM25, higher is better.
        dense_weight: weight of the dense side in [0, 1]; a side with no candidates gives 0.

    BM25 is scaled from its own least value, 0, not from the least found (Bruch et al. 2023, "An
    Analysis of Fusion Functions"): a text without any term is no worse by far than one with a
    common one. A candidate that one side did not return gets that side's 0. Ties go by id, so the
    result does not depend on the order of the inputs.
    """
    left, right = minmax(dense), minmax(lexical, least=0.0)
    joined = {
        key: dense_weight * left.get(key, 0.0) + (1 - dense_weight) * right.get(key, 0.0)
        for key in left.keys() | right.keys()
    }
    return sorted(joined.items(), key=lambda item: (-item[1], item[0]))


def blend(fused: Sequence[float], ranked: Sequence[float], weight: float) -> list[float]:
    """Join fused and reranker scores, row by row; both in [0, 1], as is the result.

    The reranker's score is comparable across questions and stays as it is; the fused one breaks
    its ties and speaks where the reranker is unsure.
    """
    return [weight * r + (1 - weight) * f for f, r in zip(fused, ranked, strict=True)]


def minmax(scores: Mapping[int, float], least: float = math.inf) -> dict[int, float]:
    """Scale to [0, 1]; all equal scores become 1. The lowest is `least` where none is lower."""
    if not scores:
        return {}
    low, high = min(least, *scores.values()), max(scores.values())
    if high <= low:
        return dict.fromkeys(scores, 1.0)
    return {key: (value - low) / (high - low) for key, value in scores.items()}
