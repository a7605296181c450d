from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.config import RerankSettings
from retrieval.embed.base import embedded_text
from retrieval.fuse import blend
from retrieval.rerank import none
from retrieval.rerank.base import Reranker, presented
from tests.retrieval.rerankers import Overlap

TEXTS = st.lists(st.text(max_size=30), max_size=6)


def test_none_is_no_reranker() -> None:
    """The default backend ranks nothing, and says so by being none."""
    build: Callable[[RerankSettings], object] = none.build
    assert build(RerankSettings()) is None


@pytest.mark.parametrize(
    ("title", "headings", "text"), [("T", ("a", "b"), "x"), ("T", (), "x"), ("", (), "x")]
)
def test_a_reranker_reads_what_the_encoder_read(
    title: str, headings: tuple[str, ...], text: str
) -> None:
    """Both are given heading path and text, written alike."""
    assert presented(title, headings, text) == embedded_text(title, headings, text)


@given(st.text(max_size=30), TEXTS)
def test_the_contract(query: str, texts: list[str]) -> None:
    """One score in (0, 1) a text, float32, none for none, the same however often it is asked."""
    reader: Reranker = Overlap()
    scores = reader.rank(query, texts)
    assert scores.shape == (len(texts),)
    assert scores.dtype == np.float32
    assert ((scores > 0) & (scores < 1)).all()
    assert (reader.rank(query, texts) == scores).all()
    assert len(blend([0.5] * len(texts), [float(s) for s in scores], 0.8)) == len(texts)
