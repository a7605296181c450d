"""What goes wrong with files, one by one: each a report by name, the rest goes on."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from retrieval.config import ParseSettings
from retrieval.embed.base import Kind, Vectors
from retrieval.errors import DiskFull
from retrieval.parse.worker import ParserPool
from retrieval.schema import Scope
from retrieval.search import Retriever
from retrieval.serving import Serving
from retrieval.store_sources import SourceRecord, SourceTable
from tests.retrieval.test_ingest import SETTINGS, Bench, Counting


@pytest.fixture(scope="module")
def pool() -> Iterator[ParserPool]:
    """Parsers for all tests of the module."""
    with ParserPool(ParseSettings()) as pool:
        yield pool


@pytest.fixture
def bench(tmp_path: Path, pool: ParserPool) -> Iterator[Bench]:
    """An empty folder and an empty store."""
    bench = Bench(tmp_path, pool)
    yield bench
    bench.store.close()


def test_circular_links(bench: Bench) -> None:
    """Links in a ring end: each is reported or left out, and the rest is read once."""
    bench.write("a.md", "About quokkas.")
    (bench.docs / "self").symlink_to(bench.docs)
    (bench.docs / "one.md").symlink_to("two.md")
    (bench.docs / "two.md").symlink_to("one.md")
    (bench.docs / "sub").mkdir()
    (bench.docs / "sub" / "up").symlink_to("../sub")
    summary = bench.sync()
    names = sorted(Path(f.source).name for f in summary.failures)
    assert (names, bench.documents()) == (["one.md", "two.md"], {"a.md"})


def test_ten_thousand_empty_files(bench: Bench) -> None:
    """Empty files are told by their size alone, and each is reported."""
    for number in range(10_000):
        (bench.docs / f"{number}.md").touch()
    bench.write("full.md", "About quokkas.")
    summary = bench.sync()
    assert (len(summary.failures), {f.reason for f in summary.failures}) == (10_000, {"empty"})
    assert bench.documents() == {"full.md"}


def test_a_huge_file_is_refused_unread(bench: Bench) -> None:
    """A file over the limit is refused by its size: not a byte of it is read."""
    path = bench.write("a.md", "")
    os.truncate(path, 200 * 2**20)
    bench.write("b.md", "About quokkas.")
    summary = bench.sync()
    assert [(Path(f.source).name, f.reason) for f in summary.failures] == [("a.md", "too_large")]
    assert "209715200 bytes" in summary.failures[0].detail
    assert bench.documents() == {"b.md"}


class Writing(Counting):
    """The double, with a hand that writes to a file while it is embedded."""

    def __init__(self, act: Callable[[int], object]) -> None:
        super().__init__()
        self.act = act

    def embed(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """Act, then embed."""
        self.act(self.calls)
        return super().embed(texts, kind)


def test_a_file_that_changes_while_it_is_read(bench: Bench) -> None:
    """It is read again; what is stored is what lies there at the end."""
    path = bench.write("a.md", "About quokkas.")
    bench.embedder = Writing(lambda n: path.write_text("About wombats.") if n == 0 else None)
    summary = bench.sync()
    assert (summary.added, summary.failures) == (1, ())
    assert (bench.found("quokkas"), bench.found("wombats")) == (set(), {"a.md"})


def test_a_file_that_never_rests(bench: Bench) -> None:
    """It is reported by name after a few attempts, and keeps the version it had."""
    path = bench.write("a.md", "About quokkas.")
    bench.write("b.md", "About numbats.")
    bench.sync()
    path.write_text("About wombats.")
    bench.embedder = Writing(lambda n: path.write_text(f"About wombats {n}."))
    summary = bench.sync()
    assert [(Path(f.source).name, f.reason) for f in summary.failures] == [("a.md", "changing")]
    assert (bench.found("quokkas"), bench.found("numbats")) == ({"a.md"}, {"b.md"})


def test_a_file_deleted_while_it_is_read(bench: Bench) -> None:
    """It does not come back."""
    path = bench.write("a.md", "About quokkas.")
    bench.embedder = Writing(lambda n: path.unlink(missing_ok=True))
    bench.sync()
    assert bench.documents() == set()


def test_unchanged_files_ask_the_store_once(bench: Bench) -> None:
    """A run over unchanged files writes nothing of the documents, however many there are."""
    for number in range(50):
        bench.write(f"{number}.md", "About quokkas.")
    bench.sync()
    for number in range(50):
        os.utime(bench.docs / f"{number}.md", (1_000_000_000, 1_000_000_000))
    writes = 0
    ordinary = bench.store.write

    @contextmanager
    def counted() -> Iterator[sa.Connection]:
        nonlocal writes
        writes += 1
        with ordinary() as connection:
            yield connection

    bench.store.write = counted  # type: ignore[method-assign]
    assert bench.sync().unchanged == 50
    touched, writes = writes, 0
    assert bench.sync().unchanged == 50
    assert (touched, writes) == (3, 2)


def test_a_full_disk_stops_the_run(bench: Bench) -> None:
    """The message names the database; what was committed stays, and the next run goes on."""
    for number in range(30):
        bench.write(f"{number}.md", f"About quokkas of number{number}. " * 20)
    with bench.store.read() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    listener = functools.partial(_limit, pages=int(pages) + 12)
    sa.event.listen(bench.store._engine, "begin", listener)
    with pytest.raises(DiskFull, match=r"no room left for .*k\.db; free some space"):
        bench.sync()
    sa.event.remove(bench.store._engine, "begin", listener)
    sa.event.listen(bench.store._engine, "begin", functools.partial(_limit, pages=2**30))
    kept = len(bench.store.known())
    summary = bench.sync()
    assert (summary.added, summary.unchanged) == (30 - kept, kept)
    assert len(bench.found("quokkas")) == 30


def _limit(connection: sa.Connection, pages: int) -> None:
    connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")


def test_readers_of_folders(bench: Bench) -> None:
    """Who may see a file is said of the innermost folder that it lies in."""
    table = SourceTable(bench.store)
    inner, outer = bench.docs / "inner", bench.docs
    for record in (
        SourceRecord(str(outer), readers=("staff",)),
        SourceRecord(str(inner), readers=("board",)),
    ):
        table.save(record)
    bench.write("a.md", "About quokkas.")
    bench.write("inner/b.md", "About wombats.")
    bench.sync()
    retriever = Retriever(Serving(bench.store, bench.embedder, "exact"), SETTINGS.search)

    def seen(*names: str) -> set[str]:
        scope = Scope(readers=frozenset(names))
        return {Path(p.source).name for p in retriever.search("about", 9, scope=scope)}

    assert (seen("staff"), seen("board"), seen()) == ({"a.md"}, {"b.md"}, set())
