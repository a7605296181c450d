"""A scripted OpenAI-compatible endpoint on loopback, for the tests of the remote policy."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from assistant.config import PolicySettings
from assistant.policy.base import Policy
from assistant.policy.remote import build
from tests.assistant.policies import resources

Act = Callable[["Handler"], None]
Serve = Callable[..., "Endpoint"]
KEY = "sk-very-secret-0123456789"


class Endpoint:
    """Answers request number n by `acts[n]`, the last one for good; keeps what it was sent."""

    def __init__(self, *acts: Act) -> None:
        self.acts = list(acts)
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.times: list[float] = []
        self.gone = threading.Event()  # a reader closed the connection
        self.release = threading.Event()  # lets acts that wait go on
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.endpoint = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self.release.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Handler(BaseHTTPRequestHandler):
    """One request; the acts write with the methods below."""

    protocol_version = "HTTP/1.1"

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint this request came to."""
        found: Endpoint = self.server.endpoint  # type: ignore[attr-defined]
        return found

    def do_POST(self) -> None:
        """Keep the request and act."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        end = self.endpoint
        number = len(end.bodies)
        end.bodies.append(json.loads(body))
        end.headers.append({k.lower(): v for k, v in self.headers.items()})
        end.paths.append(self.path)
        end.times.append(time.monotonic())
        try:
            end.acts[min(number, len(end.acts) - 1)](self)
        except OSError:
            end.gone.set()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def start(self, kind: str = "text/event-stream") -> None:
        """Begin an answer that ends when the connection does."""
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        self.end_headers()

    def line(self, data: str) -> None:
        """Send one server-sent event."""
        self.wfile.write(f"data: {data}\n\n".encode())
        self.wfile.flush()

    def chunk(self, text: str | None = None, finish: str | None = None, **delta: Any) -> None:
        """Send one chat.completion.chunk."""
        if text is not None:
            delta["content"] = text
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        self.line(json.dumps(shell([choice])))


def shell(choices: list[Any], **more: Any) -> dict[str, Any]:
    """Make a chunk around choices."""
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": choices,
        **more,
    }


def saying(*texts: str, finish: str = "stop", done: bool = True) -> Act:
    """Stream texts, then the finish."""

    def act(handler: Handler) -> None:
        handler.start()
        handler.chunk("", role="assistant")
        for text in texts:
            handler.chunk(text)
        handler.chunk(finish=finish)
        if done:
            handler.line("[DONE]")

    return act


def failing(
    status: int, message: str = "no", headers: dict[str, str] | None = None, **error: Any
) -> Act:
    """Answer with an error in the API's format."""

    def act(handler: Handler) -> None:
        body = json.dumps({"error": {"message": message, "type": "t", **error}}).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.send_header("Connection", "close")  # or a client would use it once more
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return act


@contextmanager
def serving() -> Iterator[Serve]:
    """Give a starter of endpoints, which are stopped at the end."""
    started: list[Endpoint] = []

    def start(*acts: Act) -> Endpoint:
        started.append(Endpoint(*acts))
        return started[-1]

    try:
        yield start
    finally:
        for endpoint in started:
            endpoint.close()


def connect(endpoint: Endpoint | str, **settings: Any) -> Policy:
    """Build a policy of an endpoint; it does not retry unless told."""
    url = endpoint if isinstance(endpoint, str) else endpoint.url
    values = {"url": url, "model": "some/model", "api_key": KEY, "retries": 0, **settings}
    return build(PolicySettings(backend="remote", **values), resources())
