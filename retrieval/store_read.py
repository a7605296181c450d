"""Queries of the store: what is known, and passages, documents and roots as callers see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from retrieval.embed.base import Vectors
from retrieval.schema import Chunk, Document, FileReport, Found, Passage, RootStatus, Scope
from retrieval.sources.base import belongs
from retrieval.store_log import Model, decode
from retrieval.store_tables import ACCESS, CHUNK, CONTENT, DOCUMENT, EMBEDDING, ROOT


@dataclass(frozen=True, slots=True)
class Known:
    """What is stored about a source, to decide whether it changed."""

    id: int
    version: str
    made_by: str
    stamp: str
    chunks: int


def known(connection: sa.Connection) -> dict[str, Known]:
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
    return {
        row.source: Known(row.id, row.version, row.made_by, row.stamp, row.n or 0)
        for row in connection.execute(query)
    }


def there(connection: sa.Connection, documents: Sequence[int]) -> frozenset[int]:
    """Those of the document versions that are still stored."""
    found: set[int] = set()
    for at in range(0, len(documents), 500):
        some = DOCUMENT.c.id.in_(documents[at : at + 500])
        found.update(connection.execute(sa.select(DOCUMENT.c.id).where(some)).scalars())
    return frozenset(found)


def vectors_by_digest(
    connection: sa.Connection, document_id: int, model: Model
) -> dict[str, Vectors]:
    """Vectors of a stored version by the digest of the embedded text."""
    e = EMBEDDING.c
    query = (
        sa.select(CHUNK.c.digest, e.vector)
        .join(EMBEDDING, e.chunk_id == CHUNK.c.id)
        .where(CHUNK.c.document_id == document_id, e.model_id == model.id)
        .where(sa.func.length(e.vector) > 0)
    )
    return {r.digest: decode([r.vector], model.dim)[0] for r in connection.execute(query)}


def roots(connection: sa.Connection) -> tuple[RootStatus, ...]:
    """Every ingested root, with counts and the age of its newest document."""
    d, found = DOCUMENT.c, []
    each = sa.select(d.source, d.indexed, sa.func.count(CHUNK.c.id).label("n"))
    each = each.outerjoin(CHUNK, CHUNK.c.document_id == d.id).group_by(d.id)
    documents = connection.execute(each).all()
    for row in connection.execute(sa.select(ROOT).order_by(ROOT.c.root)):
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


def passages(
    connection: sa.Connection,
    ranked: Sequence[tuple[int, float, tuple[Found, ...]]],
    scope: Scope | None,
) -> list[Passage]:
    """Chunks by (id, score, stages) in that order, as far as they exist and may be seen."""
    keys = [key for key, _, _ in ranked]
    d, c = DOCUMENT.c, CHUNK.c
    body = sa.func.substr(CONTENT.c.text, c.start + 1, c.end - c.start).label("body")
    fields = (d.source, d.title, d.lang, d.version, d.modified, d.indexed, body)
    query = (
        sa.select(CHUNK, *fields)
        .join(DOCUMENT, d.id == c.document_id)
        .join(CONTENT, CONTENT.c.document_id == d.id)
        .where(c.id.in_(keys), *_seen(scope))
    )
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


def _seen(scope: Scope | None) -> list[sa.ColumnElement[bool]]:
    """The scope as conditions on `document`."""
    d, conditions = DOCUMENT.c, []
    if scope is None:
        return []
    if scope.since is not None:
        undated = sa.and_(sa.literal(scope.undated), d.date == 0)
        conditions.append(sa.or_(d.date >= scope.since, undated))
    if scope.until is not None:
        conditions.append(d.date < scope.until)
    if scope.readers is not None:
        mine = ACCESS.c.document_id == d.id
        listed = sa.exists().where(mine)
        named = sa.exists().where(mine, ACCESS.c.reader.in_(sorted(scope.readers)))
        conditions.append(~listed | named)
    return conditions


def counts(connection: sa.Connection, scope: Scope | None) -> tuple[int, int]:
    """(documents, chunks) that the scope may see; all of them where None."""
    documents = sa.select(sa.func.count(DOCUMENT.c.id))
    chunks = sa.select(sa.func.count(CHUNK.c.id))
    if seen := _seen(scope):
        documents = documents.where(*seen)
        chunks = chunks.join(DOCUMENT, DOCUMENT.c.id == CHUNK.c.document_id).where(*seen)
    return int(connection.execute(documents).scalar_one()), int(
        connection.execute(chunks).scalar_one()
    )


def document(connection: sa.Connection, document_id: int) -> Document | None:
    """A stored version, or None once it was replaced or removed."""
    names = [name for name in Document.__slots__ if name not in ("text", "acl")]
    query = (
        sa.select(*(DOCUMENT.c[name] for name in names), CONTENT.c.text)
        .join(CONTENT, CONTENT.c.document_id == DOCUMENT.c.id)
        .where(DOCUMENT.c.id == document_id)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    readers = sa.select(ACCESS.c.reader).where(ACCESS.c.document_id == document_id)
    acl = tuple(sorted(connection.execute(readers).scalars()))
    return Document(**row._mapping, acl=acl)
