"""A page of the chat without a browser: it signs in and sends events as Gradio's client does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.assistant.server.conftest import Running

API = "/ui/gradio_api"


@contextmanager
def signed_in(running: Running, key: str) -> Iterator[httpx.Client]:
    """A client with a session of this key."""
    with running.http() as client:
        answer = client.post("/ui/sign-in", data={"key": key})
        assert answer.status_code == 303, answer.text
        yield client


class Page:
    """One open page of a client."""

    def __init__(self, client: httpx.Client, name: str = "page", path: str = "") -> None:
        self.client = client
        self.name = name
        config = client.get("/ui/config").json()
        self._ids = {c["id"]: c["props"].get("elem_id") for c in config["components"]}
        self._events = config["dependencies"]
        self._path = path

    def event(self, part: str, kind: str) -> dict[str, Any]:
        """The event of a component, by its element's id; "" is the page itself."""
        for event in self._events:
            for target, how in event["targets"]:
                if how == kind and (self._ids.get(target) or "") == part:
                    return dict(event)
        raise KeyError((part, kind))

    def join(self, part: str, kind: str, *data: object) -> httpx.Response:
        """Send an event."""
        body = {
            "fn_index": self.event(part, kind)["id"],
            "data": list(data),
            "session_hash": self.name,
        }
        return self.client.post(f"{API}/queue/join{self._path}", json=body)

    def hear(self) -> str:
        """All that the page is told until its events are over, as text."""
        heard = []
        given = {"session_hash": self.name}
        with self.client.stream("GET", f"{API}/queue/data", params=given, timeout=60) as stream:
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    heard.append(json.loads(line[6:]))
                    if heard[-1]["msg"] in ("close_stream", "unexpected_error"):
                        break
        return json.dumps(heard, ensure_ascii=False)

    def do(self, part: str, kind: str, *data: object) -> str:
        """Send an event, and wait for all that comes of it."""
        answer = self.join(part, kind, *data)
        assert answer.status_code == 200, answer.text
        return self.hear()

    def load(self) -> str:
        """Open the page."""
        return self.do("", "load", None)

    def ask(self, question: str) -> str:
        """Ask."""
        return self.do("pl-composer", "submit", question, None, False)

    def press(self, **call: object) -> str:
        """Press a button of ours."""
        return self.do("pl-bus", "submit", json.dumps(call), None, False)
