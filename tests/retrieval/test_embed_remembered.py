from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from retrieval.config import EmbedSettings
from retrieval.embed import hashing
from retrieval.embed.base import Kind, Vectors
from retrieval.embed.remembered import Remembered


class Counting:
    """An encoder that notes what it was given."""

    def __init__(self) -> None:
        self._inner = hashing.build(EmbedSettings())
        self.id, self.dim, self.reads = self._inner.id, self._inner.dim, self._inner.reads
        self.given: list[tuple[str, Kind]] = []

    def embed(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """Note and embed."""
        self.given += [(text, kind) for text in texts]
        return self._inner.embed(texts, kind)


def test_what_was_embedded_is_not_embedded_again() -> None:
    """Also within one call; queries and passages are kept apart."""
    inner = Counting()
    made, plain = Remembered(inner), hashing.build(EmbedSettings())
    texts = ["The pump.", "水泵。", "The pump.", "A valve."]
    for _ in range(2):
        assert made.embed(texts, "passage") == pytest.approx(plain.embed(texts, "passage"))
    assert inner.given == [(t, "passage") for t in ("The pump.", "水泵。", "A valve.")]
    made.embed(["The pump."], "query")
    assert inner.given[3:] == [("The pump.", "query")]
    assert (made.id, made.dim, made.reads("水")) == (inner.id, inner.dim, inner.reads("水"))


def test_of_nothing_there_are_no_vectors() -> None:
    """The shape is the embedder's."""
    inner = Counting()
    assert Remembered(inner).embed([], "passage").shape == (0, inner.dim)
    assert not inner.given


def test_what_was_not_asked_for_longest_is_forgotten() -> None:
    """Asking for a text again keeps it; a call larger than the memory still gets its vectors."""
    inner = Counting()
    made = Remembered(inner, most=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        made.embed([text], "passage")
    assert [text for text, _ in inner.given] == ["a", "b", "c", "b"]
    many = [f"text {n}" for n in range(9)]
    assert made.embed(many, "passage") == pytest.approx(inner.embed(many, "passage"))


def test_the_texts_themselves_are_not_kept() -> None:
    """What a deleted document said is not in memory; the result is the caller's to change."""
    made = Remembered(Counting())
    made.embed(["the secret of the well"], "passage")[:] = 0
    assert not any("secret" in str(x) for x in vars(made).values())
    assert np.linalg.norm(made.embed(["the secret of the well"], "passage")) == pytest.approx(1)


def test_threads_share_it() -> None:
    """Each gets its own texts' vectors, whoever else asks and whatever is forgotten."""
    made, plain = Remembered(Counting(), most=5), hashing.build(EmbedSettings())
    texts = [f"word{n} and more" for n in range(12)]

    def ask(seed: int) -> bool:
        chosen = [texts[(seed * 5 + n) % 12] for n in range(4)]
        return np.allclose(made.embed(chosen, "passage"), plain.embed(chosen, "passage"))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(200)))
    finally:
        sys.setswitchinterval(before)
