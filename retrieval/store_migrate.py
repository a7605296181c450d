"""Databases of older versions, brought up to date in place: SQL steps by version.

A copy is made first (VACUUM INTO, whole or not there). All steps are one transaction, so a database
is never half-migrated: after a crash it is the old one, and the next opening starts again.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import sqlalchemy as sa

from retrieval import fault
from retrieval.errors import StoreError
from retrieval.store_tables import SCHEMA

_LOG = logging.getLogger(__name__)

#: Steps from the version that is the key to the next one. Never changed once released.
STEPS: dict[int, tuple[str, ...]] = {
    1: (
        # texts apart from names and dates
        "CREATE TABLE content (document_id INTEGER NOT NULL PRIMARY KEY "
        "REFERENCES document (id) ON DELETE CASCADE, text TEXT NOT NULL)",
        "INSERT INTO content SELECT id, text FROM document",
        "ALTER TABLE document DROP COLUMN text",
        "ALTER TABLE document ADD COLUMN date FLOAT NOT NULL DEFAULT 0",
        "UPDATE document SET date = modified",
        "CREATE TABLE access (document_id INTEGER NOT NULL "
        "REFERENCES document (id) ON DELETE CASCADE, reader VARCHAR NOT NULL, "
        "PRIMARY KEY (document_id, reader))",
        # vectors by model
        "CREATE TABLE model (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "
        "name VARCHAR NOT NULL UNIQUE, dim INTEGER NOT NULL, settings VARCHAR NOT NULL, "
        "serving BOOLEAN NOT NULL)",
        "INSERT INTO model SELECT 1, value, "
        "coalesce((SELECT length(vector) / 2 FROM embedding LIMIT 1), 0), '', 1 "
        "FROM meta WHERE key = 'embedder'",
        "ALTER TABLE embedding RENAME TO embedding_1",
        "CREATE TABLE embedding (chunk_id INTEGER NOT NULL "
        "REFERENCES chunk (id) ON DELETE CASCADE, "
        "model_id INTEGER NOT NULL REFERENCES model (id), vector BLOB NOT NULL, "
        "PRIMARY KEY (chunk_id, model_id))",
        "INSERT INTO embedding SELECT c.id, 1, coalesce(e.vector, x'') "
        "FROM chunk c LEFT JOIN embedding_1 e ON e.chunk_id = c.id ORDER BY c.id",
        "DROP TABLE embedding_1",
        # a log that scopes can be replayed from; nothing derived from the old one was kept
        "ALTER TABLE change ADD COLUMN document_id INTEGER NOT NULL DEFAULT 0",
        "DELETE FROM change WHERE seq < (SELECT max(seq) FROM change)",
        "INSERT INTO meta SELECT 'floor', coalesce(max(seq), 0) FROM change",
        "DELETE FROM meta WHERE key = 'embedder'",
    ),
}


def upgrade(path: Path, engine: sa.Engine, found: int) -> None:
    """Bring the database at `path` from version `found` to `SCHEMA`. The caller holds the lock.

    Raises:
        StoreError: something does not add up; nothing was changed.
    """
    copy = path.with_name(f"{path.name}.schema-{found}.bak")
    if not copy.exists():
        part = copy.with_suffix(".part")
        part.unlink(missing_ok=True)
        with engine.execution_options(begin="").connect() as connection:
            connection.exec_driver_sql("VACUUM INTO ?", (str(part),))
        os.replace(part, copy)
    _LOG.warning("%s: schema %d -> %d; a copy is kept as %s", path, found, SCHEMA, copy.name)
    with engine.execution_options(begin="IMMEDIATE").begin() as connection:
        before = _sizes(connection)
        for version in range(found, SCHEMA):
            for statement in STEPS[version]:
                connection.exec_driver_sql(statement)
        connection.exec_driver_sql("UPDATE meta SET value = ? WHERE key = 'schema'", (str(SCHEMA),))
        fault.reached("mid-migration")
        after = _sizes(connection)
        loose = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
        if before != after or loose:
            raise StoreError(
                f"{path} cannot be brought from schema {found} to {SCHEMA}: {before} documents and "
                f"chunks before, {after} after, {len(loose)} loose rows; nothing was changed. "
                f"Ingest into a new home, or use the version that wrote it"
            )


def _sizes(connection: sa.Connection) -> tuple[int, ...]:
    counts = (f"SELECT count(*) FROM {table}" for table in ("document", "chunk"))
    return tuple(int(connection.exec_driver_sql(query).scalar() or 0) for query in counts)
