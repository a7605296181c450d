"""Who gets in, in which order, and what the others are told.

Each key has two buckets, of requests and of tokens, that fill up evenly within a minute, and a
number of requests it may have here at once, of which a user that it acts for gets a part, so that
none takes all of them. What is let in waits in a bounded queue for a worker;
workers go round the keys, so that a key with many requests waits for itself, and within a key round
the users it acts for. All of this runs on the event loop's thread and needs no lock.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from assistant.config import ServerSettings
from assistant.server.errors import ApiError
from assistant.server.principal import Principal

MINUTE = 60.0
#: Keys whose buckets are remembered; the one that was quiet longest is full again anyway.
KEYS = 10_000


@dataclass(slots=True)
class Bucket:
    """So many units a minute, at most as many at once. Debt is possible, and is paid by waiting."""

    size: float
    level: float
    at: float

    def left(self, now: float) -> float:
        """Units there are now."""
        self.level = min(self.size, self.level + (now - self.at) * self.size / MINUTE)
        self.at = now
        return self.level

    def wait(self, units: float, now: float) -> float:
        """Seconds until so many units are there; 0 = now."""
        return max(0.0, (min(units, self.size) - self.left(now)) * MINUTE / self.size)


class Line:
    """Who waits under one key. Users take turns; the requests of one user come in their order."""

    def __init__(self) -> None:
        self._users: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._users)

    def __iter__(self) -> Iterator[tuple[str, asyncio.Future[None]]]:
        """(user, turn) of everybody."""
        return iter([(user, turn) for user, turns in self._users.items() for turn in turns])

    def add(self, user: str, turn: asyncio.Future[None]) -> None:
        """Stand behind the others."""
        self._users.setdefault(user, deque()).append(turn)

    def next(self) -> asyncio.Future[None]:
        """Take the first of the user whose turn it is; the user's others wait for a whole round."""
        user, turns = next(iter(self._users.items()))
        turn = turns.popleft()
        if turns:
            self._users.move_to_end(user)
        else:
            del self._users[user]
        return turn

    def leave(self, user: str, turn: asyncio.Future[None]) -> bool:
        """Go away; whether one stood there."""
        turns = self._users.get(user, ())
        if turn not in turns:
            return False
        self._users[user].remove(turn)
        if not self._users[user]:
            del self._users[user]
        return True


@dataclass(slots=True)
class _Key:
    requests: Bucket
    tokens: Bucket
    here: int = 0
    users: Counter[str] = field(default_factory=Counter)
    waiting: Line = field(default_factory=Line)


@dataclass(slots=True)
class Ticket:
    """One request that was let in. `headers` say what is left of its key's limits."""

    key: str
    user: str
    headers: dict[str, str]
    began: float
    _release: Callable[[Ticket, int], None]
    _open: bool = True

    def release(self, tokens: int = 0) -> None:
        """The work is over; `tokens` came on top of those asked for. Twice is once."""
        if self._open:
            self._open = False
            self._release(self, tokens)


