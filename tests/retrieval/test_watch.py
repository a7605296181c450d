"""Watching, scheduled runs, and the last look: conditions are waited for, never times."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from retrieval.config import (
    EmbedSettings,
    IntervalSettings,
    RetrievalSettings,
    SearchSettings,
    SyncSettings,
)
from retrieval.embed.hashing import Hashing
from retrieval.errors import SourceNotFound
from retrieval.knowledge import KnowledgeBase
from retrieval.schema import IngestSummary
from retrieval.sources import files
from tests.retrieval.web_double import Net, net, page

#: Long enough for a machine that does something else, seconds.
PATIENCE = 60.0


def settings(watch: bool = True, **minutes: float) -> RetrievalSettings:
    """Settings of a knowledge base that checks only the kinds named."""
    never = dict.fromkeys(IntervalSettings.model_fields, 0.0)
    every = IntervalSettings(**(never | minutes))
    return RetrievalSettings(
        embed=EmbedSettings(backend="hashing"),
        search=SearchSettings(index="exact"),
        sync=SyncSettings(watch=watch, debounce_ms=50, every_minutes=every),
    )


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; it must come."""
    ends = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A folder with one document."""
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("Quokkas eat leaves.")
    return folder


class Watched:
    """A knowledge base, its folder, and what it said while it watched."""

    def __init__(self, base: KnowledgeBase, docs: Path) -> None:
        self.base = base
        self.docs = docs
        self.heard: list[IngestSummary] = []
        for _ in base.ingest([docs]):
            pass
        base.keep_fresh(lambda _, summary: self.heard.append(summary))
        until(lambda: len(self.heard) > 0)  # the walk when watching begins

    def found(self, term: str) -> set[str]:
        """Names of the files that hold a term."""
        return {Path(p.source).name for p in self.base.search(term, 50, mode="lexical")}

    def stored(self) -> int:
        """How many documents the store holds."""
        return self.base.status().documents


@pytest.fixture
def watched(docs: Path, tmp_path: Path) -> Iterator[Watched]:
    """A folder that is watched."""
    base = KnowledgeBase(tmp_path / "kb", settings(), Hashing())
    yield Watched(base, docs)
    base.close()


def test_edits_additions_and_deletions(watched: Watched) -> None:
    """Each change to a watched folder becomes searchable, and embeds only what it must."""
    (watched.docs / "b.md").write_text("Wombats eat grass.")
    until(lambda: watched.found("wombats") == {"b.md"})
    (watched.docs / "a.md").write_text("Numbats eat ants.")
    until(lambda: watched.found("numbats") == {"a.md"} and watched.found("quokkas") == set())
    (watched.docs / "b.md").unlink()
    assert watched.found("wombats") == set()  # at once: the last look
    until(lambda: watched.stored() == 1)
    assert all(summary.documents <= 1 for summary in watched.heard[1:])


def test_an_editor_replaces_the_file(watched: Watched) -> None:
    """A file written beside and renamed over is a change; the file beside is none."""
    part = watched.docs / ".a.md.swp"
    part.write_text("Wombats eat grass.")
    os.replace(part, watched.docs / "a.md")
    until(lambda: watched.found("wombats") == {"a.md"})
    os.rename(watched.docs / "a.md", watched.docs / "b.md")
    until(lambda: watched.found("wombats") == {"b.md"} and watched.stored() == 1)


def test_folders_move(watched: Watched, tmp_path: Path) -> None:
    """A folder moved in is read whole, renamed it is found under its new name, moved out gone."""
    away = tmp_path / "away"
    (away / "deep").mkdir(parents=True)
    (away / "deep" / "b.md").write_text("Wombats eat grass.")
    (away / "c.md").write_text("Numbats eat ants.")
    os.rename(away, watched.docs / "in")
    until(lambda: watched.found("eat") == {"a.md", "b.md", "c.md"})
    os.rename(watched.docs / "in", watched.docs / "other")
    until(
        lambda: (
            {p.source for p in watched.base.search("wombats", 9, mode="lexical")}
            == {str(watched.docs / "other/deep/b.md")}
        )
    )
    os.rename(watched.docs / "other", away)
    until(lambda: watched.stored() == 1 and watched.found("eat") == {"a.md"})


def test_a_folder_vanishes_and_comes_back(watched: Watched, tmp_path: Path) -> None:
    """Taken away, its documents go on answering; back, its changes are found and watched."""
    away = tmp_path / "away"
    os.rename(watched.docs, away)
    assert watched.found("quokkas") == {"a.md"}
    for _ in watched.base.sync(str(watched.docs)):
        pass
    [root] = watched.base.status().roots
    assert root.error is not None
    assert (root.error.reason, watched.found("quokkas")) == ("vanished", {"a.md"})
    (away / "b.md").write_text("Wombats eat grass.")
    os.rename(away, watched.docs)
    until(lambda: watched.found("eat") == {"a.md", "b.md"})
    (watched.docs / "c.md").write_text("Numbats eat ants.")
    until(lambda: watched.found("numbats") == {"c.md"})
    until(lambda: watched.base.status().roots[0].error is None)


def test_a_folder_is_emptied(watched: Watched) -> None:
    """Everything deleted, nothing answers, and what is written anew does."""
    shutil.rmtree(watched.docs)
    watched.docs.mkdir()
    until(lambda: watched.found("quokkas") == set())
    (watched.docs / "b.md").write_text("Wombats eat grass.")
    until(lambda: watched.found("wombats") == {"b.md"})


def test_a_broken_file_is_noted_and_forgiven(watched: Watched) -> None:
    """A file that cannot be read shows in the status until it can."""
    broken = watched.docs / "b.json"
    broken.write_text('{"a": ')
    until(lambda: [f.reason for f in watched.base.status().roots[0].failures] == ["broken"])
    broken.write_text('{"a": "wombats"}')
    until(lambda: watched.found("wombats") == {"b.json"})
    until(lambda: watched.base.status().roots[0].failures == ())


def test_a_single_file_is_watched(tmp_path: Path) -> None:
    """A file that was named itself is followed through replacements, and nothing beside it."""
    path = tmp_path / "one.md"
    path.write_text("Quokkas eat leaves.")
    base = KnowledgeBase(tmp_path / "kb", settings(), Hashing())
    watched = Watched(base, path)
    (tmp_path / "two.md").write_text("Numbats eat ants.")
    other = tmp_path / "one.tmp"
    other.write_text("Wombats eat grass.")
    os.replace(other, path)
    until(lambda: watched.found("wombats") == {"one.md"})
    assert watched.found("numbats") == set()
    base.close()


def test_what_is_ingested_later_is_watched_and_forgotten_no_more(
    watched: Watched, tmp_path: Path
) -> None:
    """Watching follows the sources: a new one begins, a forgotten one ends."""
    more = tmp_path / "more"
    more.mkdir()
    for _ in watched.base.ingest([more]):
        pass
    until(lambda: (more / "b.md").write_text("Wombats.") > 0 and watched.found("wombats") != set())
    assert watched.base.forget(str(more)) == 1
    (more / "b.md").write_text("Numbats.")
    (watched.docs / "c.md").write_text("Bilbies.")
    until(lambda: watched.found("bilbies") == {"c.md"})
    assert watched.found("numbats") == set()


def test_an_edit_under_way_does_not_bring_back_what_is_forgotten(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forgetting waits for it, and what comes later finds no such source."""
    intake, begun, forgets = watched.base._intake, threading.Event(), threading.Event()
    touched = files.touched

    def slowly(root: Path, paths: Iterable[str]) -> object:
        begun.set()
        forgets.wait(0.3)
        return touched(root, paths)

    monkeypatch.setattr(files, "touched", slowly)
    path, root = watched.docs / "c.md", str(watched.docs.resolve())
    path.write_text("Numbats.")
    edit = threading.Thread(target=intake.update, args=(root, [str(path)]))
    edit.start()
    assert begun.wait(5)
    watched.base.forget(root)
    forgets.set()
    edit.join()
    assert watched.found("numbats") == set()
    assert watched.base.status().roots == ()
    assert intake.update(root, [str(path)]) is None
    with pytest.raises(SourceNotFound):
        list(intake.sync(root))


