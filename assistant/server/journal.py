"""Rows on their way into a database: in a file before they are acknowledged, committed after.

A commit that waits for the disk takes longer than all else that a server adds to an answer, and
nobody asks for the record of an answer before having read it. So a row is first a line of a file,
written but not forced to the disk, and found in memory; a thread commits the waiting rows together
a moment later and empties the file. A process that is killed loses none: the next one reads the
lines. A power cut can lose the rows of the last moment (`HOLD`, and the commit under way), and
nothing that was committed.

Two files take turns, so that one can be emptied while the other is written. Each line has a
checksum; one that was torn is left out. One process holds the files of a home; another that comes
meanwhile gets no journal and commits each row itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

#: Seconds that rows wait for others to be committed with, and for a database that is in trouble.
HOLD, RETRY = 0.05, 1.0
#: Rows that may wait; what comes on top is committed by who brings it.
MOST = 10_000

Row = Mapping[str, Any]
Commit = Callable[[Sequence[Row]], None]


class Journal:
    """The rows that wait. Safe for several threads.

    Args:
        path: of the two files, without their endings.
        key: the column that names a row.
        commit: writes rows for good, or raises OSError; one that is there stays as it is.
    """

    def __init__(self, path: Path, key: str, commit: Commit) -> None:
        self._key, self._commit = key, commit
        self._files = [_opened(path.with_name(f"{path.name}.{end}")) for end in "ab"]
        self._lock = threading.Lock()
        self._one = threading.Lock()  # commits one after the other
        self._waiting: dict[str, Row] = {}
        self._going: dict[str, Row] = {}
        self._some, self._closed = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        try:
            self.held = _locked(self._files[0])
            if self.held:
                self._left()
        except BaseException:
            self._shut()
            raise

    def add(self, row: Row) -> bool:
        """Take a row; False: it was not taken, and is the caller's to commit."""
        line = _line(row)
        with self._lock:
            if not self.held or len(self._waiting) >= MOST or self._closed.is_set():
                return False
            try:
                whole = os.write(self._files[0], line) == len(line)
            except OSError:
                whole = False
            if not whole:  # the disk is full; the next line begins anew
                with contextlib.suppress(OSError):
                    os.write(self._files[0], b"\n")
                return False
            self._waiting[row[self._key]] = row
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
                self._thread.start()
        self._some.set()
        return True

    def find(self, key: str) -> Row | None:
        """A row that waits."""
        with self._lock:
            return self._waiting.get(key) or self._going.get(key)

    def flush(self) -> None:
        """Commit all that waits now.

        Raises:
            OSError: the database cannot be written; the rows wait on.
        """
        with self._one:
            self._step()
            self._step()  # what had failed before went alone

    def close(self) -> None:
        """Commit what waits, or leave it to the next start, and let go of the files."""
        self._closed.set()
        self._some.set()
        if self._thread is not None:
            self._thread.join()
        try:
            if self.held:
                self.flush()
        except OSError as error:
            logger.warning("journal_kept rows_for=next_start error=%s", type(error).__name__)
        finally:
            self._shut()

    def _run(self) -> None:
        while not self._closed.is_set():
            self._some.wait()
            self._some.clear()
            self._closed.wait(HOLD)
            while not self._closed.is_set():
                try:
                    self.flush()
                    break
                except OSError as error:
                    logger.warning("journal_waits error=%s", type(error).__name__)
                    self._closed.wait(RETRY)

    def _step(self) -> None:
        with self._lock:
            if not self._going:
                if not self._waiting:
                    return
                self._going, self._waiting = self._waiting, {}
                self._files.reverse()
        self._commit(list(self._going.values()))
        with self._lock:
            os.ftruncate(self._files[1], 0)
            self._going = {}

    def _left(self) -> None:
        """Commit what another process left behind."""
        rows = [row for file in self._files for row in _rows(file)]
        if rows:
            self._commit(rows)
            logger.info("journal_read rows=%d", len(rows))
        for file in self._files:
            os.ftruncate(file, 0)

    def _shut(self) -> None:
        self.held = False
        for file in self._files:
            os.close(file)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _line(row: Row) -> bytes:
    told = json.dumps(row).encode()  # without line ends: JSON escapes them
    return b"%08x %s\n" % (zlib.crc32(told), told)


def _rows(file: int) -> list[dict[str, Any]]:
    with open(os.dup(file), "rb") as lines:
        lines.seek(0)
        found = []
        for line in lines:
            sum_, _, told = line.rstrip(b"\n").partition(b" ")
            if sum_ == b"%08x" % zlib.crc32(told) and line.endswith(b"\n"):
                found.append(json.loads(told))
        return found
