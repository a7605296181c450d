"""Server-sent events, as OpenAI's clients read them.

Every event is one line `data: {json}`; the last one is `[DONE]`, or an error. A reader who takes
nothing for a while, and one who has gone, ends the work behind the stream.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from assistant.server.engine import broken
from assistant.server.errors import ApiError

DONE = b"data: [DONE]\n\n"
HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "x-accel-buffering": "no",
}
#: A comment goes out when nothing else did for so many seconds, so that no proxy hangs up.
ALIVE_SECONDS = 10.0
#: So long an answer may take to begin before its stream does.
FIRST_SECONDS = 5.0


def frame(data: dict[str, Any]) -> bytes:
    """One event."""
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


async def begun(
    frames: AsyncIterator[bytes], seconds: float = FIRST_SECONDS
) -> AsyncIterator[bytes]:
    """The same events, once the first is there or after so many seconds.

    What fails before that has a status of its own, as clients expect, and is no event of a stream.

    Raises:
        ApiError: it failed.
    """
    first = asyncio.ensure_future(anext(frames))
    try:
        await asyncio.wait({first}, timeout=seconds)
    except asyncio.CancelledError:
        first.cancel()
        raise
    if first.done():
        first.result()

    async def rest() -> AsyncIterator[bytes]:
        yield await first
        async for data in frames:
            yield data

    return rest()


class EventStream(Response):
    """A response of events, made while it is sent.

    Args:
        frames: the events, without the last one.
        stop: called when the stream is over, however it ended.
        seconds: a reader who takes nothing for so long has gone.
        headers: of the response.
    """

    def __init__(
        self,
        frames: AsyncIterator[bytes],
        stop: Callable[[], None],
        seconds: float,
        headers: dict[str, str],
    ) -> None:
        super().__init__(status_code=200, headers={**headers, **HEADERS})
        del self.headers["content-length"]
        self._frames = frames
        self._stop = stop
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end, or until nobody reads."""
        try:
            async with anyio.create_task_group() as group:

                async def watch() -> None:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    group.cancel_scope.cancel()

                group.start_soon(watch)
                await self._send(send)
                group.cancel_scope.cancel()
        except* TimeoutError:
            pass  # the body has no end, so the connection is closed
        finally:
            self._stop()

    async def _send(self, send: Send) -> None:
        lock = anyio.Lock()

        async def out(body: bytes, more: bool = True) -> None:
            async with lock:
                with anyio.fail_after(self._seconds):
                    await send({"type": "http.response.body", "body": body, "more_body": more})

        async def keep_alive() -> None:
            while True:
                await anyio.sleep(ALIVE_SECONDS)
                await out(b": keep-alive\n\n")

        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        async with anyio.create_task_group() as group:
            group.start_soon(keep_alive)
            async for data in _whole(self._frames):
                await out(data)
            group.cancel_scope.cancel()
        await out(b"", more=False)


async def _whole(frames: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The events, and then either the end or the error that ended them."""
    try:
        async for data in frames:
            yield data
        yield DONE
    except ApiError as error:
        yield frame(error.body())
    except Exception as error:
        yield frame(broken(error).body())
