from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from retrieval.config import EmbedSettings, RetrievalSettings, SearchSettings
from retrieval.errors import BackendMissing, RetrievalError, SourceNotFound
from retrieval.knowledge import KnowledgeBase, open_knowledge, total
from retrieval.ledger import open_ledger
from retrieval.schema import FileReport, IngestProgress, IngestSummary, Scope
from tests.retrieval.test_store_migrate import SCHEMA_1

SETTINGS = RetrievalSettings(
    embed=EmbedSettings(backend="hashing"), search=SearchSettings(index="exact")
)


@pytest.fixture
def base(tmp_path: Path) -> Iterator[KnowledgeBase]:
    """An empty knowledge base."""
    base = open_knowledge(tmp_path / "kb", SETTINGS)
    yield base
    base.close()


def write(path: Path, text: str) -> Path:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def summary(events: Iterator[IngestProgress | IngestSummary]) -> IngestSummary:
    """Run to the end."""
    *_, last = events
    assert isinstance(last, IngestSummary)
    return last


def titles(base: KnowledgeBase, question: str) -> set[str]:
    """Return titles of the documents that hold a term."""
    return {passage.title for passage in base.search(question, 50, mode="lexical")}


def test_a_life(base: KnowledgeBase, tmp_path: Path) -> None:
    """What is ingested is found, described, read back whole, and gone once forgotten."""
    docs = write(tmp_path / "docs" / "a.md", "# Animals\n\nQuokkas eat leaves.").parent
    write(docs / "b.txt", "袋熊吃草。")
    assert summary(base.ingest([docs])).added == 2
    [passage] = base.search("quokka", 1)
    document = base.document(passage.chunk.document_id)
    assert document is not None
    assert document.text[passage.chunk.start : passage.chunk.end] == passage.chunk.text
    assert (document.title, document.lang) == ("Animals", "en")
    assert titles(base, "袋熊") == {"b"}
    status = base.status()
    assert (status.documents, status.chunks, status.embedder) == (2, 2, "hashing-256")
    assert [root.root for root in status.roots] == [str(docs.resolve())]
    assert base.rarity(["zebra"]) > base.rarity(["leav"])
    assert base.forget(str(docs)) == 2
    assert base.search("quokka", 5) == []
    assert (base.status().documents, base.status().roots) == (0, ())
    assert base.document(passage.chunk.document_id) is None


def test_it_is_there_after_a_restart(tmp_path: Path) -> None:
    """A knowledge base that is opened again finds what it knew, without embedding."""
    path = write(tmp_path / "a.md", "Quokkas eat leaves.")
    base = open_knowledge(tmp_path / "kb", SETTINGS)
    summary(base.ingest([path]))
    base.close()
    base = open_knowledge(tmp_path / "kb", SETTINGS)
    assert titles(base, "quokka") == {"a"}
    assert (summary(base.ingest([path])).embedded, base.status().served) == (0, 1)
    base.close()


def test_a_missing_path_stops_before_it_starts(base: KnowledgeBase, tmp_path: Path) -> None:
    """Where one path does not exist, none is read."""
    path = write(tmp_path / "a.md", "Quokkas eat leaves.")
    with pytest.raises(SourceNotFound, match="missing: no such file or folder"):
        summary(base.ingest([path, tmp_path / "missing"]))
    assert base.status().documents == 0


def test_several_paths_have_one_summary(base: KnowledgeBase, tmp_path: Path) -> None:
    """The last event covers all paths; what nobody reads is counted over all of them."""
    for folder in ("one", "two"):
        write(tmp_path / folder / "a.md", "Quokkas eat leaves.")
        write(tmp_path / folder / "x.bin", "x")
    events = list(base.ingest([tmp_path / "one", tmp_path / "two"]))
    assert [type(event) for event in events] == [IngestProgress, IngestProgress, IngestSummary]
    whole = summary(iter(events))
    assert (whole.added, whole.chunks, whole.ignored) == (2, 2, ((".bin", 2),))


def test_total_adds_up() -> None:
    """Every number is the sum of its parts, failures and ignored suffixes included."""
    failure = FileReport("x", "failed")
    one = IngestSummary(1, 2, 3, 4, 5, 6, 7, 8.0, (failure,), ((".a", 1), (".b", 2)))
    assert total([one, one]) == IngestSummary(
        2, 4, 6, 8, 10, 12, 14, 16.0, (failure, failure), ((".a", 2), (".b", 4))
    )
    assert total([]) == IngestSummary(0, 0, 0, 0, 0, 0, 0, 0.0, ())


