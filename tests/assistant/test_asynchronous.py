"""Asynchronous calls, and what becomes of a turn that nobody waits for any more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from assistant.asynchronous import following
from assistant.dialogue import Assistant
from assistant.errors import TurnStopped
from tests.assistant.embedded import Endless, Scripted, small


@pytest.fixture
def assistant(tmp_path: Path) -> Iterator[Assistant]:
    """An assistant that echoes."""
    with small(tmp_path) as made:
        yield made


@pytest.fixture
def endless() -> Endless:
    """A script that does not end by itself."""
    return Endless()


@pytest.fixture
def slow(tmp_path: Path, endless: Endless) -> Iterator[tuple[Assistant, Scripted]]:
    """An assistant whose policy never comes to the end of a sentence."""
    policy = Scripted(endless)
    with small(tmp_path, policy) as made:
        yield made, policy


async def gone(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether the condition comes true in time."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        await asyncio.sleep(0.01)
    return condition()


async def test_awaited_and_followed_it_says_the_same(assistant: Assistant) -> None:
    """One text, whichever way it is asked for, and the stored turn is that one."""
    plain = assistant.reply("What does the widget cost?")
    awaited = await assistant.areply("What does the widget cost?")
    events = [event async for event in assistant.astream("What does the widget cost?")]
    assert events[-1].reply is not None
    assert plain.text == awaited.text == events[-1].reply.text
    assert [e.kind for e in events] == [e.kind for e in assistant.stream("Where was it made?")]
    stored = assistant.turns(awaited.conversation_id)
    assert [t.reply.text for t in stored] == [plain.text]


async def test_many_at_once(assistant: Assistant) -> None:
    """Turns of several conversations run beside each other and are kept apart."""
    asked = ["What does the widget cost?", "北京塔高多少米？"] * 4
    replies = await asyncio.gather(*(assistant.areply(text) for text in asked))
    assert len({r.conversation_id for r in replies}) == 8
    assert [r.language for r in replies] == ["en", "zh"] * 4


async def test_a_cancelled_call_stops_the_policy(
    slow: tuple[Assistant, Scripted], endless: Endless
) -> None:
    """Mid-sentence: the policy's stream is closed within moments, and no turn is stored."""
    assistant, policy = slow
    task = asyncio.create_task(assistant.areply("What does the widget cost?"))
    assert await gone(endless.begun.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await gone(lambda: policy.running == 0)
    said = endless.said
    await asyncio.sleep(0.1)
    assert (endless.said, assistant.conversations()) == (said, [])


async def test_a_deadline_ends_a_turn(slow: tuple[Assistant, Scripted]) -> None:
    """`asyncio.timeout` is honoured, and the assistant answers the next question."""
    assistant, policy = slow
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await assistant.areply("What does the widget cost?")
    assert await gone(lambda: policy.running == 0)
    assert (await assistant.areply("Hello!")).outcome == "social"


async def test_whoever_breaks_off_ends_the_turn(assistant: Assistant) -> None:
    """Leaving the loop after the first piece stores nothing."""
    async with aclosing(assistant.astream("What does the widget cost?")) as events:
        async for event in events:
            if event.text:
                break
    assert await gone(lambda: assistant.conversations() == [])


def test_a_caller_may_stop_a_turn(slow: tuple[Assistant, Scripted], endless: Endless) -> None:
    """`stopped` ends a turn of the plain call too, with an error that says so."""
    assistant, policy = slow
    with pytest.raises(TurnStopped, match="stopped by its caller"):
        assistant.reply("What does the widget cost?", stopped=lambda: endless.said > 3)
    assert (policy.running, assistant.conversations()) == (0, [])


async def test_an_error_comes_through() -> None:
    """What the work raises, the one who awaits gets, after what came before it."""

    def work(stopped: Callable[[], bool]) -> Generator[int, None, None]:
        yield 1
        raise KeyError("lost")

    pieces = following(work)
    assert await anext(pieces) == 1
    with pytest.raises(KeyError, match="lost"):
        await anext(pieces)
