from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from retrieval import lexical
from retrieval.config import ChunkSettings, ParseSettings, RetrievalSettings
from retrieval.embed.base import Kind, Vectors
from retrieval.embed.hashing import Hashing
from retrieval.ingest import BATCH_CHUNKS, Ingester, sources_of
from retrieval.parse.worker import ParserPool
from retrieval.schema import FileReport, IngestProgress, IngestSummary
from retrieval.search import Retriever
from retrieval.serving import Serving
from retrieval.sources import files
from retrieval.sources.base import Item, belongs
from retrieval.store import Store
from retrieval.text import language, query_terms

SETTINGS = RetrievalSettings(chunk=ChunkSettings(target_tokens=16, max_tokens=32))

LONG = "\n\n".join(f"## Part {i}\n\nParagraph number{i} speaks of topic{i}." for i in range(6))


class Counting(Hashing):
    """The double, counting; it does not read Chinese, and stops where it is told to."""

    id = "counting"

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.calls = 0
        self.stop_at = 0

    def embed(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """Count, then embed."""
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        self.texts.extend(texts)
        return super().embed(texts, kind)

    def reads(self, text: str) -> bool:
        """Whether the text is not Chinese."""
        return language(text) != "zh"


@pytest.fixture(scope="module")
def pool() -> Iterator[ParserPool]:
    """Parsers for all tests of the module."""
    with ParserPool(ParseSettings()) as pool:
        yield pool


class Bench:
    """A folder, a store, a counting embedder, and runs from the one into the other."""

    def __init__(self, tmp_path: Path, pool: ParserPool) -> None:
        self.docs = tmp_path / "docs"
        self.docs.mkdir()
        self.embedder = Counting()
        self.store = Store(tmp_path / "k.db", self.embedder.id, self.embedder.dim)
        self.pool = pool

    def write(self, name: str, text: str) -> Path:
        """Write a file below the folder."""
        path = self.docs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def events(
        self, path: Path | None = None, settings: RetrievalSettings = SETTINGS
    ) -> Iterator[IngestProgress | IngestSummary]:
        """Start a run."""
        ingester = Ingester(self.store, self.embedder, settings, self.pool)
        top = path or self.docs
        return ingester.run(files.root(top), files.walk(top))

    def sync(
        self, path: Path | None = None, settings: RetrievalSettings = SETTINGS
    ) -> IngestSummary:
        """Run to the end."""
        self.embedder.texts.clear()
        *progress, summary = self.events(path, settings)
        assert all(isinstance(event, IngestProgress) for event in progress)
        assert isinstance(summary, IngestSummary)
        self.progress = [event for event in progress if isinstance(event, IngestProgress)]
        return summary

    def reports(self) -> dict[str, str]:
        """Return the outcome of the last run for each file name."""
        found = [event.report for event in self.progress]
        return {Path(r.source).name: r.outcome for r in found if isinstance(r, FileReport)}

    def found(self, question: str) -> set[str]:
        """Return names of the files whose chunks hold a term."""
        retriever = Retriever(Serving(self.store, self.embedder, "exact"), SETTINGS.search)
        passages = retriever.search(question, 50, mode="lexical")
        return {Path(passage.source).name for passage in passages}

    def documents(self) -> set[str]:
        """Return the names of all stored files."""
        return {Path(source).name for source in self.store.known()}


@pytest.fixture
def bench(tmp_path: Path, pool: ParserPool) -> Iterator[Bench]:
    """An empty folder and an empty store."""
    bench = Bench(tmp_path, pool)
    yield bench
    bench.store.close()


def test_first_run(bench: Bench) -> None:
    """Every file is taken in, embedded once, counted and found."""
    bench.write("a.md", LONG)
    bench.write("中文/说明.md", "# 安装\n\n下载安装包，然后运行。\n")
    summary = bench.sync()
    assert (summary.documents, summary.added, summary.failures) == (2, 2, ())
    assert (summary.embedded, summary.chunks) == (6, 7)
    assert len(bench.embedder.texts) == 6
    assert (bench.found("topic3"), bench.found("安装包")) == ({"a.md"}, {"说明.md"})
    assert [(p.done, p.total) for p in bench.progress] == [(1, 2), (2, 2)]
    [status] = bench.store.roots()
    assert (status.root, status.documents, status.chunks) == (str(bench.docs.resolve()), 2, 7)


def test_unchanged_files_cost_nothing(bench: Bench) -> None:
    """A second run embeds nothing and changes nothing."""
    bench.write("a.md", LONG)
    bench.write("b.md", "Body.")
    first = bench.sync()
    sequence, calls = bench.store.sequence(), bench.embedder.calls
    summary = bench.sync()
    assert (summary.unchanged, summary.embedded, summary.chunks) == (2, 0, first.chunks)
    assert (bench.store.sequence(), bench.embedder.calls) == (sequence, calls)


def test_a_new_date_costs_nothing(bench: Bench) -> None:
    """A file that only got a new time stamp is not embedded again, and shows its new date."""
    path = bench.write("a.md", LONG)
    bench.sync()
    key, calls = bench.store.known()[str(path)].id, bench.embedder.calls
    os.utime(path, (2_000_000_000, 2_000_000_000))
    assert bench.sync().unchanged == 1
    assert (bench.store.known()[str(path)].id, bench.embedder.calls) == (key, calls)
    document = bench.store.document(key)
    assert document is not None
    assert document.modified == 2_000_000_000


def test_a_changed_file_replaces(bench: Bench) -> None:
    """New text is found, old text is not, and only changed chunks are embedded."""
    bench.write("a.md", LONG)
    bench.sync()
    bench.write("a.md", LONG.replace("topic3", "quokkas"))
    summary = bench.sync()
    assert (summary.updated, summary.embedded, summary.chunks) == (1, 1, 6)
    assert ["quokkas" in text for text in bench.embedder.texts] == [True]
    assert (bench.found("topic3"), bench.found("quokkas")) == (set(), {"a.md"})
    assert bench.documents() == {"a.md"}


def test_a_change_that_keeps_date_and_size_is_seen(bench: Bench) -> None:
    """A file replaced by one of the same size and time stamp is read all the same."""
    path = bench.write("a.md", "It says alpha.")
    bench.sync()
    state = path.stat()
    other = bench.write("other", "It says gamma.")
    os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
    os.replace(other, path)
    assert (path.stat().st_mtime_ns, path.stat().st_size) == (state.st_mtime_ns, state.st_size)
    assert bench.sync().updated == 1
    assert (bench.found("alpha"), bench.found("gamma")) == (set(), {"a.md"})


def test_reused_vectors_are_the_same(bench: Bench) -> None:
    """Vectors that were kept equal those of a store filled afresh."""
    bench.write("a.md", LONG)
    bench.sync()
    bench.write("a.md", LONG.replace("topic3", "quokkas"))
    bench.sync()
    kept = bench.store.changes(0).vectors
    bench.store.remove(list(bench.store.known()))
    bench.sync()
    fresh = bench.store.changes(0).vectors
    assert (kept == fresh).all()


def test_a_removed_file_disappears(bench: Bench) -> None:
    """A file that is gone is removed; its text cannot be found."""
    bench.write("a.md", "About quokkas.")
    bench.write("sub/b.md", "About wombats.")
    bench.sync()
    shutil.rmtree(bench.docs / "sub")
    summary = bench.sync()
    assert (summary.removed, summary.documents) == (1, 1)
    assert (bench.found("wombats"), bench.documents()) == (set(), {"a.md"})
    assert bench.reports() == {"a.md": "unchanged", "b.md": "removed"}


def test_a_renamed_file_moves(bench: Bench) -> None:
    """A renamed file is found under its new name only."""
    path = bench.write("a.md", "About quokkas.")
    bench.sync()
    path.rename(bench.docs / "b.md")
    bench.sync()
    assert bench.found("quokkas") == {"b.md"}


def test_a_broken_file_keeps_its_version(bench: Bench) -> None:
    """A file that cannot be read is reported and keeps its old version; the rest goes on."""
    bench.write("a.json", '{"about": "quokkas"}')
    bench.write("b.md", "About wombats.")
    bench.sync()
    bench.write("a.json", '{"about": ')
    bench.write("b.md", "About numbats.")
    summary = bench.sync()
    [failure] = summary.failures
    assert (Path(failure.source).name, failure.reason) == ("a.json", "broken")
    assert failure.detail
    assert failure.remedy
    assert (bench.found("quokkas"), bench.found("numbats")) == ({"a.json"}, {"b.md"})
    assert (summary.updated, summary.removed, summary.documents) == (1, 0, 1)
    assert bench.store.roots()[0].failures == (failure,)
    bench.write("a.json", '{"about": "bilbies"}')
    assert bench.sync().failures == ()
    assert (bench.found("quokkas"), bench.found("bilbies")) == (set(), {"a.json"})
    assert bench.store.roots()[0].failures == ()


def test_formats_nobody_reads_are_counted(bench: Bench) -> None:
    """In a folder they are counted by suffix; given by name they are a failure."""
    for name in ("a.md", "x.bin", "y.bin", "Makefile", "z.BIN"):
        bench.write(name, "text")
    summary = bench.sync()
    assert (summary.documents, summary.ignored) == (1, (("(no suffix)", 1), (".bin", 3)))
    [failure] = bench.sync(bench.docs / "x.bin").failures
    assert failure.reason == "unsupported"


def test_what_is_no_file_is_reported(bench: Bench) -> None:
    """A pipe or a broken link with a document's name is reported, and nothing waits for it."""
    bench.write("a.md", "About quokkas.")
    os.mkfifo(bench.docs / "pipe.md")
    (bench.docs / "loop.md").symlink_to("loop.md")
    (bench.docs / "dangling.md").symlink_to("missing.md")
    summary = bench.sync()
    names = sorted(Path(failure.source).name for failure in summary.failures)
    assert names == ["dangling.md", "loop.md", "pipe.md"]
    assert {failure.reason for failure in summary.failures} == {"unreadable"}
    assert bench.documents() == {"a.md"}


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_what_may_not_be_read_is_kept(bench: Bench) -> None:
    """A file or folder without permission is reported and keeps what was known of it."""
    path = bench.write("a.md", "About quokkas.")
    folder = bench.write("sub/b.md", "About wombats.").parent
    bench.sync()
    bench.write("a.md", "About numbats.")
    path.chmod(0)
    folder.chmod(0)
    summary = bench.sync()
    folder.chmod(0o700)
    assert {Path(f.source).name for f in summary.failures} == {"a.md", "sub"}
    assert (bench.found("quokkas"), bench.found("wombats")) == ({"a.md"}, {"b.md"})


def test_a_closed_folder_keeps_its_documents(bench: Bench) -> None:
    """Nothing is removed below a folder that could not be listed."""
    bench.write("sub/b.md", "About wombats.")
    bench.sync()
    top = bench.docs.resolve()
    (top / "sub").rename(top.parent / "away")
    closed = Item(str(top / "sub"), top.parent / "away", named=True)
    ingester = Ingester(bench.store, bench.embedder, SETTINGS, bench.pool)
    *_, summary = ingester.run(str(top), [closed])
    assert isinstance(summary, IngestSummary)
    assert [(f.source, f.reason) for f in summary.failures] == [(closed.source, "unreadable")]
    assert bench.found("wombats") == {"b.md"}
    assert (bench.sync().removed, bench.found("wombats")) == (1, set())


def test_a_file_that_vanishes(bench: Bench) -> None:
    """A file deleted between the walk and its turn does not stop the run, nor does it stay."""
    bench.write("a.md", "About quokkas.")
    gone = bench.write("b.md", "About wombats.")
    bench.write("c.md", "About numbats.")
    bench.sync()
    bench.write("c.md", "About bilbies.")
    items = list(files.walk(bench.docs))
    gone.unlink()
    ingester = Ingester(bench.store, bench.embedder, SETTINGS, bench.pool)
    *_, summary = ingester.run(files.root(bench.docs), items)
    assert isinstance(summary, IngestSummary)
    assert (bench.found("wombats"), bench.found("bilbies")) == (set(), {"c.md"})
    assert (summary.removed, summary.updated, summary.unchanged) == (1, 1, 1)


def test_a_stopped_run_loses_nothing(bench: Bench) -> None:
    """Stopping after any report leaves what was reported; the next run does the rest only."""
    body = "\n\n".join(f"## H{i}\n\nParagraph {i} of it." for i in range(BATCH_CHUNKS))
    for name in "abc":
        bench.write(f"{name}.md", f"{body} About {name * 4}.")
    run = bench.events()
    first = next(run)
    run.close()  # type: ignore[attr-defined]  # a generator behind its protocol
    assert isinstance(first, IngestProgress)
    assert bench.documents() == {"a.md"}
    summary = bench.sync()
    assert (summary.added, summary.unchanged) == (2, 1)
    assert [bench.found(name * 4) for name in "abc"] == [{"a.md"}, {"b.md"}, {"c.md"}]
    assert all("aaaa" not in text for text in bench.embedder.texts)


def test_an_interrupt_loses_nothing(bench: Bench) -> None:
    """Ctrl-C in the encoder leaves the old version of all that waited, and the next run goes on."""
    bench.write("a.md", "About quokkas.")
    bench.sync()
    bench.write("a.md", "About bilbies.")
    bench.write("b.md", "About wombats.")
    bench.embedder.stop_at = bench.embedder.calls + 1
    with pytest.raises(KeyboardInterrupt):
        bench.sync()
    assert (bench.found("quokkas"), bench.found("wombats")) == ({"a.md"}, set())
    summary = bench.sync()
    assert (summary.added, summary.updated) == (1, 1)
    assert (bench.found("quokkas"), bench.found("bilbies")) == (set(), {"a.md"})


def test_text_that_is_not_embedded_does_not_wait(bench: Bench) -> None:
    """Documents without a vector are stored as the run goes on, not all at its end."""
    body = "\n\n".join(f"## 第{i}节\n\n这是第{i}段。" for i in range(BATCH_CHUNKS))
    for name in ("甲", "乙"):
        bench.write(f"{name}.md", body)
    run = bench.events()
    next(run)
    assert len(bench.documents()) == 1
    run.close()  # type: ignore[attr-defined]
    assert bench.embedder.calls == 0


def test_overlapping_roots(bench: Bench) -> None:
    """A folder inside another is stored once, whichever is read first, and each counts it."""
    bench.write("a.md", "About quokkas.")
    path = bench.write("sub/b.md", "About wombats.")
    bench.sync()
    summary = bench.sync(bench.docs / "sub")
    assert (summary.unchanged, bench.embedder.texts) == (1, [])
    assert len(bench.store.known()) == 2
    assert [status.documents for status in bench.store.roots()] == [2, 1]
    path.unlink()
    assert (bench.sync(bench.docs / "sub").removed, bench.found("quokkas")) == (1, {"a.md"})
    bench.write("sub/b.md", "About wombats.")
    bench.sync(bench.docs / "sub")
    path.unlink()
    assert (bench.sync().removed, bench.found("wombats")) == (1, set())


def test_a_named_root_outlives_the_folder_above(bench: Bench) -> None:
    """What was named itself stays when the folder above, from which it is hidden, is read."""
    hidden = bench.write(".notes/b.md", "About wombats.").parent
    bench.write("a.md", "About quokkas.")
    bench.sync(hidden)
    assert bench.sync().removed == 0
    assert bench.found("wombats") == {"b.md"}
    shutil.rmtree(hidden)
    assert (bench.sync().removed, bench.found("wombats")) == (1, set())


def test_a_neighbour_is_not_pruned(bench: Bench) -> None:
    """A folder whose name begins as another's is not touched by it."""
    other = bench.docs.parent / (bench.docs.name + ":old")
    other.mkdir()
    (other / "b.md").write_text("About wombats.")
    bench.write("a.md", "About quokkas.")
    bench.sync(other)
    assert bench.sync().removed == 0
    assert bench.found("wombats") == {"b.md"}


def test_hidden_files_and_links_out_are_skipped(bench: Bench) -> None:
    """Neither is read, nor counted."""
    secret = bench.docs.parent / "secret.md"
    secret.write_text("About wombats.")
    (bench.docs / "link.md").symlink_to(secret)
    bench.write(".hidden.md", "About wombats.")
    bench.write(".git/x.md", "About wombats.")
    bench.write("a.md", "About quokkas.")
    summary = bench.sync()
    assert (summary.documents, summary.ignored, bench.found("wombats")) == (1, (), set())


def test_other_sizes_index_again(bench: Bench) -> None:
    """With other chunk sizes every file is cut again; a chunk that stays the same costs nothing."""
    bench.write("a.md", LONG)
    bench.write("b.md", "word. " * 60)
    bench.sync()
    small = bench.store.counts()[1]
    large = RetrievalSettings(chunk=ChunkSettings(target_tokens=100, max_tokens=200))
    summary = bench.sync(settings=large)
    assert (summary.updated, bench.store.counts()[1] < small) == (2, True)
    assert [Path(text.split("\n")[0]).name for text in bench.embedder.texts] == ["b"]
    assert bench.sync(settings=large).unchanged == 2


def test_a_title_is_searched_with_every_chunk(bench: Bench) -> None:
    """A document is found by its title and headings, and each vector knows them."""
    bench.write("a.md", "# Quokkas\n\n## Diet\n\nThey eat leaves.\n\n## Range\n\nAn island.")
    bench.sync()
    assert [text.split("\n")[0] for text in bench.embedder.texts] == [
        "Quokkas › Diet",
        "Quokkas › Range",
    ]
    with bench.store.read() as connection:
        assert len(lexical.search(connection, query_terms("quokka"), 10)) == 2
        assert len(lexical.search(connection, query_terms("diet"), 10)) == 1


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_names_of_all_kinds(bench: Bench) -> None:
    """Chinese names, blanks, quotes and bytes that are no text: each file is found."""
    odd = os.fsdecode(b"caf\xe9.md")
    for name in ("说明 文档.md", 'it\'s "quoted" %20?.md', "emoji 🎉.MD", odd):
        bench.write(name, "About quokkas.")
    summary = bench.sync()
    assert (summary.added, summary.failures) == (4, ())
    assert bench.found("quokkas") == {
        "说明 文档.md",
        'it\'s "quoted" %20?.md',
        "emoji 🎉.MD",
        "caf\\udce9.md",
    }
    assert bench.sync().unchanged == 4


def test_an_empty_file_is_reported(bench: Bench) -> None:
    """A file without text is a failure by name; a document of headings only has no chunks."""
    bench.write("empty.md", " \n")
    bench.write("heads.md", "# One\n\n## Two\n")
    summary = bench.sync()
    assert [(Path(f.source).name, f.reason) for f in summary.failures] == [("empty.md", "empty")]
    assert (summary.added, summary.chunks, bench.documents()) == (1, 0, {"heads.md"})


def test_too_large_a_file_is_refused(bench: Bench) -> None:
    """A file over the limit is reported, and read once the limit allows it."""
    bench.write("a.md", "About quokkas. " * 100)
    with ParserPool(ParseSettings(max_bytes=100)) as pool:
        small = SETTINGS.model_copy(update={"parse": ParseSettings(max_bytes=100)})
        ingester = Ingester(bench.store, bench.embedder, small, pool)
        *_, summary = ingester.run(files.root(bench.docs), files.walk(bench.docs))
    assert isinstance(summary, IngestSummary)
    assert [failure.reason for failure in summary.failures] == ["too_large"]
    assert bench.sync().added == 1


def test_sources_below_a_root(bench: Bench) -> None:
    """The sources of a root are those that belong to it."""
    bench.write("a.md", "About quokkas.")
    bench.write("sub/b.md", "About wombats.")
    bench.sync()
    top = str(bench.docs.resolve())
    assert [Path(s).name for s in sources_of(bench.store, f"{top}/sub")] == ["b.md"]
    assert all(belongs(source, top) for source in sources_of(bench.store, top))