def test_an_upload_of_the_same_name_replaces(base: KnowledgeBase, tmp_path: Path) -> None:
    """An upload is called as the user calls it; the next one of that name takes its place."""
    path = write(tmp_path / "tmp123", "Quokkas eat leaves.")
    first = summary(base.upload([("C:/Notes/年度 报告.txt", path)]))
    assert (first.added, titles(base, "quokka")) == (1, {"年度 报告"})
    path.write_text("Wombats eat grass.")
    second = summary(base.upload([("年度 报告.txt", path)]))
    assert (second.updated, titles(base, "quokka"), titles(base, "wombat")) == (
        1,
        set(),
        {"年度 报告"},
    )
    assert base.search("wombat", 1)[0].source == "upload:年度 报告.txt"
    path.unlink()
    assert titles(base, "wombat") == {"年度 报告"}


def test_uploads_stay_beside_folders(base: KnowledgeBase, tmp_path: Path) -> None:
    """Neither a later upload nor a folder's run removes an upload; forgetting them all does."""
    docs = write(tmp_path / "docs" / "a.md", "Quokkas eat leaves.").parent
    summary(base.upload([("one.md", docs / "a.md")]))
    summary(base.upload([("two.md", write(tmp_path / "b", "Wombats eat grass."))]))
    summary(base.ingest([docs]))
    assert titles(base, "eat") == {"one", "two", "a"}
    assert base.forget("upload") == 2
    assert titles(base, "eat") == {"a"}
    assert not (tmp_path / "kb" / "uploads").exists()


def test_a_bad_upload_is_reported(base: KnowledgeBase, tmp_path: Path) -> None:
    """An upload that is missing, a folder or of a format nobody reads is reported by name."""
    good = write(tmp_path / "good", "Quokkas eat leaves.")
    uploads = [("gone.md", tmp_path / "gone"), ("folder.md", tmp_path), ("x.bin", good)]
    found = summary(base.upload([*uploads, ("good.md", good)]))
    assert [(f.source, f.reason) for f in found.failures] == [
        ("upload:gone.md", "unreadable"),
        ("upload:folder.md", "unreadable"),
        ("upload:x.bin", "unsupported"),
    ]
    assert titles(base, "quokka") == {"good"}


def test_forgetting_takes_what_lies_below(base: KnowledgeBase, tmp_path: Path) -> None:
    """Forgetting a folder forgets the folders inside that were named too, and nothing else."""
    docs = write(tmp_path / "docs" / "a.md", "Quokkas eat leaves.").parent
    write(docs / "sub" / "b.md", "Wombats eat grass.")
    other = write(tmp_path / "docs2" / "c.md", "Numbats eat ants.")
    summary(base.ingest([docs, docs / "sub", other]))
    assert base.forget(str(docs)) == 2
    assert [root.root for root in base.status().roots] == [str(other.resolve())]
    assert titles(base, "eat") == {"c"}
    assert base.forget(str(tmp_path / "never")) == 0


def test_forgetting_a_folder_that_is_gone(base: KnowledgeBase, tmp_path: Path) -> None:
    """A root can be forgotten after it was deleted."""
    docs = write(tmp_path / "docs" / "a.md", "Quokkas eat leaves.").parent
    summary(base.ingest([docs]))
    (docs / "a.md").unlink()
    docs.rmdir()
    assert base.forget(str(docs)) == 1


def test_a_run_that_is_left_frees_the_next(base: KnowledgeBase, tmp_path: Path) -> None:
    """Whoever stops listening to a run does not block the runs after it."""
    docs = write(tmp_path / "docs" / "a.md", "Quokkas eat leaves.").parent
    write(docs / "b.md", "Wombats eat grass.")
    for _ in base.ingest([docs]):
        break
    assert summary(base.ingest([docs])).documents == 2


def test_two_runs_over_one_folder(base: KnowledgeBase, tmp_path: Path) -> None:
    """Two threads that ingest the same folder take turns: all is added once, nothing removed."""
    docs = tmp_path / "docs"
    for number in range(8):
        write(docs / f"{number}.md", f"Quokka number{number} eats leaves.")
    start = threading.Barrier(2)

    def run() -> IngestSummary:
        start.wait()
        return summary(base.ingest([docs]))

    with ThreadPoolExecutor() as pool:
        both = total([run.result() for run in [pool.submit(run) for _ in range(2)]])
    assert (both.added, both.unchanged, both.removed, both.embedded) == (8, 8, 0, 8)
    assert len(titles(base, "quokka")) == 8


