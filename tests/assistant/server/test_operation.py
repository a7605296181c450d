"""What an operator relies on: ready means ready, going down cuts nobody, numbers hold no words."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from assistant.build import build_assistant
from assistant.config import load
from assistant.policy.echo import EchoPolicy
from assistant.schema import Delta, Prompt, Sampling
from assistant.server.admin import create_admin
from assistant.server.logs import JsonFormatter
from tests.assistant.server.conftest import Running, Start

ROOT = Path(__file__).resolve().parents[3]
ASKED = [{"role": "user", "content": "How much does the widget cost?"}]
BODY = {"model": "plumbline", "messages": ASKED, "stream": True}
TEXT = "# Widget\n\nThe widget costs 40 euros. It was made in Lyon.\n"
WORDS = ("widget", "euros", "How much")


class Slow(EchoPolicy):
    """Writes one sentence, and the next only when it may; asks at warm-up are answered at once."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Delta]:
        """The two sentences."""
        # a sentence goes out once the next one begins
        yield Delta("The widget costs 40 euros. [1] It was ")
        if "widget" in prompt.messages[-1].text:
            self.go.wait(60)
        yield Delta("made in Lyon. [1]")
        yield Delta("", finish="stop", confidence=1.0)


def until(what: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Wait until `what` is so; False where it never was."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if what():
            return True
        time.sleep(0.05)
    return False


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_a_server_is_ready_once_everything_ran(start: Start) -> None:
    """/readyz says 503 while it warms up and 200 after it; /livez says 200 all along, keyless."""
    running = start(operation__warm="true")
    running.key()
    with running.http() as client:
        assert client.get("livez").json() == {"status": "alive", "reasons": []}
        assert until(lambda: client.get("readyz").status_code == 200)
        assert client.get("v1/models").status_code == 401
        operation = running.server.operation
        operation._warm = False
        answer = client.get("readyz")
        assert (answer.status_code, answer.json()["reasons"]) == (503, ["warming up"])
        operation._warm = True


def test_a_warm_up_that_never_ends_keeps_nobody_up(start: Start) -> None:
    """The server is not ready, says so, and ends all the same when it is told to."""

    class Endless(EchoPolicy):
        asked = threading.Event()

        def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Delta]:
            """Nothing, for ever."""
            while True:
                self.asked.set()
                time.sleep(0.01)
                yield Delta("")

    running = start(policy=Endless(), operation__warm="true")
    operation = running.server.operation
    assert Endless.asked.wait(60)
    assert operation.unready()[0] == "warming up"
    operation.close()
    assert not operation._keeper.is_alive()
    assert not operation._warm


def test_a_database_that_cannot_be_read_is_told(start: Start) -> None:
    """Bytes that are no database any more make the server unready, by the file's name."""
    running = start()
    with running.http() as client:
        assert until(lambda: client.get("readyz").status_code == 200)
        path = running.server.settings.home / "spare.db"
        path.write_bytes(b"no database at all, but long enough to be one" * 40)
        assert until(lambda: client.get("readyz").status_code == 503)
        assert client.get("readyz").json()["reasons"] == ["spare.db: cannot be read"]
        path.unlink()
        assert until(lambda: client.get("readyz").status_code == 200)


def test_what_others_commit_is_taken_up_without_a_question(start: Start) -> None:
    """The index follows the database by itself, and its lag is shown until it has."""
    running = start(operation__max_lag=0)
    knowledge, operation = running.assistant.parts.knowledge, running.server.operation
    assert until(lambda: operation.unready() == [])
    before = knowledge.store.sequence()
    knowledge.store.remove([next(iter(knowledge.store.known()))])
    assert knowledge.store.sequence() > before
    assert until(lambda: operation.numbers()["index_served"] == knowledge.store.sequence())
    assert until(lambda: operation.numbers()["index_lag"] == 0)
    assert knowledge.behind() == 0


def test_hanging_workers_are_told(start: Start) -> None:
    """Where every worker is at one job for far too long, /livez says that a restart helps."""
    policy = Slow()
    running = start(policy=policy, server__workers=1, server__seconds=1)
    with running.http() as client, client.stream("POST", "v1/chat/completions", json=BODY) as one:
        assert one.status_code == 200
        assert until(lambda: running.server.engine.hanging(0.1))
        assert client.get("livez").status_code == 200  # a minute late is late, a second is not
        for job in list(running.server.engine._jobs):
            job.began -= 100
        assert client.get("livez").json()["reasons"] == ["every worker hangs"]
        policy.go.set()
    assert until(lambda: not running.server.engine.hanging(0))


