"""Who gets in: limits, order, honest waits; and that a worker is free again whatever happens."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import httpx
import openai
import pytest

from assistant.config import ServerSettings
from assistant.policy.echo import EchoPolicy
from assistant.schema import Delta, Prompt, Sampling
from assistant.server.admission import Admission, Ticket
from assistant.server.errors import ApiError
from assistant.server.principal import Principal, acting
from tests.assistant.server.conftest import Running, Start

ASKED = [{"role": "user", "content": "How much does the widget cost?"}]
BODY = {"model": "plumbline", "messages": ASKED}


def somebody(name: str = "a", **about: int) -> Principal:
    """Who asks with a key of that name."""
    return Principal(name, "main", name, **about)  # type: ignore[arg-type]


def door(**settings: object) -> tuple[Admission, list[float]]:
    """A door with a clock that stands still until it is moved."""
    now = [0.0]
    return Admission(ServerSettings(**settings), lambda: now[0]), now


async def refused(admission: Admission, who: Principal, tokens: int = 1) -> ApiError:
    """How this one is turned away."""
    with pytest.raises(ApiError) as caught:
        await admission.enter(who, tokens)
    return caught.value


async def test_a_minute_has_so_many_requests() -> None:
    """After its requests a key waits; after the time it was told, and not before, it comes in."""
    admission, now = door(key_requests=2, workers=9)
    for _ in range(2):
        (await admission.enter(somebody(), 1)).release()
    error = await refused(admission, somebody())
    assert (error.status, error.code) == (429, "rate_limit_exceeded")
    assert error.wait == pytest.approx(30)
    (await admission.enter(somebody("b"), 1)).release()
    now[0] += 29
    await refused(admission, somebody())
    now[0] += 1.01
    (await admission.enter(somebody(), 1)).release()


async def test_tokens_that_were_made_are_paid() -> None:
    """What an answer costs is charged when it ends, and waits for the next request."""
    admission, now = door(key_tokens=600, workers=9)
    (await admission.enter(somebody(), 100)).release(tokens=700)
    error = await refused(admission, somebody(), 100)
    assert error.wait == pytest.approx(30)
    now[0] += 30.1
    (await admission.enter(somebody(), 100)).release()


async def test_a_keys_own_limits_go_first() -> None:
    """A key made with limits of its own has those."""
    admission, _ = door(key_requests=1, workers=9)
    for _ in range(3):
        (await admission.enter(somebody(requests=3), 1)).release()
    await refused(admission, somebody(requests=3))


async def test_one_key_does_not_keep_the_others_out() -> None:
    """Workers go round the keys: a newcomer is served before the rest of a long row."""
    admission, _ = door(workers=1, key_concurrency=9)
    first = await admission.enter(somebody("a"), 1)
    order: list[str] = []

    async def ask(name: str) -> None:
        ticket = await admission.enter(somebody(name), 1)
        order.append(name)
        ticket.release()

    tasks = [asyncio.create_task(ask(name)) for name in ("a", "a", "a", "b", "c")]
    await asyncio.sleep(0)
    assert admission.waiting == 5
    first.release()
    await asyncio.gather(*tasks)
    assert order == ["a", "b", "c", "a", "a"]
    assert (admission.busy, admission.waiting) == (0, 0)


async def test_one_user_of_a_key_does_not_keep_its_others_out() -> None:
    """Users whom one key acts for take turns; one who goes away takes no turn."""
    admission, _ = door(workers=1, key_concurrency=9)
    first = await admission.enter(somebody("bot"), 1)
    order: list[str] = []

    async def ask(user: str) -> None:
        who = replace(somebody("bot"), user=user)
        ticket = await admission.enter(who, 1)
        order.append(user)
        ticket.release()

    names = ("ann", "ann", "ann", "bob", "cleo", "dan")
    tasks = [asyncio.create_task(ask(name)) for name in names]
    await asyncio.sleep(0)
    tasks[-2].cancel()
    await asyncio.sleep(0)
    assert admission.waiting == 5
    first.release()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["ann", "bob", "dan", "ann", "ann"]
    assert (admission.busy, admission.waiting) == (0, 0)


async def test_one_user_of_a_key_does_not_take_all_of_its_places() -> None:
    """A user whom a key acts for has a part of them; a key that acts for nobody has them all."""
    admission, _ = door(workers=9, key_concurrency=3, user_concurrency=2)
    bot = replace(somebody("bot"), scopes=frozenset({"chat", "act"}))
    ann, bob = acting(bot, "ann", None), acting(bot, "bob", None)
    tickets = [await admission.enter(ann, 1) for _ in range(2)]
    error = await refused(admission, ann)
    assert (error.status, "This user has 2" in str(error)) == (429, True)
    (await admission.enter(bob, 1)).release()
    tickets.pop().release()
    tickets.append(await admission.enter(ann, 1))
    tickets += [await admission.enter(somebody("own"), 1) for _ in range(3)]
    for ticket in tickets:
        ticket.release()
    assert not any(key.users for key in admission._keys.values())


async def test_the_queue_and_a_keys_place_are_bounded() -> None:
    """Too many of one key are 429, too many of all are 503, and both say when to come again."""
    admission, _ = door(workers=1, queue=2, key_concurrency=2)
    tickets = [await admission.enter(somebody("a"), 1)]
    tasks = [asyncio.create_task(admission.enter(somebody(n), 1)) for n in ("a", "b")]
    await asyncio.sleep(0)
    assert (await refused(admission, somebody("a"))).status == 429
    error = await refused(admission, somebody("c"))
    assert (error.status, error.code) == (503, "server_is_overloaded")
    assert 1 <= int(error.headers()["retry-after"]) <= 60
    tickets[0].release()
    for task in tasks:
        (await task).release()
    assert (admission.busy, admission.waiting) == (0, 0)


async def test_waiting_has_an_end() -> None:
    """Who waits too long is told so, and takes no worker."""
    admission, _ = door(workers=1, queue_seconds=0.05)
    ticket = await admission.enter(somebody(), 1)
    assert (await refused(admission, somebody("b"))).status == 503
    ticket.release()
    ticket.release()
    assert (admission.busy, admission.waiting) == (0, 0)


async def test_who_leaves_while_waiting_leaves_no_trace() -> None:
    """A cancelled wait gives its place, and a worker just handed over, to the next."""
    admission, _ = door(workers=1)
    ticket = await admission.enter(somebody(), 1)
    tasks: list[asyncio.Task[Ticket]] = []
    tasks += [asyncio.create_task(admission.enter(somebody(n), 1)) for n in ("b", "c", "d")]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.sleep(0)
    ticket.release()  # to c, who leaves at the same moment
    tasks[1].cancel()
    (await tasks[2]).release()
    for task in tasks[:2]:
        with suppress(asyncio.CancelledError):
            await task
    assert (admission.busy, admission.waiting) == (0, 0)


async def test_a_server_that_goes_down_lets_nobody_in() -> None:
    """Draining is a 503 that says to try again soon."""
    admission, _ = door()
    admission.draining = True
    error = await refused(admission, somebody())
    assert (error.status, error.headers()["x-should-retry"]) == (503, "true")


class Slow(EchoPolicy):
    """Writes word after word until it is let go; counts what runs."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.running = 0

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Delta]:
        """A piece each hundredth of a second, then the echo."""
        self.running += 1
        try:
            while not self.go.wait(0.01):
                yield Delta("")
            yield from super().stream(prompt, sampling)
        finally:
            self.running -= 1