def test_two_writers_of_one_home(tmp_path: Path) -> None:
    """Two knowledge bases over one home may ingest one folder at once: nothing is torn or lost."""
    docs = tmp_path / "docs"
    for number in range(30):
        write(docs / f"{number}.md", f"Quokka number{number} eats leaves.")
    bases = [open_knowledge(tmp_path / "kb", SETTINGS) for _ in range(2)]
    start = threading.Barrier(2)

    def run(base: KnowledgeBase) -> IngestSummary:
        start.wait()
        return summary(base.ingest([docs]))

    with ThreadPoolExecutor() as pool:
        both = list(pool.map(run, bases))
    assert [(s.documents, s.removed, s.failures) for s in both] == [(30, 0, ())] * 2
    for base in bases:
        assert base.status().documents == 30
        assert len(base.search("quokka", 50, mode="lexical")) == 30
        assert summary(base.ingest([docs])).unchanged == 30
        base.close()


def test_unknown_parts_are_refused(tmp_path: Path) -> None:
    """An unknown encoder or index is refused by name."""
    with pytest.raises(BackendMissing, match=r"no backend 'x' in retrieval\.embed"):
        open_knowledge(tmp_path, RetrievalSettings(embed=EmbedSettings(backend="x")))
    odd = SETTINGS.model_copy(update={"search": SearchSettings(index="x")})
    with pytest.raises(BackendMissing, match=r"no backend 'x' in retrieval\.index"):
        open_knowledge(tmp_path, odd)


def test_a_suspended_run_holds_nothing_up(base: KnowledgeBase, tmp_path: Path) -> None:
    """Whoever stops listening half-way, and keeps the run, blocks neither runs nor forgetting."""
    docs = write(tmp_path / "docs" / "a.md", "Quokkas eat leaves.").parent
    write(docs / "b.md", "Wombats eat grass.")
    suspended = base.ingest([docs])
    next(suspended)
    assert summary(base.ingest([docs])).documents == 2
    assert base.forget(str(docs)) == 2
    assert summary(suspended).added == 2
    assert base.status().documents == 0


def test_a_run_that_was_waiting_hears_of_the_end(tmp_path: Path) -> None:
    """Closing ends the run at work and tells those that wait for their turn."""
    base = open_knowledge(tmp_path / "kb", SETTINGS)
    for number in range(200):
        write(tmp_path / "docs" / f"{number}.md", f"Quokka number{number}. " * 200)
    first = base.ingest([tmp_path / "docs"])
    next(first)
    with ThreadPoolExecutor() as pool:
        second = pool.submit(lambda: next(base.ingest([tmp_path / "docs"])))
        while len(base._intake._running) < 2:
            time.sleep(0.01)
        base.close()
        with pytest.raises(RetrievalError, match="closed first"):
            second.result()


def test_forgetting_stops_what_is_being_read(base: KnowledgeBase, tmp_path: Path) -> None:
    """A folder that is forgotten while it is read does not come back."""
    docs = tmp_path / "docs"
    for number in range(400):
        write(docs / f"{number}.md", f"Quokka number{number} eats leaves. " * 40)
    run = base.ingest([docs])
    next(run)
    assert base.forget(str(docs)) < 400
    assert list(run) is not None
    assert (base.status().documents, base.status().roots) == (0, ())


def test_another_process_forgets_what_is_being_read(base: KnowledgeBase, tmp_path: Path) -> None:
    """What another process forgets while it is read is gone at the end of the run."""
    docs = tmp_path / "docs"
    for number in range(200):
        write(docs / f"{number}.md", f"Quokka number{number} eats leaves. " * 40)
    run = base.ingest([docs])
    next(run)
    with open_ledger(tmp_path / "kb", SETTINGS) as ledger:
        ledger.forget(str(docs))
    list(run)
    assert (base.status().documents, base.status().roots) == (0, ())


