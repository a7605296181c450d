"""What the shelf keeps when its process ends in the middle of its work."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from assistant.server.principal import LOCAL
from assistant.server.shelf import FILE, UPLOADS, Shelf
from retrieval.errors import StoreBusy
from retrieval.knowledge import KnowledgeBase
from retrieval.schema import IngestSummary
from retrieval.sources.memory import Given


class Knowledge:
    """Notes what it takes in and forgets; waits at the door until it is let go on."""

    def __init__(self, *, wait: bool = False) -> None:
        self.taken: dict[str, str | bytes] = {}
        self.forgotten: list[str] = []
        self.inside = threading.Event()
        self.go = threading.Event()
        if not wait:
            self.go.set()

    def ingest_documents(self, _root: str, given: Sequence[Given]) -> Iterator[Any]:
        """Take in."""
        self.inside.set()
        assert self.go.wait(20)
        for one in given:
            self.taken[one.name] = one.content
        yield IngestSummary(1, 1, 0, 0, 0, 1, 1, 0.0, ())

    def forget(self, name: str) -> int:
        """Forget."""
        self.inside.set()
        assert self.go.wait(20)
        self.forgotten.append(name)
        return 1


def opened(folder: Path, knowledge: Knowledge) -> Shelf:
    """A shelf over this knowledge."""
    return Shelf(folder / FILE, cast(KnowledgeBase, knowledge))


def until(shelf: Shelf, status: str) -> None:
    """Wait until every document has this status."""
    ends = time.monotonic() + 20
    while {kept.status for kept in shelf.all(LOCAL)} - {status}:
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_an_acknowledged_file_outlives_its_server(tmp_path: Path) -> None:
    """What was acknowledged and not taken in is taken in by the next server, byte for byte."""
    ended = Knowledge(wait=True)
    before = opened(tmp_path, ended)
    before.put(LOCAL, "a.md", b"first", ["main/*"])
    before.put(LOCAL, "a.md", b"second", ["main/*"])
    assert ended.inside.wait(20)
    after = Knowledge()
    again = opened(tmp_path, after)
    until(again, "ready")
    assert after.taken == {"a.md": b"second"}
    ended.go.set()
    before.close()
    again.close()
    assert [*(tmp_path / UPLOADS).iterdir()] == []


def test_a_deletion_that_began_is_finished(tmp_path: Path) -> None:
    """A document whose deletion was cut off is seen by nobody, and gone after the next start."""
    ended = Knowledge()
    before = opened(tmp_path, ended)
    kept = before.put(LOCAL, "a.md", b"first", ["main/*"])
    until(before, "ready")
    ended.go.clear()
    ended.inside.clear()
    cut = threading.Thread(target=before.delete, args=(LOCAL, kept.id))
    cut.start()
    assert ended.inside.wait(20)
    assert before.all(LOCAL) == []
    assert before.get(LOCAL, kept.id) is None
    after = Knowledge()
    again = opened(tmp_path, after)
    assert after.inside.wait(20)
    again.close()
    assert after.forgotten == [kept.source]
    ended.go.set()
    cut.join()
    before.close()


@pytest.mark.parametrize("age", [0, 7200])
def test_files_that_belong_to_nothing_go(tmp_path: Path, age: int) -> None:
    """A file without a document is deleted once it is old; a new one may be somebody's."""
    opened(tmp_path, Knowledge()).close()
    left = tmp_path / UPLOADS / "doc-x-1"
    left.write_bytes(b"x")
    os.utime(left, (time.time() - age, time.time() - age))
    opened(tmp_path, Knowledge()).close()
    assert left.exists() is (age == 0)


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize(("often", "status"), [(2, "ready"), (3, "failed")])
def test_what_stands_in_the_way_for_a_moment_fails_no_file(
    tmp_path: Path, often: int, status: str, stopped: bool
) -> None:
    """A file that a busy database or a deletion turned away is taken in again, so often only."""

    class Busy(Knowledge):
        tries = 0

        def ingest_documents(self, _root: str, given: Sequence[Given]) -> Iterator[Any]:
            self.tries += 1
            if self.tries <= often:
                if stopped:  # a run that was stopped ends without a summary
                    return
                raise StoreBusy("another process is writing")
            yield from super().ingest_documents(_root, given)

    busy = Busy()
    shelf = Shelf(tmp_path / FILE, cast(KnowledgeBase, busy), again=(0.0, 0.0))
    shelf.put(LOCAL, "a.md", b"first", ["main/*"])
    until(shelf, status)
    shelf.close()
    assert busy.tries == 3
    assert bool(busy.taken) is (status == "ready")
