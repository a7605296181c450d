"""What is kept of an answer so that its id means something later: whose it is, and its citations.

No words of the user lie here. Every method takes whose the answer is; somebody else's does not
exist. Rows older than the settings say are deleted when the server starts.

An answer is on record, and survives the end of the process, before its reader has all of it; on the
disk it is a moment later, with the others of that moment (`journal`). What a client is told was
done (`note`) is on the disk before it is told.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter

from assistant.schema import Citation, Reply
from assistant.server.journal import Journal, Row
from retrieval import sqlite, versions

FILE = "responses.db"
DAY = 86_400.0
_metadata = sa.MetaData()
RESPONSE = sa.Table(
    "response",
    _metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("owner", sa.String, nullable=False, index=True),
    sa.Column("conversation_id", sa.String, nullable=False, index=True),
    sa.Column("turn_ids", sa.String, nullable=False),
    sa.Column("candidate_ids", sa.String, nullable=False),
    sa.Column("stored", sa.Boolean, nullable=False),
    sa.Column("citations", sa.Text, nullable=False),
    sa.Column("created", sa.Float, nullable=False, index=True),
)
#: Requests that were carried out under a key of the client's own, so that a retry does nothing.
ONCE = sa.Table(
    "once",
    _metadata,
    sa.Column("owner", sa.String, primary_key=True),
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("created", sa.Float, nullable=False, index=True),
)
_citations = TypeAdapter(tuple[tuple[Citation, ...], ...])


@dataclass(frozen=True, slots=True)
class Response:
    """An answer that was given. One turn, candidate and list of citations a choice.

    `stored` says whether the turn lies in the memory of conversations too.
    """

    id: str
    owner: str
    conversation_id: str
    turn_ids: tuple[str, ...]
    candidate_ids: tuple[str, ...]
    stored: bool
    citations: tuple[tuple[Citation, ...], ...]
    created: float


class Records:
    """The database of answers. Safe for several threads."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 60})
        sqlite.prepare(self._engine)
        self._writer = self._engine.execution_options(begin="IMMEDIATE")
        versions.bring_up(self._writer, path, _metadata)
        self._journal = Journal(path, "id", self._commit)

    def add(self, response_id: str, owner: str, replies: Sequence[Reply], *, stored: bool) -> None:
        """Keep an answer of `owner`."""
        row = {
            "id": response_id,
            "owner": owner,
            "conversation_id": replies[0].conversation_id,
            "turn_ids": " ".join(r.turn_id for r in replies),
            "candidate_ids": " ".join(r.candidate_id for r in replies),
            "stored": stored,
            "citations": _citations.dump_json(tuple(r.citations for r in replies)).decode(),
            "created": time.time(),
        }
        if not self._journal.add(row):
            self._commit([row])

    def get(self, response_id: str, owner: str) -> Response | None:
        """The answer of that id, where it is this owner's."""
        row: Any = self._journal.find(response_id)
        if row is None:
            query = sa.select(RESPONSE).where(RESPONSE.c.id == response_id)
            with self._engine.connect() as connection:
                row = connection.execute(query).mappings().one_or_none()
        return None if row is None or row["owner"] != owner else _response(row)

    def of_conversation(self, conversation_id: str, owner: str) -> list[Response]:
        """The answers of a conversation of this owner, the oldest first."""
        self._journal.flush()
        c = RESPONSE.c
        mine = (c.conversation_id == conversation_id) & (c.owner == owner)
        query = sa.select(RESPONSE).where(mine).order_by(c.created)
        with self._engine.connect() as connection:
            return [_response(row) for row in connection.execute(query).mappings()]

    def done(self, owner: str, key: str) -> bool:
        """Whether this owner's request of that key was carried out."""
        query = sa.select(ONCE.c.key).where(ONCE.c.owner == owner, ONCE.c.key == key)
        with self._engine.connect() as connection:
            return connection.execute(query).scalar() is not None

    def note(self, owner: str, key: str) -> None:
        """This owner's request of that key was carried out."""
        insert = sa.insert(ONCE).prefix_with("OR IGNORE")
        with self._writer.begin() as connection:
            connection.execute(insert.values(owner=owner, key=key, created=time.time()))

    def forget_conversation(self, conversation_id: str, owner: str) -> None:
        """Delete the answers of a conversation of this owner."""
        c = RESPONSE.c
        self._delete(RESPONSE, (c.conversation_id == conversation_id) & (c.owner == owner))

    def forget(self, owner: str) -> None:
        """Delete every answer of this owner."""
        for table in (RESPONSE, ONCE):
            self._delete(table, table.c.owner == owner)

    def purge(self, days: float) -> None:
        """Delete answers older than this."""
        for table in (RESPONSE, ONCE):
            self._delete(table, table.c.created < time.time() - days * DAY)

    def close(self) -> None:
        """Commit what waits, and close every connection."""
        self._journal.close()
        self._engine.dispose()

    def _commit(self, rows: Sequence[Row]) -> None:
        try:
            with self._writer.begin() as connection:
                connection.execute(sa.insert(RESPONSE).prefix_with("OR IGNORE"), list(rows))
        except sa.exc.OperationalError as error:
            raise OSError(f"{FILE} cannot be written: {error.orig}") from error

    def _delete(self, table: sa.Table, which: sa.ColumnElement[bool]) -> None:
        self._journal.flush()
        with self._writer.begin() as connection:
            connection.execute(sa.delete(table).where(which))


def _response(row: Any) -> Response:
    return Response(
        row["id"],
        row["owner"],
        row["conversation_id"],
        tuple(row["turn_ids"].split()),
        tuple(row["candidate_ids"].split()),
        row["stored"],
        _citations.validate_json(row["citations"]),
        row["created"],
    )


def forget(home: Path, owner: str) -> None:
    """Delete every answer of this owner in a home, where there is a database of them."""
    if (home / FILE).exists():
        records = Records(home / FILE)
        try:
            records.forget(owner)
        finally:
            records.close()
