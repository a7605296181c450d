from __future__ import annotations

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from retrieval import menu
from retrieval.config import EmbedSettings, RerankSettings, RetrievalSettings
from retrieval.embed import sentence
from retrieval.embed.sentence import SentenceEncoder
from retrieval.errors import BackendMissing, ModelNotFound, ModelUntrusted
from retrieval.rerank import cross
from tests.retrieval import checkpoints

TEXTS = [
    "How do I change the port?",
    "服务器的端口写在文件里。",
    "a passage about nothing " * 40,
    "",
]


@pytest.fixture(scope="module")
def bge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model built as bge-m3 is: XLM-RoBERTa, first token, no prompts."""
    folder = tmp_path_factory.mktemp("models")
    base = checkpoints.xlm_roberta(folder / "base")
    return checkpoints.encoder(folder / "bge-m3", base, "cls")


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model built as Qwen3-Embedding is: last token, padded left, its own prompts."""
    folder = tmp_path_factory.mktemp("models")
    base = checkpoints.qwen3(folder / "base")
    prompts = {"query": "Instruct: find\nQuery:", "document": ""}
    return checkpoints.encoder(folder / "Qwen3-Embedding-0.6B", base, "lasttoken", prompts)


def load(folder: Path, **values: object) -> SentenceEncoder:
    """Load an encoder in float32, whatever the processor likes."""
    options = {"backend": "sentence", "model": str(folder), "dtype": "float32", **values}
    found = menu.load("retrieval.embed", "sentence").build(EmbedSettings.model_validate(options))
    assert isinstance(found, SentenceEncoder)
    return found


@pytest.mark.parametrize("kind", ["bge", "qwen"])
def test_vectors_have_unit_length_and_do_not_depend_on_their_batch(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """Any text, the empty one too; padding changes nothing."""
    encoder = load(request.getfixturevalue(kind), batch_size=2)
    vectors = encoder.embed(TEXTS, "passage")
    alone = np.concatenate([encoder.embed([text], "passage") for text in TEXTS])
    lengths = np.linalg.norm(vectors, axis=1)
    assert (vectors.shape, vectors.dtype.name) == ((4, encoder.dim), "float32")
    np.testing.assert_allclose(lengths, 1, atol=1e-6)
    np.testing.assert_allclose(vectors, alone, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "query", "passage"),
    [
        ("multilingual-e5-small", "query: ", "passage: "),
        ("bge-small-zh-v1.5", "为这个句子生成表示以用于检索相关文章：", ""),
        ("something-else", "", ""),
    ],
)
def test_a_known_model_gets_its_prompts(
    tmp_path: Path, name: str, query: str, passage: str
) -> None:
    """A question and a passage are embedded behind what the model was trained with."""
    base = checkpoints.xlm_roberta(tmp_path / "base")
    folder = checkpoints.encoder(tmp_path / name, base, "mean")
    auto, bare = load(folder), load(folder, query_prompt="", passage_prompt="")
    pairs = [
        (auto.embed(["the port"], "query"), bare.embed([query + "the port"], "query")),
        (auto.embed(["the port"], "passage"), bare.embed([passage + "the port"], "passage")),
    ]
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_checkpoint_s_own_prompts_come_first(qwen: Path) -> None:
    """What config_sentence_transformers.json says; a setting goes before it."""
    bare = load(qwen, query_prompt="", passage_prompt="")
    own = load(qwen).embed(["the port"], "query")
    expected = bare.embed(["Instruct: find\nQuery:the port"], "query")
    np.testing.assert_allclose(own, expected, atol=1e-5)


def test_an_identity_changes_with_whatever_changes_vectors(bge: Path) -> None:
    """Content, prompts and length are in the id; the same model has the same id again."""
    ids = [
        load(bge).id,
        load(bge, passage_prompt="passage: ").id,
        load(bge, max_tokens=16).id,
    ]
    same = load(bge, batch_size=7, device="cpu").id
    assert (len(set(ids)), same, ids[0].startswith("bge-m3@")) == (3, ids[0], True)


def test_text_past_the_limit_is_not_read(bge: Path) -> None:
    """`max_tokens` cuts, and no text is too long."""
    encoder = load(bge, max_tokens=16)
    long = "the port " * 50
    same = encoder.embed([long], "passage") @ encoder.embed([long + "the file"], "passage").T
    assert same[0, 0] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("chinese", "languages", "reads"),
    [(True, "auto", True), (False, "auto", False), (False, "all", True), (True, "en", False)],
)
def test_a_vocabulary_says_what_it_reads(
    tmp_path: Path, chinese: bool, languages: str, reads: bool
) -> None:
    """Chinese is read where its characters are known, or where a setting says so."""
    base = checkpoints.xlm_roberta(tmp_path / "base", chinese=chinese)
    encoder = load(checkpoints.encoder(tmp_path / "model", base, "cls"), languages=languages)
    assert (encoder.reads("服务器的端口"), encoder.reads("the port")) == (reads, True)


