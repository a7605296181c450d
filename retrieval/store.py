"""Documents, chunks, embeddings and the change log: the only truth (SQLAlchemy, SQLite).

The vector index is derived from `embedding` and `change`; the lexical index lies in the same
database and commits with the rows it indexes. One document version is one transaction: the old
version's rows, terms and vectors leave and the new ones arrive together, or nothing does. Ids are
never reused (AUTOINCREMENT), so a stale id can only miss, never hit something else.

Vectors are kept by encoder. The one the store is opened with is written; where another one serves,
`retrieval.switch` fills the new set up beside it.

Writers of several processes take turns by a lock file; how the file is opened is said in
`retrieval.sqlite`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import sqlalchemy as sa
from filelock import FileLock, Timeout

from retrieval import fault, lexical, sqlite, store_log, store_migrate, store_models, store_read
from retrieval.catalog import CatalogRows
from retrieval.chunk import Piece
from retrieval.embed.base import Vectors
from retrieval.errors import DiskFull, StoreBusy, StoreError
from retrieval.schema import Document, FileReport, Found, Passage, RootStatus, Scope
from retrieval.store_log import Changes, Loaded, Model
from retrieval.store_read import Known
from retrieval.store_tables import (
    ACCESS,
    CHANGE,
    CHUNK,
    CONTENT,
    DOCUMENT,
    META,
    METADATA,
    ROOT,
    SCHEMA,
)

__all__ = ["Known", "NewVersion", "Store"]


@dataclass(frozen=True, slots=True)
class NewVersion:
    """One document version to be written.

    `vectors` is (len(pieces), dim), row by row; a row of zeros is a chunk without a vector, which
    only the lexical side finds. `acl` names who may read it (users, groups); () is everybody.
    `date` is the document's own date, seconds since the epoch, where its source tells one; a
    search in time goes by it, else by `modified`.
    """

    source: str
    root: str
    title: str
    text: str
    lang: str
    version: str
    made_by: str
    modified: float
    stamp: str
    pieces: tuple[Piece, ...]
    digests: tuple[str, ...]
    vectors: Vectors
    acl: tuple[str, ...] = ()
    date: float | None = None


class Store:
    """The knowledge base on disk. Safe for several threads and several processes.

    `model` is the encoder whose vectors this process writes.
    """

    model: Model

    def __init__(self, path: Path, embedder: str, dim: int, settings: str = "") -> None:
        """Open or create, for vectors of `embedder` with `dim` columns.

        Args:
            path: the database file.
            embedder: id of the encoder; one not seen before is noted beside the one that serves.
            dim: columns of its vectors.
            settings: JSON to build it again, noted for a later version; "" where unknown.

        Raises:
            IndexMismatch: the same encoder's vectors inside have another length.
            StoreError: not a database, or written by a newer version.
        """
        self.path = path
        self._broken = ""
        self._lock = FileLock(path.with_suffix(".lock"), timeout=60)
        self._engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(path)),
            connect_args={"timeout": 60, "check_same_thread": False},
        )
        sqlite.prepare(self._engine)
        self._writer = self._engine.execution_options(begin="IMMEDIATE")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._prepare()
            with self.write() as connection:
                self.model = store_models.note(connection, embedder, dim, settings)
        except OSError as error:
            raise StoreError(
                f"{path} cannot be opened ({error.strerror}); check the folder and its permissions"
            ) from error
        except sa.exc.DatabaseError as error:
            raise StoreError(
                f"{path} is not a usable database ({error.orig}); move it away and ingest again"
            ) from error

    @property
    def dim(self) -> int:
        """Columns of the vectors this process writes."""
        return self.model.dim

    @property
    def broken(self) -> str:
        """Why nothing is written any more before a restart; "" where it is."""
        return self._broken

    def _prepare(self) -> None:
        """Create the tables, or bring older ones up to date."""
        found = SCHEMA
        with self.write() as connection:
            tables = sa.inspect(connection).get_table_names()
            if META.name in tables:
                rows = connection.execute(sa.select(META))
                found = self._version({row.key: row.value for row in rows})
            elif tables:
                raise StoreError(
                    f"{self.path} is a database of something else (it has {tables[0]!r}); "
                    "name another folder as home"
                )
            else:
                METADATA.create_all(connection)
                for statement in lexical.CREATE:
                    connection.execute(sa.text(statement))
                connection.execute(sa.insert(META).values(key="schema", value=str(SCHEMA)))
        if found < SCHEMA:
            with self._lock:
                store_migrate.upgrade(self.path, self._engine, found)

    def _version(self, meta: dict[str, str]) -> int:
        found = meta.get("schema", "")
        if not found.isdecimal() or not 1 <= int(found) <= SCHEMA:
            raise StoreError(
                f"{self.path} has schema {found}, this version reads {SCHEMA}; "
                "use the version that wrote it, or move the file away and ingest again"
            )
        return int(found)

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction of the one writer.

        Raises:
            StoreBusy: another process wrote for longer than a minute.
            DiskFull: there is no room; nothing of this transaction was kept.
            StoreError: the disk failed. After that nothing more is written until a restart: what
                the system kept of a failed write cannot be known (PostgreSQL does the same).
        """
        if self._broken:
            raise StoreError(f"{self.path} is read-only until a restart: {self._broken}")
        try:
            with self._lock, self._writer.begin() as connection:
                yield connection
                fault.reached("before-commit")
            fault.reached("after-commit")
        except Timeout as error:
            raise StoreBusy(f"another process is writing to {self.path}; try again") from error
        except sa.exc.OperationalError as error:
            self._failed(error)
            raise

    def _failed(self, error: sa.exc.OperationalError) -> None:
        """Name what the disk did; anything else is raised as it came."""
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise DiskFull(
                f"no room left for {self.path}; free some space and try again"
            ) from error
        if code == sqlite3.SQLITE_IOERR:
            self._broken = f"the disk failed while writing ({error.orig})"
            raise StoreError(f"{self.path}: {self._broken}; restart to go on") from error
        if code == sqlite3.SQLITE_READONLY:
            raise StoreError(f"{self.path} may not be written; check its permissions") from error

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A read transaction: one state of the database throughout."""
        with self._engine.connect() as connection, connection.begin():
            yield connection

    def known(self) -> dict[str, Known]:
        """What is stored, by source."""
        with self.read() as connection:
            return store_read.known(connection)

    def vectors_by_digest(self, document_id: int) -> dict[str, Vectors]:
        """Vectors of a stored version by the digest of the embedded text, to use again."""
        with self.read() as connection:
            return store_read.vectors_by_digest(connection, document_id, self.model)

    def put(self, *versions: NewVersion) -> None:
        """Write versions in place of the ones before, in one transaction: all of them, or none."""
        with self.write() as connection:
            for new in versions:
                self._put_one(connection, new)

    def _put_one(self, connection: sa.Connection, new: NewVersion) -> None:
        self._drop(connection, DOCUMENT.c.source == new.source)
        document = connection.execute(
            sa.insert(DOCUMENT).values(
                source=new.source,
                root=new.root,
                title=new.title,
                lang=new.lang,
                version=new.version,
                made_by=new.made_by,
                modified=new.modified,
                stamp=new.stamp,
                indexed=time.time(),
                date=new.modified if new.date is None else new.date,
            )
        ).inserted_primary_key
        assert document is not None
        key = int(document[0])
        connection.execute(sa.insert(CONTENT).values(document_id=key, text=new.text))
        _grant(connection, key, new.acl)
        self._put_chunks(connection, key, new)

    def _put_chunks(self, connection: sa.Connection, document: int, new: NewVersion) -> None:
        terms = []
        rows = zip(new.pieces, new.digests, new.vectors, strict=True)
        for ordinal, (piece, digest, vector) in enumerate(rows):
            key = connection.execute(
                sa.insert(CHUNK).values(
                    document_id=document,
                    start=piece.start,
                    end=piece.end,
                    headings=list(piece.headings),
                    ordinal=ordinal,
                    code=[list(span) for span in piece.code],
                    digest=digest,
                )
            ).inserted_primary_key
            assert key is not None
            head = " ".join((new.title, *piece.headings))
            terms.append((int(key[0]), head, new.text[piece.start : piece.end], vector))
        if terms:
            store_models.fill(connection, self.model, [(key, v) for key, _, _, v in terms])
            added = [{"op": "add", "chunk_id": t[0], "document_id": document} for t in terms]
            connection.execute(sa.insert(CHANGE), added)
        lexical.add(connection, [(key, head, body) for key, head, body, _ in terms])

    def touch(
        self,
        document_id: int,
        stamp: str,
        modified: float,
        *,
        date: float | None = None,
        acl: tuple[str, ...] | None = None,
    ) -> None:
        """Note a new time stamp for content that did not change; `date`, `acl`: None keeps them.

        A document dated by its file alone gets the new time as its date.
        """
        d = DOCUMENT.c
        kept = sa.case((d.date == d.modified, modified), else_=d.date)
        with self.write() as connection:
            connection.execute(
                sa.update(DOCUMENT)
                .where(d.id == document_id)
                .values(stamp=stamp, modified=modified, date=kept if date is None else date)
            )
            if acl is not None:
                connection.execute(sa.delete(ACCESS).where(ACCESS.c.document_id == document_id))
                _grant(connection, document_id, acl)
            log = {"op": "touch", "chunk_id": 0, "document_id": document_id}
            connection.execute(sa.insert(CHANGE).values(**log))

    def remove(self, sources: Sequence[str]) -> int:
        """Delete documents by source; returns how many there were."""
        with self.write() as connection:
            return sum(self._drop(connection, DOCUMENT.c.source == s) for s in sources)

    def _drop(self, connection: sa.Connection, condition: sa.ColumnElement[bool]) -> int:
        documents = [r.id for r in connection.execute(sa.select(DOCUMENT.c.id).where(condition))]
        for document in documents:
            found = connection.execute(sa.select(CHUNK.c.id).where(CHUNK.c.document_id == document))
            chunks = [row.id for row in found]
            lexical.remove(connection, chunks)
            gone = [{"op": "remove", "chunk_id": c, "document_id": document} for c in chunks]
            if gone:
                connection.execute(sa.insert(CHANGE), gone)
            connection.execute(sa.delete(DOCUMENT).where(DOCUMENT.c.id == document))
        return len(documents)

    def set_root(self, root: str, failures: Sequence[FileReport]) -> None:
        """Note that `root` was synchronised now, and what could not be read."""
        with self.write() as connection:
            connection.execute(sa.delete(ROOT).where(ROOT.c.root == root))
            connection.execute(
                sa.insert(ROOT).values(
                    root=root, synced=time.time(), failures=[asdict(f) for f in failures]
                )
            )

    def drop_root(self, root: str) -> None:
        """Forget that `root` was ever ingested (its documents are removed by `remove`)."""
        with self.write() as connection:
            connection.execute(sa.delete(ROOT).where(ROOT.c.root == root))

    def roots(self) -> tuple[RootStatus, ...]:
        """Every ingested root, with counts and the age of its newest document."""
        with self.read() as connection:
            return store_read.roots(connection)

    def headings(self) -> set[str]:
        """The innermost heading of every chunk that has one."""
        with self.read() as connection:
            rows = connection.execute(sa.select(CHUNK.c.headings).distinct())
            return {row.headings[-1] for row in rows if row.headings}

    def counts(self, scope: Scope | None = None) -> tuple[int, int]:
        """(documents, chunks); with a scope, of those that it may see."""
        with self.read() as connection:
            return store_read.counts(connection, scope)

    def sequence(self) -> int:
        """Number of the last committed change; 0 in an empty store."""
        with self.read() as connection:
            return store_log.sequence(connection)

    def changes(self, after: int, model: Model | None = None) -> Changes:
        """Replay the log, with the vectors of `model` (the one written, if None)."""
        with self.read() as connection:
            return store_log.changes(connection, after, model or self.model)

    def vectors(self, model: Model) -> Loaded:
        """Every vector of `model`, in memory."""
        with self.read() as connection:
            return store_log.loaded(connection, model)

    def catalog(self) -> CatalogRows:
        """What scopes need to know of every chunk."""
        with self.read() as connection:
            return store_log.catalog_rows(connection)

    def progress(self) -> tuple[Model | None, Model | None, float]:
        """The encoder that serves, the one filling up beside it, and the share it has seen."""
        with self.read() as connection:
            return store_models.progress(connection)

    def trim(self, before: int) -> None:
        """Forget log entries older than `before`; what is derived can be replayed from there."""
        with self.write() as connection:
            connection.execute(sa.delete(CHANGE).where(CHANGE.c.seq < before))
            connection.exec_driver_sql(
                "INSERT OR REPLACE INTO meta VALUES ('floor', ?)", (str(before),)
            )

    def passages(
        self,
        ranked: Sequence[tuple[int, float, tuple[Found, ...]]],
        scope: Scope | None = None,
    ) -> list[Passage]:
        """Fetch chunks by (id, score, stages) in that order.

        Ids that are gone, or that `scope` may no longer see, are left out.
        """
        with self.read() as connection:
            return store_read.passages(connection, ranked, scope)

    def document(self, document_id: int) -> Document | None:
        """A stored version, or None once it was replaced or removed."""
        with self.read() as connection:
            return store_read.document(connection, document_id)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def _grant(connection: sa.Connection, document: int, acl: Sequence[str]) -> None:
    readers = [{"document_id": document, "reader": name} for name in sorted(set(acl))]
    if readers:
        connection.execute(sa.insert(ACCESS), readers)
