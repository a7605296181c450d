from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from safety._language import language_of
from safety._ngrams import BUCKETS, LONGEST, Linear, buckets


@given(st.text(max_size=300))
def test_buckets_are_distinct_and_in_range(text: str) -> None:
    """Whatever the text, its buckets are ascending, distinct and within the table."""
    found = buckets(text)
    assert (np.diff(found) > 0).all()
    assert not len(found) or (found[0] >= 0 and found[-1] < BUCKETS)


def test_case_and_space_do_not_count() -> None:
    """Upper case and runs of spaces give the same buckets; another word gives others."""
    assert buckets("How  Are\nyou").tolist() == buckets("how are you").tolist()
    assert buckets("how are you").tolist() != buckets("how art you").tolist()


def test_a_long_text_is_cut() -> None:
    """Beyond the longest stretch nothing is read, so a megabyte costs what a page does."""
    assert buckets("word " * 10**5).tolist() == buckets(("word " * 10**5)[:LONGEST]).tolist()


def test_languages_are_told_apart() -> None:
    """A question with one Chinese name is English; Chinese with an English name is Chinese."""
    assert language_of("Who was 李白 and what did he write?") == "en"
    assert language_of("如何安装 Docker?") == "zh"
    assert language_of("") == "en"


def test_the_linear_model_sums_its_buckets() -> None:
    """A text's logit is the bias and the mean-square-scaled sum of its buckets' weights."""
    weights = np.zeros((BUCKETS, 2), dtype=np.int8)
    mine = buckets("bad words")
    weights[mine, 0] = 10
    scale, bias = np.array([0.5, 1.0], np.float32), np.array([-1.0, 3.0], np.float32)
    found = Linear(weights, scale, bias)(["bad words", ""])
    assert np.allclose(found[0], [-1 + 10 * 0.5 * len(mine) ** 0.5, 3.0])
    assert np.allclose(found[1], [-1.0, 3.0], atol=10 * 0.5)