def test_a_byte_vocabulary_without_chinese_does_not_read_it(tmp_path: Path) -> None:
    """Bytes spell everything and know nothing."""
    encoder = load(
        checkpoints.encoder(
            tmp_path / "model", checkpoints.qwen3(tmp_path / "base", english=True), "mean"
        )
    )
    assert not encoder.reads("服务器的端口")


@pytest.mark.parametrize(
    ("break_it", "error", "says"),
    [
        ("nowhere", ModelNotFound, r"no such folder; check retrieval\.embed\.model"),
        ("hub", ModelNotFound, r"not in the local hub cache.*retrieval\.embed\.download=true"),
        ("empty", ModelNotFound, r"retrieval\.embed\.model is empty"),
        ("pickle", ModelUntrusted, r"no \.safetensors file"),
        ("code", ModelUntrusted, r"code of its own"),
        ("torn", ModelNotFound, r"could not be loaded"),
        ("device", BackendMissing, r"retrieval\.embed\.device=cuda:9 cannot be used.*set cpu"),
    ],
)
def test_what_cannot_be_loaded_is_named(
    tmp_path: Path, bge: Path, break_it: str, error: type[Exception], says: str
) -> None:
    """The message has the model, the reason and the remedy; code and pickles are never run."""
    base = checkpoints.xlm_roberta(tmp_path / "base")
    weights, settings = base / "model.safetensors", base / "config.json"
    values: dict[str, object] = {}
    if break_it == "pickle":
        weights.rename(base / "pytorch_model.bin")
    elif break_it == "code":
        known = json.loads(settings.read_text(encoding="utf-8"))
        known["auto_map"] = {"AutoModel": "evil.Model"}
        settings.write_text(json.dumps(known), encoding="utf-8")
    elif break_it == "torn":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif break_it == "device":
        values = {"device": "cuda:9"}
    model = {"nowhere": tmp_path / "none", "hub": Path("nobody/nothing"), "empty": ""}
    with pytest.raises(error, match=says):
        load(Path(model.get(break_it, base)) if break_it != "empty" else "", **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["bge-reranker-v2-m3", "Qwen3-Reranker-0.6B"])
def test_a_cross_encoder_scores_pairs(tmp_path: Path, kind: str) -> None:
    """Scores lie in (0, 1), by pair, whatever the batch; long texts are cut, none gives none."""
    if kind.startswith("bge"):
        folder = checkpoints.xlm_roberta(tmp_path / kind, labels=1)
    else:
        folder = checkpoints.qwen3(tmp_path / kind, causal=True)
    options = RerankSettings(model=str(folder), dtype="float32", batch_size=2, max_tokens=400)
    reranker = cross.build(options)
    scores = reranker.rank("How do I change the port?", TEXTS)
    alone = np.concatenate([reranker.rank("How do I change the port?", [t]) for t in TEXTS])
    other = reranker.rank("服务器", TEXTS[:1])
    assert (scores.shape, scores.dtype.name, reranker.calibrated) == ((4,), "float32", False)
    assert ((scores > 0) & (scores < 1)).all()
    assert len(set(scores.tolist())) > 1
    assert other[0] != pytest.approx(scores[0], abs=1e-6)
    assert len(reranker.rank("x", [])) == 0
    np.testing.assert_allclose(scores, alone, atol=1e-4)


def test_a_classifier_of_several_classes_is_no_reranker(tmp_path: Path) -> None:
    """One score a pair, or a clear refusal."""
    folder = checkpoints.xlm_roberta(tmp_path / "model", labels=3)
    with pytest.raises(ModelNotFound, match="3 scores a pair; choose a reranker that gives one"):
        cross.build(RerankSettings(model=str(folder)))


def test_bfloat16_is_close_and_still_unit_length(bge: Path) -> None:
    """The number format asked for reaches the model."""
    exact, rough = load(bge), load(bge, dtype="bfloat16")
    left, right = (e.embed(TEXTS[:2], "passage") for e in (exact, rough))
    assert ((left * right).sum(axis=1) > 0.98).all()
    np.testing.assert_allclose(np.linalg.norm(right, axis=1), 1, atol=1e-6)
    assert sentence.precision("float32", "cpu") != sentence.precision("bfloat16", "cpu")


@pytest.mark.parametrize("preset", ["small", "gpu"])
def test_a_preset_names_backends_that_exist(preset: str, root: Path) -> None:
    """Its settings are valid, and its models are asked for by the same names."""
    values = tomllib.loads((root / "presets" / f"{preset}.toml").read_text(encoding="utf-8"))
    settings = RetrievalSettings.model_validate(values["retrieval"])
    got = (
        settings.embed.backend in menu.available("retrieval.embed"),
        settings.rerank.backend in menu.available("retrieval.rerank"),
        settings.embed.model.count("/"),
        settings.embed.download,
    )
    assert got == (True, True, 1, False)
