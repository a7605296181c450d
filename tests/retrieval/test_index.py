from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval import menu
from retrieval.embed.base import Vectors
from retrieval.index import exact, flat, ivf
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


@pytest.mark.parametrize("name", NAMES)
def test_stored_vectors_come_back(name: str) -> None:
    """Known ids give their vectors in the order asked for, even one added late; others none."""
    vectors = unit(np.random.default_rng(2), 9)
    ids = np.array([2, 4, 6, 9, 12, 15, 20, 3, 30], dtype=np.int64)
    index = fresh(name)
    index.add(ids[:6], vectors[:6])
    index.add(ids[6:], vectors[6:])
    keys, found = index.stored(np.array([20, 3, 7, 31, 4], dtype=np.int64))
    assert keys.tolist() == [20, 3, 4]
    assert np.allclose(found, vectors[[6, 7, 1]], atol=2e-3)  # some keep float16
    assert len(fresh(name).stored(ids)[0]) == 0


def clustered(seed: int, rows: int, dim: int) -> Vectors:
    """Return unit vectors in clusters, as text gives."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((200, dim)).astype(np.float32)
    vectors = centres[rng.integers(0, 200, rows)]
    vectors += 0.6 * rng.standard_normal((rows, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


@pytest.fixture(scope="module")
def many() -> tuple[Vectors, Vectors, dict[str, Index]]:
    """40,000 vectors, 50 questions, and an index of each kind."""
    vectors = clustered(0, 40_000, 24)
    questions = clustered(0, 50, 24)
    made = {name: fresh(name, 24) for name in NAMES}
    for index in made.values():
        index.add(np.arange(0, 80_000, 2, dtype=np.int64), vectors)
    return vectors, questions, made


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.6, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_recall_under_a_filter(
    many: tuple[Vectors, Vectors, dict[str, Index]], name: str, share: float
) -> None:
    """Among the allowed, exact indexes find all ten nearest, the approximate one .98 of them."""
    _, questions, made = many
    allowed = np.random.default_rng(7).random(80_000) < share if share < 1 else None
    _, expected = made["exact"].search(questions, 10, allowed)
    _, found = made[name].search(questions, 10, allowed)
    if allowed is not None:
        assert allowed[found[found >= 0]].all()
    hits = [len(set(a) & set(b)) for a, b in zip(expected.tolist(), found.tolist(), strict=True)]
    assert np.mean(hits) / 10 >= (0.98 if name == "ivf" else 1.0)


@pytest.mark.parametrize("name", NAMES)
def test_an_index_comes_back_from_disk(
    many: tuple[Vectors, Vectors, dict[str, Index]], name: str, tmp_path: Path
) -> None:
    """A mapped index finds what the one in memory found; ids beyond the mask are not allowed."""
    vectors, questions, made = many
    folder = tmp_path / "index"
    folder.mkdir()
    files = made[name].save(folder)
    assert sorted(files) == sorted(path.name for path in folder.iterdir())
    index = fresh(name, 24)
    index.load(folder)
    assert (index.size, index.factory) == (40_000, made[name].factory)
    before, after = made[name].search(questions, 10), index.search(questions, 10)
    assert (before[1] == after[1]).all()
    short = np.ones(1_000, dtype=bool)
    _, ids = index.search(vectors[:5], 600, short)
    assert set(ids[0].tolist()) == {-1, *range(0, 1_000, 2)}
    with pytest.raises(OSError, match=r"columns|vectors"):
        fresh(name, 25).load(folder)


def test_removal_from_lists() -> None:
    """What is removed from an inverted file is not found again, and what is added later is."""
    vectors = clustered(1, 6_000, 16)
    index = ivf.build(16)
    index.add(np.arange(5_000, dtype=np.int64), vectors[:5_000])
    index.remove([0, 1, 9_999])
    index.add(np.arange(5_000, 6_000, dtype=np.int64), vectors[5_000:])
    assert index.size == 5_998
    assert not {0, 1} & set(index.search(vectors[:2], 50)[1].ravel().tolist())
    assert index.search(vectors[5_500:5_501], 1)[1].tolist() == [[5_500]]
    assert index.factory.startswith("IVF")
