"""Asynchronous calls: the work runs in threads, and a cancelled call ends its turn.

`following` pulls from an iterator in worker threads, one piece at a time. When the task that
awaits is cancelled, the iterator is told so at once (`stopped`) and closed as soon as the piece
under way returns, without anybody waiting for it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from typing import TypeVar, Unpack

from assistant.schema import Asked, Event, Reply

T = TypeVar("T")
#: Says whether to stop.
Stopped = Callable[[], bool]
_DONE = object()


async def following(
    make: Callable[[Stopped], Generator[T, None, None]],
) -> AsyncGenerator[T, None]:
    """Yield what a generator yields, which runs in threads.

    Args:
        make: makes the generator; it is given a function that says whether to stop.
    """
    stop, one = threading.Event(), threading.Lock()
    generator = make(stop.is_set)

    def pull() -> T | object:
        with one:
            return next(generator, _DONE)

    def close() -> None:
        with one:  # a generator cannot be closed while it runs
            generator.close()

    ended = False
    try:
        while (piece := await asyncio.to_thread(pull)) is not _DONE:
            yield piece  # type: ignore[misc]  # what is not the end is a piece
        ended = True
    finally:
        if not ended:
            stop.set()
            threading.Thread(target=close, name="turn-stopped", daemon=True).start()


class Asynchronous:
    """The asynchronous face of an assistant, over its `stream`."""

    def stream(self, text: str, **asked: Unpack[Asked]) -> Generator[Event, None, None]:
        """See `Assistant.stream`."""
        raise NotImplementedError

    async def astream(self, text: str, **asked: Unpack[Asked]) -> AsyncGenerator[Event, None]:
        """As `stream`; when the task is cancelled, the policy stops and nothing is stored."""

        def make(stopped: Stopped) -> Generator[Event, None, None]:
            asked.setdefault("stopped", stopped)
            return self.stream(text, **asked)

        events = following(make)
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()

    async def areply(self, text: str, **asked: Unpack[Asked]) -> Reply:
        """As `reply`; when the task is cancelled, the policy stops and nothing is stored."""
        asked.setdefault("surface", "python")
        reply = None
        async for event in self.astream(text, **asked):
            reply = event.reply or reply
        assert reply is not None
        return reply