def test_a_check_that_waited_finds_that_its_source_was_forgotten(watched: Watched) -> None:
    """It was known when the check began, and is not when its turn comes."""
    intake, root = watched.base._intake, str(watched.docs.resolve())
    record = intake._known(root)
    watched.base.forget(root)
    assert record is not None
    *_, last = intake._play_all([record], again=True)
    assert isinstance(last, IngestSummary)
    assert last.documents == 0
    assert watched.base.status().roots == ()


def test_sources_are_checked_at_their_interval(tmp_path: Path) -> None:
    """A page is asked again once it is due, and nobody has to say so."""
    with net({"/a": page("<p>Quokkas eat leaves.")}) as world:
        base = KnowledgeBase(
            tmp_path / "kb", settings(watch=False, web=0.0001), Hashing(), world.fetcher()
        )
        for _ in base.ingest(["http://site.example/a"]):
            pass
        world.site.routes["/a"] = page("<p>Wombats eat grass.")
        base.keep_fresh()
        until(lambda: bool(base.search("wombats", 1, mode="lexical")))
        world.site.routes["/a"] = (503, {}, b"")
        until(lambda: base.status().roots[0].error is not None)
        world.site.routes["/a"] = page("<p>Numbats eat ants.")
        base.close()


def test_a_failing_source_waits_longer(tmp_path: Path) -> None:
    """Each failure doubles the time to the next attempt; the status says when it was reached."""
    world: Net
    with net({}) as world:
        base = KnowledgeBase(tmp_path / "kb", settings(web=1.0), Hashing(), world.fetcher())
        for _ in range(3):
            list(base.ingest(["http://nowhere.example/a"]))
        record = base._intake.ledger.sources.all()[0]
        [root] = base.status().roots
        base.close()
    assert (record.tries, record.checked) == (3, 0.0)
    assert root.error is not None
    assert (root.error.reason, root.lag > 0) == ("unreachable", True)


