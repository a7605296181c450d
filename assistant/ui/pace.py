"""Slow consumers, stoppable producers: a stream read in its own thread, handed on in batches."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")

#: Yields a second: enough to look continuous, few enough not to tax the browser.
RATE = 15.0


@dataclass(frozen=True, slots=True)
class _Failed:
    error: BaseException


@dataclass(frozen=True, slots=True)
class _Ended:
    pass


@dataclass(slots=True)
class Runs:
    """The one running job of each page, so that its Stop button finds it."""

    _flags: dict[str, threading.Event] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, key: str) -> threading.Event:
        """A fresh flag for a job; whatever ran under this key before is told to stop."""
        flag = threading.Event()
        with self._lock:
            before = self._flags.get(key)
            self._flags[key] = flag
        if before is not None:
            before.set()
        return flag

    def stop(self, key: str) -> None:
        """Tell the job under this key to stop; nothing happens where there is none."""
        with self._lock:
            flag = self._flags.get(key)
        if flag is not None:
            flag.set()

    def end(self, key: str, flag: threading.Event) -> None:
        """The job is over; forget its flag."""
        with self._lock:
            if self._flags.get(key) is flag:
                del self._flags[key]


def paced(
    produce: Callable[[], Iterator[T]], stop: threading.Event, rate: float = RATE
) -> Generator[list[T], None, None]:
    """What `produce` yields, in lists, at most `rate` a second.

    The iterator lives in one thread from first to last. It is closed as soon as `stop` is set or
    the reader leaves, or at its next item where it is busy; its exceptions come out here. One that
    has a `stop`, to be called from any thread, is told at once.
    """
    streams: list[Iterator[T]] = []
    items: queue.SimpleQueue[T | _Failed | _Ended] = queue.SimpleQueue()
    worker = threading.Thread(target=_pump, args=(produce, stop, items, streams), daemon=True)
    worker.start()
    try:
        while not stop.is_set():
            batch, ended = _gather(items, time.monotonic() + 1 / rate)
            if batch:
                yield batch
            if isinstance(ended, _Failed):
                raise ended.error
            if ended is not None:
                return
    finally:
        stop.set()
        for stream in streams:
            getattr(stream, "stop", lambda: None)()


def _pump(
    produce: Callable[[], Iterator[T]],
    stop: threading.Event,
    items: queue.SimpleQueue[T | _Failed | _Ended],
    streams: list[Iterator[T]],
) -> None:
    stream: Iterator[T] | None = None
    try:
        stream = produce()
        streams.append(stream)
        if stop.is_set():
            return
        for item in stream:
            if stop.is_set():
                break
            items.put(item)
        items.put(_Ended())
    except BaseException as error:
        items.put(_Failed(error))
    finally:
        close = getattr(stream, "close", None)
        if close is not None:
            with contextlib.suppress(RuntimeError):
                close()


def _gather(
    items: queue.SimpleQueue[T | _Failed | _Ended], deadline: float
) -> tuple[list[T], _Failed | _Ended | None]:
    """All that arrives until the deadline; the second part says that nothing more will."""
    batch: list[T] = []
    while True:
        wait = deadline - time.monotonic()
        try:
            item = items.get(timeout=wait) if wait > 0 else items.get_nowait()
        except queue.Empty:
            return batch, None
        if isinstance(item, _Failed | _Ended):
            return batch, item
        batch.append(item)
