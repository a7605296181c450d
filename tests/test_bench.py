"""What the benchmarks print, on files small enough for a test."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import answers, freshness, ingest, pii
from bench.common import interval, rate, report, scratch

ARTICLES = {
    "Harbour": ("The harbour of Varnholm was built in 1874 by Erik Lund.", "1874", "Erik Lund"),
    "Lighthouse": (
        "The lighthouse of Kelso is 41 metres tall and painted red.",
        "41 metres",
        "red",
    ),
    "Library": ("The library of Ostrava holds 9000 maps in Latin.", "9000 maps", "Latin"),
}
QUESTIONS = {
    "Harbour": ("When was the harbour of Varnholm built?", "Who built the harbour of Varnholm?"),
    "Lighthouse": ("How tall is the lighthouse of Kelso?", "What colour is the Kelso lighthouse?"),
    "Library": ("How many maps does the library of Ostrava hold?", "Which language in Ostrava?"),
}
KEYS = [
    "n",
    "right",
    "cited_right",
    "first_right",
    "refused_right",
    "refused_wrong",
    "sentences",
    "p50_ms",
    "p95_ms",
    "policy",
]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """Six questions on three articles, and one that its paragraph does not answer."""
    rows: list[dict[str, object]] = []
    for title, (context, *gold) in ARTICLES.items():
        for number, (question, answer) in enumerate(zip(QUESTIONS[title], gold, strict=True)):
            start = context.index(answer)
            row: dict[str, object] = {
                "id": f"{title}{number}",
                "question": question,
                "title": title,
            }
            rows.append(row | {"context": context, "answers": [{"text": answer, "start": start}]})
    rows.append({**rows[0], "id": "no", "answers": [], "is_impossible": True})
    path = tmp_path / "tiny.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the encoder without weights, as a user would choose it: by the environment."""
    monkeypatch.setenv("PLUMBLINE_RETRIEVAL__EMBED__BACKEND", "hashing")


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """Return the JSON of the last line printed."""
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert isinstance(found, dict)
    return found


