"""Reading the store around what a search found: vectors of given chunks, and chunks beside one."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from retrieval.embed.base import Vectors
from retrieval.schema import Passage
from retrieval.store_log import decode
from retrieval.store_tables import CHUNK, EMBEDDING, MODEL


def vectors_of(
    connection: sa.Connection, ids: Sequence[int], embedder: str, dim: int
) -> tuple[list[int], Vectors]:
    """Those of `ids` that have a vector of this encoder, and their vectors (n, dim), row by row."""
    e = EMBEDDING.c
    rows = connection.execute(
        sa.select(e.chunk_id, e.vector)
        .join(MODEL, MODEL.c.id == e.model_id)
        .where(e.chunk_id.in_(ids), MODEL.c.name == embedder, sa.func.length(e.vector) > 0)
    ).all()
    return [row.chunk_id for row in rows], decode([row.vector for row in rows], dim)


def beside(connection: sa.Connection, passage: Passage) -> tuple[int | None, int | None]:
    """Ids of the chunks before and after a passage in its document."""
    c, place = CHUNK.c, passage.chunk.ordinal
    rows = connection.execute(
        sa.select(c.ordinal, c.id).where(
            c.document_id == passage.chunk.document_id, c.ordinal.in_((place - 1, place + 1))
        )
    )
    found = {row.ordinal: int(row.id) for row in rows}
    return found.get(place - 1), found.get(place + 1)
