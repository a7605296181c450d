from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from retrieval.config import EmbedSettings, RerankSettings
from retrieval.embed import _weights
from retrieval.embed.base import Vectors
from retrieval.embed.minilm import MiniLM
from retrieval.errors import ModelNotFound, ModelUntrusted
from retrieval.fit import encoder, rerank
from retrieval.fit._checkpoint import named
from retrieval.fit._corpus import Corpus, Crossed, crossed, held_out
from retrieval.fit._glossary import Asked, Switch, glossary, terms
from retrieval.fit._groups import Group
from retrieval.fit._pairs import Pair, align, merged
from retrieval.fit._student import Scorer, Student, batch
from retrieval.fit._vocabulary import choose, spelled, start
from retrieval.rerank import minilm

TOKENS = ["如何", "安装", "软件", "猫", "睡", "垫子", "上"]
ENGLISH = ["How do I install the software?", "The cat sleeps on the mat.", "Delete the file."]
CHINESE = ["如何安装软件", "猫睡在垫子上", "删除文件"]


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything a training run keeps goes to a folder of the test's."""
    monkeypatch.chdir(tmp_path)
    for folder in (encoder.WORK, rerank.WORK):
        folder.mkdir(parents=True)
    return tmp_path


def student(seed: int = 1) -> Student:
    """Return a student with random rows for TOKENS."""
    rows = np.random.default_rng(seed).normal(size=(len(TOKENS), _weights.DIM)).astype(np.float32)
    return Student(rows, 4, seed, "cpu", torch.float32)


def corpus() -> Corpus:
    """Return a corpus of three sentences, said again and again."""
    pairs = [
        Pair(e, z, f"page {n}") for n in range(16) for e, z in zip(ENGLISH, CHINESE, strict=True)
    ]
    teacher = np.random.default_rng(2).normal(size=(len(pairs), _weights.DIM))
    teacher /= np.linalg.norm(teacher, axis=1, keepdims=True)
    questions = [(z, z * 2) for z in CHINESE * 4]
    teachers = teacher.astype(np.float16)
    found = Corpus(pairs, 24, teachers, questions, [n % 3 for n in range(12)], 6)
    found.held_pairs, found.held_questions = [0, 1, 2], [0, 1]
    return found


def across() -> Crossed:
    """Return three questions each way, with random vectors for what is English."""
    made = np.random.default_rng(4).normal(size=(3, _weights.DIM)).astype(np.float32)
    asked = [(text, place) for place, text in enumerate(CHINESE)]
    found = Crossed(asked, made, [text * 3 for text in CHINESE], made)
    found.held_asked, found.held_read = [0], [0]
    return found


def test_paragraphs_meet_in_order() -> None:
    """A paragraph left out on one side moves no other; sentences are matched within paragraphs."""
    english = [
        "Installing",
        "Run pip install plumbline. Then start it with plumbline chat.",
        "This note was never translated, and nobody knows why it was not, in all these years.",
        "Set PORT to 8080 before the start.",
    ]
    chinese = [
        "安装",
        "运行 pip install plumbline。然后用 plumbline chat 启动。",
        "启动之前把 PORT 设为 8080。",
    ]
    found = {(p.en, p.zh) for p in align(english, chinese, "page")}
    assert {(english[0], chinese[0]), (english[1], chinese[1]), (english[3], chinese[2])} <= found
    assert ("Run pip install plumbline.", "运行 pip install plumbline。") in found
    assert not any(en == english[2] for en, _ in found)


def test_long_pairs_stay_in_their_document() -> None:
    """Consecutive segments are joined up to a length and never across documents."""
    pairs = [Pair("one two", "一二", "a"), Pair("three", "三", "a"), Pair("four", "四", "b")]
    assert [*merged(pairs, 100)] == [Pair("one two three", "一二三", "a")]
    assert [*merged(pairs, 5)] == []


def test_tokens_are_characters_first() -> None:
    """Every common character has a row before any word has; counts are weighted."""
    found = choose([("安装软件" * 9, 1.0), ("罕", 1.0)], 7, rarest=6.0)
    assert set(found[:4]) == set("安装软件")
    assert set(found[4:]) <= {"安装", "软件"}
    assert "罕" not in found


def test_a_spelling_has_one_token() -> None:
    """Traditional forms stand beside their word, unless they are tokens themselves."""
    lines = spelled(["安装", "后", "後"])
    assert lines[0].split() == ["安装", "安裝"]
    assert lines[1:] == ["后", "後"]
    assert _weights.spellings(lines)["後"] == 2