def test_answers_without_gaps(questions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All answerable questions are asked; without absent articles nothing is rightly refused."""
    answers.main(["--qa", str(questions), "--policy", "echo"])
    found = last_line(capsys)
    got = (list(found), found["n"], found["refused_right"], found["policy"])
    assert got == (KEYS, 6, None, "echo")


def test_answers_are_judged_by_text_and_by_place(
    questions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence an article, quoted from the right paragraph: every rate is full."""
    answers.main(["--qa", str(questions), "--policy", "echo"])
    found = last_line(capsys)
    names = ("right", "cited_right", "first_right", "refused_wrong", "sentences")
    assert [found[name] for name in names] == [1.0, 1.0, 1.0, 0.0, 1.0]


def test_answers_with_articles_left_out(
    questions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --absent the questions of the articles left out count as to be refused."""
    answers.main(["--qa", str(questions), "--absent"])
    found = last_line(capsys)
    got = (list(found), found["n"], found["policy"], found["refused_right"] is not None)
    assert got == (KEYS, 6, "extract", True)


def test_answers_of_a_sample(questions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--limit asks so many of the questions, against the whole base."""
    answers.main(["--qa", str(questions), "--limit", "2", "--policy", "echo"])
    printed = capsys.readouterr().out
    found = json.loads(printed.strip().splitlines()[-1])
    assert (found["n"], "6 answerable questions, 3 paragraphs" in printed) == (2, True)


def test_ingestion_is_run_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second run embeds nothing, and a broken file is counted and named."""
    folder = tmp_path / "documents"
    folder.mkdir()
    for title, (text, *_) in ARTICLES.items():
        (folder / f"{title}.md").write_text(f"# {title}\n\n{text}\n", encoding="utf-8")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 and nothing more")
    ingest.main([str(folder)])
    printed = capsys.readouterr().out
    found = json.loads(printed.strip().splitlines()[-1])
    keys = [
        "documents",
        "chunks",
        "embedded",
        "chunks_per_s",
        "seconds",
        "embedded_again",
        "seconds_again",
    ]
    got = (list(found), found["chunks"], found["embedded"], found["embedded_again"])
    assert (got, "1 failed" in printed) == ((keys, 3, 3, 0), True)


def test_a_report_is_a_table_and_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The last line alone is JSON, with the keys in order; start-up's are these two."""
    report("startup", [("import", "0.41 s", "median")], {"import_s": 0.41, "ready_s": 3.2})
    *table, line = capsys.readouterr().out.strip().splitlines()
    got = (line, any("0.41 s" in row for row in table))
    assert got == ('{"import_s": 0.41, "ready_s": 3.2}', True)


def test_a_report_keeps_chinese_readable(capsys: pytest.CaptureFixture[str]) -> None:
    """Names of files stay as they are."""
    report("评测", [], {"file": "问题.gz"})
    assert last_line(capsys) == {"file": "问题.gz"}


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_an_interval_holds_its_rate(hits: list[bool]) -> None:
    """The bootstrap interval lies in [0, 1], and is a point where all hits are equal."""
    low, high = interval(hits, rounds=200)
    value = sum(hits) / len(hits)
    point = len(set(hits)) > 1 or low == high == value
    assert (0 <= low <= high <= 1, point) == (True, True)


def test_an_interval_is_the_same_every_time() -> None:
    """The draws are seeded."""
    hits = [True, False, True, True]
    assert interval(hits) == interval(hits)


def test_of_nothing_there_is_no_rate() -> None:
    """No questions give None, and not zero."""
    assert (rate([]), all(math.isnan(v) for v in interval([]))) == (None, True)


@pytest.mark.parametrize(("hits", "value"), [([True, False, False], 0.3333), ([True], 1.0)])
def test_rates_have_four_digits(hits: list[bool], value: float) -> None:
    """More would pretend."""
    assert rate(hits) == value


def test_the_scratch_folder_goes_even_after_an_error() -> None:
    """A benchmark that fails leaves nothing behind."""
    kept: list[Path] = []

    def broken() -> None:
        with scratch() as folder:
            (folder / "file").write_text("x", encoding="utf-8")
            kept.append(folder)
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    assert not kept[0].exists()


def test_freshness_counts_what_is_stale(capsys: pytest.CaptureFixture[str]) -> None:
    """Edits answer, deletions do not, and a run over unchanged files embeds nothing."""
    freshness.main(["--chunks", "250", "--files", "12", "--edits", "4", "--deletes", "4"])
    found = last_line(capsys)
    assert (found["chunks"], found["files"], found["edits"]) == (258, 12, 4)
    assert (found["stale_after_delete"], found["resync_embeddings"]) == (0, 0)
    assert {"edit_p95_s", "resync_s", "rename_p95_s"} <= found.keys()


def test_personal_data_is_counted_by_overlap(tmp_path: Path) -> None:
    """A find that meets a span of its kind is right; missed spans and strange finds count."""
    text = "Mail a.b@example.org or 13812345678, not c.d@example.org."
    spans = [
        {"type": "EMAIL_ADDRESS", "start": 7, "end": 20},
        {"type": "IBAN_CODE", "start": 0, "end": 4},
        {"type": "PERSON", "start": 0, "end": 4},
    ]
    (tmp_path / "pii-synthetic").mkdir()
    path = tmp_path / "pii-synthetic" / "eval.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write(json.dumps({"text": text, "spans": spans}) + "\n")
    found = pii.measure(list(pii.read(tmp_path)))
    assert (found["email"]["recall"], found["email"]["precision"]) == (1.0, 0.5)
    assert (found["iban"]["recall"], found["phone"]["precision"]) == (0.0, 0.0)
    (tmp_path / "a.md").write_text("Write to a.b@example.org.\n")
    (tmp_path / "b.md").write_text("电话是多少？\n", encoding="utf-8")
    assert pii.prose(tmp_path)["en"][1] == {"email": 1}
    assert pii.prose(tmp_path)["zh"][1].total() == 0
