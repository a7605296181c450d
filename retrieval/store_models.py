"""The vectors of several encoders side by side: one set serves while another fills up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from retrieval.embed.base import Vectors
from retrieval.errors import IndexMismatch
from retrieval.store_log import Model, chunks, encode, models
from retrieval.store_tables import CHANGE, CHUNK, EMBEDDING, MODEL


@dataclass(frozen=True, slots=True)
class Unread:
    """A chunk that an encoder has not seen yet, with what its embedded text is made of."""

    id: int
    title: str
    headings: tuple[str, ...]
    body: str


def note(connection: sa.Connection, name: str, dim: int, settings: str) -> Model:
    """The model of this name, entered if new. Only one may fill up beside the one that serves.

    Raises:
        IndexMismatch: its vectors here have another length.
    """
    found = {model.name: model for model in models(connection)}
    for other in found.values():
        if not other.serving and other.name != name:
            drop(connection, other)
    if name not in found:
        values = {"name": name, "dim": dim, "settings": settings, "serving": not found}
        connection.execute(sa.insert(MODEL).values(**values))
    elif found[name].dim not in (0, dim):
        raise IndexMismatch(
            f"vectors of {name} are stored with {found[name].dim} columns, the encoder makes "
            f"{dim}; give the encoder another id, or move the database away and ingest again"
        )
    else:
        noted = settings or found[name].settings
        change = sa.update(MODEL).where(MODEL.c.name == name).values(dim=dim, settings=noted)
        if (dim, noted) != (found[name].dim, found[name].settings):
            connection.execute(change)
    return next(model for model in models(connection) if model.name == name)


def fill(connection: sa.Connection, model: Model, rows: Sequence[tuple[int, Vectors]]) -> None:
    """Store vectors (chunk id, vector) of `model`; zeros: the encoder cannot read the chunk.

    Chunks that are gone, and a model that was dropped, are passed over.
    """
    there = "SELECT ?, ?, ? WHERE EXISTS (SELECT 1 FROM chunk WHERE id = ?) "
    query = "INSERT OR REPLACE INTO embedding (chunk_id, model_id, vector) " + there
    query += "AND EXISTS (SELECT 1 FROM model WHERE id = ?)"
    values = [(key, model.id, encode(vector), key, model.id) for key, vector in rows]
    if values:
        connection.exec_driver_sql(query, values)


def late(
    connection: sa.Connection, model: Model, rows: Sequence[tuple[int, Vectors]], tell: bool
) -> bool:
    """Store vectors of chunks that are in the log already; with `tell`, enter them again.

    A view that has seen the first entry takes the vector up at the second. False, and nothing
    done, where the model was dropped.
    """
    if model.id not in [found.id for found in models(connection)]:
        return False
    fill(connection, model, rows)
    if tell:
        owners = sa.select(CHUNK.c.id, CHUNK.c.document_id).where(
            CHUNK.c.id.in_([key for key, _ in rows])
        )
        again = [
            {"op": "add", "chunk_id": row.id, "document_id": row.document_id}
            for row in connection.execute(owners)
        ]
        if again:
            connection.execute(sa.insert(CHANGE), again)
    return True


def missing(connection: sa.Connection, model: Model) -> int:
    """How many chunks `model` has not seen."""
    query = (
        "SELECT count(*) FROM chunk WHERE NOT EXISTS "
        "(SELECT 1 FROM embedding WHERE chunk_id = chunk.id AND model_id = ?)"
    )
    return int(connection.exec_driver_sql(query, (model.id,)).scalar() or 0)


def newest(connection: sa.Connection) -> int:
    """The highest chunk id there is."""
    return int(connection.exec_driver_sql("SELECT max(id) FROM chunk").scalar() or 0)


def progress(connection: sa.Connection) -> tuple[Model | None, Model | None, float]:
    """The model that serves, the one that fills up beside it, and the share it has seen."""
    found = models(connection)
    serving = next((model for model in found if model.serving), None)
    filling = next((model for model in found if not model.serving), None)
    if filling is None:
        return serving, None, 1.0
    total = chunks(connection)
    return serving, filling, 1 - missing(connection, filling) / total if total else 1.0


def unread(connection: sa.Connection, model: Model, after: int, limit: int) -> tuple[Unread, ...]:
    """The first `limit` chunks with ids above `after` that `model` has not seen."""
    query = sa.text(
        'SELECT chunk.id, title, headings, substr(text, start + 1, "end" - start) AS body '
        "FROM chunk JOIN document ON document.id = chunk.document_id "
        "JOIN content ON content.document_id = document.id WHERE chunk.id > :after AND NOT EXISTS "
        "(SELECT 1 FROM embedding WHERE chunk_id = chunk.id AND model_id = :model) "
        "ORDER BY chunk.id LIMIT :limit"
    ).columns(headings=sa.JSON)
    rows = connection.execute(query, {"model": model.id, "after": after, "limit": limit})
    return tuple(Unread(row.id, row.title, tuple(row.headings), row.body) for row in rows)


def switch(connection: sa.Connection, model: Model) -> bool:
    """Let `model` serve and drop the other sets; False, and nothing done, if chunks are missing."""
    if missing(connection, model):
        return False
    for other in models(connection):
        if other.id != model.id:
            drop(connection, other)
    connection.execute(sa.update(MODEL).values(serving=True))
    connection.execute(sa.insert(CHANGE).values(op="model", chunk_id=0, document_id=0))
    return True


def drop(connection: sa.Connection, model: Model) -> None:
    """Forget a model and its vectors."""
    connection.execute(sa.delete(EMBEDDING).where(EMBEDDING.c.model_id == model.id))
    connection.execute(sa.delete(MODEL).where(MODEL.c.id == model.id))
