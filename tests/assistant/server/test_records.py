"""Records of answers: found at once, kept through the end of a process, gone when deleted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from assistant.server.journal import MOST, Journal, Row
from assistant.server.records import Records

OWNER = "main/ann"
CHILD = """
import os, sys, types
from pathlib import Path
from assistant.server.records import Records

records = Records(Path(sys.argv[1]))
reply = types.SimpleNamespace(conversation_id="c", turn_id="t", candidate_id="a", citations=())
for number in range(10_000):
    records.add(f"r{number}", "main/ann", [reply], stored=False)
    os.write(1, b"%d\\n" % number)
"""


def answer() -> Any:
    """As much of a reply as a record keeps."""
    return SimpleNamespace(conversation_id="c", turn_id="t", candidate_id="a", citations=())


def test_an_answer_is_on_record_at_once_and_its_owner_s(tmp_path: Path) -> None:
    """It is found before and after its commit, by its owner only."""
    with closing(Records(tmp_path / "responses.db")) as records:
        records.add("one", OWNER, [answer()], stored=True)
        seen = [records.get("one", OWNER), records.get("one", "main/bob")]
        records.forget("nobody")  # commits what waits
        seen += [records.get("one", OWNER), records.get("one", "main/bob")]
    assert [found is not None for found in seen] == [True, False, True, False]
    assert seen[0] == seen[2]


def test_what_waits_is_deleted_with_the_rest(tmp_path: Path) -> None:
    """An answer that no commit has seen yet is forgotten with its conversation and its owner."""
    path = tmp_path / "responses.db"
    with closing(Records(path)) as records:
        records.add("one", OWNER, [answer()], stored=True)
        records.forget_conversation("c", OWNER)
        records.add("two", OWNER, [answer()], stored=True)
        records.forget(OWNER)
        assert [records.get(name, OWNER) for name in ("one", "two")] == [None, None]
    with closing(Records(path)) as records:
        assert [records.get(name, OWNER) for name in ("one", "two")] == [None, None]


def test_a_killed_process_loses_no_answer(tmp_path: Path) -> None:
    """Whatever was acknowledged before SIGKILL is there when the next process opens the file."""
    path = tmp_path / "responses.db"
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= 150:
                break
        os.kill(child.pid, signal.SIGKILL)
        last = [int(line), *(int(more) for more in child.stdout if more.endswith(b"\n"))][-1]
    with closing(Records(path)) as records:
        missing = [n for n in range(last + 1) if records.get(f"r{n}", OWNER) is None]
    assert (missing, last >= 150) == ([], True)


def test_a_torn_line_is_left_out(tmp_path: Path) -> None:
    """Of a file that ends in half a line, and one with a flipped bit, the whole lines count."""
    whole, flipped = b'%08x {"id": "a"}\n', b'00000000 {"id": "b"}\n'
    first = whole % zlib.crc32(b'{"id": "a"}')
    (tmp_path / "rows.a").write_bytes(first + flipped + first[:12])
    got: list[Row] = []
    with closing(Journal(tmp_path / "rows", "id", got.extend)):
        assert got == [{"id": "a"}]
    assert (tmp_path / "rows.a").read_bytes() == b""


def test_only_one_process_has_the_journal(tmp_path: Path) -> None:
    """The second one that opens a home commits by itself, and reads nothing of the first's."""
    path = tmp_path / "responses.db"
    with closing(Records(path)) as first, closing(Records(path)) as second:
        second.add("two", OWNER, [answer()], stored=False)
        assert first.get("two", OWNER) is not None


class Broken:
    """A database that refuses rows until it is mended."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.broken = True

    def __call__(self, rows: Sequence[Row]) -> None:
        """Take rows, or not."""
        if self.broken:
            raise OSError("disk full")
        self.rows.extend(rows)


def test_rows_wait_for_a_database_in_trouble(tmp_path: Path) -> None:
    """Nothing is dropped while commits fail; once they succeed all is committed, in order."""
    database = Broken()
    with closing(Journal(tmp_path / "rows", "id", database)) as journal:
        assert journal.add({"id": "a"})
        with pytest.raises(OSError, match="disk full"):
            journal.flush()
        assert journal.add({"id": "b"})
        assert (journal.find("a"), journal.find("b")) == ({"id": "a"}, {"id": "b"})
        database.broken = False
        journal.flush()
        assert [row["id"] for row in database.rows] == ["a", "b"]
        assert journal.find("a") is None


def test_what_waits_is_bounded(tmp_path: Path) -> None:
    """Behind a database that takes nothing, rows are handed back to who brings them."""
    database = Broken()
    with closing(Journal(tmp_path / "rows", "id", database)) as journal:
        taken = [journal.add({"id": str(n)}) for n in range(2 * MOST + 2)]
        # one batch may be on its way already
        assert MOST <= sum(taken) <= 2 * MOST
        database.broken = False
