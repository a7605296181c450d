"""Verdicts on passages, kept on disk by the hash of the text: judged once, read at every question.

One SQLite file, a cache: everything in it can be judged again. A verdict counts only for the guard
that reached it, told by a fingerprint of its moderators, their models and policies, the settings
that matter, and the code. Verdicts belong to documents, by number: what no document claims is not
kept, and goes with the last document that did. No text is stored, and no fault.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from safety.config import SafetySettings
from safety.moderator.base import Moderator
from safety.schema import SEVERITY, Span, Verdict

logger = logging.getLogger(__name__)

#: Raised with every change of the tables; a file of another version is made anew.
VERSION = 1
#: What another guard reached is kept so long after its last use, seconds: settings go back too.
KEPT_SECONDS = 7 * 86_400.0
#: How long a question waits for a writer, and a writer for another, seconds.
READ_SECONDS, WRITE_SECONDS = 1.0, 5.0
#: Hashes asked for at a time.
_BATCH = 400
#: Settings that change no verdict on a passage; any other one does.
INCIDENTAL = {
    *("audit", "audit_allowed", "audit_sync", "keep_texts_days", "cache", "verdicts", "locale"),
    *("seconds", "second_seconds", "turns", "pii_mask", "pii_block", "pii_logs", "pii_regions"),
    *("pii_presidio", "guard_key", "guard_device"),
}
_SCHEMA = f"""
CREATE TABLE guard (
    id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE, used REAL NOT NULL,
    chunk INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE claim (
    document INTEGER NOT NULL, digest BLOB NOT NULL, whole INTEGER NOT NULL,
    PRIMARY KEY (document, digest)
) WITHOUT ROWID;
CREATE INDEX claimed ON claim (digest);
CREATE TABLE verdict (
    guard INTEGER NOT NULL, digest BLOB NOT NULL, stops INTEGER NOT NULL, at REAL NOT NULL,
    body TEXT NOT NULL, PRIMARY KEY (guard, digest)
) WITHOUT ROWID;
CREATE INDEX stopped ON verdict (guard, digest) WHERE stops;
PRAGMA user_version = {VERSION};
"""
_T = TypeVar("_T")


class _OtherTablesError(Exception):
    """The file has no tables yet, or those of another version: for a reader it is empty."""


class Verdicts:
    """The cache as one guard sees it. Safe for several threads and processes.

    Nothing here raises for what the disk does: a cache that cannot be read knows nothing, one that
    cannot be written keeps nothing, and a damaged file is renamed and made anew.
    """

    def __init__(self, path: Path, fingerprint: str = "", limit: int = 500_000) -> None:
        """Open or create.

        Args:
            path: the database file.
            fingerprint: of the guard; "" is the one that was used last.
            limit: verdicts kept at most, of all guards.
        """
        self.path = path
        self.limit = limit
        self._fingerprint = fingerprint
        self._unbounded = limit

    def get(self, digests: Sequence[str]) -> dict[str, Verdict]:
        """The verdicts known of these texts, by hash (SHA-256, 64 hex digits)."""

        def read(db: sqlite3.Connection) -> dict[str, Verdict]:
            guard = self._guard(db)
            found: dict[str, Verdict] = {}
            for some in _parts([bytes.fromhex(d) for d in digests]):
                marks = ",".join("?" * len(some))
                query = f"SELECT digest, body FROM verdict WHERE guard = ? AND digest IN ({marks})"
                for digest, body in db.execute(query, (guard, *some)):
                    verdict = _verdict(body)
                    if verdict is not None:
                        found[digest.hex()] = verdict
            return found

        return self._read(read, {}) if digests else {}

    def add(self, verdicts: Mapping[str, Verdict]) -> None:
        """Keep verdicts by the hash of their text, where a document claims the text."""
        now = time.time()
        rows = [
            (bytes.fromhex(digest), int(v.stops), now, _body(v))
            for digest, v in verdicts.items()
            if v.side == "passage" and v.category != "fault"
        ]

        def write(db: sqlite3.Connection) -> None:
            guard = self._guard(db)
            db.executemany(
                f"INSERT OR REPLACE INTO verdict SELECT {guard}, ?1, ?2, ?3, ?4 "
                "WHERE EXISTS (SELECT 1 FROM claim WHERE digest = ?1)",
                rows,
            )
            self._unbounded += len(rows)
            if self._unbounded > self.limit // 100:  # counting them takes a while
                _bound(db, guard, self.limit)
                self._unbounded = 0

        if rows and self.limit:
            self._write(write)

    def claim(self, claims: Iterable[tuple[int, str]], *, whole: bool = True) -> None:
        """Note that these texts (document, hash) are of these documents; twice is once.

        `whole` are passages; others are parts of them, which are judged but not counted.
        """
        rows = [(document, bytes.fromhex(digest), int(whole)) for document, digest in claims]

        def known(db: sqlite3.Connection) -> bool:
            query = "SELECT whole FROM claim WHERE document = ? AND digest = ?"
            found = (db.execute(query, row[:2]).fetchone() for row in rows)
            return all(row is not None and row[0] >= whole for row in found)

        def write(db: sqlite3.Connection) -> None:
            db.executemany(
                "INSERT INTO claim VALUES (?, ?, ?) ON CONFLICT DO UPDATE "
                "SET whole = max(whole, excluded.whole)",
                rows,
            )

        if rows and self.limit and not self._read(known, False):
            self._write(write)

    def release(self, documents: Iterable[int]) -> None:
        """Forget these documents, and the verdicts that no other document claims."""
        gone = [(document,) for document in documents]

        def write(db: sqlite3.Connection) -> None:
            for document in gone:
                rows = db.execute("SELECT digest FROM claim WHERE document = ?", document)
                digests = rows.fetchall()
                db.execute("DELETE FROM claim WHERE document = ?", document)
                db.executemany(
                    "DELETE FROM verdict WHERE guard IN (SELECT id FROM guard) AND digest = ?1 "
                    "AND NOT EXISTS (SELECT 1 FROM claim WHERE digest = ?1)",
                    digests,
                )

        if gone and self.path.exists():
            self._write(write)

    def documents(self) -> set[int]:
        """Every document that claims a text."""
        query = "SELECT DISTINCT document FROM claim"
        return self._read(lambda db: {row[0] for row in db.execute(query)}, set())

    def stopped(self) -> dict[int, int]:
        """How many passages of each document are stopped; the others are left out."""
        query = (
            "SELECT document, count(*) FROM verdict JOIN claim USING (digest) "
            "WHERE guard = ? AND stops AND whole GROUP BY document"
        )
        return self._read(lambda db: dict(db.execute(query, (self._guard(db),)).fetchall()), {})

    def reached(self) -> int:
        """Number of the last chunk up to which all were seen by the guard."""
        query = "SELECT chunk FROM guard WHERE id = ?"
        found = self._read(lambda db: db.execute(query, (self._guard(db),)).fetchone(), None)
        return int(found[0]) if found else 0

    def reach(self, before: int, chunk: int) -> None:
        """Note that the chunks after `before` up to `chunk` were seen."""
        query = "UPDATE guard SET chunk = ? WHERE id = ? AND chunk BETWEEN ? AND ?"
        self._write(lambda db: db.execute(query, (chunk, self._guard(db), before, chunk)))

    def _guard(self, db: sqlite3.Connection) -> int:
        """Number of the guard; 0 where it was never here."""
        if self._fingerprint:
            query = "SELECT id FROM guard WHERE fingerprint = ?"
            row = db.execute(query, (self._fingerprint,)).fetchone()
        else:
            row = db.execute("SELECT id FROM guard ORDER BY used DESC LIMIT 1").fetchone()
        return int(row[0]) if row else 0

    def _read(self, work: Callable[[sqlite3.Connection], _T], none: _T) -> _T:
        if not self.path.exists():
            return none
        try:
            with self._open(READ_SECONDS) as db:
                return work(db)
        except _OtherTablesError:
            return none
        except sqlite3.Error as error:
            self._failed("read", error)
            return none

    def _write(self, work: Callable[[sqlite3.Connection], object]) -> None:
        for _ in range(2):  # once more where the file was damaged, and is a new one now
            try:
                with self._open(WRITE_SECONDS, write=True) as db:
                    work(db)
                return
            except (sqlite3.Error, OSError) as error:
                if not self._failed("written", error):
                    return

    @contextlib.contextmanager
    def _open(self, seconds: float, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection in one transaction; a file that is not there is made for a writer."""
        if write and not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        db = sqlite3.connect(self.path, timeout=seconds, isolation_level=None)
        try:
            for pragma in ("secure_delete = ON", "synchronous = NORMAL", "trusted_schema = OFF"):
                db.execute(f"PRAGMA {pragma}")
            db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            if db.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                if not write:
                    raise _OtherTablesError
                _create(db)
            if write and self._fingerprint and not self._guard(db):
                self._enter(db)
            yield db
            db.execute("COMMIT")
        finally:
            db.close()

    def _enter(self, db: sqlite3.Connection) -> None:
        """Note the guard, and drop those that were not used for long."""
        now = time.time()
        old = db.execute("SELECT id FROM guard WHERE used < ?", (now - KEPT_SECONDS,)).fetchall()
        for row in old:
            db.execute("DELETE FROM verdict WHERE guard = ?", row)
            db.execute("DELETE FROM guard WHERE id = ?", row)
        values = (self._fingerprint, now)
        db.execute("INSERT INTO guard (fingerprint, used) VALUES (?, ?)", values)

    def use(self) -> None:
        """Note that the guard is the one in use; its verdicts are kept from now on."""
        query = "UPDATE guard SET used = ? WHERE id = ?"
        self._write(lambda db: db.execute(query, (time.time(), self._guard(db))))

    def _failed(self, done: str, error: sqlite3.Error | OSError) -> bool:
        """Say what went wrong; True where the file was damaged and is out of the way now."""
        damaged = type(error) is sqlite3.DatabaseError
        if not damaged:
            logger.warning("verdicts_not_%s error=%s: %s", done, type(error).__name__, error)
            return False
        aside = self.path.with_name(f"{self.path.name}.damaged")
        with contextlib.suppress(OSError):
            os.replace(self.path, aside)
            self.path.with_name(f"{self.path.name}-journal").unlink(missing_ok=True)
            logger.warning(
                "verdicts_damaged error=%s; kept as %s and made anew: passages are judged again",
                error,
                aside.name,
            )
            return True
        return False


def fingerprint(
    first: Sequence[Moderator], second: Sequence[Moderator], settings: SafetySettings
) -> str:
    """SHA-256 (64 hex digits) over all that a verdict on a passage depends on but the passage."""
    lines = [
        [(m.name, str(getattr(m, "policy", "")), str(getattr(m, "model", ""))) for m in line]
        for line in (first, second)
    ]
    chosen = settings.model_dump(mode="json", exclude=INCIDENTAL)
    whole = json.dumps([lines, chosen, _code()], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()


@lru_cache(maxsize=1)
def _code() -> str:
    """Over this package as it is installed: rules, words and normaliser are part of a verdict."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".py", ".toml", ".gz")):
        digest.update(f"{path.relative_to(folder)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _create(db: sqlite3.Connection) -> None:
    names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for name in names:
        db.execute(f'DROP TABLE "{name}"')
    for statement in filter(str.strip, _SCHEMA.split(";")):
        db.execute(statement)


def _bound(db: sqlite3.Connection, guard: int, limit: int) -> None:
    """Drop what is too much: of other guards first, then the oldest that pass, then the oldest."""
    surplus = db.execute("SELECT count(*) FROM verdict").fetchone()[0] - limit
    if surplus <= 0:
        return
    surplus += limit // 10  # not a row at a time
    query = "SELECT guard, digest FROM verdict ORDER BY guard = ?, stops, at LIMIT ?"
    rows = db.execute(query, (guard, surplus)).fetchall()
    db.executemany("DELETE FROM verdict WHERE guard = ? AND digest = ?", rows)
    db.executemany(
        "DELETE FROM claim WHERE digest = ?1 "
        "AND NOT EXISTS (SELECT 1 FROM verdict WHERE guard IN (SELECT id FROM guard) "
        "AND digest = ?1)",
        [(digest,) for _, digest in rows],
    )


def _body(verdict: Verdict) -> str:
    """The verdict without what belongs to one question, and without text."""
    row = asdict(verdict)
    for name in ("side", "safe_text", "reply", "seconds", "decision_id"):
        del row[name]
    row["spans"] = [(s.start, s.end, s.rule) for s in verdict.spans]
    return json.dumps(row, separators=(",", ":"))


def _verdict(body: str) -> Verdict | None:
    """A stored verdict; None where it is none, and the text is to be judged again."""
    try:
        row: dict[str, Any] = json.loads(body)
        row["spans"] = tuple(Span(*span) for span in row["spans"])
        row["scores"] = tuple((str(name), float(value)) for name, value in row["scores"])
        verdict = Verdict(side="passage", **row)
    except (ValueError, TypeError, KeyError):
        return None
    return verdict if verdict.action in SEVERITY else None


def _parts(digests: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(digests), _BATCH):
        yield digests[start : start + _BATCH]
