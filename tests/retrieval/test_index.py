from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval import menu
from retrieval.embed.base import Vectors
from retrieval.index import exact, flat
from retrieval.index.base import Index

NAMES = menu.available("retrieval.index")


def unit(rng: np.random.Generator, rows: int, dim: int = 16) -> Vectors:
    """Return random vectors of unit length."""
    vectors = rng.standard_normal((rows, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def fresh(name: str, dim: int = 16) -> Index:
    """Return an empty index of the backend `name`."""
    index: Index = menu.load("retrieval.index", name).build(dim)
    return index


@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.integers(1, 80), st.data())
def test_faiss_is_exact(seed: int, rows: int, k: int, data: st.DataObject) -> None:
    """FAISS flat finds what numpy finds, after additions and removals alike."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(10_000)[:rows].astype(np.int64)
    vectors, queries = unit(rng, rows), unit(rng, 3)
    gone = data.draw(st.lists(st.sampled_from([*ids.tolist(), 20_000]), unique=True))
    half = rows // 2
    found = []
    for index in (exact.build(16), flat.build(16)):
        index.add(ids[:half], vectors[:half])
        index.add(ids[half:], vectors[half:])
        index.remove(gone)
        scores, keys = index.search(queries, k)
        assert index.size == rows - len(set(gone) - {20_000})
        found.append((keys.tolist(), np.where(keys < 0, 0, scores)))
    assert found[0][0] == found[1][0]
    assert np.allclose(found[0][1], found[1][1], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_index_finds_nothing(name: str) -> None:
    """Short rows are filled with id -1."""
    index = fresh(name)
    index.add(np.zeros(0, dtype=np.int64), np.zeros((0, 16), dtype=np.float32))
    index.remove([])
    index.remove([5])
    _, ids = index.search(unit(np.random.default_rng(0), 2), 3)
    assert (index.size, ids.tolist()) == (0, [[-1] * 3] * 2)


@pytest.mark.parametrize("name", NAMES)
def test_a_vector_finds_itself(name: str) -> None:
    """A stored vector is its own best match, with cosine one; once removed, it is not found."""
    vectors = unit(np.random.default_rng(1), 20)
    index = fresh(name)
    index.add(np.arange(100, 120, dtype=np.int64), vectors)
    scores, ids = index.search(vectors, 1)
    assert ids[:, 0].tolist() == list(range(100, 120))
    assert np.allclose(scores, 1, atol=2e-3)  # some keep float16
    index.remove([107])
    assert 107 not in index.search(vectors[7:8], 20)[1]
