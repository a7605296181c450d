from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import ir, peers, retrieval
from retrieval.config import EmbedSettings
from retrieval.embed import hashing

DOCS = [
    {"id": "moon-en", "title": "Apollo", "text": "Apollo landed people on the Moon.", "lang": "en"},
    {"id": "cat-en", "title": "Cats", "text": "Cats sleep for most of the day.", "lang": "en"},
    {"id": "moon-zh", "title": "阿波罗", "text": "阿波罗计划把人送上了月球。", "lang": "zh"},
]
QUERIES = [
    {"id": "q-en", "text": "Who landed on the Moon?", "lang": "en", "split": "train"},
    {"id": "q-zh", "text": "谁把人送上了月球？", "lang": "zh", "split": "test"},
    {"id": "q-none", "text": "Nothing is relevant to this.", "lang": "en", "split": "train"},
]
QRELS = [("q-en", "moon-en", 2), ("q-en", "moon-zh", 1), ("q-en", "cat-en", 0)]
QRELS += [("q-zh", "moon-en", 1), ("q-zh", "moon-zh", 1), ("q-zh", "gone", 1)]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as .jsonl.gz."""
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a small bilingual collection."""
    place = tmp_path / "moon"
    place.mkdir()
    write(place / "corpus.jsonl.gz", DOCS)
    write(place / "queries.jsonl.gz", QUERIES)
    rows = ["query-id\tdoc-id\trelevance", *("\t".join(map(str, row)) for row in QRELS)]
    (place / "qrels.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return place


def line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return the object of the last line printed."""
    found: dict[str, Any] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    return found


def test_only_what_can_be_found_is_asked_for(folder: Path) -> None:
    """Queries without a relevant document, and judgements of absent ones, are left out."""
    data = ir.read(folder)
    kept = ([q.id for q in data.queries], data.qrels["q-zh"])
    assert kept == (["q-en", "q-zh"], {"moon-en": 1, "moon-zh": 1})


def test_a_direction_leaves_one_language_on_each_side(folder: Path) -> None:
    """English questions over Chinese documents, judged by those alone."""
    data = ir.across(ir.read(folder), "en-zh")
    got = ([d.id for d in data.docs], [q.id for q in data.queries], data.qrels["q-en"])
    assert got == (["moon-zh"], ["q-en"], {"moon-zh": 1})


def test_a_drawn_part_is_the_same_every_time(folder: Path) -> None:
    """A limit draws by a seed; a split keeps its own queries."""
    data = ir.read(folder)
    got = (ir.chosen(data, 1, "").queries, [q.id for q in ir.chosen(data, 0, "test").queries])
    assert got == (ir.chosen(data, 1, "").queries, ["q-zh"])


def test_distractors_keep_the_mix_and_are_not_the_answers(folder: Path, tmp_path: Path) -> None:
    """As many as asked for, in the languages of the corpus, without its own paragraphs."""
    english = [f"Paragraph {n} tells of ships and harbours, " + "sails " * 40 for n in range(20)]
    chinese = [f"第{n}段讲的是船和港口，" + "帆船靠岸" * 12 for n in range(20)]
    docs = [ir.Doc("a", "", english[0], "en"), ir.Doc("b", "", chinese[0], "zh")]
    write(
        tmp_path / "text.txt.gz", [{"id": "x", "text": "\n\n".join(english + chinese + ["short"])}]
    )
    drawn = ir.distractors([tmp_path], 10, docs)
    tongues = sorted(doc.lang for doc in drawn)
    apart = {doc.text for doc in drawn}.isdisjoint({english[0], chinese[0], "short"})
    again = ir.distractors([tmp_path], 10, docs)
    assert (tongues, apart, again) == (["en"] * 5 + ["zh"] * 5, True, drawn)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The message has the path and what to do."""
    with pytest.raises(SystemExit, match=r"nowhere.*corpus.*name a folder"):
        ir.read(tmp_path / "nowhere")


def test_vectors_are_kept_and_queries_are_not(tmp_path: Path) -> None:
    """A second embedder on the same folder embeds no passage again, and gives the same vectors."""
    model = hashing.build(EmbedSettings(backend="hashing"))
    first, second = (ir.Cached(model, tmp_path, "cpu") for _ in range(2))
    one = first.embed(["a moon", "a cat"], "passage")
    two = second.embed(["a cat", "a moon"], "passage")
    second.embed(["a dog"], "query")
    assert (first.embedded, second.embedded, np.array_equal(one, two[::-1])) == (2, 0, True)


@pytest.mark.parametrize(
    ("history", "text"),
    [
        ("last", "What about dogs?"),
        ("all", "How long do cats sleep?\nWhat about dogs?"),
        ("rewrite", "What about dogs? long cats sleep"),
    ],
)
def test_a_turn_is_asked_alone_joined_or_rewritten(history: str, text: str) -> None:
    """What was said before joins the question in the way that is asked for."""
    said = (("user", "How long do cats sleep?"), ("agent", "Most of the day."))
    assert ir.asked(ir.Query("q", "What about dogs?", "en", said=said), history) == text


def test_tasks_are_queries_with_turns_before(folder: Path) -> None:
    """A multi-turn set has tasks for queries; the last turn is the question."""
    said = [{"speaker": "user", "text": "Apollo?"}, {"speaker": "user", "text": "Where to?"}]
    write(folder / "tasks.jsonl.gz", [{"id": "q-en", "input": said}])
    (query,) = ir.read(folder).queries
    assert (query.text, query.said) == ("Where to?", (("user", "Apollo?"),))


@pytest.mark.parametrize("candidates", ["all", "judged"])
def test_ways_stand_side_by_side(
    folder: Path, capsys: pytest.CaptureFixture[str], candidates: str
) -> None:
    """Each way has its measures and its time; without a reranker the reranked one is null."""
    asked = ["--data", str(folder), "--candidates", candidates]
    chosen = ("retrieval.embed.backend=hashing", "retrieval.rerank.backend=none")
    retrieval.main([*asked, *(part for value in chosen for part in ("--set", value))])
    values = line(capsys)
    names = {way: set(values[way]) for way in ("lexical", "dense", "fused")}
    measures = {"ndcg10", "r5", "mrr10", "ms"}
    got = (names, values["reranked"], values["queries"], values["lexical"]["mrr10"])
    assert got == (dict.fromkeys(names, measures), None, 2, 1.0)


def test_a_direction_without_queries_is_said(folder: Path) -> None:
    """Not a table of nothing."""
    with pytest.raises(SystemExit, match="no query is left"):
        retrieval.main(["--data", str(folder), "--split", "dev"])


def test_a_peer_that_is_missing_is_named_and_the_rest_goes_on(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each system in a process of its own; one without its library has a row that says so."""
    asked = ["--data", str(folder), "--systems", "plumbline", "bm25s"]
    peers.main([*asked, "--set", "retrieval.embed.backend=hashing"])
    values = line(capsys)
    ours = {"ingest_s", "p50_ms", "p95_ms", "ndcg10", "rss_mib"} <= set(values["plumbline"])
    missing = values["bm25s"].get("error", "needs 'bm25s'; install plumbline[peers]")
    assert (ours, missing) == (True, "needs 'bm25s'; install plumbline[peers]")
