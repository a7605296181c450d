"""Where answers are made: a few threads beside the event loop.

A job is an iterator that lives in one thread from first to last. It is closed where its reader has
gone or its time is over, at its next item; only then is its worker free, and the ticket says so.
What a job makes waits in memory for its reader: a slow one holds no worker up. An answer is bounded
by the settings, so that memory is too.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from assistant.server.admission import Ticket
from assistant.server.errors import ApiError

T = TypeVar("T")
Produce = Callable[[Callable[[], bool]], Iterator[T]]
logger = logging.getLogger(__name__)


class Engine:
    """The workers of one server."""

    def __init__(self, workers: int, seconds: float) -> None:
        self.seconds = seconds
        self.workers = workers
        self._jobs: set[Job[Any]] = set()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="answer")

    def start(
        self,
        produce: Produce[T],
        ticket: Ticket,
        cost: Callable[[T], int] = lambda _: 0,
    ) -> Job[T]:
        """Begin a job, which is told how to see that nobody wants it any more.

        `ticket` is released, with the cost of the job's items, when it has ended.
        """
        job = Job(produce, ticket, self.seconds, cost, self._jobs.discard)
        self._jobs.add(job)
        context = contextvars.copy_context()  # the request's, so that its trace goes on
        self._pool.submit(context.run, job.run)
        return job

    def cut(self, error: ApiError) -> None:
        """End every job with this error, after what it has made; on the event loop's thread."""
        for job in list(self._jobs):
            job.fail(error)

    def hanging(self, seconds: float) -> bool:
        """Whether every worker has been at one job for longer than this."""
        since = [job.began for job in list(self._jobs) if job.began]
        now = time.monotonic()
        return sum(now - began > seconds for began in since) >= self.workers

    def close(self) -> None:
        """Wait for nobody; running jobs end with their readers."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class Job(Generic[T]):
    """A running iterator, read from the event loop."""

    def __init__(
        self,
        produce: Produce[T],
        ticket: Ticket,
        seconds: float,
        cost: Callable[[T], int],
        over: Callable[[Job[Any]], None],
    ) -> None:
        self._items: asyncio.Queue[T | BaseException | None] = asyncio.Queue()
        self._stop = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._ends = self._loop.time() + seconds
        self._ticket = ticket
        self._cost = cost
        self._produce = produce
        self._over = over
        #: When a worker took it up; 0 = not yet.
        self.began = 0.0

    def stop(self) -> None:
        """Nobody reads on."""
        self._stop.set()

    def fail(self, error: ApiError) -> None:
        """Let the reader have this error after what was made so far, and nothing more."""
        self._items.put_nowait(error)
        self.stop()

    async def items(self) -> AsyncIterator[T]:
        """What the job yields; its errors come out here.

        Raises:
            ApiError: its time is over, or it broke.
        """
        try:
            while True:
                async with asyncio.timeout_at(self._ends):
                    item = await self._items.get()
                if item is None:
                    return
                if isinstance(item, ApiError):
                    raise item
                if isinstance(item, BaseException):
                    raise broken(item)
                yield item
        except TimeoutError:
            raise ApiError(504, "The answer took too long; ask for less.", again=False) from None
        finally:
            self.stop()

    def run(self) -> None:
        """Work; in a worker, from first to last."""
        spent = 0
        self.began = time.monotonic()
        last: BaseException | None = None
        stream: Iterator[T] | None = None
        try:
            if not self._stop.is_set():
                stream = self._produce(self._stop.is_set)
                for item in stream:
                    spent += self._cost(item)
                    if self._stop.is_set():
                        break
                    self._tell(item)
        except BaseException as error:
            last = error
        finally:
            with suppress(RuntimeError):
                getattr(stream, "close", lambda: None)()
            self._tell(last)
            self._over(self)
            with suppress(RuntimeError):  # the loop is closed: the server has gone
                self._loop.call_soon_threadsafe(self._ticket.release, spent)

    def _tell(self, item: T | BaseException | None) -> None:
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)


def broken(error: BaseException) -> ApiError:
    """What the client is told of an error that nobody expected; its kind and place are logged."""
    places = traceback.extract_tb(error.__traceback__)
    last = places[-1] if places else None
    where = f"{Path(last.filename).name}:{last.lineno}" if last else "unknown"
    logger.error("request_failed error=%s at=%s", type(error).__name__, where)
    return ApiError(500, "The server made a mistake; the request's id stands in x-request-id.")
