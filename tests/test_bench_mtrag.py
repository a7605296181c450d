from __future__ import annotations

from pathlib import Path

import pytest

from assistant.memory import Memory
from bench import mtrag
from tests.bench_files import last_line, write

CORPUS = [
    {"id": "p0", "title": "Varnholm", "text": "The harbour of Varnholm was built in 1874."},
    {"id": "p1", "title": "Kelso", "text": "The lighthouse of Kelso is painted red."},
]
HISTORY = [
    {"speaker": "user", "text": "Tell me about the lighthouse of Kelso."},
    {"speaker": "agent", "text": "The lighthouse of Kelso is a tower."},
    {"speaker": "user", "text": "What colour is it?"},
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return three tasks: one alone, one with a history, one that nothing answers."""
    monkeypatch.setenv("PLUMBLINE_RETRIEVAL__EMBED__BACKEND", "hashing")
    write(tmp_path / "corpus.jsonl.gz", CORPUS)
    alone = [{"speaker": "user", "text": "When was the harbour of Varnholm built?"}]
    absent = [{"speaker": "user", "text": "Who paid for the harbour of Varnholm?"}]
    rows = [
        {"id": "a", "input": alone, "contexts": [{"id": "p0"}], "answerability": ["ANSWERABLE"]},
        {"id": "b", "input": HISTORY, "contexts": [], "answerability": ["PARTIAL"]},
        {"id": "c", "input": absent, "contexts": [], "answerability": ["UNANSWERABLE"]},
    ]
    write(tmp_path / "tasks.jsonl.gz", rows)
    qrels = "query-id\tdoc-id\trelevance\nb\tp1\t1\nb\tp0\t0\n"
    (tmp_path / "qrels_x.tsv").write_text(qrels, encoding="utf-8")
    return tmp_path


def test_references_come_from_the_task_and_the_judgements(folder: Path) -> None:
    """Irrelevant passages are none."""
    found = [task.sources for task in mtrag.read(folder)]
    assert found == [{"mtrag:p0"}, {"mtrag:p1"}, frozenset()]


def test_the_turns_before_are_the_assistants_memory(folder: Path, tmp_path: Path) -> None:
    """Question and answer become a turn of a conversation, and the last question none."""
    memory = Memory(tmp_path / "conversations.db")
    place = mtrag.remembered(memory, mtrag.read(folder)[1])
    turns = memory.turns(place, mtrag.USER)
    got = [(t.user_text, t.reply.text, t.reply.outcome) for t in turns]
    assert got == [(HISTORY[0]["text"], HISTORY[1]["text"], "answered")]


def test_a_question_that_leans_on_its_history_is_answered(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """“What colour is it?” finds the lighthouse, and the decision on the last task is wrong."""
    mtrag.main(["--data", str(folder), "--policy", "echo"])
    found = last_line(capsys)
    assert (found["answered"], found["cited_right"], found["n"]) == (1.0, 1.0, 3)
    assert found["idk_accuracy"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["abstained"] == {"answerable": 0.0, "partial": 0.0, "unanswerable": 0.0}
