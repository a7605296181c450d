"""The event loop turns whatever one request holds: nobody waits for another's body or answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.assistant.server.conftest import Running, _servers

#: A turn of more work than this is a stall, seconds of the processor: about thirty times what the
#: heaviest takes, so that this tells work that belongs in a worker from a slow computer.
LATE = 0.5
#: Bodies near every bound of theirs: bytes, messages, parts, texts, depth, numbers of many digits.
WORD = "widget "
HEAVY: dict[str, tuple[str, Any]] = {
    "long history": (
        "/v1/chat/completions",
        {
            "model": "plumbline",
            "messages": [{"role": "user", "content": WORD * 140}, {"role": "assistant"}] * 511
            + [{"role": "user", "content": "How much does the widget cost?"}],
        },
    ),
    "many parts": (
        "/v1/chat/completions",
        {
            "model": "plumbline",
            "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 256}] * 100,
        },
    ),
    "parts enough": (
        "/v1/chat/completions",
        {
            "model": "plumbline",
            "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 256}] * 16,
        },
    ),
    "deep": ("/v1/chat/completions", b'{"messages":' + b"[" * 500_000),
    "digits": ("/v1/chat/completions", b'{"seed":' + b"9" * 1_000_000 + b"}"),
    "wide": ("/v1/chat/completions", {f"k{n}": n for n in range(50_000)}),
    "vectors": (
        "/v1/embeddings",
        {"model": "plumbline-embed", "input": [WORD] * 256, "encoding_format": "float"},
    ),
    "tokens": ("/v1/embeddings", {"model": "plumbline-embed", "input": [[1] * 1000] * 256}),
    "judged": ("/v1/moderations", {"input": [WORD * 500] * 64}),
    "a long search": ("/v1/search", {"query": WORD * 500, "limit": 50}),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server without limits on its keys."""
    with _servers(tmp_path_factory.mktemp("stalls")) as begin:
        yield begin(server__key_requests=1_000_000, server__key_tokens=1_000_000_000)


class Pulse:
    """Notes how late the turns of the server's loop are, in seconds of work of its thread.

    Seconds of the clock would tell how busy this computer is with other programs.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.worst = 0.0

    async def beat(self) -> None:
        """Until cancelled."""
        while True:
            began = time.thread_time()
            await asyncio.sleep(0.001)
            self.worst = max(self.worst, time.thread_time() - began)


@pytest.mark.parametrize("kind", [*HEAVY])
def test_no_request_stops_the_loop(running: Running, kind: str) -> None:
    """While the heaviest bodies are read and answered, the loop is never busy for long."""
    path, body = HEAVY[kind]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert len(content) <= 1024 * 1024
    # what the loop has to do, it has to do each time; what comes once is first use, or chance
    busy = min(_busy(running, path, content) for _ in range(3))
    assert busy < LATE, f"the loop was busy for {busy:.3f} s"


def _busy(running: Running, path: str, content: bytes) -> float:
    """The longest turn of the loop while a request is read and answered, seconds."""
    loop = running.app.state.guests.loop
    pulse = Pulse(loop)
    task = asyncio.run_coroutine_threadsafe(pulse.beat(), loop)
    try:
        with running.http() as client:
            headers = {"content-type": "application/json"}
            answer = client.post(path, content=content, headers=headers)
            assert answer.status_code in (200, 400), answer.text
            assert client.get("/v1/models").status_code == 200
    finally:
        task.cancel()
    return pulse.worst
