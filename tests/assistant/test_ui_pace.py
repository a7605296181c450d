from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from assistant.ui.pace import Runs, paced


def test_nothing_is_lost_and_order_is_kept() -> None:
    """The batches, joined, are what was produced."""
    batches = list(paced(lambda: iter(range(1000)), threading.Event()))
    assert [item for batch in batches for item in batch] == list(range(1000))


def test_a_fast_stream_is_slowed_to_the_rate() -> None:
    """Three hundred items in a third of a second come in a handful of batches."""

    def produce() -> Iterator[int]:
        for number in range(300):
            time.sleep(0.001)
            yield number

    began = time.monotonic()
    batches = list(paced(produce, threading.Event(), rate=15))
    assert len(batches) <= (time.monotonic() - began) * 15 + 2


def test_errors_come_out_after_what_came_before() -> None:
    """The producer's own exception is raised to the reader."""

    def produce() -> Iterator[int]:
        yield 1
        raise LookupError("gone")

    stream = paced(produce, threading.Event())
    assert next(stream) == [1]
    with pytest.raises(LookupError):
        next(stream)


@pytest.mark.parametrize("how", ["stop", "close"])
def test_stopping_closes_the_producer(how: str) -> None:
    """Stop or leave: the producer's iterator is closed, in its own thread."""
    closed, stop = threading.Event(), threading.Event()

    def produce() -> Iterator[int]:
        try:
            while True:
                time.sleep(0.005)
                yield 1
        finally:
            closed.set()

    stream = paced(produce, stop)
    next(stream)
    if how == "stop":
        stop.set()
        list(stream)
    else:
        stream.close()
    assert closed.wait(2)


def test_stop_reaches_only_its_own_page() -> None:
    """Each page has one flag; a new job tells the old one to stop."""
    runs = Runs()
    first, other = runs.start("a"), runs.start("b")
    runs.stop("a")
    assert first.is_set()
    assert not other.is_set()
    second = runs.start("b")
    assert other.is_set()
    runs.end("b", other)
    runs.stop("b")
    assert second.is_set()
    runs.stop("nobody")