def test_rows_start_at_their_translation() -> None:
    """A word aligned with one English word starts in that word's direction."""
    lines = spelled(["猫", "狗", "睡", "跑"])
    tokenizer = _weights.tokenizer(_weights.spellings(lines))
    said = [
        ("cat sleeps", "猫睡"),
        ("dog runs", "狗跑"),
        ("cat runs", "猫跑"),
        ("dog sleeps", "狗睡"),
    ]
    base = _weights.english()[_weights.EMBEDDINGS]
    texts = ["猫睡", "狗跑", "猫跑", "狗睡"] * 40
    found = start(said * 8, texts, {}, tokenizer, base, 3)
    cat = base[tokenizer.encode("cat", add_special_tokens=False).ids[0]]
    cosines = found @ cat / np.linalg.norm(found, axis=1) / np.linalg.norm(cat)
    assert cosines.argmax() == 0
    assert cosines[0] > 0.9


def test_rows_start_where_the_glossary_says() -> None:
    """A word the pairs lack starts at its first translation; many alignments outweigh it."""
    lines = spelled(["猫", "狗", "国王"])
    tokenizer = _weights.tokenizer(_weights.spellings(lines))
    base = _weights.english()[_weights.EMBEDDINGS]
    said = [("cat", "猫"), ("dog", "狗")] * 300
    meant = {"国王": ("king", "monarch"), "猫": ("stone",)}
    found = start(said, ["猫狗国王"] * 40, meant, tokenizer, base, 3)
    for row, word in enumerate(("cat", "dog", "king")):
        there = base[tokenizer.encode(word, add_special_tokens=False).ids[0]]
        cosines = found @ there / np.linalg.norm(found, axis=1) / np.linalg.norm(there)
        assert cosines.argmax() == row


def test_the_glossary_is_whole() -> None:
    """Every line has a Chinese word and translations in Latin letters; no word comes twice."""
    words = glossary()
    lines = (Path(encoder.__file__).parent / "glossary.tsv").read_text(encoding="utf-8")
    assert len(words) == lines.count("\n") > 20_000
    for word, meant in words.items():
        assert all("\u3400" <= character <= "\u9fff" for character in word)
        assert meant
        assert all(text.isascii() and text.strip() == text != "" for text in meant)
    assert {pair.en for pair in terms({"国王": ("king", "monarch")})} == {"king", "monarch"}


def test_words_are_exchanged() -> None:
    """The longest translation wins, inflected forms count, and the rest is left as it was."""
    switch = Switch({"国王": ("king",), "城堡": ("castle",), "北京": ("Beijing", "Peking")})
    switch_of_two = Switch({"机器": ("machine",), "机器学习": ("machine learning",)})
    dice = random.Random(1)
    assert switch("The kings built castles in Beijing.", 1.0, dice) == "国王 built 城堡在北京。"
    assert switch_of_two("Machine learning needs machines", 1.0, dice) == "机器学习 needs 机器"
    assert switch("The kings built castles.", 0.0, dice) == "The kings built castles."


def test_held_out_passages_are_not_trained_on() -> None:
    """A question about a held-out passage, in either language, is for checking only."""
    texts = [f"passage {n}" for n in range(200)]
    rows = [Asked("who", "谁", lang, text) for text in texts for lang in ("en", "zh")]
    found = crossed(rows, lambda texts: np.zeros((len(texts), 4), dtype=np.float32))
    held = [text for text in texts if held_out(text)]
    assert 0 < len(held) < 60
    assert [texts[found.asked[i][1]] for i in found.held_asked] == held
    assert [found.read[i] for i in found.held_read] == held
    asked, read = found.rows(1000, np.random.default_rng(0))
    assert not set(asked) & set(found.held_asked)
    assert not set(read) & set(found.held_read)
    assert len(asked) == len(read) == 200 - len(held)


def test_the_student_starts_as_the_encoder() -> None:
    """Before the first step English ids give the frozen encoder's vectors."""
    ids = [encoded.ids for encoded in _weights.tokenizer().encode_batch(ENGLISH)]
    made = student()
    with torch.inference_mode():
        found = made(*batch(ids, "cpu"), made.change.merged(torch.float32)).numpy()
    model = minilm_vectors(ENGLISH)
    assert np.allclose(found, model, atol=1e-5)


def minilm_vectors(texts: list[str]) -> Vectors:
    """Return the plain encoder's vectors."""
    return MiniLM(EmbedSettings(dtype="float32"), None).embed(texts, "query")


