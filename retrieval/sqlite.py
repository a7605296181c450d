"""How every SQLite file of ours is opened: durable, consistent reads, safe journal.

SQLite from 3.7.0 to 3.51.2 can corrupt a database when a WAL is reset under concurrent writers,
so WAL is used only from 3.51.3 on; before, the rollback journal.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

WAL_SAFE = (3, 51, 3)


def journal_mode(version: tuple[int, ...]) -> str:
    """WAL where this SQLite resets it safely, else the truncated rollback journal."""
    return "WAL" if version >= WAL_SAFE else "TRUNCATE"


def probe(home: Path) -> Iterator[tuple[str, str]]:
    """Every database of a folder that cannot be used now: its name, and what is wrong with it."""
    for path in sorted(home.glob("*.db")):
        if not os.access(path, os.W_OK):
            yield path.name, "cannot be written"
            continue
        try:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
                db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error:
            yield path.name, "cannot be read"


def prepare(engine: sa.Engine) -> None:
    """Set every connection of `engine` up.

    Committed means on disk, deleted means overwritten. A read is one state of the file
    throughout. A transaction begins as its execution option `begin` says: "IMMEDIATE" takes the
    writer's lock at once, so that two writers wait for each other instead of failing half-way;
    "" begins none, for statements such as VACUUM.
    """
    sa.event.listen(engine, "connect", _connected)
    sa.event.listen(engine, "begin", _begin)


def _connected(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # `_begin` begins; the driver would leave reads without
    for pragma in (
        f"journal_mode={journal_mode(sqlite3.sqlite_version_info)}",
        "synchronous=FULL",
        "foreign_keys=ON",
        "trusted_schema=OFF",
        "secure_delete=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    mode = connection.get_execution_options().get("begin", "DEFERRED")
    if mode:
        connection.exec_driver_sql(f"BEGIN {mode}")
