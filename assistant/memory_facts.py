"""What users said about themselves, on disk: shown, changed and deleted one by one.

A user sees only facts of their own: every method takes the user and raises `FactNotFound` for
somebody else's.
"""

from __future__ import annotations

import time
from uuid import uuid4

import sqlalchemy as sa

from assistant.errors import FactNotFound
from assistant.schema import Fact

#: Characters of a fact, at most.
CHARACTERS = 160

_metadata = sa.MetaData()
FACT = sa.Table(
    "fact",
    _metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("user_id", sa.String, nullable=False, index=True),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("turn_id", sa.String, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.UniqueConstraint("user_id", "text"),
)


class Facts:
    """The table of facts. Safe for several threads.

    Args:
        engine: reads.
        writer: the same database, whose transactions begin as writers.
    """

    def __init__(self, engine: sa.Engine, writer: sa.Engine) -> None:
        self._engine, self._writer = engine, writer
        _metadata.create_all(writer)

    def list(self, user_id: str) -> list[Fact]:
        """A user's facts, the one stated last comes first."""
        f = FACT.c
        query = sa.select(FACT).where(f.user_id == user_id).order_by(f.created.desc(), f.id)
        with self._engine.connect() as connection:
            return [
                Fact(r.id, r.user_id, r.text, r.turn_id, r.created)
                for r in connection.execute(query)
            ]

    def add(self, user_id: str, text: str, turn_id: str = "", most: int = 50) -> None:
        """Keep a fact; one that is known moves to the front, and beyond `most` the oldest go."""
        text = _line(text)
        f = FACT.c
        with self._writer.begin() as connection:
            connection.execute(sa.delete(FACT).where(f.user_id == user_id, f.text == text))
            connection.execute(
                sa.insert(FACT).values(
                    id=uuid4().hex, user_id=user_id, text=text, turn_id=turn_id, created=time.time()
                )
            )
            mine = sa.select(f.id).where(f.user_id == user_id).order_by(f.created.desc())
            kept = [row.id for row in connection.execute(mine.limit(most))]
            connection.execute(sa.delete(FACT).where(f.user_id == user_id, f.id.not_in(kept)))

    def change(self, fact_id: str, text: str, user_id: str) -> None:
        """Word a fact anew; a wording that another of the user's facts has takes its place.

        Raises:
            FactNotFound: no such fact of this user.
            ValueError: the text is empty.
        """
        text = _line(text)
        f = FACT.c
        with self._writer.begin() as connection:
            connection.execute(
                sa.delete(FACT).where(f.user_id == user_id, f.text == text, f.id != fact_id)
            )
            mine = sa.update(FACT).where(f.id == fact_id, f.user_id == user_id)
            _found(connection.execute(mine.values(text=text)).rowcount, fact_id)

    def delete(self, fact_id: str, user_id: str) -> None:
        """Delete a fact.

        Raises:
            FactNotFound: no such fact of this user.
        """
        mine = sa.delete(FACT).where(FACT.c.id == fact_id, FACT.c.user_id == user_id)
        with self._writer.begin() as connection:
            _found(connection.execute(mine).rowcount, fact_id)

    def clear(self, user_id: str) -> int:
        """Delete all facts of a user; returns how many there were."""
        with self._writer.begin() as connection:
            done = connection.execute(sa.delete(FACT).where(FACT.c.user_id == user_id))
        return int(done.rowcount)


def _line(text: str) -> str:
    line = " ".join(text.split())
    if not line:
        raise ValueError("a fact is empty; delete it instead")
    return line if len(line) <= CHARACTERS else line[: CHARACTERS - 1] + "…"


def _found(count: int, fact_id: str) -> None:
    if not count:
        raise FactNotFound(f"no fact {fact_id!r}; list them to see those there are")
