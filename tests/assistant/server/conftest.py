"""A server on a loopback socket over an assistant of doubles, and clients for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from openai import OpenAI

from assistant.build import build_assistant
from assistant.config import Settings, load
from assistant.dialogue import Assistant
from assistant.policy.base import Policy
from assistant.schema import Feedback, TurnRecord
from assistant.server.app import create_app
from assistant.server.base import Server
from assistant.server.keys import FILE, KeyStore
from assistant.server.listen import Announcing, listen

DOCUMENTS = {
    "widget.md": "# Widget\n\nThe widget costs 40 euros. It was made in Lyon.\n",
    "gadget.md": "# Gadget\n\nThe gadget costs 70 euros. It was made in Porto.\n",
    "tower.md": "# 北京塔\n\n北京塔高三百米。它的门票四十元。\n",
}


@dataclass
class Running:
    """A server that runs, and what it was told."""

    url: str
    app: FastAPI
    server: Server
    assistant: Assistant
    turns: list[TurnRecord]
    feedback: list[Feedback]

    def key(self, name: str = "bot", **about: object) -> str:
        """Make a key."""
        return self.server.keys.create(name, **about)  # type: ignore[arg-type]

    def openai(self, key: str = "none", **options: object) -> Any:
        """OpenAI's client, strict, without retries; untyped, as it has none of our own fields."""
        given = {"max_retries": 0, "_strict_response_validation": True, **options}
        return OpenAI(api_key=key, base_url=f"{self.url}v1", **given)  # type: ignore[arg-type]

    def http(self, key: str = "") -> httpx.Client:
        """A plain client."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start servers with settings of one's own; all are stopped at the end."""
    with _servers(tmp_path) as begin:
        yield begin


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for the tests of a module, with no key made: open to this computer."""
    with _servers(tmp_path_factory.mktemp("server")) as begin:
        yield begin()


@contextmanager
def _servers(folder: Path) -> Iterator[Start]:
    stops: list[Callable[[], None]] = []

    def begin(*, policy: Policy | None = None, **options: object) -> Running:
        settings = small(folder / f"home{len(stops)}", **options)
        turns: list[TurnRecord] = []
        given: list[Feedback] = []
        wrap = None if policy is None else lambda _plain, _settings: policy
        assistant = build_assistant(settings, turns.append, given.append, wrap)
        documents = folder / "documents"
        documents.mkdir(exist_ok=True)
        for name, text in DOCUMENTS.items():
            (documents / name).write_text(text, encoding="utf-8")
        list(assistant.ingest([documents]))
        app = create_app(assistant, settings)
        listener, address = listen("127.0.0.1", 0)
        ready = threading.Event()
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
        server = Announcing(config, ready.set)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        assert ready.wait(20)

        def stop() -> None:
            server.should_exit = True
            thread.join(20)
            assistant.close()

        stops.append(stop)
        return Running(address, app, app.state.server, assistant, turns, given)

    try:
        yield begin
    finally:
        for stop in stops:
            stop()


def small(home: Path, **options: object) -> Settings:
    """Settings of a small assistant; `server__port=0` sets `server.port`."""
    given = {
        "home": str(home),
        "docs": "false",
        "retrieval.embed.backend": "hashing",
        "retrieval.rerank.backend": "none",
        "policy.backend": "echo",
        "policy.support": "words",
        "safety.moderators": "rules",
        "operation.warm": "false",  # a double that never ends is asked by its test only
        **{name.replace("__", "."): str(value) for name, value in options.items()},
    }
    return load("embedded", None, given)


def keys_of(home: Path) -> KeyStore:
    """The keys of a home."""
    return KeyStore(home / FILE)
