from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.fuse import fuse, minmax

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
    assert {k: other[k] for k in lexical} == minmax(lexical)
    assert {one[k] for k in lexical.keys() - dense.keys()} <= {0.0}


@given(SCORES, WEIGHT)
def test_sides_that_agree_keep_their_order(scores: dict[int, float], weight: float) -> None:
    """Two sides with the same scores give that order, whatever the weight."""
    fused = dict(fuse(scores, scores, weight))
    assert [fused[k] for k in fused] == pytest.approx([minmax(scores)[k] for k in fused])


@pytest.mark.parametrize(
    ("dense", "lexical", "weight", "expected"),
    [
        ({}, {}, 0.5, []),
        ({7: 0.3}, {}, 0.5, [(7, 0.5)]),
        ({7: -0.3}, {7: 12.0}, 0.5, [(7, 1.0)]),
        ({1: 0.9, 2: 0.5, 3: 0.1}, {2: 8.0, 4: 4.0}, 0.5, [(2, 0.75), (1, 0.5), (3, 0), (4, 0)]),
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
