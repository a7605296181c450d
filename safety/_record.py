"""Verdicts written down: decisions to the audit log, counts of what passed, texts if allowed."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import logging
import math
import os
import secrets
import sqlite3
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from safety._docket import Docket
from safety._language import language_of
from safety.audit import AuditLog, Entry, text_hash
from safety.config import SafetySettings
from safety.errors import AuditBroken
from safety.moderator.base import Moderator
from safety.schema import Context, Verdict

logger = logging.getLogger(__name__)

#: Texts that passed are counted in memory, and the counts written at most this often, seconds.
TALLY_SECONDS = 60.0
#: The hard rule: no text of this category is ever kept.
NEVER_KEPT = "minors"


class Recorder:
    """Writes what a guard decided. Thread-safe.

    Args:
        audit: the log; beside it lie the key of user hashes and the docket.
        moderators: whose `policy` and `model` hashes the records carry.
        settings: what is written, and how long texts are kept.
    """

    def __init__(
        self, audit: AuditLog, moderators: Sequence[Moderator], settings: SafetySettings
    ) -> None:
        self._audit = audit
        self._settings = settings
        self._policies = {m.name: str(getattr(m, "policy", "")) for m in moderators}
        self._models = {m.name: str(getattr(m, "model", "")) for m in moderators}
        self._tally = _Tally(audit)
        self._users: dict[str, str] = {}
        weakref.finalize(self, self._tally.write)
        docket = docket_path(audit.path)
        self._docket: Docket | None = None
        if settings.keep_texts_days or docket.exists():
            self._docket = Docket(docket)
            self._purge()

    def wants(self, verdict: Verdict) -> bool:
        """Whether the verdict becomes a record of its own."""
        return self._settings.audit_allowed or verdict.action != "allow"

    def write(self, texts: Sequence[str], verdicts: Sequence[Verdict], context: Context) -> None:
        """Write one record per verdict that is wanted, and count the others.

        Raises:
            AuditBroken: the log's end is not a record of ours; nothing was written.
            OSError: the log cannot be written.
        """
        pairs = list(zip(texts, verdicts, strict=True))
        self._audit.append([self._entry(t, v, context) for t, v in pairs if self.wants(v)])
        self._tally.add(f"{v.side}.{language_of(t)}" for t, v in pairs if not self.wants(v))
        self._tally.write(TALLY_SECONDS)
        days = self._settings.keep_texts_days
        if days and self._docket is not None:
            user = self._user(context)
            kept = [
                (v.decision_id, user, t)
                for t, v in pairs
                if v.side == "input" and v.stops and v.category not in (NEVER_KEPT, "fault")
            ]
            try:
                self._docket.keep(kept)
            except sqlite3.Error as error:  # the decision stands; only its appeal needs the text
                logger.error("text_not_kept rows=%d error=%s", len(kept), type(error).__name__)
            self._purge()

    def _purge(self) -> None:
        assert self._docket is not None
        try:
            self._docket.purge(self._settings.keep_texts_days)
        except sqlite3.Error as error:
            logger.error("texts_not_purged error=%s", type(error).__name__)

    def _entry(self, text: str, verdict: Verdict, context: Context) -> Entry:
        scores = verdict.scores
        if not scores and verdict.category != "none":
            scores = ((verdict.category, verdict.score),)
        return Entry(
            decision=verdict.decision_id,
            side=verdict.side,
            action=verdict.action,
            category=verdict.category,
            reason=verdict.reason,
            moderator=verdict.moderator,
            policy=self._policies.get(verdict.moderator, ""),
            model=self._models.get(verdict.moderator, ""),
            text_sha256=text_hash(text),
            length=len(text),
            language=language_of(text),
            score=_number(verdict.score),
            scores=tuple((str(name), _number(score)) for name, score in scores),
            spans=tuple((s.start, s.end, s.rule) for s in verdict.spans),
            conversation=context.conversation,
            user=self._user(context),
            question_sha256=text_hash(context.question) if _answers(verdict, context) else "",
        )

    def _user(self, context: Context) -> str:
        if not context.user:
            return ""
        if context.user not in self._users:
            self._users[context.user] = pseudonym(self._audit.path, context.user)
        return self._users[context.user]


class _Tally:
    """Counts of texts that passed without a record, until they are written."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._counts: Counter[str] = Counter()
        self._written = time.monotonic()
        self._lock = threading.Lock()

    def add(self, keys: Iterable[str]) -> None:
        """Count each key once more; a key is side.language."""
        with self._lock:
            self._counts.update(keys)

    def write(self, unless_seconds: float = 0.0) -> None:
        """Write the counts, unless they were written less than so many seconds ago."""
        with self._lock:
            if not self._counts or time.monotonic() - self._written < unless_seconds:
                return
            counts, self._counts = self._counts, Counter()
            self._written = time.monotonic()
        try:
            self._audit.append([], counts)
        except (OSError, AuditBroken) as error:  # what was allowed is lost only to the statistics
            logger.error("tally_failed error=%s", type(error).__name__)


def _answers(verdict: Verdict, context: Context) -> bool:
    return verdict.side == "output" and bool(context.question)


def docket_path(audit: Path) -> Path:
    """Where the texts and appeals of an audit log are."""
    return audit.with_name("appeals.db")


def pseudonym(audit: Path, user: str) -> str:
    """The user's hash (64 hex digits) under the secret that lies beside the audit log.

    Raises:
        OSError: the secret can be neither read nor made.
    """
    path = audit.with_suffix(".key")
    if not path.exists():
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(32))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):  # another process made it first
                os.link(draft, path)
        finally:
            draft.unlink()
    return hmac.new(path.read_bytes(), user.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def _number(score: float) -> float:
    """Four digits; a plug-in's NaN or infinity is no score."""
    return round(float(score), 4) if math.isfinite(score) else 0.0
