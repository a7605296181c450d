"""Older preference logs, brought up to the version of `rlhf.tables` in one transaction.

1 -> 2  turns carry their split; tombstones lose the pseudonym; imported rows get a table. Logs of
        few people are split by conversation: no release trained or measured on version 1.
"""

from __future__ import annotations

from sqlalchemy import func, select, text, update
from sqlalchemy.engine import Connection

from rlhf.config import PreferenceSettings
from rlhf.preferences_people import erase, split_of
from rlhf.tables import BY_CONVERSATION, metadata, person, turn


def upgrade(db: Connection, version: int, key: bytes, settings: PreferenceSettings) -> None:
    """Bring a log of `version` up to date."""
    if version < 2:
        _splits_of_turns(db, key, settings)


def _splits_of_turns(db: Connection, key: bytes, settings: PreferenceSettings) -> None:
    metadata.create_all(db)
    db.execute(text("ALTER TABLE turn ADD COLUMN split VARCHAR NOT NULL DEFAULT ''"))
    db.execute(text("CREATE INDEX IF NOT EXISTS turn_by_conversation ON turn (conversation_id)"))
    gone = db.execute(text("SELECT pseudonym, deleted FROM person WHERE deleted IS NOT NULL")).all()
    for row in gone:
        back = turn.c.pseudonym == row.pseudonym  # who came back after it keeps what they said
        if db.execute(select(func.count()).select_from(turn).where(back)).scalar_one() == 0:
            erase(db, key, row.pseudonym, row.deleted)
    db.execute(text("ALTER TABLE person DROP COLUMN deleted"))
    if db.execute(select(func.count()).select_from(person)).scalar_one() < settings.split_users:
        db.execute(update(person).values(split=BY_CONVERSATION))
    placed: dict[tuple[str, str], str] = {}
    asked = select(turn.c.seq, turn.c.pseudonym, turn.c.conversation_id, turn.c.user_text)
    for row in db.execute(asked.order_by(turn.c.seq)).all():
        where = (row.pseudonym, row.conversation_id)
        if where not in placed:
            placed[where] = split_of(db, key, settings, *where, row.user_text)
        db.execute(update(turn).where(turn.c.seq == row.seq).values(split=placed[where]))
