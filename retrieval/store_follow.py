"""The store as whoever follows it reads it: passages in the order they came, and what went.

Chunk ids and document ids grow and are never used again, so that a number is all there is to
remember.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from contextlib import contextmanager

import sqlalchemy as sa

from retrieval import store_log, store_models
from retrieval.errors import StoreError
from retrieval.schema import Passage
from retrieval.store import Store
from retrieval.store_tables import CHANGE, CHUNK, DOCUMENT

#: Ids per statement: SQLite binds a limited number of values.
_BATCH = 400


class Followed:
    """One store. Every method raises StoreError where the database cannot be read."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        try:
            with self._store.read() as connection:
                yield connection
        except sa.exc.DatabaseError as error:
            raise StoreError(f"{self._store.path} cannot be read ({error.orig})") from error

    def newest(self) -> int:
        """The highest chunk id there is; 0 in an empty store."""
        with self._read() as connection:
            return store_models.newest(connection)

    def count(self, after: int, until: int) -> int:
        """How many chunks there are above `after` and up to `until`."""
        c = CHUNK.c.id
        query = sa.select(sa.func.count()).where(c > after, c <= until)
        with self._read() as connection:
            return int(connection.execute(query).scalar_one())

    def passages(self, after: int, until: int, limit: int) -> tuple[list[Passage], int]:
        """The first `limit` chunks above `after` and up to `until`, and the last id among them.

        The id is `until` where there are no more.
        """
        c = CHUNK.c.id
        query = sa.select(c).where(c > after, c <= until).order_by(c).limit(limit)
        with self._read() as connection:
            keys = [int(key) for key in connection.execute(query).scalars()]
        with self._read():  # for its errors: the store reads by itself
            found = self._store.passages([(key, 0.0, ()) for key in keys])
        return found, keys[-1] if keys else until

    def sequence(self) -> int:
        """Number of the last change."""
        with self._read() as connection:
            return store_log.sequence(connection)

    def removed(self, since: int) -> set[int] | None:
        """Documents that changes after `since` took away; None: the log begins later."""
        x = CHANGE.c
        query = sa.select(x.document_id).distinct().where(x.seq > since, x.op == "remove")
        with self._read() as connection:
            if store_log.floor(connection) > since:
                return None
            return set(connection.execute(query).scalars())

    def gone(self, documents: Set[int]) -> set[int]:
        """Those of these documents that are not stored any more."""
        return set(documents) - self.places(documents).keys()

    def places(self, documents: Set[int]) -> dict[int, tuple[str, str]]:
        """Source and root of these documents, as far as they are stored."""
        keys, found = sorted(documents), {}
        d = DOCUMENT.c
        with self._read() as connection:
            for start in range(0, len(keys), _BATCH):
                some = d.id.in_(keys[start : start + _BATCH])
                for row in connection.execute(sa.select(d.id, d.source, d.root).where(some)):
                    found[int(row.id)] = (str(row.source), str(row.root))
        return found
