"""Sessions of the chat: a key was shown once, and a cookie stands for it from then on.

They lie in memory and nowhere else: a restart ends them all. What a session may is looked up by its
key at every request, so that it is dead as soon as the key is. Used on the event loop's thread.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

COOKIE = "plumbline_session"
#: Sessions at once, and of one key: a key that signs in for ever ends its own, nobody else's.
SESSIONS, OF_ONE_KEY = 10_000, 20


@dataclass(frozen=True, slots=True)
class Session:
    """Who signed in with which key, and until when."""

    key: str
    ends: float
    secret: bytes

    def own(self, name: str) -> str:
        """A name that a page chose, as nobody else's: whoever says the same has another."""
        return hmac.digest(self.secret, name.encode(errors="replace"), "sha256").hex()[:32]


#: Of pages on a server that nobody has to sign in to.
OPEN = Session("", 0.0, secrets.token_bytes(32))


class Sessions:
    """Those of one server."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._open: OrderedDict[str, Session] = OrderedDict()  # by hash of the token, oldest first

    def begin(self, key_id: str) -> str:
        """A session of this key; returns its token, for the only time."""
        self._tidy()
        mine = [name for name, session in self._open.items() if session.key == key_id]
        for name in mine[: max(0, len(mine) - OF_ONE_KEY + 1)]:
            del self._open[name]
        while len(self._open) >= SESSIONS:
            self._open.popitem(last=False)
        token = secrets.token_urlsafe(32)
        made = Session(key_id, self._clock() + self.seconds, secrets.token_bytes(32))
        self._open[_hash(token)] = made
        return token

    def find(self, token: str) -> Session | None:
        """The session of this token; None where there is none, or it is over."""
        session = self._open.get(_hash(token))
        return session if session is not None and self._clock() < session.ends else None

    def end(self, token: str) -> None:
        """End a session; it opens nothing from now on."""
        self._open.pop(_hash(token), None)

    def _tidy(self) -> None:
        now = self._clock()
        while self._open and next(iter(self._open.values())).ends <= now:
            self._open.popitem(last=False)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
