"""API keys: made once, shown once, kept as hashes, taken back at once.

A key is `pl-ID-SECRET`. The database finds it by its id and compares the SHA-256 of all of it in
constant time; a secret of 256 random bits needs no slow hash. Every request looks here, so that a
key is dead as soon as it is revoked, in whatever process. What was found once is remembered while
the file's own counter of commits says that nothing was written since, which is one small read.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from assistant.errors import ConfigError
from assistant.server.principal import MAIN, NAME, SCOPES, USUAL, Principal
from retrieval import sqlite, versions

_metadata = sa.MetaData()
KEY = sa.Table(
    "api_key",
    _metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("hash", sa.String, nullable=False),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("tenant", sa.String, nullable=False),
    sa.Column("user", sa.String, nullable=False),
    sa.Column("groups", sa.String, nullable=False),
    sa.Column("scopes", sa.String, nullable=False),
    sa.Column("requests", sa.Integer, nullable=False),
    sa.Column("tokens", sa.Integer, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("expires", sa.Float),
    sa.Column("revoked", sa.Float),
)
_FORM = re.compile(r"pl-([0-9a-f]{12})-[A-Za-z0-9_-]{43}")
FILE = "keys.db"
#: Keys that are remembered at most.
REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class KeyCard:
    """A key as it is listed; times in seconds since the epoch, None = never."""

    id: str
    name: str
    tenant: str
    user: str
    groups: tuple[str, ...]
    scopes: tuple[str, ...]
    requests: int
    tokens: int
    created: float
    expires: float | None
    revoked: float | None

    @property
    def alive(self) -> bool:
        """Whether it opens anything now."""
        return self.revoked is None and (self.expires is None or time.time() < self.expires)


class KeyStore:
    """The keys of one home. Safe for several threads and processes."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 60})
        sqlite.prepare(self._engine)
        self._writer = self._engine.execution_options(begin="IMMEDIATE")
        versions.bring_up(self._writer, path, _metadata)
        path.chmod(0o600)
        self._watch = _Watch(path)

    def create(
        self,
        name: str,
        *,
        tenant: str = MAIN,
        user: str = "",
        groups: Sequence[str] = (),
        scopes: Sequence[str] = USUAL,
        days: float | None = None,
        requests: int = 0,
        tokens: int = 0,
    ) -> str:
        """Make a key; returns it, for the only time.

        Args:
            name: what it is for.
            tenant: whose documents and conversations it opens.
            user: who asks with it; one of its own where "".
            groups: the user's, for access lists.
            scopes: what it is for, of `SCOPES`.
            days: until it ends; None = never.
            requests: a minute, instead of the settings' limit; 0 = theirs.
            tokens: a minute, instead of the settings' limit; 0 = theirs.

        Raises:
            ConfigError: a name, a scope or a number is not one.
        """
        unknown = sorted(set(scopes) - SCOPES.keys())
        if unknown or not scopes:
            raise ConfigError(f"no scope {', '.join(unknown)!r}; there are: {', '.join(SCOPES)}")
        for given in (tenant, user or tenant, *groups):
            if not NAME.fullmatch(given):
                raise ConfigError(f"{given!r} is no name; write letters, digits and . @ + - _ only")
        if (days is not None and days <= 0) or requests < 0 or tokens < 0:
            raise ConfigError("days, requests and tokens of a key must be more than 0")
        number, now = secrets.token_hex(6), time.time()
        key = f"pl-{number}-{secrets.token_urlsafe(32)}"
        with self._writer.begin() as connection:
            connection.execute(
                sa.insert(KEY).values(
                    id=number,
                    hash=_hash(key),
                    name=name[:120],
                    tenant=tenant,
                    user=user or f"key-{number}",
                    groups=",".join(sorted(set(groups))),
                    scopes=",".join(s for s in SCOPES if s in scopes),
                    requests=requests,
                    tokens=tokens,
                    created=now,
                    expires=None if days is None else now + days * 86_400,
                )
            )
        return key

    def find(self, key: str) -> Principal | None:
        """Who holds this key; None where it is none, ended or was taken back."""
        form = _FORM.fullmatch(key)
        if form is None:
            return None
        before = self._watch.commits()
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(KEY).where(KEY.c.id == form[1])).one_or_none()
        same = hmac.compare_digest(row.hash if row else "0" * 64, _hash(key))
        if row is None or not same or not _card(row).alive:
            return None
        self._watch.learn(before, row.hash, _card(row))
        return _holder(_card(row))

    def holder(self, key_id: str) -> Principal | None:
        """Who holds the key of this id, for one who showed the key before; None as in `find`."""
        before = self._watch.commits()
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(KEY).where(KEY.c.id == key_id)).one_or_none()
        if row is None or not _card(row).alive:
            return None
        self._watch.learn(before, f"id {key_id}", _card(row))
        return _holder(_card(row))

    def recall_holder(self, key_id: str) -> Principal | None:
        """As `recall`, for the key of this id."""
        card = self._watch.recall(f"id {key_id}")
        return _holder(card) if card is not None and card.alive else None

    def recall(self, key: str) -> Principal | None:
        """Who holds this key, where that is remembered and still true; does not wait for the disk.

        None: `find` has to look.
        """
        card = self._watch.recall(_hash(key))
        return _holder(card) if card is not None and card.alive else None

    def cards(self) -> list[KeyCard]:
        """Every key, the oldest first, without its secret."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(KEY).order_by(KEY.c.created))
            return [_card(row) for row in rows]

    def any(self) -> bool:
        """Whether a key was ever made; from then on every request needs one."""
        before = self._watch.commits()
        with self._engine.connect() as connection:
            made = connection.execute(sa.select(KEY.c.id).limit(1)).scalar() is not None
        if not made:
            self._watch.learn(before, "", None)
        return made

    def none(self) -> bool:
        """Whether it is remembered, and still true, that no key was ever made."""
        return self._watch.empty()

    def revoke(self, key_id: str) -> KeyCard:
        """Take a key back; it opens nothing from now on.

        Raises:
            ConfigError: there is no such key.
        """
        with self._writer.begin() as connection:
            connection.execute(
                sa.update(KEY)
                .where(KEY.c.id == key_id, KEY.c.revoked.is_(None))
                .values(revoked=time.time())
            )
        found = [card for card in self.cards() if card.id == key_id]
        if not found:
            raise ConfigError(f"no key {key_id!r}; `keys list` shows the ids")
        return found[0]

    def close(self) -> None:
        """Close every connection."""
        self._watch.close()
        self._engine.dispose()


class _Watch:
    """What was found in the file, for as long as nobody commits to it."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, KeyCard | None] = {}
        self._at = -1
        # never waits: where a writer has the file, nothing is remembered for the moment
        self._connection = sqlite3.connect(path, timeout=0, check_same_thread=False)

    def commits(self) -> int:
        """The counter that every commit of another connection changes; -1: it cannot be read."""
        with self._lock:
            return self._commits()

    def learn(self, commits: int, digest: str, card: KeyCard | None) -> None:
        """Remember what was looked up after `commits` was read; "" is whether there is no key."""
        with self._lock:
            if commits < 0 or commits != self._commits():
                return
            if commits != self._at or len(self._known) >= REMEMBERED:
                self._known.clear()
            self._at = commits
            self._known[digest] = card

    def recall(self, digest: str) -> KeyCard | None:
        """The key of this hash."""
        with self._lock:
            return self._known.get(digest) if self._holds(digest) else None

    def empty(self) -> bool:
        """Whether there is no key."""
        with self._lock:
            return self._holds("")

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()

    def _holds(self, digest: str) -> bool:
        return digest in self._known and self._at == self._commits()

    def _commits(self) -> int:
        try:
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error:
            return -1


def _holder(card: KeyCard) -> Principal:
    return Principal(
        card.id,
        card.tenant,
        card.user,
        frozenset(card.groups),
        frozenset(card.scopes),
        card.requests,
        card.tokens,
    )


def _card(row: sa.Row[tuple[object, ...]]) -> KeyCard:
    values = {k: v for k, v in row._mapping.items() if k != "hash"}
    for name in ("groups", "scopes"):
        values[name] = tuple(part for part in str(values[name]).split(",") if part)
    return KeyCard(**values)


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