def test_a_deleted_file_never_answers(docs: Path, tmp_path: Path) -> None:
    """Also with nobody watching: from the moment a file is gone, no search returns it."""
    base = KnowledgeBase(tmp_path / "kb", settings(watch=False), Hashing())
    for number in range(40):
        (docs / f"{number}.md").write_text(f"Wombats of number{number} eat grass.")
    for _ in base.ingest([docs]):
        pass
    stale: list[str] = []
    deleted: set[str] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            before = set(deleted)
            found = {p.source for p in base.search("wombats", 20)}
            stale.extend(found & before)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(40):
        (docs / f"{number}.md").unlink()
        deleted.add(str(docs / f"{number}.md"))
    stop.set()
    reader.join()
    assert stale == []
    assert {p.title for p in base.search("eat", 50)} == {"a"}
    base.close()


def test_what_changes_touch(docs: Path) -> None:
    """Hidden files and links out are left out as in a walk; a folder stands for its content."""
    (docs / "sub").mkdir()
    (docs / "sub" / "b.md").write_text("x")
    (docs / "out.md").symlink_to("/etc/hostname")
    (docs / "round").symlink_to(docs)
    names = ["a.md", "gone.md", ".hidden.md", ".git/x.md", "node_modules/x.md", "sub", "out.md"]
    items, gone = files.touched(docs, [str(docs / n) for n in names] + ["/etc/hostname"])
    assert [item.path.name for item in items] == ["a.md", "b.md"]
    assert [Path(name).name for name in gone] == ["gone.md", "out.md", "sub"]
    items, gone = files.touched(docs, [str(docs / "round")])
    assert items == []
