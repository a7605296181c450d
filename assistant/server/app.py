"""The HTTP API as a web application, and its server."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from assistant.config import Settings
from assistant.dialogue import Assistant
from assistant.errors import ConfigError
from assistant.server import (
    chat,
    citations,
    conversations,
    documents,
    embeddings,
    errors,
    feedback,
    health,
    logs,
    models,
    moderations,
    search,
    sign_in,
)
from assistant.server.admin import listening
from assistant.server.admission import Admission
from assistant.server.base import Server
from assistant.server.drain import Draining
from assistant.server.engine import Engine
from assistant.server.front import Front
from assistant.server.gate import PAGE, Gate
from assistant.server.guests import Guests
from assistant.server.keys import FILE, KeyStore
from assistant.server.listen import listen
from assistant.server.operation import Operation
from assistant.server.records import FILE as RECORDS
from assistant.server.records import Records
from assistant.server.sessions import Sessions
from assistant.server.shelf import FILE as SHELF
from assistant.server.shelf import Shelf
from assistant.server.slow import Timed
from assistant.server.watch import Watch
from assistant.ui.middleware import is_loopback
from retrieval import menu

logger = logging.getLogger(__name__)

PARTS = (
    chat,
    models,
    embeddings,
    moderations,
    feedback,
    documents,
    conversations,
    citations,
    search,
    health,
)


def create_app(assistant: Assistant, settings: Settings) -> FastAPI:
    """The API over an assistant; it opens its own databases in the home, and closes them.

    The assistant stays the caller's.
    """
    server = open_server(assistant, settings)
    operation = server.operation
    guests = Guests(server)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        operation.start()
        guests.loop = asyncio.get_running_loop()
        beat = asyncio.create_task(operation.beat())
        try:
            yield
        finally:
            beat.cancel()
            server.engine.close()
            await asyncio.to_thread(operation.close)
            server.shelf.close()
            server.records.close()
            server.keys.close()

    app = FastAPI(
        title="plumbline",
        version="1",
        summary="Answers from your documents, cited and moderated, as OpenAI's API gives them.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        responses=errors.RESPONSES,
        redirect_slashes=False,
    )
    app.state.server, app.state.guests = server, guests
    errors.install(app)
    for part in PARTS:
        app.include_router(part.router)
    app.add_middleware(
        Gate,
        settings=settings,
        keys=server.keys,
        page=_page(app, guests) if settings.server.ui else None,
    )
    app.add_middleware(Watch, operation=operation)
    _describe(app)
    return app


def _page(app: FastAPI, guests: Guests) -> Callable[[ASGIApp], ASGIApp]:
    """Serve the chat beside the API; returns the layer that sees to who comes in."""
    server = guests.server
    settings, own = server.settings, server.settings.server
    app.include_router(sign_in.router)
    module = menu.load("assistant.ui", "mount")  # Gradio is imported by those who serve the chat
    server.operation.hang_up = module.mount(app, server.assistant, settings, PAGE, guests.of)
    sessions = Sessions(own.ui_hours * 3600)
    return lambda inner: Front(inner, settings, server.keys, sessions, server.admission)


def open_server(assistant: Assistant, settings: Settings) -> Server:
    """The parts of a server, with its databases in the settings' home."""
    own, home = settings.server, settings.home
    records = Records(home / RECORDS)
    records.purge(own.keep_days)
    admission, engine = Admission(own), Engine(own.workers, own.seconds)
    return Server(
        assistant,
        settings,
        KeyStore(home / FILE),
        records,
        Shelf(home / SHELF, assistant.parts.knowledge),
        admission,
        engine,
        Operation(assistant, settings, admission, engine),
        int(time.time()),
    )


def check(settings: Settings) -> None:
    """See that strangers cannot come in.

    Raises:
        ConfigError: the address is not this computer's own, and no key was made.
    """
    host = settings.server.host
    if is_loopback(host):
        return
    path = settings.home / FILE
    if not _has_key(path):
        raise ConfigError(
            f"server.host {host!r} can be reached by others, and there is no key; make one with "
            "`keys create NAME`, or leave server.host at 127.0.0.1"
        )


def serve(assistant: Assistant, settings: Settings, on_ready: Callable[[str], None]) -> None:
    """Serve the API until it is told to end; `on_ready` gets its address once all ran once.

    Raises:
        ConfigError: the address or the port cannot be used, or no key guards it.
    """
    check(settings)
    listener, address = listen(settings.server.host, settings.server.port)
    logs.install(settings)
    app = create_app(assistant, settings)
    operation = app.state.server.operation
    config = uvicorn.Config(
        app,
        http=Timed,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=5,
    )
    operation.on_ready = lambda: on_ready(address + "v1")
    server = Draining(config, operation.listening.set, operation, settings.operation)
    with listening(operation, settings.operation.admin_port):
        server.run(sockets=[listener])


def _has_key(path: Path) -> bool:
    if not path.exists():
        return False
    keys = KeyStore(path)
    try:
        return any(card.alive for card in keys.cards())
    finally:
        keys.close()


def _describe(app: FastAPI) -> None:
    """Say in the OpenAPI description how a key is sent."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        made = plain()
        schemes = made.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes["key"] = {"type": "http", "scheme": "bearer"}
        made["security"] = [{"key": []}]
        return made

    app.openapi = described  # type: ignore[method-assign] # FastAPI's own way to extend it
