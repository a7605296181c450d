"""Conversations on disk: sessions, turns, every answer made for a turn, and the history window.

A turn has one or more candidates (the first answer, and others asked for); one of them is chosen
and is what the history and the page show. A user sees only conversations of their own: every
method takes the user and raises `ConversationNotFound` for somebody else's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

import sqlalchemy as sa
from pydantic import TypeAdapter

from assistant.errors import ConversationNotFound, TurnNotFound
from assistant.memory_facts import Facts
from assistant.schema import Conversation, Message, Reply, Turn
from retrieval import sqlite, versions

TITLE_CHARACTERS = 60
#: The history window is found from a turn whose number is a multiple of this on.
MILE = 64

_metadata = sa.MetaData()
CONVERSATION = sa.Table(
    "conversation",
    _metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("user_id", sa.String, nullable=False, index=True),
    sa.Column("title", sa.String, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("updated", sa.Float, nullable=False),
)
TURN = sa.Table(
    "turn",
    _metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column(
        "conversation_id",
        sa.ForeignKey("conversation.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    sa.Column("place", sa.Integer, nullable=False),
    sa.Column("user_text", sa.Text, nullable=False),
    sa.Column("chosen", sa.String, nullable=False),
    sa.Column("rating", sa.Integer, nullable=False, default=0),
    sa.Column("created", sa.Float, nullable=False),
    sa.UniqueConstraint("conversation_id", "place"),
)
CANDIDATE = sa.Table(
    "candidate",
    _metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("turn_id", sa.ForeignKey("turn.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("reply", sa.Text, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
)

_reply = TypeAdapter(Reply)


class Memory:
    """The database of conversations. Safe for several threads."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 60})
        sqlite.prepare(self._engine)
        self._writer = self._engine.execution_options(begin="IMMEDIATE")
        versions.bring_up(self._writer, path, _metadata)
        self.facts = Facts(self._engine, self._writer)

    def open(self, conversation_id: str | None, user_id: str, first_words: str) -> str:
        """Return the id of an existing conversation, or of a new one where None is given.

        Raises:
            ConversationNotFound: no such conversation of this user.
        """
        if conversation_id is not None:
            with self._engine.connect() as connection:
                self._own(connection, conversation_id, user_id)
            return conversation_id
        new, now = uuid4().hex, time.time()
        with self._writer.begin() as connection:
            connection.execute(
                sa.insert(CONVERSATION).values(
                    id=new, user_id=user_id, title=_title(first_words), created=now, updated=now
                )
            )
        return new

    def add(self, turn: Turn, user_id: str) -> None:
        """Append a turn with its first candidate, in one transaction."""
        with self._writer.begin() as connection:
            self._own(connection, turn.conversation_id, user_id)
            last = sa.select(sa.func.coalesce(sa.func.max(TURN.c.place), -1))
            here = TURN.c.conversation_id == turn.conversation_id
            place = last.where(here).scalar_subquery() + 1  # counted inside the insert: no race
            connection.execute(
                sa.insert(TURN).values(
                    id=turn.id,
                    conversation_id=turn.conversation_id,
                    place=place,
                    user_text=turn.user_text,
                    chosen=turn.reply.candidate_id,
                    rating=turn.rating,
                    created=turn.created,
                )
            )
            _insert_candidate(connection, turn.reply)
            connection.execute(
                sa.update(CONVERSATION)
                .where(CONVERSATION.c.id == turn.conversation_id)
                .values(updated=time.time())
            )

    def add_candidate(self, reply: Reply) -> None:
        """Keep another answer to a stored turn; it is not chosen yet."""
        with self._writer.begin() as connection:
            _insert_candidate(connection, reply)

    def choose(self, turn_id: str, candidate_id: str, user_id: str) -> Turn:
        """Make one of a turn's candidates its answer.

        Raises:
            TurnNotFound: no such turn of this user, or no such candidate of that turn.
        """
        with self._writer.begin() as connection:
            self._turn(connection, turn_id, user_id)
            exists = connection.execute(
                sa.select(CANDIDATE.c.id).where(
                    CANDIDATE.c.id == candidate_id, CANDIDATE.c.turn_id == turn_id
                )
            ).scalar()
            if exists is None:
                raise TurnNotFound(f"turn {turn_id} has no candidate {candidate_id}")
            connection.execute(
                sa.update(TURN).where(TURN.c.id == turn_id).values(chosen=candidate_id)
            )
        return self.turn(turn_id, user_id)

    def rate(self, turn_id: str, value: int, user_id: str) -> None:
        """Keep the thumb shown beside a turn: +1, -1, or 0 for none."""
        with self._writer.begin() as connection:
            self._turn(connection, turn_id, user_id)
            connection.execute(sa.update(TURN).where(TURN.c.id == turn_id).values(rating=value))

    def turn(self, turn_id: str, user_id: str) -> Turn:
        """A stored turn with its chosen answer.

        Raises:
            TurnNotFound: no such turn of this user.
        """
        with self._engine.connect() as connection:
            return _as_turn(self._turn(connection, turn_id, user_id))

    def candidates(self, turn_id: str, user_id: str) -> list[Reply]:
        """Every answer made for a turn, in the order they were made."""
        query = (
            sa.select(CANDIDATE.c.reply)
            .where(CANDIDATE.c.turn_id == turn_id)
            .order_by(CANDIDATE.c.created)
        )
        with self._engine.connect() as connection:
            self._turn(connection, turn_id, user_id)
            return [_reply.validate_json(row.reply) for row in connection.execute(query)]

    def turns(self, conversation_id: str, user_id: str) -> list[Turn]:
        """A conversation's turns, oldest first."""
        query = _turns().where(TURN.c.conversation_id == conversation_id).order_by(TURN.c.place)
        with self._engine.connect() as connection:
            self._own(connection, conversation_id, user_id)
            return [_as_turn(row) for row in connection.execute(query)]

    def conversations(self, user_id: str) -> list[Conversation]:
        """A user's conversations, the last used first."""
        c = CONVERSATION.c
        query = (
            sa.select(CONVERSATION, sa.func.count(TURN.c.id).label("turns"))
            .outerjoin(TURN, TURN.c.conversation_id == c.id)
            .where(c.user_id == user_id)
            .group_by(c.id)
            .having(sa.func.count(TURN.c.id) > 0)  # a first turn that was stopped leaves none
            .order_by(c.updated.desc())
        )
        with self._engine.connect() as connection:
            return [
                Conversation(r.id, r.user_id, r.title, r.created, r.updated, r.turns)
                for r in connection.execute(query)
            ]

    def rename(self, conversation_id: str, title: str, user_id: str) -> None:
        """Give a conversation another title; an empty one is refused by keeping the old."""
        if not title.strip():
            return
        with self._writer.begin() as connection:
            self._own(connection, conversation_id, user_id)
            connection.execute(
                sa.update(CONVERSATION)
                .where(CONVERSATION.c.id == conversation_id)
                .values(title=_title(title))
            )

    def delete(self, conversation_id: str, user_id: str) -> None:
        """Delete a conversation with all its turns and answers."""
        with self._writer.begin() as connection:
            self._own(connection, conversation_id, user_id)
            connection.execute(sa.delete(CONVERSATION).where(CONVERSATION.c.id == conversation_id))

    def delete_user(self, user_id: str) -> int:
        """Delete everything a user said; returns how many conversations there were."""
        with self._writer.begin() as connection:
            done = connection.execute(
                sa.delete(CONVERSATION).where(CONVERSATION.c.user_id == user_id)
            )
        self.facts.clear(user_id)
        with self._engine.execution_options(begin="").connect() as connection:
            connection.exec_driver_sql("VACUUM")
        return int(done.rowcount)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _own(self, connection: sa.Connection, conversation_id: str, user_id: str) -> None:
        owner = connection.execute(
            sa.select(CONVERSATION.c.user_id).where(CONVERSATION.c.id == conversation_id)
        ).scalar()
        if owner != user_id:
            raise ConversationNotFound(f"no conversation {conversation_id!r}; start a new one")

    def _turn(
        self, connection: sa.Connection, turn_id: str, user_id: str
    ) -> sa.Row[tuple[object, ...]]:
        row = connection.execute(
            _turns()
            .join(CONVERSATION, CONVERSATION.c.id == TURN.c.conversation_id)
            .where(TURN.c.id == turn_id, CONVERSATION.c.user_id == user_id)
        ).one_or_none()
        if row is None:
            raise TurnNotFound(f"no turn {turn_id!r}; it may have been deleted")
        return row


