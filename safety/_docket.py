"""The docket: texts kept for an appeal, appeals, and what reviewers made of them. One SQLite file.

Only the file's owner may read it, and what is deleted is overwritten.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safety.errors import AuditBroken

DAY = 86_400.0
#: Old texts are looked for at most this often, seconds.
PURGE_SECONDS = 600.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS kept (
    decision TEXT PRIMARY KEY, user TEXT NOT NULL, at REAL NOT NULL, text TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS appeal (
    id TEXT PRIMARY KEY, user TEXT NOT NULL, at REAL NOT NULL, state TEXT NOT NULL,
    text TEXT, record TEXT NOT NULL, reviewer TEXT NOT NULL DEFAULT '',
    note TEXT NOT NULL DEFAULT '', reviewed REAL
);
"""


class Docket:
    """Texts and appeals. Safe for several threads and processes; each call is one transaction.

    Raises:
        AuditBroken: the file is something else, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._purged: float | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        try:
            with self._open() as db:
                db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise AuditBroken(
                f"{path} cannot be read: {error}; move it away to start a new one"
            ) from error

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            db = sqlite3.connect(self.path, timeout=10)
            try:
                db.row_factory = sqlite3.Row
                db.execute("PRAGMA secure_delete = ON")
                with db:
                    yield db
            finally:
                db.close()

    def keep(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """Keep (decision, user hash, text) rows from now on."""
        if rows:
            now = time.time()
            values = [(d, u, now, t.encode(errors="replace").decode()) for d, u, t in rows]
            with self._open() as db:
                db.executemany("INSERT OR IGNORE INTO kept VALUES (?, ?, ?, ?)", values)

    def kept(self, decision: str, days: int) -> str | None:
        """The text of a decision, None where it was not kept, or longer ago than `days`."""
        with self._open() as db:
            row = db.execute(
                "SELECT text FROM kept WHERE decision = ? AND at > ?",
                (decision, time.time() - days * DAY),
            ).fetchone()
        return None if row is None else str(row["text"])

    def purge(self, days: int, *, at_once: bool = False) -> None:
        """Delete texts kept longer than `days`; those of appeals stay with them."""
        now = time.monotonic()
        if not at_once and self._purged is not None and now - self._purged < PURGE_SECONDS:
            return
        self._purged = now
        with self._open() as db:
            db.execute("DELETE FROM kept WHERE at <= ?", (time.time() - days * DAY,))

    def file(self, key: str, user: str, text: str | None, record: dict[str, Any]) -> None:
        """Take in an appeal, open; one that was reviewed stays as it is."""
        with self._open() as db:
            db.execute(
                "INSERT INTO appeal (id, user, at, state, text, record) "
                "VALUES (?, ?, ?, 'open', ?, ?) ON CONFLICT (id) DO UPDATE SET "
                "text = excluded.text, record = excluded.record WHERE state = 'open'",
                (key, user, time.time(), text, json.dumps(record, ensure_ascii=False)),
            )

    def appeals(self, state: str = "", key: str = "") -> list[dict[str, Any]]:
        """Appeals in their order, of one state, or whose id begins with `key`."""
        with self._open() as db:
            rows = db.execute(
                "SELECT * FROM appeal WHERE (? = '' OR state = ?) "
                "AND substr(id, 1, length(?)) = ? ORDER BY at",
                (state, state, key, key),
            ).fetchall()
        return [dict(row) | {"record": json.loads(row["record"])} for row in rows]

    def decide(self, key: str, state: str, reviewer: str, note: str) -> bool:
        """Close an open appeal; False where it was not open any more."""
        with self._open() as db:
            done = db.execute(
                "UPDATE appeal SET state = ?, reviewer = ?, note = ?, reviewed = ? "
                "WHERE id = ? AND state = 'open'",
                (state, reviewer, note, time.time(), key),
            )
            return done.rowcount == 1

    def forget(self, user: str) -> int:
        """Delete the texts and appeals of a user (hash); returns how many there were."""
        with self._open() as db:
            gone = db.execute("DELETE FROM kept WHERE user = ?", (user,)).rowcount
            return gone + db.execute("DELETE FROM appeal WHERE user = ?", (user,)).rowcount