def test_draining_refuses_what_begins_and_waits(start: Start) -> None:
    """What waits for a worker and what comes is sent away; what is under way gets to its end."""
    policy = Slow()
    running = start(policy=policy, server__workers=1)
    operation = running.server.operation
    statuses: list[int] = []
    with (
        running.http() as client,
        running.http() as other,
        client.stream("POST", "v1/chat/completions", json=BODY) as one,
    ):
        lines = one.iter_lines()
        assert "40 euros" in next(line for line in lines if "40 euros" in line)

        def wait() -> None:
            statuses.append(other.post("v1/chat/completions", json=BODY).status_code)

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert until(lambda: running.server.admission.waiting == 1)
        assert operation.open == 2
        on_loop(running, operation.drain)
        waiting.join(60)
        refused = other.post("v1/chat/completions", json=BODY)
        assert (statuses, refused.status_code) == ([503], 503)
        assert int(refused.headers["retry-after"]) >= 1
        assert "draining" in other.get("readyz").json()["reasons"]
        policy.go.set()
        assert "data: [DONE]" in list(lines)
    assert until(lambda: operation.open == 0)


def on_loop(running: Running, work: Callable[[], None]) -> None:
    """Call it on the event loop's thread, as the handler of a signal does."""
    job = next(iter(running.server.engine._jobs))
    done = threading.Event()

    def run() -> None:
        work()
        done.set()

    job._loop.call_soon_threadsafe(run)
    assert done.wait(60)


def test_grace_that_is_over_ends_in_an_error_event(start: Start) -> None:
    """A stream that is cut has its text, then an error that says to try again, and no [DONE]."""
    policy = Slow()
    running = start(policy=policy)
    with running.http() as client, client.stream("POST", "v1/chat/completions", json=BODY) as one:
        lines = one.iter_lines()
        assert next(line for line in lines if "40 euros" in line)
        on_loop(running, running.server.operation.cut)
        rest = [line for line in lines if line.startswith("data: ")]
    policy.go.set()
    assert "went down" in json.loads(rest[-1].removeprefix("data: "))["error"]["message"]
    assert "data: [DONE]" not in rest
    assert until(lambda: not running.turns), "an answer that was cut is not kept"


def test_numbers_tell_what_happened_and_hold_no_words(start: Start) -> None:
    """Counts by route, outcome and step; the operator's pages refuse other sites' names."""
    running = start(operation__admin_port=free_port())
    running.key("bot")
    with running.http(running.key("other")) as client:
        assert client.post("v1/chat/completions", json=BODY).status_code == 200
        assert client.get("v1/nowhere/widget").status_code == 404
    operation = running.server.operation
    assert until(lambda: operation.open == 0 and not operation.unready())
    transport = httpx.ASGITransport(create_admin(operation))
    text, told = _admin(transport, "/metrics"), _admin(transport, "/state")
    chat = 'method="POST",route="/v1/chat/completions",status="200"'
    for line in (
        f"plumbline_requests_total{{{chat}}} 1.0",
        'plumbline_requests_total{method="GET",route="",status="404"} 1.0',
        'plumbline_answers_total{outcome="answered"} 1.0',
        'plumbline_step_seconds_count{step="retrieve"} 1.0',
        "plumbline_index_documents 3.0",
        "plumbline_ready 1.0",
    ):
        assert line in text, line
    assert not [word for word in WORDS if word in text + told]
    assert json.loads(told)["index_lag"] == 0
    assert (
        _admin(transport, "/metrics", "evil.example")
        == "This name is not served here; use 127.0.0.1.\n"
    )


def _admin(transport: httpx.ASGITransport, path: str, host: str = "127.0.0.1") -> str:
    async def get() -> str:
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            return (await client.get(path)).text

    return asyncio.run(get())


def test_metrics_are_nowhere_on_the_public_port(start: Start) -> None:
    """Whoever reaches the API does not reach the numbers."""
    running = start(operation__admin_port=free_port())
    with running.http() as client:
        got = [client.get(path).status_code for path in ("metrics", "state", "debug", "docs")]
    assert got == [404] * 4


def test_traces_reach_the_collector_without_words(start: Start) -> None:
    """A request's span goes on with the caller's trace, has a span a step, and no text."""
    with _collector() as (address, received):
        running = start(operation__traces=address)
        with running.http() as client:
            parent = f"00-{'ab' * 16}-{'cd' * 8}-01"
            headers = {"traceparent": parent}
            client.post("v1/chat/completions", json=BODY, headers=headers).raise_for_status()
        ends = time.monotonic() + 20
        while not any(b"POST /v1/chat/completions" in body for body in received):
            assert time.monotonic() < ends  # the span ends after the answer is with its reader
            time.sleep(0.05)
        running.server.operation.tracer.close()
    spans = []
    for body in received:
        sent = ExportTraceServiceRequest.FromString(body)
        spans += [s for r in sent.resource_spans for c in r.scope_spans for s in c.spans]
        assert not [word for word in WORDS if word.encode() in body]
    names = {span.name for span in spans}
    assert {"POST /v1/chat/completions", "retrieve", "compose"} <= names
    assert {span.trace_id.hex() for span in spans} == {"ab" * 16}
    (request,) = (s for s in spans if s.name.startswith("POST"))
    assert request.parent_span_id.hex() == "cd" * 8
    assert {s.parent_span_id for s in spans if s is not request} == {request.span_id}