def until(what: str, seconds: float, running: Running, policy: Slow) -> None:
    """Wait until nothing runs and nothing is admitted."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if not policy.running and not running.server.admission.busy:
            return
        time.sleep(0.02)
    raise AssertionError(f"{what}: {policy.running} run, {running.server.admission.busy} busy")


@pytest.mark.parametrize("stream", [False, True])
def test_who_hangs_up_stops_the_work(start: Start, stream: bool) -> None:
    """A client that leaves, streaming or not, running or waiting, frees its place in a moment."""
    policy = Slow()
    running = start(policy=policy, server__workers=2, server__key_concurrency=50)
    content = httpx.Request("POST", running.url, json={**BODY, "stream": stream}).content
    host, port = running.url.removeprefix("http://").rstrip("/").split(":")
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}:{port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    sockets = [socket.create_connection((host, int(port))) for _ in range(8)]
    for one in sockets:
        one.sendall(head.encode() + content)
    ends = time.monotonic() + 10
    while running.server.admission.waiting < 6 and time.monotonic() < ends:
        time.sleep(0.02)
    assert running.server.admission.busy == 2
    for one in sockets:
        one.close()
    until("after all left", 2, running, policy)
    policy.go.set()
    assert running.openai().chat.completions.create(**BODY).choices
    assert len(running.turns) == 1, "an answer nobody waited for was logged"


def test_a_request_has_a_deadline(start: Start) -> None:
    """An answer that takes too long is an error that says not to try again by itself."""
    policy = Slow()
    running = start(policy=policy, server__seconds=0.3)
    with running.http() as client:
        answer = client.post("/v1/chat/completions", json=BODY)
        assert answer.status_code == 504
        assert answer.headers["x-should-retry"] == "false"
        streamed = client.post("/v1/chat/completions", json={**BODY, "stream": True})
    assert streamed.status_code == 504
    assert streamed.json()["error"]["code"] == "timeout"
    until("after the deadline", 2, running, policy)


def test_a_burst_is_turned_away_and_forgotten(start: Start) -> None:
    """Of many at once some are admitted and answered, the rest get 503 with a wait, none 500."""
    policy = Slow()
    running = start(policy=policy, server__workers=1, server__queue=4, server__key_concurrency=100)

    def ask(_: int) -> tuple[int, str | None]:
        answer = httpx.post(f"{running.url}v1/chat/completions", json=BODY, timeout=30)
        return answer.status_code, answer.headers.get("retry-after")

    with ThreadPoolExecutor(24) as pool:
        answers = [pool.submit(ask, n) for n in range(24)]
        time.sleep(1.5)
        policy.go.set()
        found = [a.result() for a in answers]
    assert {status for status, _ in found} == {200, 503}
    assert all(wait and int(wait) >= 1 for status, wait in found if status == 503)
    assert ask(0)[0] == 200


def test_the_sdk_waits_as_it_is_told(start: Start) -> None:
    """A 429 carries Retry-After, by which OpenAI's client waits, and the buckets' headers."""
    running = start(server__key_requests=1)
    client = running.openai()
    client.chat.completions.create(**BODY)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**BODY)
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    assert caught.value.response.headers["x-ratelimit-limit-requests"] == "1"
