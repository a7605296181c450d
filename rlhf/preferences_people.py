"""Who is known to the log, which split their turns are in, and who was erased.

Splits are drawn once and then kept: users fall into train, dev or test as a whole, by a keyed hash
(InstructGPT splits by user too, arXiv 2203.02155, §3.2). A log of few people would put all it has
into one split that way, so people met while fewer than `split_users` are known are split by
conversation, for good: a conversation stays together, and one that opens with the very words of an
earlier one goes where that went.
"""

from __future__ import annotations

import logging
from typing import get_args

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.engine import Connection

from rlhf.config import PreferenceSettings
from rlhf.errors import ConflictingRecord
from rlhf.identity import keyed_hash
from rlhf.schema import Split
from rlhf.tables import BY_CONVERSATION, consent, erased, imported, person, turn

logger = logging.getLogger(__name__)
SPLITS: tuple[Split, ...] = get_args(Split)


def drawn(fingerprint: str, settings: PreferenceSettings) -> Split:
    """Read a split off a hash (hex, 13 digits or more), by the fractions."""
    draw = int(fingerprint[:13], 16) / 16**13
    if draw < settings.test_fraction:
        return "test"
    return "dev" if draw < settings.test_fraction + settings.dev_fraction else "train"


def mark(key: bytes, pseudonym: str) -> str:
    """Derive the tombstone of a pseudonym."""
    return keyed_hash(key, "erased", pseudonym)


def meet(
    db: Connection,
    key: bytes,
    settings: PreferenceSettings,
    pseudonym: str,
    when: float,
    fresh: bool = False,
) -> None:
    """Make sure that the person is known; refuse what was created before their deletion.

    Raises:
        ConflictingRecord: `when` is before the deletion, and `fresh` is not set.
    """
    gone = db.execute(select(erased).where(erased.c.mark == mark(key, pseudonym))).first()
    if not fresh and gone is not None and when <= gone.at:
        raise ConflictingRecord("this user's log was erased after the turn was created")
    if db.execute(select(person).where(person.c.pseudonym == pseudonym)).first() is not None:
        return
    others = db.execute(select(func.count()).select_from(person)).scalar_one()
    if gone is not None:
        split = gone.split
    elif others + 1 < settings.split_users:
        split = BY_CONVERSATION
    else:
        split = drawn(keyed_hash(key, "split", pseudonym), settings)
    db.execute(insert(person), {"pseudonym": pseudonym, "split": split, "first_seen": when})
    logger.info("user met split=%s", split)


def split_of(
    db: Connection,
    key: bytes,
    settings: PreferenceSettings,
    pseudonym: str,
    conversation: str,
    words: str,
) -> Split:
    """The split of a new turn: its person's, or its conversation's, which is drawn where new."""
    own = db.execute(select(person.c.split).where(person.c.pseudonym == pseudonym)).scalar_one()
    if own in SPLITS:
        return str_split(own)
    mine = select(turn.c.split).where(turn.c.pseudonym == pseudonym, turn.c.split.in_(SPLITS))
    for same in (turn.c.conversation_id == conversation, turn.c.user_text == words):
        first = mine.where(same).order_by(turn.c.seq).limit(1)
        if (found := db.execute(first).scalar()) is not None:
            return str_split(found)
    split = drawn(keyed_hash(key, "split", f"{pseudonym} {conversation}"), settings)
    logger.info("conversation met split=%s", split)
    return split


def str_split(text: str) -> Split:
    """Name a split of the file."""
    return next(split for split in SPLITS if split == text)


def erase(db: Connection, key: bytes, pseudonym: str, now: float) -> int:
    """Delete every row of a person, own and imported; a tombstone stays. Returns the turns."""
    turns = db.execute(delete(turn).where(turn.c.pseudonym == pseudonym)).rowcount
    db.execute(delete(imported).where(imported.c.pseudonym == pseudonym))
    db.execute(delete(consent).where(consent.c.pseudonym == pseudonym))
    split = db.execute(select(person.c.split).where(person.c.pseudonym == pseudonym)).scalar_one()
    db.execute(delete(person).where(person.c.pseudonym == pseudonym))
    own = erased.c.mark == mark(key, pseudonym)
    if not db.execute(update(erased).where(own).values(at=now)).rowcount:
        row = {"mark": mark(key, pseudonym), "at": now, "split": split}
        db.execute(insert(erased), row)
    return int(turns)
