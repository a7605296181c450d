"""Connections that cost a place and bring no request."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from assistant.server.listen import Announcing, listen
from assistant.server.slow import Timed


class Soon(Timed):
    """As the server's, with less patience."""

    seconds = 0.5


async def answering(scope: Scope, _receive: Receive, send: Send) -> None:
    """Answers without reading the body; `/slow` takes longer than a head may."""
    if scope["path"] == "/slow":
        await asyncio.sleep(1.0)
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    """A server."""
    listener, url = listen("127.0.0.1", 0)
    ready = threading.Event()
    config = uvicorn.Config(answering, http=Soon, lifespan="off", log_level="warning")
    server = Announcing(config, ready.set)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    assert ready.wait(20)
    yield "127.0.0.1", httpx.URL(url).port or 80
    server.should_exit = True
    thread.join(20)


HEAD = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"


@pytest.mark.parametrize(
    ("first", "drop"), [(b"", b""), (b"GET / HT", b"T"), (b"GET / HTTP/1.1\r\n", b"a:b\r\n")]
)
def test_a_head_that_does_not_come_ends_the_connection(
    address: tuple[str, int], first: bytes, drop: bytes
) -> None:
    """Nothing, half a line or a header now and then: closed after its time, without an answer."""
    began = time.monotonic()
    with socket.create_connection(address, timeout=5) as one:
        one.sendall(first)
        assert _closed(one, drop) == b""
    assert 0.4 < time.monotonic() - began < 3


def test_a_body_that_nobody_wants_ends_the_connection(address: tuple[str, int]) -> None:
    """A body that goes on after its answer, byte by byte, is not listened to for ever."""
    with socket.create_connection(address, timeout=5) as one:
        one.sendall(HEAD)
        assert b"200 OK" in _closed(one, b"x")


def test_who_asks_is_waited_for(address: tuple[str, int]) -> None:
    """An answer may take its time, and a connection is used again and again."""
    with httpx.Client(base_url=f"http://{address[0]}:{address[1]}") as client:
        assert client.get("/slow").text == "ok"
        for _ in range(4):
            time.sleep(0.2)
            assert client.get("/").text == "ok"


def _closed(one: socket.socket, drop: bytes) -> bytes:
    """All that comes until the other side closes, while `drop` is sent every now and then."""
    one.settimeout(0.1)
    heard, ends = b"", time.monotonic() + 4
    while time.monotonic() < ends:
        try:
            if drop:
                one.sendall(drop)
            data = one.recv(1000)
        except TimeoutError:
            continue
        except OSError:
            return heard
        if not data:
            return heard
        heard += data
    raise AssertionError("still open")


def test_pieces_of_a_stream_do_not_wait_for_each_other() -> None:
    """Nagle's delay is off on connections that asyncio takes: it would cost a stream 40 ms."""
    listener, url = listen("127.0.0.1", 0)

    async def delayed() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def taken(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            wire: socket.socket = writer.get_extra_info("socket")
            found.set_result(wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(taken, sock=listener):
            _, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(url).port)
            try:
                return await asyncio.wait_for(found, 20)
            finally:
                writer.close()

    assert asyncio.run(delayed()) != 0