def trained(steps: int, work: Path, stop: int | None = None) -> tuple[Student, list[str]]:
    """Train a student for `steps`, its checkpoint in `work`."""
    plan = encoder.Plan(
        steps=steps,
        pairs=16,
        questions=2,
        crossed=2,
        distractors=4,
        every=2,
        save_every=1,
        check_every=2,
    )
    made = student()
    tokenizer = _weights.tokenizer(_weights.spellings(spelled(TOKENS)))
    trainer = encoder.Trainer(corpus(), across(), made, tokenizer, plan, "cpu")
    lines = []
    for line in trainer.run():
        lines.append(line)
        if trainer.loop.step == stop:
            break
    return made, lines


def test_training_goes_on_where_it_stopped(work: Path) -> None:
    """An interrupted run ends with the weights of one that was not."""
    whole, lines = trained(4, work)
    assert any("held out" in line for line in lines)
    for path in (work / encoder.WORK).glob("encoder-*.safetensors"):
        path.unlink()
    trained(4, work, stop=2)
    again, _ = trained(4, work)
    for left, right in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.allclose(left, right, atol=1e-6)


def test_other_data_is_another_run(tmp_path: Path) -> None:
    """A checkpoint is named by all that its weights follow from, in whatever order keys come."""
    plan: dict[str, object] = {"steps": 4, "rate": 0.1}
    path = named(tmp_path / "work", "rerank", [plan, ["question", "text"]])
    assert path.parent.is_dir()
    assert path == named(path.parent, "rerank", [{"rate": 0.1, "steps": 4}, ("question", "text")])
    others: list[list[object]] = [
        [plan],
        [plan, ["question", "texts"]],
        [plan | {"steps": 5}, ["question", "text"]],
    ]
    assert len({path, *(named(path.parent, "rerank", about) for about in others)}) == 4


def test_what_is_shipped_is_what_was_trained(work: Path) -> None:
    """The product's encoder gives the student's vectors, up to the rounding of its rows."""
    made, _ = trained(2, work)
    encoder.ship(made, spelled(TOKENS), work)
    found = _weights.extension(work)
    assert found is not None
    weights = _weights.chinese(found)
    for name, whole in made.change.merged(torch.float32).items():
        assert np.allclose(weights[name], whole.detach().numpy(), atol=1e-3)
    error = np.abs(found.rows - made.rows.detach().numpy()).max()
    assert error <= np.abs(found.rows).max() / 127


def test_a_reranker_is_trained_shipped_and_read(work: Path) -> None:
    """It learns the groups it sees, gives probabilities, and is bound to its encoder."""
    made, _ = trained(1, work)
    (work / "encoder").mkdir()
    encoder.ship(made, spelled(TOKENS), work / "encoder")
    extension = _weights.extension(work / "encoder")
    assert extension is not None
    group = Group(
        "如何安装软件", ("install the software", "the cat sleeps", "a mat", "b", "c", "d")
    )
    plan = rerank.Plan(
        steps=8, groups=2, held=4, rank=2, rate=5e-3, head_rate=5e-2, warmup=2, check_every=8
    )
    scorer = Scorer(extension, 1, plan.rank, plan.seed, "cpu", torch.float32)
    tokenizer = _weights.tokenizer(extension.spellings)
    trainer = rerank.Trainer([group] * 8, scorer, tokenizer, plan, "cpu")
    assert [line for line in trainer.run() if "right text first in 1.000" in line]
    path = work / "rerank.safetensors"
    rerank.ship(scorer, trainer.line(), extension.revision, path)
    loaded = minilm.load(path, extension, RerankSettings(dtype="float32", batch_size=2))
    scores = loaded.rank(group.question, group.texts)
    assert scores.argmax() == 0
    assert ((scores > 0) & (scores < 1)).all()
    assert loaded.rank("?", []).shape == (0,)
    other = _weights.Extension("other", extension.spellings, extension.rows, extension.changes)
    with pytest.raises(ModelUntrusted, match="made for encoder"):
        minilm.load(path, other, RerankSettings())
    with pytest.raises(ModelNotFound, match=r"set retrieval\.rerank\.backend to none"):
        minilm.load(work / "none", extension, RerankSettings())


def test_question_and_text_share_the_length() -> None:
    """A long question leaves room for the text, and nothing is longer than the limit."""
    tokenizer = _weights.tokenizer()
    found = minilm.joined(tokenizer, "why " * 500, ["short", "long " * 500], 100)
    assert [len(ids) for ids in found] == [minilm.QUESTION_TOKENS + 3, 100]
    assert all(ids[0] == 101 and ids[-1] == 102 and ids.count(102) == 2 for ids in found)
