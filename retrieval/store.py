"""Documents, chunks, embeddings and the change log: the only truth (SQLAlchemy, SQLite).

The vector index is derived from `embedding` and `change`; the lexical index lies in the same
database and commits with the rows it indexes. One document version is one transaction: the old
version's rows, terms and vectors leave and the new ones arrive together, or nothing does. Ids are
never reused (AUTOINCREMENT), so a stale id can only miss, never hit something else.

Writers of several processes take turns by a lock file; how the file is opened is said in
`retrieval.sqlite`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from filelock import FileLock, Timeout

from retrieval import lexical, sqlite
from retrieval.chunk import Piece
from retrieval.embed.base import Vectors
from retrieval.errors import IndexMismatch, StoreBusy, StoreError
from retrieval.index.base import Ids
from retrieval.schema import Chunk, Document, FileReport, Found, Passage, RootStatus
from retrieval.sources.base import belongs
from retrieval.store_tables import CHANGE, CHUNK, DOCUMENT, EMBEDDING, META, METADATA, ROOT

SCHEMA = "1"


@dataclass(frozen=True, slots=True)
class Known:
    """What is stored about a source, to decide whether it changed."""

    id: int
    version: str
    made_by: str
    stamp: str
    chunks: int


@dataclass(frozen=True, slots=True)
class NewVersion:
    """One document version to be written.

    `vectors` is (len(pieces), dim), row by row; a row of zeros is a chunk without a vector, which
    only the lexical side finds.
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


