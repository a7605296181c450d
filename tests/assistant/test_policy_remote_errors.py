from __future__ import annotations

import json
import logging
import socket
import time
import traceback
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest

from assistant.errors import PolicyError, PolicyRefused, PolicyUnavailable
from assistant.policy.base import Policy
from assistant.schema import Sampling
from tests.assistant.endpoint import KEY, Act, Handler, Serve, connect, failing, saying, serving
from tests.assistant.policies import ask, run, said


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start endpoints that are stopped after the test."""
    with serving() as start:
        yield start


def fails(policy: Policy, **sampling: Any) -> PolicyError:
    """Run until it fails; no trace of the failure may hold the key."""
    with pytest.raises(PolicyError) as caught:
        run(policy, ask(), **sampling)
    trace = "".join(traceback.format_exception(caught.value))
    assert KEY not in trace
    assert KEY not in repr(policy)
    return caught.value


@pytest.mark.parametrize(
    ("status", "kind", "remedy"),
    [
        (400, PolicyRefused, r"policy\.max_tokens"),
        (401, PolicyRefused, r"policy\.api_key"),
        (403, PolicyRefused, r"policy\.api_key"),
        (404, PolicyRefused, r"policy\.model and policy\.url"),
        (413, PolicyRefused, r"policy\.passages"),
        (422, PolicyRefused, r"policy\.model"),
        (408, PolicyUnavailable, "try again"),
        (429, PolicyUnavailable, "try again"),
        (500, PolicyUnavailable, "try again"),
        (503, PolicyUnavailable, "try again"),
    ],
)
def test_a_status_is_an_error_of_ours(
    serve: Serve, status: int, kind: type[PolicyError], remedy: str
) -> None:
    """What may pass is retryable; what will not names the setting; no message holds the key."""
    error = fails(connect(serve(failing(status, f"bad key {KEY} given"))))
    assert type(error) is kind
    assert error.retryable == (kind is PolicyUnavailable)
    assert str(status) in str(error)
    assert "bad key *** given" in str(error)
    with pytest.raises(kind, match=remedy):
        raise error


def test_a_redirect_is_not_followed(serve: Serve) -> None:
    """The conversation goes to no other address."""
    other = serve(saying("leak"))
    end = serve(failing(307, headers={"Location": f"{other.url}/chat/completions"}))
    assert isinstance(fails(connect(end)), PolicyRefused)
    assert other.bodies == []


def test_what_may_pass_is_retried(serve: Serve) -> None:
    """A 503 and a 429 are tried again until the answer comes, waiting as told."""
    end = serve(
        failing(503, headers={"retry-after-ms": "10"}),
        failing(429, headers={"Retry-After": "0.2"}),
        saying("ok"),
    )
    assert said(run(connect(end, retries=2), ask())) == "ok"
    assert end.times[2] - end.times[1] >= 0.2
    assert len(end.bodies) == 3


def test_retries_are_counted(serve: Serve) -> None:
    """After the last retry the error stands."""
    end = serve(failing(500, headers={"retry-after-ms": "1"}))
    assert fails(connect(end, retries=2)).retryable
    assert len(end.bodies) == 3


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "3600"},
        {"Retry-After": formatdate(time.time() + 3600, usegmt=True)},
        {"x-should-retry": "false"},
    ],
)
def test_a_hopeless_retry_is_not_waited_for(serve: Serve, headers: dict[str, str]) -> None:
    """A wait beyond the deadline, or a server that says no, ends it at once."""
    end = serve(failing(429, headers=headers))
    before = time.monotonic()
    fails(connect(end, retries=3), seconds=5)
    assert time.monotonic() - before < 2
    assert len(end.bodies) == 1


def test_what_will_not_pass_is_not_retried(serve: Serve) -> None:
    """A wrong key is not tried again."""
    end = serve(failing(401))
    fails(connect(end, retries=3))
    assert len(end.bodies) == 1


def test_a_closed_port_is_unavailable() -> None:
    """Nobody listens: retryable, and the message names the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    error = fails(connect(f"http://127.0.0.1:{port}/v1"))
    assert error.retryable
    assert f"127.0.0.1:{port}" in str(error)


def silent(handler: Handler) -> None:
    """Take the request and say nothing."""
    handler.endpoint.release.wait(20)


def stalling(handler: Handler) -> None:
    """Begin an answer and stop."""
    handler.start()
    handler.chunk("half")
    handler.endpoint.release.wait(20)


