"""The preference log on disk: its tables, how it is opened, and which version it has.

turn ─┬─ prompt ─── candidate ─── evidence      what was asked, with what, answered how
      └─ feedback                               what the user did; events, never overwritten
person, consent                                 pseudonym and split; what was allowed when
erased                                          tombstones: no pseudonym, no content
imported                                        rows of other people's data sets, apart from turns

Everything below `turn` goes when the turn goes (ON DELETE CASCADE).
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Engine,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.engine import Connection

from retrieval import sqlite
from rlhf.errors import SecretMismatch, StoreError, StoreTooNew

#: Written into every new log; raise it together with a migration.
SCHEMA_VERSION = 2

#: The split of a person whose conversations are split instead.
BY_CONVERSATION = "conversation"

metadata = MetaData()

schema_version = Table(
    "schema_version",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("secret_check", String, nullable=False),
    Column("created", Float, nullable=False),
)

person = Table(
    "person",
    metadata,
    Column("pseudonym", String, primary_key=True),
    Column("split", String, nullable=False),  # or BY_CONVERSATION
    Column("first_seen", Float, nullable=False),
)

#: Whose own tombstone this is cannot be read from it: `mark` is a keyed hash of the pseudonym.
erased = Table(
    "erased",
    metadata,
    Column("mark", String, primary_key=True),
    Column("at", Float, nullable=False),
    Column("split", String, nullable=False),  # kept, so that a split outlives a deletion
)

consent = Table(
    "consent",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("pseudonym", ForeignKey("person.pseudonym"), nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("last_turn", Integer, nullable=False),  # the newest turn.seq when it was given
    Column("train", Boolean, nullable=False),
    Column("evaluate", Boolean, nullable=False),
    Column("publish", Boolean, nullable=False),
    Column("text_version", String, nullable=False),
    Column("past", Boolean, nullable=False),
    sqlite_autoincrement=True,
)

turn = Table(
    "turn",
    metadata,
    # never reused, since consent.last_turn points at it
    Column("seq", Integer, primary_key=True),
    Column("turn_id", String, nullable=False, unique=True),
    Column("schema_version", Integer, nullable=False),
    Column("conversation_id", String, nullable=False),
    Column("parent_id", String, nullable=False),
    Column("pseudonym", ForeignKey("person.pseudonym"), nullable=False, index=True),
    Column("surface", String, nullable=False),
    Column("language", String, nullable=False),
    Column("created", Float, nullable=False),
    Column("user_text", Text, nullable=False),
    Column("redacted_text", Text, nullable=False),
    # as given with the turn, never changed
    Column("consent_train", Boolean, nullable=False),
    Column("consent_evaluate", Boolean, nullable=False),
    Column("consent_publish", Boolean, nullable=False),
    Column("consent_version", String, nullable=False),
    # as it stands now, after later changes of mind
    Column("allow_train", Boolean, nullable=False),
    Column("allow_evaluate", Boolean, nullable=False),
    Column("allow_publish", Boolean, nullable=False),
    Column("retention_until", Float, nullable=False, index=True),
    Column("split", String, nullable=False),  # the person's or the conversation's, never changed
    sqlite_autoincrement=True,
)

prompt = Table(
    "prompt",
    metadata,
    Column("turn_id", ForeignKey("turn.turn_id", ondelete="CASCADE"), primary_key=True),
    Column("prompt_sha256", String, primary_key=True),
    Column("system_sha256", String, nullable=False),
    Column("messages", JSON, nullable=False),  # [[role, text], …], verbatim
    Column("redacted_messages", JSON, nullable=False),
)

candidate = Table(
    "candidate",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("candidate_id", String, nullable=False, unique=True),
    Column("turn_id", String, nullable=False),
    Column("prompt_sha256", String, nullable=False),
    Column("created", Float, nullable=False),
    Column("text", Text, nullable=False),
    Column("redacted_text", Text, nullable=False),
    Column("outcome", String, nullable=False),
    Column("language", String, nullable=False),
    Column("finish", String, nullable=False),
    Column("position", Integer, nullable=False),
    Column("shown", Boolean, nullable=False),
    Column("policy", JSON, nullable=False),  # PolicyCard
    Column("sampling", JSON, nullable=False),  # Sampling
    Column("token_ids", JSON, nullable=False),
    Column("logprobs", JSON, nullable=False),
    Column("confidence", Float),
    Column("seconds", Float, nullable=False),
    Column("understanding", JSON, nullable=False),  # the search decision and its query
    Column("verdicts", JSON, nullable=False),
    Column("citations", JSON, nullable=False),
    Column("steps", JSON, nullable=False),  # [[name, seconds], …]
    ForeignKeyConstraint(
        ["turn_id", "prompt_sha256"], ["prompt.turn_id", "prompt.prompt_sha256"], ondelete="CASCADE"
    ),
)

evidence = Table(
    "evidence",
    metadata,
    Column(
        "candidate_id",
        ForeignKey("candidate.candidate_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("rank", Integer, primary_key=True),  # 1 = first, as retrieved
    Column("document_id", Integer, nullable=False),
    Column("chunk_id", Integer, nullable=False),
    Column("version", String, nullable=False),  # SHA-256 of the document version
    Column("source", String, nullable=False),
    Column("start", Integer, nullable=False),
    Column("end", Integer, nullable=False),
    Column("text", Text, nullable=False),
    Column("score", Float, nullable=False),
    Column("modified", Float, nullable=False),
    Column("indexed", Float, nullable=False),
)

feedback = Table(
    "feedback",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("event_id", String, nullable=False, unique=True),
    Column("turn_id", ForeignKey("turn.turn_id", ondelete="CASCADE"), nullable=False),
    Column("kind", String, nullable=False),
    Column("slot", String, nullable=False),  # what a later event of the same slot corrects
    Column("created", Float, nullable=False),
    Column("candidate_ids", JSON, nullable=False),  # in the order shown
    Column("value", Integer, nullable=False),
    Column("reasons", JSON, nullable=False),
    Column("text", Text, nullable=False),
    Column("redacted_text", Text, nullable=False),
    Column("order_randomised", Boolean, nullable=False),
    Column("explicit", Boolean, nullable=False),
    Column("surface", String, nullable=False),
    Column("language", String, nullable=False),
    Column("dwell_ms", Integer, nullable=False),
    Column("supersedes", String, unique=True),
    sqlite_autoincrement=True,
)

imported = Table(
    "imported",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("digest", String, nullable=False, unique=True),  # of what the row says, and who says it
    Column("said", String, nullable=False),  # of what the row says
    Column("about", String, nullable=False, index=True),  # of what the row judges
    Column("opening", String, nullable=False, index=True),  # of the first words of the user
    Column("dataset", String, nullable=False, index=True),
    Column("licence", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("split", String, nullable=False),
    Column("pseudonym", String, nullable=False, index=True),  # "" where no one is named
    Column("language", String, nullable=False),
    Column("created", Float, nullable=False),
    Column("taken", Float, nullable=False),
    Column("row_id", String, nullable=False),
    Column("masked", Boolean, nullable=False),  # personal data was taken out of its texts
    Column("prompt", JSON, nullable=False),  # [[role, text], …]
    Column("completions", JSON, nullable=False),
    Column("ranks", JSON, nullable=False),
    Column("label", Boolean),
    Column("models", JSON, nullable=False),
    Column("weight", Float, nullable=False),
)

Index("turn_by_conversation", turn.c.conversation_id)
Index("candidate_by_prompt", candidate.c.turn_id, candidate.c.prompt_sha256)
Index("feedback_by_slot", feedback.c.turn_id, feedback.c.slot, feedback.c.seq)


def open_engine(path: Path, busy_seconds: float) -> Engine:
    """Open an engine on the log at `path`; a new file is readable by its owner only.

    Transactions begin as `retrieval.sqlite.prepare` says.
    """
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    engine = create_engine(
        f"sqlite:///{path}",
        connect_args={"timeout": busy_seconds, "check_same_thread": False},
        # Chinese stays readable in the file, and half its size
        json_serializer=lambda value: json.dumps(value, ensure_ascii=False),
    )
    sqlite.prepare(engine)
    return engine


def open_version(
    db: Connection, secret_check: str, now: float, upgrade: Callable[[Connection, int], None]
) -> bool:
    """Make the tables in a new file; refuse a file that is a later version's or another secret's.

    An older file is handed to `upgrade` with its version, in the same transaction.

    Returns:
        Whether it was upgraded.

    Raises:
        StoreTooNew: a newer version of plumbline wrote it.
        SecretMismatch: its users were hashed with another secret.
        StoreError: it holds no version, or several.
    """
    if not inspect(db).has_table(schema_version.name):
        metadata.create_all(db)
        row = {"version": SCHEMA_VERSION, "secret_check": secret_check, "created": now}
        db.execute(insert(schema_version), row)
    marks = db.execute(select(schema_version)).all()
    if len(marks) != 1:
        raise StoreError(f"the log holds {len(marks)} schema versions, not one; restore a backup")
    if marks[0].version > SCHEMA_VERSION:
        raise StoreTooNew(
            f"the log has schema version {marks[0].version}, this plumbline reads "
            f"{SCHEMA_VERSION}; upgrade plumbline or give another file"
        )
    if not hmac.compare_digest(marks[0].secret_check, secret_check):
        raise SecretMismatch(
            "the secret file does not belong to this log; put back the one it was made with, or "
            "no user of it can be found again"
        )
    if marks[0].version == SCHEMA_VERSION:
        return False
    upgrade(db, marks[0].version)
    db.execute(update(schema_version).values(version=SCHEMA_VERSION))
    return True
