"""What callers of other libraries keep beside a document: JSON by source, in the same database.

Nothing of ours reads it. It is written before its document, so a document never stands without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from retrieval.store import Store
from retrieval.store_tables import CHUNK, CONTENT, DOCUMENT

TABLE = sa.Table(
    "beside",
    sa.MetaData(),
    sa.Column("source", sa.String, primary_key=True),
    sa.Column("metadata", sa.JSON, nullable=False),
)
#: Names in one query at most.
BATCH = 500


class Beside:
    """Metadata of the documents below one root."""

    def __init__(self, store: Store, root: str) -> None:
        self._store = store
        self._root = root
        with store.write() as connection:
            TABLE.create(connection, checkfirst=True)

    def write(self, rows: Mapping[str, dict[str, Any]]) -> None:
        """Keep metadata by source."""
        with self._store.write() as connection:
            self._delete(connection, list(rows))
            if rows:
                values = [{"source": key, "metadata": value} for key, value in rows.items()]
                connection.execute(sa.insert(TABLE), values)

    def read(self, sources: Sequence[str]) -> dict[str, tuple[str, dict[str, Any]]]:
        """(text, metadata) of those of `sources` that are stored."""
        query = (
            sa.select(DOCUMENT.c.source, CONTENT.c.text, TABLE.c.metadata)
            .join(CONTENT, CONTENT.c.document_id == DOCUMENT.c.id)
            .outerjoin(TABLE, TABLE.c.source == DOCUMENT.c.source)
        )
        found = {}
        with self._store.read() as connection:
            for first in range(0, len(sources), BATCH):
                part = sources[first : first + BATCH]
                for row in connection.execute(query.where(DOCUMENT.c.source.in_(part))):
                    found[row.source] = (row.text, row.metadata or {})
        return found

    def sources(self) -> list[str]:
        """Every document below the root."""
        query = sa.select(DOCUMENT.c.source).where(DOCUMENT.c.root == self._root)
        with self._store.read() as connection:
            return [row.source for row in connection.execute(query)]

    def others(self, wanted: Mapping[str, Any]) -> frozenset[int]:
        """Chunks of the whole store whose document does not have these metadata values."""
        query = (
            sa.select(CHUNK.c.id, TABLE.c.metadata)
            .join(DOCUMENT, DOCUMENT.c.id == CHUNK.c.document_id)
            .outerjoin(TABLE, TABLE.c.source == DOCUMENT.c.source)
        )
        with self._store.read() as connection:
            return frozenset(
                row.id
                for row in connection.execute(query)
                if any((row.metadata or {}).get(key) != value for key, value in wanted.items())
            )

    def remove(self, sources: Sequence[str]) -> int:
        """Delete documents and what is kept beside them; returns how many there were."""
        removed = self._store.remove(sources)
        with self._store.write() as connection:
            self._delete(connection, sources)
        return removed

    def _delete(self, connection: sa.Connection, sources: Sequence[str]) -> None:
        for first in range(0, len(sources), BATCH):
            part = sources[first : first + BATCH]
            connection.execute(sa.delete(TABLE).where(TABLE.c.source.in_(part)))
