"""Reading the store around what a search found: the chunks beside one."""

from __future__ import annotations

import sqlalchemy as sa

from retrieval.schema import Passage
from retrieval.store_tables import CHUNK


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