class Admission:
    """The door. Its methods are called on the event loop's thread only."""

    def __init__(
        self, settings: ServerSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings
        self.draining = False
        self._clock = clock
        self._keys: OrderedDict[str, _Key] = OrderedDict()
        self._round: deque[str] = deque()  # keys that have somebody waiting, the next one first
        self._waiting = 0
        self._busy = 0
        self._typical = 1.0  # seconds a worker is busy with one request, smoothed

    @property
    def busy(self) -> int:
        """Workers at work."""
        return self._busy

    @property
    def waiting(self) -> int:
        """Requests that wait for a worker."""
        return self._waiting

    async def enter(self, principal: Principal, tokens: int) -> Ticket:
        """Wait for a worker.

        Args:
            principal: who asks; keys have limits, whoever they act for.
            tokens: what the request brings; what it makes is charged when it is released.

        Raises:
            ApiError: 429 where a limit of the key is reached, 503 where all of it is too much.
        """
        now = self._clock()
        key = self._key(principal, now)
        self._refuse(principal, key, tokens, now)
        key.requests.level -= 1
        key.tokens.level -= tokens
        key.here += 1
        key.users[principal.owner] += 1
        try:
            if self._busy < self.settings.workers and not self._waiting:
                self._busy += 1
            else:
                await self._turn(principal, key)
        except BaseException:
            _gone(key, principal.owner)
            raise
        left, now = _left(key, self._clock()), self._clock()
        return Ticket(principal.key, principal.owner, left, now, self._release)

    def drain(self) -> None:
        """Let nobody in from now on; who waits for a worker is sent away."""
        self.draining = True
        for name in list(self._round):
            key = self._keys[name]
            for user, turn in key.waiting:
                self._leave(name, key, user, turn)
                if not turn.done():
                    turn.set_exception(_going())

    def tap(self, principal: Principal) -> None:
        """Count a request that needs no worker.

        Raises:
            ApiError: the key has made its requests of this minute, or the server goes down.
        """
        now = self._clock()
        key = self._key(principal, now)
        self._refuse_rate(key, 0, now)
        key.requests.level -= 1

    def _key(self, principal: Principal, now: float) -> _Key:
        found = self._keys.get(principal.key)
        if found is None:
            requests = float(principal.requests or self.settings.key_requests)
            tokens = float(principal.tokens or self.settings.key_tokens)
            found = _Key(Bucket(requests, requests, now), Bucket(tokens, tokens, now))
            self._keys[principal.key] = found
            while len(self._keys) > KEYS:
                quiet = next((k for k, v in self._keys.items() if not v.here), None)
                if quiet is None or quiet == principal.key:
                    break
                del self._keys[quiet]
        self._keys.move_to_end(principal.key)
        return found

    def _refuse_rate(self, key: _Key, tokens: int, now: float) -> None:
        if self.draining:
            raise _going()
        if wait := key.requests.wait(1, now):
            said = f"This key has made its requests of this minute; wait {wait:.1f} s."
            raise _limited(said, key, now, wait)
        if wait := key.tokens.wait(max(1, tokens), now):
            said = f"This key has used its tokens of this minute; wait {wait:.1f} s."
            raise _limited(said, key, now, wait)

    def _refuse(self, principal: Principal, key: _Key, tokens: int, now: float) -> None:
        self._refuse_rate(key, tokens, now)
        if key.here >= self.settings.key_concurrency:
            said = f"This key has {key.here} requests here already; wait for one to end."
            raise _limited(said, key, now, min(self._typical, MINUTE))
        own = key.users[principal.owner]
        if principal.named and own >= self.settings.user_concurrency:
            said = f"This user has {own} requests here already; wait for one to end."
            raise _limited(said, key, now, min(self._typical, MINUTE))
        if self._busy >= self.settings.workers and self._waiting >= self.settings.queue:
            raise self._full()

    def _full(self) -> ApiError:
        ahead = self._waiting + 1
        wait = min(MINUTE, ahead * self._typical / self.settings.workers)
        return ApiError(503, "The server is busy; try again.", wait=wait, again=True)

    async def _turn(self, principal: Principal, key: _Key) -> None:
        """Wait until a worker is handed over; it then counts as busy already."""
        name, user = principal.key, principal.owner
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not key.waiting:
            self._round.append(name)
        key.waiting.add(user, turn)
        self._waiting += 1
        try:
            async with asyncio.timeout(self.settings.queue_seconds):
                await turn
        except TimeoutError:
            if not (turn.done() and not turn.cancelled()):
                self._leave(name, key, user, turn)
                raise self._full() from None
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._next()  # handed over to one who has just gone
            else:
                self._leave(name, key, user, turn)
            raise

    def _leave(self, name: str, key: _Key, user: str, turn: asyncio.Future[None]) -> None:
        if key.waiting.leave(user, turn):
            self._waiting -= 1
            if not key.waiting:
                self._round.remove(name)

    def _release(self, ticket: Ticket, tokens: int) -> None:
        now = self._clock()
        key = self._keys.get(ticket.key)
        if key is not None:
            _gone(key, ticket.user)
            key.tokens.left(now)
            key.tokens.level -= tokens
        self._typical += 0.2 * (now - ticket.began - self._typical)
        self._next()

    def _next(self) -> None:
        """Hand a worker to the next key in the round, or let it rest."""
        while self._round:
            name = self._round.popleft()
            key = self._keys[name]
            turn = key.waiting.next()
            self._waiting -= 1
            if key.waiting:
                self._round.append(name)
            if not turn.done():
                turn.set_result(None)
                return
        self._busy -= 1


def _gone(key: _Key, user: str) -> None:
    """A request of a user ended; who has none is forgotten."""
    key.here -= 1
    key.users[user] -= 1
    if not key.users[user]:
        del key.users[user]


def _going() -> ApiError:
    return ApiError(503, "The server is going down; try again.", wait=2.0, again=True)


def _limited(said: str, key: _Key, now: float, wait: float) -> ApiError:
    """Over a limit of the key; the answer says what is left, as every other answer does."""
    return ApiError(429, said, wait=wait, more=_left(key, now))


def _left(key: _Key, now: float) -> dict[str, str]:
    made = {}
    for name, bucket in (("requests", key.requests), ("tokens", key.tokens)):
        left = bucket.left(now)
        full = (bucket.size - left) * MINUTE / bucket.size
        made[f"x-ratelimit-limit-{name}"] = str(int(bucket.size))
        made[f"x-ratelimit-remaining-{name}"] = str(max(0, int(left)))
        made[f"x-ratelimit-reset-{name}"] = _span(full)
    return made


def _span(seconds: float) -> str:
    """As OpenAI writes it: 6m0s, 1s, 20ms."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
