from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.fuse import Weights, blend, fitted, fuse, minmax

SCORES = st.dictionaries(st.integers(0, 30), st.floats(-1e3, 1e3), max_size=12)
WEIGHT = st.floats(0, 1)


@given(SCORES, SCORES, WEIGHT, st.randoms())
def test_order_of_candidates_does_not_matter(
    dense: dict[int, float], lexical: dict[int, float], weight: float, dice: Random
) -> None:
    """The result is the same in whatever order the candidates come."""
    left, right = list(dense.items()), list(lexical.items())
    dice.shuffle(left)
    dice.shuffle(right)
    assert fuse(dict(left), dict(right), weight) == fuse(dense, lexical, weight)


@given(SCORES, SCORES, WEIGHT)
def test_scores_are_bounded_and_sorted(
    dense: dict[int, float], lexical: dict[int, float], weight: float
) -> None:
    """Every candidate comes once, best first, with a score in [0, 1]; ties go by id."""
    found = fuse(dense, lexical, weight)
    assert {key for key, _ in found} == dense.keys() | lexical.keys()
    assert found == sorted(found, key=lambda item: (-item[1], item[0]))
    assert all(0 <= score <= 1 for _, score in found)


@given(SCORES, SCORES)
def test_the_ends_of_the_weight_are_single_sides(
    dense: dict[int, float], lexical: dict[int, float]
) -> None:
    """Weight 1 is the dense side alone, weight 0 the lexical side."""
    one, other = dict(fuse(dense, lexical, 1.0)), dict(fuse(dense, lexical, 0.0))
    assert {k: one[k] for k in dense} == minmax(dense)
    assert {k: other[k] for k in lexical} == minmax(lexical, least=0.0)
    assert {one[k] for k in lexical.keys() - dense.keys()} <= {0.0}


@given(SCORES, WEIGHT)
def test_sides_that_agree_keep_their_order(scores: dict[int, float], weight: float) -> None:
    """Two sides with the same scores give that order, whatever the weight."""
    fused = fuse(scores, scores, weight)
    assert all(scores[a] >= scores[b] or x == y for (a, x), (b, y) in pairwise(fused))


@given(SCORES, st.floats(0, 10))
def test_scaling_from_a_least_value(scores: dict[int, float], least: float) -> None:
    """Scores are scaled from the least that there can be, where none found lies below it."""
    scaled = minmax(scores, least)
    assert scaled.keys() == scores.keys()
    assert all(0 <= value <= 1 for value in scaled.values())
    if scores and min(scores.values()) > least:
        assert min(scaled.values()) > 0


@given(st.lists(st.tuples(WEIGHT, WEIGHT), max_size=8), WEIGHT)
def test_a_blend_lies_between(rows: list[tuple[float, float]], weight: float) -> None:
    """A blended score lies between the two, and is one of them at the ends of the weight."""
    fused, ranked = [f for f, _ in rows], [r for _, r in rows]
    for (f, r), value in zip(rows, blend(fused, ranked, weight), strict=True):
        assert min(f, r) - 1e-9 <= value <= max(f, r) + 1e-9
    assert blend(fused, ranked, 0.0) == fused
    assert blend(fused, ranked, 1.0) == ranked


def test_weights_of_what_was_not_fitted_are_the_defaults() -> None:
    """An encoder that was never fitted is joined with the defaults."""
    assert fitted("no-such-encoder", "", "en") == Weights()


def test_the_fitted_weights_are_weights(root: Path) -> None:
    """The shipped file holds weights in their ranges, for both languages of each encoder."""
    fits = json.loads((root / "models/fusion/weights.json").read_text(encoding="utf-8"))["fits"]
    assert fits
    for one in fits:
        assert one["languages"].keys() == {"en", "zh"}
        for tongue in one["languages"]:
            weights = fitted(one["embedder"], one["reranker"], tongue)
            assert 0 <= weights.dense <= 1
            assert 0 <= weights.rerank <= 1
            assert -1 <= weights.floor < 1


@pytest.mark.parametrize(
    ("dense", "lexical", "weight", "expected"),
    [
        ({}, {}, 0.5, []),
        ({7: 0.3}, {}, 0.5, [(7, 0.5)]),
        ({7: -0.3}, {7: 12.0}, 0.5, [(7, 1.0)]),
        ({1: 0.9, 2: 0.5, 3: 0.1}, {2: 8.0, 4: 4.0}, 0.5, [(2, 0.75), (1, 0.5), (4, 0.25), (3, 0)]),
        ({2: 1.0, 1: 1.0}, {}, 1.0, [(1, 1.0), (2, 1.0)]),
    ],
)
def test_fusion_table(
    dense: dict[int, float],
    lexical: dict[int, float],
    weight: float,
    expected: list[tuple[int, float]],
) -> None:
    """A side gives 0 to what it did not return; equal scores count as best."""
    assert fuse(dense, lexical, weight) == expected
