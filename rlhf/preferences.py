"""The preference log: what was asked, answered and thought of it, kept from the first day.

Append-only: a correction is a new event that supersedes an older one. Users are pseudonyms, keyed
hashes under a secret of this installation. What may be used for training follows consent as it
stands now; what a user had erased is gone from the file, not only from the answers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.engine import Connection

from assistant.prompt import fingerprint
from assistant.schema import Consent, Feedback, TurnRecord
from rlhf import examples, preferences_imported, preferences_people, rows
from rlhf.config import PreferenceSettings
from rlhf.errors import BadRecord, ConflictingRecord, UnknownTurn
from rlhf.identity import keyed_hash, mask_contacts, read_secret
from rlhf.preferences_file import LogFile
from rlhf.preferences_imported import Taken
from rlhf.schema import (
    Counts,
    EditExample,
    Preference,
    Sample,
    SampleKind,
    Split,
    ThumbExample,
)
from rlhf.tables import candidate, consent, evidence, feedback, prompt, turn

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
        self._key = read_secret(secret or path.with_suffix(".key"))
        self._file = LogFile(path, self._key, self.settings, clock())

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
        with self._file.write() as db:
            self._meet(db, pseudonym, record.created)
            if not self._new_candidate(db, record, pseudonym):
                return
            expires = record.created + self.settings.retention_days * DAY
            known = select(turn.c.seq).where(turn.c.turn_id == record.turn_id)
            if db.execute(known).first() is None:
                row = rows.of_turn(record, pseudonym, expires, self._redact)
                row["split"] = preferences_people.split_of(
                    db,
                    self._key,
                    self.settings,
                    pseudonym,
                    record.conversation_id,
                    record.user_text,
                )
                db.execute(insert(turn), row)
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
        with self._file.write() as db:
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
        with self._file.write() as db:
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
        with self._file.read() as db:
            return examples.allowed(db, self.pseudonym(user_id))

    def delete_user(self, user_id: str) -> int:
        """Erase all a user said and was answered, and rows imported of the same user id.

        A tombstone stays, without content and without the pseudonym: turns that arrive late,
        created before the deletion, are refused by it. The file is rewritten (VACUUM), so this
        takes time in proportion to the log.

        Returns:
            How many turns were erased.
        """
        pseudonym = self.pseudonym(user_id)
        now = self._clock()
        with self._file.write() as db:
            self._meet(db, pseudonym, now, fresh=True)
            erased = preferences_people.erase(db, self._key, pseudonym, now)
        self._file.rewrite()
        logger.info("user erased turns=%d", erased)
        return int(erased)

    def purge(self) -> int:
        """Erase the turns whose retention time is over; returns how many."""
        with self._file.write() as db:
            erased = db.execute(
                delete(turn).where(turn.c.retention_until <= self._clock())
            ).rowcount
        if erased:
            self._file.rewrite()
        logger.info("log purged turns=%d", erased)
        return int(erased)

    def take(
        self, samples: Sequence[Sample], dataset: str, licence: str, split: Split | None = None
    ) -> list[Taken]:
        """Take over other people's rows, in one transaction; they stay apart from users' own.

        Personal data is masked before anything is written. A row that is there already is not
        taken twice. `split` holds for rows whose opening words are new; without it, it is drawn.
        """
        with self._file.write() as db:
            return preferences_imported.take(
                db,
                samples,
                preferences_imported.Source(
                    dataset, licence, split, self.settings, self.pseudonym, self._redact
                ),
                self._clock(),
            )

    def forget_dataset(self, dataset: str) -> int:
        """Erase the rows of one imported data set; returns how many."""
        with self._file.write() as db:
            erased = preferences_imported.forget(db, dataset)
        if erased:
            self._file.rewrite()
        logger.info("data set erased dataset=%s rows=%d", dataset, erased)
        return erased

    # -- reading

    def comparisons(self, split: Split | None = None, *, raw: bool = False) -> Iterator[Sample]:
        """Picks with all their candidates, ties among them, and edits, oldest first."""
        for found in self._events(("ab_pick", "edit"), split):
            yield from examples.comparisons(found, raw=raw, edit_weight=self.settings.edit_weight)

    def prompts(self, split: Split | None = None, *, raw: bool = False) -> Iterator[Sample]:
        """What users asked and a policy answered, each prompt once, oldest first."""
        if self._barred:
            return
        with self._file.translated():
            yield from examples.prompts(self._file.engine, split, self.settings.page, raw=raw)

    def imported(
        self,
        kind: SampleKind,
        split: Split | None = None,
        datasets: Sequence[str] | None = None,
    ) -> Iterator[Sample]:
        """Rows of other people's data sets (all, or those named), in the order taken."""
        with self._file.translated():
            yield from preferences_imported.read(
                self._file.engine, kind, split, datasets, self.settings.page
            )

    def datasets(self) -> dict[str, tuple[str, int]]:
        """Imported data sets by name, each with its licence note and number of rows."""
        with self._file.read() as db:
            return preferences_imported.datasets(db)

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
        if self._barred:
            return
        with self._file.translated():
            yield from examples.records(self._file.engine, split, self.settings.page)

    def counts(self) -> Counts:
        """How much is in the log."""
        with self._file.read() as db:
            return examples.counts(db)

    def pseudonym(self, user_id: str) -> str:
        """Derive a user's name in the log: 128 bits of HMAC-SHA256 under the secret, hex."""
        return keyed_hash(self._key, "user", user_id)[:32]

    def close(self) -> None:
        """Close the file; the store is not used afterwards."""
        self._file.engine.dispose()

    # -- inside

    @property
    def _barred(self) -> bool:
        """Whether nothing that users said may be learnt from, whatever they allowed."""
        return self.settings.consent == "never"

    def _events(self, kinds: tuple[str, ...], split: Split | None) -> Iterator[examples.Found]:
        if self._barred:
            return
        with self._file.translated():
            yield from examples.events(self._file.engine, kinds, split, self.settings.page)

    def _meet(self, db: Connection, pseudonym: str, when: float, fresh: bool = False) -> None:
        preferences_people.meet(db, self._key, self.settings, pseudonym, when, fresh)

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
