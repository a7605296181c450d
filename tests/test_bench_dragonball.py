from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import dragonball
from tests.bench_files import last_line, write

DOCS = [
    {"id": "d0", "title": "Varnholm", "text": "Varnholm Ltd was founded in 1874.", "lang": "en"},
    {"id": "d1", "title": "海港公司", "text": "海港公司成立于1874年。", "lang": "zh"},
]


def query(name: str, text: str, lang: str, kind: str, **more: Any) -> dict[str, Any]:
    """Make a question."""
    return {"id": name, "text": text, "lang": lang, "domain": "x", "type": kind, **more}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return two documents with a question each, and one that nothing answers."""
    monkeypatch.setenv("PLUMBLINE_RETRIEVAL__EMBED__BACKEND", "hashing")
    write(tmp_path / "corpus.jsonl.gz", DOCS)
    known: dict[str, Any] = {"is_impossible": False, "answer": "1874.", "refs": ["founded in 1874"]}
    rows = [
        query("a", "When was Varnholm Ltd founded?", "en", "Factual Question", **known),
        query("b", "海港公司何时成立？", "zh", "Factual Question", **known | {"refs": ["成立"]}),
        query(
            "c",
            "Who founded Varnholm Ltd?",
            "en",
            "Multi-hop Reasoning Question",
            is_impossible=True,
            answer="Unable to answer.",
            refs=[],
        ),
    ]
    write(tmp_path / "queries.jsonl.gz", rows)
    qrels = "query-id\tdoc-id\trelevance\na\td0\t1\nb\td1\t1\nb\td0\t0\n"
    (tmp_path / "qrels.tsv").write_text(qrels, encoding="utf-8")
    return tmp_path


def test_questions_know_their_documents(folder: Path) -> None:
    """Only documents of positive relevance hold the answer."""
    tasks = {task.text: task for task in dragonball.read(folder)}
    assert tasks["海港公司何时成立？"].sources == {"dragonball:d1"}
    assert tasks["Who founded Varnholm Ltd?"].type == "multi_hop_reasoning"


def test_answers_are_measured_by_language_and_type(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A policy that repeats the best passage holds gold and reference, and never abstains."""
    dragonball.main(["--data", str(folder), "--policy", "echo"])
    found = last_line(capsys)
    english = found["en"]["types"]
    assert english["multi_hop_reasoning"] == {"n": 1, "abstained": 0.0}
    factual = english["factual"]
    names = ("answered", "wrong_abstention", "keypoints", "contains", "cited_right")
    assert [factual[name] for name in names] == [1.0, 0.0, 1.0, 1.0, 1.0]
    assert 0 < factual["rouge_l"] < 1
    assert (found["zh"]["n"], found["n"], found["policy"]) == (1, 3, "echo")


def test_a_limit_is_one_for_each_type_and_language(folder: Path) -> None:
    """One question of each of the three kinds."""
    assert len(dragonball.read(folder, 1)) == 3
