"""The preference log: what was asked, answered and thought of it, kept from the first day.

Append-only: a correction is a new event that supersedes an older one. Users are pseudonyms, keyed
hashes under a secret of this installation. What may be used for training follows consent as it
stands now; what a user had erased is gone from the file, not only from the answers.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DatabaseError, OperationalError

from assistant.prompt import fingerprint
from assistant.schema import Consent, Feedback, TurnRecord
from rlhf import examples, rows
from rlhf.config import PreferenceSettings
from rlhf.errors import (
    BadRecord,
    ConflictingRecord,
    StoreBusy,
    StoreError,
    UnknownTurn,
)
from rlhf.identity import keyed_hash, mask_contacts, read_secret
from rlhf.schema import Counts, EditExample, Preference, Split, ThumbExample
from rlhf.tables import (
    candidate,
    consent,
    evidence,
    feedback,
    open_engine,
    open_version,
    person,
    prompt,
    turn,
)

logger = logging.getLogger(__name__)

DAY = 86_400.0


class PreferenceStore:
    """The preference log in one SQLite file. Safe to use from several threads and processes.

    Args:
        path: the database; its folder is made where missing.
        secret: file of the key that makes pseudonyms, by default `path` with the suffix `.key`;
            made at first use, readable by its owner only. Without it no user can be found again.
        settings: retention, splits, weights.
        redact: makes the redacted column that stands beside every raw text.
        clock: the time, in seconds since the epoch.

    Raises:
        StoreError: the file cannot be opened, is not a preference log, is newer than this
            plumbline (StoreTooNew) or has users of another secret (SecretMismatch).
    """

    def __init__(
        self,
        path: Path,
        secret: Path | None = None,
        settings: PreferenceSettings | None = None,
        redact: Callable[[str], str] = mask_contacts,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self.settings = settings or PreferenceSettings()
        self._redact = redact
        self._clock = clock
        self._lock = threading.Lock()
        self._key = read_secret(secret or path.with_suffix(".key"))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._engine = open_engine(path, self.settings.busy_seconds)
        except OSError as error:
            raise StoreError(f"cannot open the preference log {path}: {error}") from error
        self._writer = self._engine.execution_options(begin="IMMEDIATE")
        try:
            with self._write() as db:
                open_version(db, keyed_hash(self._key, "check", ""), self._clock())
        except StoreError:
            self._engine.dispose()
            raise

    # -- writing

    def add_turn(self, record: TurnRecord) -> None:
        """Log one candidate answer with all it came from; committed to disk on return.

        The same record again changes nothing, so a retry is safe. Further candidates of a turn
        are records with the same turn and another candidate id.

        Raises:
            BadRecord: token ids without their log-probs, or a hash that is not the prompt's.
            ConflictingRecord: the ids are in the log with another content, or were erased.
        """
        if record.token_ids and len(record.token_ids) != len(record.logprobs):
            raise BadRecord(
                f"candidate {record.candidate_id}: {len(record.token_ids)} token ids but "
                f"{len(record.logprobs)} log-probs; one each is needed"
            )
        if record.prompt_sha256 != fingerprint(record.prompt):
            raise BadRecord(
                f"candidate {record.candidate_id}: prompt_sha256 {record.prompt_sha256[:12]}… is "
                "not the prompt's; take it from assistant.prompt.fingerprint"
            )
        pseudonym = self.pseudonym(record.user_id)
        with self._write() as db:
            self._meet(db, pseudonym, record.created)
            if not self._new_candidate(db, record, pseudonym):
                return
            expires = record.created + self.settings.retention_days * DAY
            known = select(turn.c.seq).where(turn.c.turn_id == record.turn_id)
            if db.execute(known).first() is None:
                db.execute(insert(turn), rows.of_turn(record, pseudonym, expires, self._redact))
            same = (prompt.c.turn_id == record.turn_id) & (
                prompt.c.prompt_sha256 == record.prompt_sha256
            )
            if db.execute(select(prompt.c.turn_id).where(same)).first() is None:
                db.execute(insert(prompt), rows.of_prompt(record, self._redact))
            db.execute(insert(candidate), rows.of_candidate(record, self._redact))
            if found := rows.of_evidence(record):
                db.execute(insert(evidence), found)
        logger.info("turn logged turn=%s candidate=%s", record.turn_id, record.candidate_id)

    def add_feedback(self, event: Feedback, event_id: str = "") -> str:
        """Log what a user did with an answer; committed to disk on return.

        A later thumb, pick or edit of the same candidates supersedes the earlier one; both stay.
        Feedback that names no candidate is on the one shown last.

        Args:
            event: the feedback; its user must be the turn's.
            event_id: an id of the caller's own, which makes any retry safe. Without one, an event
                equal to the one that stands is taken for its retry.

        Returns:
            The event's id.

        Raises:
            UnknownTurn: the turn is not in the log, was erased, or is another user's.
            BadRecord: the value or the candidates do not fit the kind.
            ConflictingRecord: `event_id` is taken by another content.
        """
        pseudonym = self.pseudonym(event.user_id)
        with self._write() as db:
            shown = self._candidates(db, event, pseudonym)
            chosen = event.candidate_ids or shown[-1:]
            rows.check_feedback(event, chosen, shown)
            row = rows.of_feedback(event, chosen, self._redact)
            same = feedback.c.slot == row["slot"], feedback.c.turn_id == event.turn_id
            newest = select(feedback).where(*same).order_by(feedback.c.seq.desc()).limit(1)
            last = db.execute(newest).first()
            if event_id:
                taken = select(feedback).where(feedback.c.event_id == event_id)
                if (old := db.execute(taken).first()) is not None:
                    if not rows.equal(old, row):
                        raise ConflictingRecord(
                            f"feedback {event_id!r} is in the log with another content; "
                            "give each event its own id"
                        )
                    return event_id
            elif last is not None and rows.equal(last, row):
                return str(last.event_id)
            before = last.event_id if last is not None else ""
            row["event_id"] = event_id or rows.event_id(pseudonym, row, before)
            row["supersedes"] = before if before and event.kind in rows.CORRECTABLE else None
            row["created"] = self._clock()
            db.execute(insert(feedback), row)
        logger.info("feedback logged turn=%s kind=%s", event.turn_id, event.kind)
        return str(row["event_id"])

    def set_consent(self, user_id: str, allowed: Consent, *, past: bool = False) -> None:
        """Record a change of mind. Later turns bring their own consent.

        What is withdrawn is withdrawn for every turn already logged. What is granted reaches
        them only with `past`, for a user who was told so.
        """
        pseudonym = self.pseudonym(user_id)
        now = self._clock()
        flags = rows.flags(allowed)
        with self._write() as db:
            self._meet(db, pseudonym, now, fresh=True)
            last = db.execute(select(func.coalesce(func.max(turn.c.seq), 0))).scalar_one()
            db.execute(
                insert(consent),
                {
                    "pseudonym": pseudonym,
                    "at": now,
                    "last_turn": last,
                    "text_version": allowed.text_version,
                    "past": past,
                    **flags,
                },
            )
            changed = {f"allow_{name}": on for name, on in flags.items() if past or not on}
            if changed:
                db.execute(update(turn).where(turn.c.pseudonym == pseudonym).values(changed))
        logger.info("consent changed train=%s past=%s", allowed.train, past)

    def consent(self, user_id: str) -> Consent:
        """Find what the user allowed last, by `set_consent` or with a turn; else nothing."""
        with self._read() as db:
            return examples.allowed(db, self.pseudonym(user_id))

    def delete_user(self, user_id: str) -> int:
        """Erase all a user said and was answered; a tombstone without content stays.

        The file is rewritten (VACUUM), so this takes time in proportion to the log. Turns that
        arrive late, created before the deletion, are refused from then on.

        Returns:
            How many turns were erased.
        """
        pseudonym = self.pseudonym(user_id)
        now = self._clock()
        with self._write() as db:
            self._meet(db, pseudonym, now, fresh=True)
            erased = db.execute(delete(turn).where(turn.c.pseudonym == pseudonym)).rowcount
            db.execute(delete(consent).where(consent.c.pseudonym == pseudonym))
            db.execute(update(person).where(person.c.pseudonym == pseudonym).values(deleted=now))
        self._rewrite()
        logger.info("user erased turns=%d", erased)
        return int(erased)

    def purge(self) -> int:
        """Erase the turns whose retention time is over; returns how many."""
        with self._write() as db:
            erased = db.execute(
                delete(turn).where(turn.c.retention_until <= self._clock())
            ).rowcount
        if erased:
            self._rewrite()
        logger.info("log purged turns=%d", erased)
        return int(erased)

    # -- reading

    def pairs(self, split: Split | None = None, *, raw: bool = False) -> Iterator[Preference]:
        """Preferences from picks and edits, oldest first, of users who allow training.

        Both sides answer byte-equal prompts; ties, equal texts, and answers that no policy wrote
        (refusals, small talk) give none. Texts are the redacted ones unless `raw`.
        """
        weight = self.settings.edit_weight
        for found in self._events(("ab_pick", "edit"), split):
            yield from examples.pairs(found, raw=raw, edit_weight=weight)

    def edits(self, split: Split | None = None, *, raw: bool = False) -> Iterator[EditExample]:
        """Answers as users rewrote them, oldest first, of users who allow training."""
        for found in self._events(("edit",), split):
            yield from examples.edits(found, raw=raw)

    def thumbs(self, split: Split | None = None, *, raw: bool = False) -> Iterator[ThumbExample]:
        """Liked and disliked answers, oldest first, of users who allow training."""
        for found in self._events(("thumb",), split):
            yield from examples.thumbs(found, raw=raw)

    def records(self, split: Split | None = None) -> Iterator[dict[str, Any]]:
        """Whole turns, raw and redacted, as JSON-ready dicts, of users who allow training."""
        with self._translated():
            yield from examples.records(self._engine, split, self.settings.page)

    def counts(self) -> Counts:
        """How much is in the log."""
        with self._read() as db:
            return examples.counts(db)

    def pseudonym(self, user_id: str) -> str:
        """Derive a user's name in the log: 128 bits of HMAC-SHA256 under the secret, hex."""
        return keyed_hash(self._key, "user", user_id)[:32]

    def close(self) -> None:
        """Close the file; the store is not used afterwards."""
        self._engine.dispose()

    # -- inside

    def _events(self, kinds: tuple[str, ...], split: Split | None) -> Iterator[examples.Found]:
        with self._translated():
            yield from examples.events(self._engine, kinds, split, self.settings.page)

    def _meet(self, db: Connection, pseudonym: str, when: float, fresh: bool = False) -> None:
        """Make sure that the person is known; refuse what was created before their deletion."""
        known = select(person).where(person.c.pseudonym == pseudonym)
        row = db.execute(known).first()
        if row is None:
            new = {"pseudonym": pseudonym, "split": self._split(pseudonym), "first_seen": when}
            db.execute(insert(person), new)
        elif not fresh and row.deleted is not None and when <= row.deleted:
            raise ConflictingRecord("this user's log was erased after the turn was created")

    def _split(self, pseudonym: str) -> Split:
        draw = int(keyed_hash(self._key, "split", pseudonym)[:13], 16) / 16**13
        if draw < self.settings.test_fraction:
            return "test"
        return "dev" if draw < self.settings.test_fraction + self.settings.dev_fraction else "train"

    def _new_candidate(self, db: Connection, record: TurnRecord, pseudonym: str) -> bool:
        """Whether the record is new; False for a retry.

        Raises:
            ConflictingRecord: another record has these ids.
        """
        owner = select(turn).where(turn.c.turn_id == record.turn_id)
        row = db.execute(owner).first()
        if row is not None and (row.pseudonym, row.conversation_id, row.user_text) != (
            pseudonym,
            record.conversation_id,
            record.user_text,
        ):
            raise ConflictingRecord(
                f"turn {record.turn_id!r} is in the log with another user, conversation or text"
            )
        held = select(candidate).where(candidate.c.candidate_id == record.candidate_id)
        old = db.execute(held).first()
        if old is None:
            return True
        if (old.turn_id, old.prompt_sha256, old.text) == (
            record.turn_id,
            record.prompt_sha256,
            record.reply.text,
        ):
            return False
        raise ConflictingRecord(
            f"candidate {record.candidate_id!r} is in the log with another content"
        )

    def _candidates(self, db: Connection, event: Feedback, pseudonym: str) -> tuple[str, ...]:
        """Ids of the turn's candidates in the order logged, shown ones last."""
        asked: Row[Any] | None = db.execute(
            select(turn).where(turn.c.turn_id == event.turn_id)
        ).first()
        if (
            asked is None
            or asked.pseudonym != pseudonym
            or asked.conversation_id != event.conversation_id
        ):
            raise UnknownTurn(f"no turn {event.turn_id!r} of this user in the preference log")
        mine = (
            select(candidate.c.candidate_id)
            .where(candidate.c.turn_id == event.turn_id)
            .order_by(candidate.c.shown, candidate.c.seq)
        )
        return tuple(db.execute(mine).scalars())

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with self._lock, self._translated(), self._writer.begin() as db:
            yield db

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._translated(), self._engine.begin() as db:
            yield db

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            if "locked" in str(error.orig) or "busy" in str(error.orig):
                raise StoreBusy(
                    f"another process has been writing {self.path} for over "
                    f"{self.settings.busy_seconds:g} s; try again"
                ) from error
            raise StoreError(f"cannot use the preference log {self.path}: {error.orig}") from error
        except DatabaseError as error:
            raise StoreError(f"cannot use the preference log {self.path}: {error.orig}") from error
        except sqlite3.Error as error:  # from the pragmas of a new connection
            raise StoreError(f"cannot use the preference log {self.path}: {error}") from error

    def _rewrite(self) -> None:
        """Leave no erased byte in the file: secure_delete misses copies made by rebalancing."""
        bare = self._engine.execution_options(begin="")
        with self._lock, self._translated(), bare.connect() as db:
            db.exec_driver_sql("VACUUM")
            db.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
