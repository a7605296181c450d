"""What leaves a stream: only text that was passed, up to its end or to an error."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant.errors import PolicyUnavailable
from assistant.policy.echo import EchoPolicy
from assistant.schema import Delta, Prompt, Sampling
from assistant.server.cut import Cut
from assistant.server.errors import ApiError
from assistant.server.streaming import begun
from tests.assistant.server.conftest import Start

ASKED = [{"role": "user", "content": "How much does the widget cost?"}]
BODY = {"model": "plumbline", "messages": ASKED, "stream": True}


class Scripted(EchoPolicy):
    """Says what it is told to, piece by piece; an error where one stands among the pieces."""

    def __init__(self, *pieces: str | Exception) -> None:
        self.pieces = pieces

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Delta]:
        """The script."""
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield Delta(piece)
        yield Delta("", finish="stop", confidence=1.0)


def test_a_breach_ends_the_stream_and_never_shows(start: Start) -> None:
    """A sentence that is blocked never leaves; the stream ends with refusal and content_filter."""
    running = start(
        policy=Scripted(
            "The widget costs 40 euros. [1] You should ki",
            "ll yourself, ",
            "nobody will miss you. [1]",
        ),
        policy__unsupported="flag",
    )
    chunks = list(running.openai().chat.completions.create(**BODY))
    text = "".join(c.choices[0].delta.content or "" for c in chunks)
    refusal = "".join(c.choices[0].delta.refusal or "" for c in chunks)
    assert text.startswith("The widget costs 40 euros.")
    assert "miss you" not in text + refusal
    assert refusal
    assert chunks[-1].choices[0].finish_reason == "content_filter"
    whole = running.openai().chat.completions.create(**{**BODY, "stream": False})
    assert whole.choices[0].finish_reason == "content_filter"
    assert "40 euros" not in whole.choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
def test_a_policy_that_fails_is_an_error(start: Start, stream: bool) -> None:
    """A policy that fails before a word is a 500 with a fixed text, streaming or not."""
    running = start(policy=Scripted(PolicyUnavailable("http://10.0.0.8:9/secret is down")))
    with pytest.raises(openai.InternalServerError) as caught:
        list(running.openai().chat.completions.create(**{**BODY, "stream": stream}))
    assert caught.value.code == "server_error"
    assert "10.0.0.8" not in str(caught.value)


def test_what_fails_after_words_is_an_event(start: Start) -> None:
    """What was said stays said; then comes the error as an event without choices, and no [DONE]."""
    script = Scripted(
        "The widget costs 40 euros. [1] ",
        "It was made in Ly",
        PolicyUnavailable("http://x is down"),
    )
    running = start(policy=script)
    with running.http() as client:
        answer = client.post("/v1/chat/completions", json=BODY)
    assert answer.status_code == 200
    *said, last = (json.loads(line[6:]) for line in answer.text.strip().split("\n\n"))
    assert "40 euros" in "".join(c["choices"][0]["delta"].get("content", "") for c in said)
    assert set(last) == {"error"}
    assert last["error"]["code"] == "server_error"


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_that_is_not_there_is_404(start: Start, stream: bool) -> None:
    """What is wrong with a request has its status in a stream too, as clients look for it there."""
    client = start().openai()
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(
            **{**BODY, "stream": stream}, extra_body={"conversation_id": "nobody's"}
        )
    assert caught.value.code == "conversation_not_found"


async def _late(*frames: bytes | Exception) -> AsyncIterator[bytes]:
    """Events, the first of which takes its time."""
    await asyncio.sleep(0.1)
    for one in frames:
        if isinstance(one, Exception):
            raise one
        yield one


async def test_a_stream_begins_before_a_slow_answer_does() -> None:
    """After a while the stream is opened all the same, loses nothing, and errors are events."""
    whole = await begun(_late(b"a", b"b"), seconds=0.01)
    assert [data async for data in whole] == [b"a", b"b"]
    failing = await begun(_late(ApiError(500, "No.")), seconds=0.01)
    with pytest.raises(ApiError):
        await anext(failing)
    with pytest.raises(ApiError):
        await begun(_late(ApiError(500, "No.")), seconds=5)


async def test_who_leaves_before_the_first_word_ends_it() -> None:
    """Nobody waits for an answer's first word any more: what makes it is told."""
    ended = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            await asyncio.sleep(60)
            yield b""
        finally:
            ended.set()

    waiting = asyncio.create_task(begun(endless()))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.wait_for(ended.wait(), 2)


def test_what_breaks_tells_nothing(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """An error nobody expected is a fixed sentence; the log holds its kind, and not its words."""
    running = start(policy=Scripted(RuntimeError("/etc/passwd SELECT * FROM users")))
    with running.http() as client:
        plain = client.post("/v1/chat/completions", json={**BODY, "stream": False})
        streamed = client.post("/v1/chat/completions", json=BODY)
    assert plain.status_code == streamed.status_code == 500
    for said in (plain.text, streamed.text, caplog.text):
        assert "passwd" not in said
        assert "SELECT" not in said
    assert "error=RuntimeError" in caplog.text
    assert plain.json() == streamed.json()


def test_a_reader_who_takes_nothing_holds_no_worker(start: Start) -> None:
    """A client that never reads costs no worker, and its answer is made all the same."""
    running = start(server__workers=1, server__send_seconds=0.5)
    host, port = running.url.removeprefix("http://").rstrip("/").split(":")
    content = json.dumps(BODY).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}:{port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as reader:
        reader.sendall(head.encode() + content)
        ends = time.monotonic() + 5
        while not running.turns and time.monotonic() < ends:
            time.sleep(0.02)
        assert running.openai().chat.completions.create(**BODY)
        assert len(running.turns) >= 1
    assert running.server.admission.waiting == 0


@given(
    st.text("abc ", max_size=30),
    st.lists(st.text("abc", min_size=1, max_size=3), max_size=4),
    st.lists(st.integers(0, 30), max_size=6),
    st.one_of(st.none(), st.integers(1, 12)),
)
def test_how_a_text_is_cut_does_not_matter(
    text: str, stops: list[str], places: list[int], limit: int | None
) -> None:
    """Whatever the pieces, the same is shown: up to the first stop string, within the limit."""
    whole = Cut(stops, limit, len)
    at_once = whole.feed(text) + whole.finish()
    cuts = sorted({0, len(text), *(p for p in places if p < len(text))})
    pieces = Cut(stops, limit, len)
    shown = "".join(pieces.feed(text[a:b]) for a, b in pairwise(cuts))
    shown += pieces.finish()
    found = [at for s in stops if (at := text.find(s)) >= 0]
    expected = text[: min(found)] if found else text
    assert shown == at_once == expected[:limit]
