"""What a policy answers from the phrase book, as a turn of a conversation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from assistant.dialogue import Assistant
from assistant.phrases import say
from assistant.schema import Delta, Prompt
from tests.assistant.embedded import Scripted, small


def script(prompt: Prompt) -> Iterator[Delta]:
    """A greeting for whatever tells of no price, else the first words of the evidence."""
    if "euros" in prompt.question or "多少" in prompt.question:
        text = prompt.passages[0].chunk.text
        yield Delta(text[:5], quote=(1, 0, 5))
        yield Delta("", finish="stop")
    else:
        yield Delta("", finish="stop", phrase="greeting", token_ids=(1, 2), logprobs=(-0.1, 0.0))


@pytest.fixture
def policy() -> Scripted:
    """Follow the script."""
    return Scripted(script)


@pytest.fixture
def assistant(tmp_path: Path, policy: Scripted) -> Iterator[Assistant]:
    """Open an assistant with that policy."""
    opened = small(tmp_path, policy)
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("text", "language"), [("yo, what about a widget hello", "en"), ("嘿，北京塔老朋友", "zh")]
)
def test_a_phrase_is_said_in_the_users_language(
    text: str, language: str, assistant: Assistant
) -> None:
    """In the words of the book, without citations, as it is streamed; its tokens are logged."""
    events = list(assistant.stream(text))
    reply = events[-1].reply
    assert reply is not None
    assert (reply.text, reply.outcome) == (say("greeting", language), "social")
    assert (reply.citations, reply.finish) == ((), "stop")
    assert "".join(e.text for e in events if e.kind == "text") == reply.text


def test_small_talk_is_no_topic_of_the_next_question(
    assistant: Assistant, policy: Scripted
) -> None:
    """What follows is searched as it stands."""
    first = assistant.reply("yo, what about a widget hello")
    reply = assistant.reply("how many euros is it?", conversation_id=first.conversation_id)
    assert policy.prompts[-1].question == "how many euros is it?"
    assert not reply.understanding.rewritten
