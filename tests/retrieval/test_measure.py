from __future__ import annotations

import math

import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st

from retrieval.measure import bootstrap, ndcg, recall, reciprocal_rank

IDS = [f"d{n}" for n in range(15)]

rankings = st.lists(st.sampled_from(IDS), unique=True, min_size=1, max_size=15)
judgements = st.dictionaries(st.sampled_from(IDS), st.integers(0, 3), min_size=1).filter(
    lambda judged: any(judged.values())
)


@given(rankings, judgements)
def test_measures_agree_with_trec_eval(ranking: list[str], relevance: dict[str, int]) -> None:
    """Recall@5, nDCG@10 and (cut at 10) reciprocal rank are trec_eval's, graded or not."""
    names = {"recall_5", "ndcg_cut_10", "recip_rank"}
    run = {key: float(len(ranking) - place) for place, key in enumerate(ranking)}
    judge = pytrec_eval.RelevanceEvaluator({"q": relevance}, names)
    expected = judge.evaluate({"q": run})["q"]
    first = judge.evaluate({"q": {key: run[key] for key in ranking[:10]}})["q"]["recip_rank"]
    got = (
        recall(ranking, relevance, 5),
        ndcg(ranking, relevance),
        reciprocal_rank(ranking, relevance),
    )
    assert got == pytest.approx((expected["recall_5"], expected["ndcg_cut_10"], first))


def test_a_case_by_hand() -> None:
    """Gains 0, 2, 1 at ranks 1 to 3, where 2, 1, 0 was possible."""
    value = ndcg(["a", "b", "c"], {"a": 0, "b": 2, "c": 1})
    best = 2 / math.log2(2) + 1 / math.log2(3)
    assert value == pytest.approx((2 / math.log2(3) + 1 / math.log2(4)) / best)


def test_without_a_relevant_document_every_measure_is_zero() -> None:
    """No division by zero where nothing can be found, or nothing was."""
    nothing = (recall(["a"], {"a": 0}, 5), ndcg(["a"], {}), reciprocal_rank([], {"a": 1}))
    assert nothing == (0.0, 0.0, 0.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_interval_lies_around_the_mean(values: list[float]) -> None:
    """It is the same at every call, lies in the range of the values, and is a point for one."""
    low, high = bootstrap(values, rounds=100)
    again = bootstrap(values, rounds=100)
    inside = min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert (again, inside, len(values) > 1 or low == high) == ((low, high), True, True)


def test_of_nothing_there_is_no_interval() -> None:
    """No queries give nan, and not zero."""
    assert all(math.isnan(value) for value in bootstrap([]))