class Store:
    """The knowledge base on disk. Safe for several threads and several processes."""

    def __init__(self, path: Path, embedder: str, dim: int) -> None:
        """Open or create.

        Raises:
            IndexMismatch: the vectors inside come from another embedder.
            StoreError: not a database, or written by a newer version.
        """
        self.path = path
        self.dim = dim
        self._lock = FileLock(path.with_suffix(".lock"), timeout=60)
        self._engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(path)),
            connect_args={"timeout": 60, "check_same_thread": False},
        )
        sqlite.prepare(self._engine)
        self._writer = self._engine.execution_options(begin="IMMEDIATE")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._prepare(embedder)
        except OSError as error:
            raise StoreError(
                f"{path} cannot be opened ({error.strerror}); check the folder and its permissions"
            ) from error
        except sa.exc.DatabaseError as error:
            raise StoreError(
                f"{path} is not a usable database ({error.orig}); move it away and ingest again"
            ) from error

    def _prepare(self, embedder: str) -> None:
        with self.write() as connection:
            tables = sa.inspect(connection).get_table_names()
            if META.name in tables:
                rows = connection.execute(sa.select(META))
                self._check({row.key: row.value for row in rows}, embedder)
            elif tables:
                raise StoreError(
                    f"{self.path} is a database of something else (it has {tables[0]!r}); "
                    "name another folder as home"
                )
            else:
                METADATA.create_all(connection)
                for statement in lexical.CREATE:
                    connection.execute(sa.text(statement))
                values = [("schema", SCHEMA), ("embedder", embedder)]
                connection.execute(sa.insert(META), [{"key": k, "value": v} for k, v in values])

    def _check(self, found: dict[str, str], embedder: str) -> None:
        if found.get("schema", SCHEMA) != SCHEMA:
            raise StoreError(
                f"{self.path} has schema {found['schema']}, this version reads {SCHEMA}; "
                "use the version that wrote it, or move the file away and ingest again"
            )
        if found.get("embedder", embedder) != embedder:
            raise IndexMismatch(
                f"{self.path} holds vectors of {found['embedder']}, the settings name {embedder}; "
                "set retrieval.embed back, or move the file away and ingest again"
            )

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction of the one writer.

        Raises:
            StoreBusy: another process wrote for longer than a minute.
        """
        try:
            with self._lock, self._writer.begin() as connection:
                yield connection
        except Timeout as error:
            raise StoreBusy(f"another process is writing to {self.path}; try again") from error

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A read transaction: one state of the database throughout."""
        with self._engine.connect() as connection:
            yield connection

    def known(self) -> dict[str, Known]:
        """What is stored, by source."""
        counted = (
            sa.select(CHUNK.c.document_id, sa.func.count().label("n"))
            .group_by(CHUNK.c.document_id)
            .subquery()
        )
        d = DOCUMENT.c
        query = sa.select(d.source, d.id, d.version, d.made_by, d.stamp, counted.c.n).outerjoin(
            counted, counted.c.document_id == d.id
        )
        with self.read() as connection:
            return {
                row.source: Known(row.id, row.version, row.made_by, row.stamp, row.n or 0)
                for row in connection.execute(query)
            }

    def vectors_by_digest(self, document_id: int) -> dict[str, Vectors]:
        """Vectors of a stored version by the digest of the embedded text, to use again."""
        query = (
            sa.select(CHUNK.c.digest, EMBEDDING.c.vector)
            .join(EMBEDDING, EMBEDDING.c.chunk_id == CHUNK.c.id)
            .where(CHUNK.c.document_id == document_id)
        )
        with self.read() as connection:
            return {row.digest: _vector(row.vector) for row in connection.execute(query)}

    def put(self, new: NewVersion) -> None:
        """Write one version in place of the one before, in one transaction."""
        with self.write() as connection:
            self._drop(connection, DOCUMENT.c.source == new.source)
            document = connection.execute(
                sa.insert(DOCUMENT).values(
                    source=new.source,
                    root=new.root,
                    title=new.title,
                    text=new.text,
                    lang=new.lang,
                    version=new.version,
                    made_by=new.made_by,
                    modified=new.modified,
                    stamp=new.stamp,
                    indexed=time.time(),
                )
            ).inserted_primary_key
            assert document is not None
            self._put_chunks(connection, int(document[0]), new)

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
            if vector.any():
                blob = vector.astype("<f2").tobytes()
                connection.execute(sa.insert(EMBEDDING).values(chunk_id=key[0], vector=blob))
            connection.execute(sa.insert(CHANGE).values(op="add", chunk_id=key[0]))
            head = " ".join((new.title, *piece.headings))
            terms.append((int(key[0]), head, new.text[piece.start : piece.end]))
        lexical.add(connection, terms)

    def touch(self, document_id: int, stamp: str, modified: float) -> None:
        """Note a new time stamp for content that did not change."""
        with self.write() as connection:
            connection.execute(
                sa.update(DOCUMENT)
                .where(DOCUMENT.c.id == document_id)
                .values(stamp=stamp, modified=modified)
            )

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
            if chunks:
                rows = [{"op": "remove", "chunk_id": key} for key in chunks]
                connection.execute(sa.insert(CHANGE), rows)
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
        d, found = DOCUMENT.c, []
        each = sa.select(d.source, d.indexed, sa.func.count(CHUNK.c.id).label("n"))
        each = each.outerjoin(CHUNK, CHUNK.c.document_id == d.id).group_by(d.id)
        with self.read() as connection:
            documents = connection.execute(each).all()
            roots = connection.execute(sa.select(ROOT).order_by(ROOT.c.root)).all()
        for row in roots:
            mine = [document for document in documents if belongs(document.source, row.root)]
            found.append(
                RootStatus(
                    row.root,
                    len(mine),
                    sum(document.n for document in mine),
                    row.synced,
                    max((document.indexed for document in mine), default=0.0),
                    tuple(FileReport(**f) for f in row.failures),
                )
            )
        return tuple(found)

    def headings(self) -> set[str]:
        """The innermost heading of every chunk that has one."""
        with self.read() as connection:
            rows = connection.execute(sa.select(CHUNK.c.headings).distinct())
            return {row.headings[-1] for row in rows if row.headings}

    def counts(self) -> tuple[int, int]:
        """(documents, chunks)."""
        with self.read() as connection:
            documents = connection.execute(sa.select(sa.func.count(DOCUMENT.c.id))).scalar_one()
            chunks = connection.execute(sa.select(sa.func.count(CHUNK.c.id))).scalar_one()
        return int(documents), int(chunks)

    def sequence(self) -> int:
        """Number of the last committed change; 0 in an empty store."""
        with self.read() as connection:
            return int(connection.execute(sa.select(sa.func.max(CHANGE.c.seq))).scalar() or 0)

    def changes(self, after: int) -> tuple[int, Ids, Vectors, list[int]]:
        """Replay the log: (last sequence, added ids, their vectors, removed ids).

        Only chunks that still exist are added; the arrays match row by row.
        """
        query = (
            sa.select(CHANGE.c.chunk_id, EMBEDDING.c.vector)
            .join(EMBEDDING, EMBEDDING.c.chunk_id == CHANGE.c.chunk_id)
            .where(CHANGE.c.seq > after, CHANGE.c.op == "add")
        )
        gone = sa.select(CHANGE.c.chunk_id).where(CHANGE.c.seq > after, CHANGE.c.op == "remove")
        with self.read() as connection:
            last = connection.execute(sa.select(sa.func.max(CHANGE.c.seq))).scalar() or 0
            rows = connection.execute(query).all()
            removed = [row.chunk_id for row in connection.execute(gone)]
        ids = np.array([row.chunk_id for row in rows], dtype=np.int64)
        raw = b"".join(row.vector for row in rows)
        vectors = np.frombuffer(raw, dtype="<f2").astype(np.float32).reshape(len(rows), self.dim)
        return int(last), ids, vectors, removed

    def passages(self, ranked: Sequence[tuple[int, float, tuple[Found, ...]]]) -> list[Passage]:
        """Fetch chunks by (id, score, stages) in that order; ids that are gone are left out."""
        keys = [key for key, _, _ in ranked]
        d, c = DOCUMENT.c, CHUNK.c
        body = sa.func.substr(d.text, c.start + 1, c.end - c.start).label("body")
        fields = (d.source, d.title, d.lang, d.version, d.modified, d.indexed, body)
        query = (
            sa.select(CHUNK, *fields).join(DOCUMENT, d.id == c.document_id).where(c.id.in_(keys))
        )
        with self.read() as connection:
            rows = {row.id: row for row in connection.execute(query)}
        found = []
        for key, score, stages in ranked:
            row = rows.get(key)
            if row is None:
                continue
            chunk = Chunk(
                row.id,
                row.document_id,
                row.body,
                row.start,
                row.end,
                tuple(row.headings),
                row.ordinal,
                tuple((a, b) for a, b in row.code),
            )
            where = (row.source, row.title, row.lang, row.version, row.modified, row.indexed)
            found.append(Passage(chunk, *where, score, stages))
        return found

    def document(self, document_id: int) -> Document | None:
        """A stored version, or None once it was replaced or removed."""
        names = [f for f in Document.__slots__]
        query = sa.select(*(DOCUMENT.c[n] for n in names)).where(DOCUMENT.c.id == document_id)
        with self.read() as connection:
            row = connection.execute(query).one_or_none()
        return Document(*row) if row else None

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def _vector(blob: bytes) -> Vectors:
    return np.frombuffer(blob, dtype="<f2").astype(np.float32)