def test_a_replaced_upload_leaves_the_disk(base: KnowledgeBase, tmp_path: Path) -> None:
    """Only what documents are made of is kept, also when two uploads have one content."""
    folder = tmp_path / "kb" / "uploads"
    one, two = write(tmp_path / "1", "Quokkas eat leaves."), write(tmp_path / "2", "Wombats eat.")
    summary(base.upload([("a.md", one), ("b.md", one)]))
    assert len(list(folder.iterdir())) == 1
    summary(base.upload([("a.md", two)]))
    assert len(list(folder.iterdir())) == 2
    summary(base.upload([("b.md", two), ("broken.json", one)]))
    assert [path.read_text() for path in folder.iterdir()] == ["Wombats eat."]


def test_a_single_upload_is_forgotten(base: KnowledgeBase, tmp_path: Path) -> None:
    """One upload goes, with its copy; the others stay."""
    one, two = write(tmp_path / "1", "Quokkas eat leaves."), write(tmp_path / "2", "Wombats eat.")
    summary(base.upload([("a.md", one), ("b.md", two)]))
    assert base.forget("upload:a.md") == 1
    assert titles(base, "eat") == {"b"}
    assert [path.read_text() for path in (tmp_path / "kb" / "uploads").iterdir()] == [
        "Wombats eat."
    ]
    assert base.forget("upload:a.md") == 0


def test_status_and_forgetting_need_no_encoder(tmp_path: Path) -> None:
    """What is indexed is told, and forgotten, without loading what turned it into vectors."""
    docs = write(tmp_path / "docs" / "a.md", "Quokkas eat leaves.").parent
    base = open_knowledge(tmp_path / "kb", SETTINGS)
    summary(base.ingest([docs]))
    status = base.status()
    base.close()
    other = RetrievalSettings(embed=EmbedSettings(backend="no such"))
    with open_ledger(tmp_path / "kb", other) as ledger:
        found = ledger.status()
        assert (found.roots, found.documents, found.chunks) == (status.roots, 1, 1)
        assert (found.embedder, found.sequence) == (status.embedder, status.sequence)
        assert ledger.forget(str(docs)) == 1
        assert ledger.status().documents == 0
    with open_ledger(tmp_path / "new", other) as ledger:
        assert (ledger.status().documents, ledger.forget("x")) == (0, 0)
    assert not (tmp_path / "new").exists()


def test_the_status_of_an_earlier_version(tmp_path: Path) -> None:
    """The sources of a home that version 0.1.0 made are told, with what could not be read."""
    with sqlite3.connect(tmp_path / "knowledge.db") as old:
        old.executescript(SCHEMA_1)
    with open_ledger(tmp_path, SETTINGS) as ledger:
        found = ledger.status()
    [root] = found.roots
    assert (found.embedder, found.documents, found.chunks) == ("double@1", 2, 3)
    assert (root.root, root.kind, root.documents, root.checked) == ("/d", "files", 2, 4.0)
    assert [f.source for f in root.failures] == ["/d/x"]


def test_other_readers_count_at_once(base: KnowledgeBase, tmp_path: Path) -> None:
    """Naming other readers changes who may see what is stored already, without embedding."""
    docs = write(tmp_path / "docs" / "a.md", "Quokkas eat leaves.").parent
    summary(base.ingest([docs]))

    def seen(*names: str) -> bool:
        return bool(base.search("quokkas", 1, scope=Scope(readers=frozenset(names))))

    assert seen()
    again = summary(base.ingest([docs], readers=["staff"]))
    assert (again.embedded, seen(), seen("staff"), seen("board")) == (0, False, True, False)
    write(docs / "b.md", "Quokkas again.")
    summary(base.ingest([docs]))
    assert (seen("board"), len(base.search("quokkas", 9))) == (False, 2)
    summary(base.ingest([docs], readers=[]))
    assert seen()


def test_a_deleted_version_or_copy_is_told_of_no_more(base: KnowledgeBase, tmp_path: Path) -> None:
    """An older version or a copy whose file is gone is not named, before any synchronisation."""
    new = write(tmp_path / "d" / "fee-2025.md", "# Fees\n\nThe parking fee is 8 euros a day.")
    old = write(new.with_name("fee-2023.md"), "# Fees\n\nThe parking fee is 5 euros a day.")
    copy = write(new.with_name("visit.md"), "# Visit\n\nThe parking fee is 8 euros a day.")
    summary(base.ingest([new.parent]))
    [passage] = base.search("parking fee", 5)
    assert [o.source for o in passage.older] == [str(old)]
    assert {passage.source, *passage.also} == {str(new), str(copy)}
    old.unlink()
    copy.unlink()
    [passage] = base.search("parking fee", 5)
    assert (passage.source, passage.also, passage.older) == (str(new), (), ())