def window(
    turns: Sequence[Turn], max_turns: int, budget: int, count_tokens: Callable[[str], int]
) -> list[Message]:
    """The last turns as messages, oldest first: at most `max_turns`, `budget` tokens in all.

    Turns whose request was stopped stay out: neither it nor its refusal is context for the next.
    """
    return spoken(split(turns, max_turns, budget, count_tokens)[1])


def split(
    turns: Sequence[Turn], max_turns: int, budget: int, count_tokens: Callable[[str], int]
) -> tuple[list[Turn], list[Turn]]:
    """The turns before the window, and those in it; without those whose request was stopped.

    When a turn no longer fits, a third of the window goes at once: until it is full again the
    prompts of the conversation begin alike, and what a model has read of them need not be read
    again.
    """
    usable = [t for t in turns if t.reply.outcome not in ("refused", "crisis", "failed")]
    # a long conversation is looked at from one of its mile stones on, not from its beginning
    start = max(0, len(usable) // MILE - 1) * MILE
    sizes: list[int] = []  # of the turns in the window
    for turn in usable[start:]:
        sizes.append(sum(count_tokens(m.text) for m in spoken([turn])))
        if len(sizes) > max_turns or sum(sizes) > budget:
            most, room = max_turns - max_turns // 3, budget - budget // 3
            while len(sizes) > 1 and (len(sizes) > most or sum(sizes) > room):
                del sizes[0]
        if len(sizes) > max_turns or sum(sizes) > budget:
            sizes = []
    return usable[: len(usable) - len(sizes)], usable[len(usable) - len(sizes) :]


def spoken(turns: Sequence[Turn]) -> list[Message]:
    """Turns as messages: what was asked and what was answered."""
    pairs = ((Message("user", t.user_text), Message("assistant", t.reply.text)) for t in turns)
    return [message for pair in pairs for message in pair]


def _turns() -> sa.Select[tuple[object, ...]]:
    return sa.select(
        TURN.c.id,
        TURN.c.conversation_id,
        TURN.c.user_text,
        TURN.c.created,
        TURN.c.rating,
        CANDIDATE.c.reply,
    ).join(CANDIDATE, CANDIDATE.c.id == TURN.c.chosen)


def _as_turn(row: sa.Row[tuple[object, ...]]) -> Turn:
    values = row._mapping
    return Turn(
        str(values["id"]),
        str(values["conversation_id"]),
        str(values["user_text"]),
        _reply.validate_json(str(values["reply"])),
        float(str(values["created"])),
        int(str(values["rating"])),
    )


def _insert_candidate(connection: sa.Connection, reply: Reply) -> None:
    connection.execute(
        sa.insert(CANDIDATE).values(
            id=reply.candidate_id,
            turn_id=reply.turn_id,
            reply=_reply.dump_json(reply).decode(),
            created=time.time(),
        )
    )


def _title(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= TITLE_CHARACTERS else line[: TITLE_CHARACTERS - 1] + "…"