def dripping(handler: Handler) -> None:
    """Keep the connection busy without saying anything."""
    handler.start()
    while not handler.endpoint.release.wait(0.05):
        handler.wfile.write(b": keep-alive\n\n")
        handler.wfile.flush()


@pytest.mark.parametrize("act", [silent, dripping])
def test_no_answer_in_time_is_unavailable(serve: Serve, act: Act) -> None:
    """The total time holds, whether the endpoint is silent or only keeps the line open."""
    before = time.monotonic()
    error = fails(connect(serve(act)), seconds=0.5)
    assert error.retryable
    assert time.monotonic() - before < 3


def test_an_answer_cut_by_the_deadline_is_too_long(serve: Serve) -> None:
    """What came in time is kept, and said to be cut."""
    before = time.monotonic()
    deltas = run(connect(serve(stalling)), ask(), seconds=0.5)
    assert (said(deltas), deltas[-1].finish) == ("half", "length")
    assert time.monotonic() - before < 3


def test_closing_closes_the_connection(serve: Serve) -> None:
    """A reader who leaves stops the endpoint's work."""

    def act(handler: Handler) -> None:
        handler.start()
        while not handler.endpoint.release.wait(0.01):
            handler.chunk("word ")

    end = serve(act)
    stream = connect(end).stream(ask(), Sampling())
    assert next(stream).text == "word "
    stream.close()  # type: ignore[attr-defined]
    assert end.gone.wait(5)


def test_an_endpoint_that_ignores_the_limit_is_stopped(serve: Serve) -> None:
    """One that writes on past max_tokens is cut off there, and the answer is said to be cut."""

    def act(handler: Handler) -> None:
        handler.start()
        while not handler.endpoint.release.wait(0.001):
            handler.chunk("word ")

    end = serve(act)
    before = time.monotonic()
    deltas = run(connect(end), ask(), max_tokens=5, seconds=20)
    assert (said(deltas), deltas[-1].finish) == ("word " * 5, "length")
    assert end.gone.wait(5)
    assert time.monotonic() - before < 10


def broken(*lines: str) -> Act:
    """Begin well and go on with the given lines."""

    def act(handler: Handler) -> None:
        handler.start()
        handler.chunk("half")
        for line in lines:
            handler.line(line)

    return act


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (broken(), "mid-answer"),
        (broken("[DONE]"), "mid-answer"),
        (broken("{not json"), "no chat completion stream"),
        (broken("[1]"), "mid-answer|no chat completion stream"),
        (broken(json.dumps({"error": {"message": f"overloaded {KEY}"}})), "overloaded"),
        (broken('{"choices": [7]}'), "no chat completion stream"),
        (broken('{"choices": 7}'), "no chat completion stream"),
        (broken('{"choices": [{"delta": {"content": {"a": 1}}}]}'), "no chat completion stream"),
        (broken('{"choices": [{"delta": 7}]}'), "no chat completion stream"),
        (broken('{"choices": {"a": 1}}'), "no chat completion stream"),
    ],
)
def test_a_broken_stream_is_unavailable(serve: Serve, act: Act, message: str) -> None:
    """Half an answer is an error: cut, garbled, or ended by the server."""
    error = fails(connect(serve(act)))
    assert isinstance(error, PolicyUnavailable)
    with pytest.raises(PolicyUnavailable, match=message):
        raise error


def test_a_connection_lost_within_a_chunk_is_unavailable(serve: Serve) -> None:
    """A body shorter than announced is noticed."""

    def act(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Content-Length", "9999")
        handler.end_headers()
        handler.chunk("half")

    assert fails(connect(serve(act))).retryable


@pytest.mark.parametrize("kind", ["text/html", "application/json"])
def test_a_page_is_not_an_endpoint(serve: Serve, kind: str) -> None:
    """An address that answers something else names the setting to correct."""

    def act(handler: Handler) -> None:
        handler.start(kind)
        handler.wfile.write(b"<html>hello</html>" if "html" in kind else b"{}")

    error = fails(connect(serve(act)))
    assert isinstance(error, PolicyRefused)
    assert "policy.url" in str(error)


def test_the_logs_hold_no_text_and_no_key(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Neither question, answer nor key is logged."""
    caplog.set_level(logging.INFO)
    end = serve(failing(503, headers={"retry-after-ms": "1"}), saying("giraffe"))
    run(connect(end, retries=1), ask("what about zebras?"))
    assert "retry attempt=1" in caplog.text
    for secret in ("giraffe", "zebras", KEY):
        assert secret not in caplog.text
