from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.config import EmbedSettings, RetrievalSettings
from retrieval.errors import RetrievalError
from retrieval.fit import fusion
from retrieval.fit.fusion import Example, best, fit, read, run, write
from retrieval.search import Candidates

SETTINGS = RetrievalSettings(embed=EmbedSettings(backend="hashing"))
ROWS = {
    "en": ("The {} sleeps in the {}.", "Where does the {} sleep?", "cat dog owl fox hen".split()),
    "zh": ("{}住在{}里面。", "{}住在什么地方？", "小猫 大狗 老虎 白鹅 公鸡".split()),
}


def row(question: str, context: str, **more: Any) -> dict[str, Any]:
    """Make a row as the question files have it."""
    answers = [{"text": context[:2], "start": 0}]
    return {"question": question, "context": context, "title": "t", "answers": answers, **more}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with every training file, tiny."""
    for tongue, names in fusion.FILES.items():
        context, question, animals = ROWS[tongue]
        for name in names:
            path = tmp_path / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with gzip.open(path, "wt", encoding="utf-8") as file:
                for one, other in zip(animals, reversed(animals), strict=True):
                    text = json.dumps(row(question.format(one), context.format(one, other)))
                    file.write(text + "\n")
                held = row("seen?", "Seen.", split="train")
                file.write(json.dumps(held) + "\n")
    return tmp_path / "data"


def test_both_languages_are_fitted(data: Path, tmp_path: Path) -> None:
    """A run writes weights in their ranges for both languages, with a card, and repeats itself."""
    lines = list(run(data, tmp_path / "out", 4, SETTINGS))
    assert [line.split(":")[0] for line in lines[:2]] == ["en", "zh"]
    text = (tmp_path / "out" / "weights.json").read_text(encoding="utf-8")
    (one,) = json.loads(text)["fits"]
    assert (one["embedder"], one["reranker"]) == ("hashing-256", "")
    for values in one["languages"].values():
        assert 0 <= values["dense"] <= 1
        assert values["questions"] == 4
        assert (
            values["ndcg10_fused"] >= max(values["ndcg10_lexical"], values["ndcg10_dense"]) - 0.01
        )
    assert "hashing-256" in (tmp_path / "out" / "card.md").read_text(encoding="utf-8")
    list(run(data, tmp_path / "again", 4, SETTINGS))
    assert (tmp_path / "again" / "weights.json").read_text(encoding="utf-8") == text


def test_other_fits_stay(tmp_path: Path) -> None:
    """A fit replaces the one of the same encoder and reranker, and no other."""
    values = {"en": {"dense": 0.5, "floor": 0.0, "rerank": 0.8, "questions": 1, "ndcg10_x": 0.5}}
    write(tmp_path, "one", "", values)
    write(tmp_path, "other", "", values)
    write(tmp_path, "one", "", {"en": {**values["en"], "dense": 0.7}})
    fits = json.loads((tmp_path / "weights.json").read_text(encoding="utf-8"))["fits"]
    assert [(f["embedder"], f["languages"]["en"]["dense"]) for f in fits] == [
        ("one", 0.7),
        ("other", 0.5),
    ]


def test_rows_that_were_trained_on_are_not_read(data: Path) -> None:
    """Encoder and reranker have seen the train split: their scores there say too much."""
    rows = read(data / fusion.FILES["en"][0])
    assert len(rows) == 5
    assert "seen?" not in {r["question"] for r in rows}


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot read"), ("{}\n", "line 1"), ("[1]\n", "line 1"), ("{bad\n", "line 1")],
)
def test_bad_files_are_named(content: str | None, words: str, tmp_path: Path) -> None:
    """A missing file and a malformed line are errors that name them."""
    path = tmp_path / "q.jsonl.gz"
    if content is not None:
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.write(content)
    with pytest.raises(RetrievalError, match=words):
        read(path)


@given(st.integers(0, 20), st.integers(0, 20))
def test_the_middle_of_the_best_is_taken(one: int, other: int) -> None:
    """Of a plateau of equal weights the middle one is chosen."""
    low, high = sorted((one / 20, other / 20))
    chosen = best(lambda w: 1.0 if low - 1e-9 <= w <= high + 1e-9 else 0.0)
    assert low - 1e-9 <= chosen <= high + 1e-9


@pytest.mark.parametrize(("dense_is_right", "expected"), [(True, 1.0), (False, 0.0)])
def test_the_side_that_is_right_gets_the_weight(dense_is_right: bool, expected: float) -> None:
    """A side that always knows outweighs one that never does, and so does a reranker."""
    right, wrong = {1: 0.9, 2: 0.1}, {1: 0.1, 2: 0.9}
    dense, lexical = (right, wrong) if dense_is_right else (wrong, right)
    found = Candidates(dense, lexical, frozenset(dense))
    examples = [Example("gold", found, {1: "gold", 2: "x"}, {1: 0.9, 2: 0.1})] * 4
    weights, scores = fit(examples, depth=2)
    assert abs(weights.dense - expected) < 0.5
    assert scores["fused"] == scores["reranked"] == 1.0
    poor = [Example("gold", found, {1: "gold", 2: "x"}, {1: 0.1, 2: 0.9})] * 4
    assert fit(poor, depth=2)[0].rerank < 0.5


def test_an_encoder_that_cannot_read_gets_no_weight() -> None:
    """Where the dense side found nothing, it weighs nothing."""
    found = Candidates({}, {1: 2.0, 2: 1.0}, frozenset())
    weights, scores = fit([Example("a", found, {1: "a", 2: "b"}, {})], depth=0)
    assert (weights.dense, weights.floor) == (0.0, -1.0)
    assert scores == {"lexical": 1.0}