@contextmanager
def _collector() -> Iterator[tuple[str, list[bytes]]]:
    received: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Take what is sent."""
            received.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", received
    finally:
        server.shutdown()
        server.server_close()


SERVE = """
import sys, time
from assistant.policy import echo
from assistant.schema import Delta
class Slow(echo.EchoPolicy):
    def stream(self, prompt, sampling):
        yield Delta("The widget costs 40 euros. [1] It was ")
        if "widget" in prompt.messages[-1].text:
            for _ in range(600):
                time.sleep(0.1)
                yield Delta("")
        yield Delta("made in Lyon. [1]")
        yield Delta("", finish="stop", confidence=1.0)
echo.EchoPolicy = Slow
import app
echo.build = lambda *_: Slow()
sys.exit(app.main(sys.argv[1:]))
"""


def test_a_real_server_drains_when_it_is_told_to_end(tmp_path: Path) -> None:
    """SIGTERM: /readyz 503, new turns refused, the stream ends with an error event, exit 0."""
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "widget.md").write_text(TEXT, "utf-8")
    port, admin = free_port(), free_port()
    given = {
        "home": tmp_path / "home",
        "docs": "false",
        "retrieval.embed.backend": "hashing",
        "retrieval.rerank.backend": "none",
        "policy.backend": "echo",
        "policy.support": "words",
        "safety.moderators": "rules",
        "server.port": port,
        "operation.admin_port": admin,
        "operation.logs": "json",
        "operation.notice_seconds": 1,
        "operation.drain_seconds": 1,
    }
    settings = [f"--set={key}={value}" for key, value in given.items()]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SERVE, *settings]
    with build_assistant(
        load("embedded", None, {k: str(v) for k, v in given.items()})
    ) as assistant:
        list(assistant.ingest([documents]))
    with subprocess.Popen([*command, "serve"], env=env, stderr=subprocess.PIPE, text=True) as child:
        public = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)
        try:
            assert until(lambda: _status(public, "/readyz") == 200, 180)
            assert _status(httpx.Client(base_url=f"http://127.0.0.1:{admin}"), "/metrics") == 200
            with public.stream("POST", "/v1/chat/completions", json=BODY) as stream:
                lines = stream.iter_lines()
                assert next(line for line in lines if "40 euros" in line)
                child.send_signal(signal.SIGTERM)
                assert until(lambda: _status(public, "/readyz") == 503)
                assert public.post("/v1/chat/completions", json=BODY).status_code == 503
                rest = [line for line in lines if line.startswith("data: ")]
            assert "try again" in json.loads(rest[-1].removeprefix("data: "))["error"]["message"]
            assert "data: [DONE]" not in rest
            code = child.wait(120)
        finally:
            child.kill()
        assert child.stderr is not None
        log = child.stderr.read()
    entries = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    events = [entry["event"] for entry in entries]
    assert (code, events.count("draining"), events.count("cut")) == (0, 1, 1)
    (asked,) = (
        e for e in entries if e.get("route") == "/v1/chat/completions" and e["status"] == 200
    )
    assert asked["key"] == "local"
    assert not [word for word in WORDS if word in log]
    for name in ("conversations.db", "knowledge.db", "responses.db"):
        with closing(sqlite3.connect(tmp_path / "home" / name)) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def _status(client: httpx.Client, path: str) -> int:
    try:
        return client.get(path, timeout=5).status_code
    except httpx.TransportError:
        return 0


def test_json_lines_hold_fields_and_nobodys_words(tmp_path: Path) -> None:
    """Our events become fields; another library's words and an error's words are left out."""
    lines = JsonFormatter(lambda text: text.replace("anna@example.org", "[email]"))

    def said(name: str, text: str, *args: object, error: bool = False) -> dict[str, object]:
        try:
            raise ValueError("the widget of anna@example.org")
        except ValueError:
            info = sys.exc_info() if error else None
        record = logging.LogRecord(name, logging.WARNING, "x.py", 7, text, args, info)
        made: dict[str, object] = json.loads(lines.format(record))
        return made

    ours = said("assistant.server.gate", "refused request=%s status=%d code=%s", "r1", 401, None)
    assert {k: ours[k] for k in ("event", "request", "status", "code", "level")} == {
        "event": "refused",
        "request": "r1",
        "status": 401,
        "code": "None",
        "level": "warning",
    }
    assert said("safety.guard", "at %s", "anna@example.org")["text"] == "at [email]"
    theirs = said("httpx", "GET %s", "http://x/?q=widget", error=True)
    assert "widget" not in json.dumps(theirs)
    assert (theirs["event"], theirs["at"], theirs["error"]) == ("other", "x:7", "ValueError")
