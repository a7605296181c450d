"""The chat on the HTTP API's server: the same page, each event as the principal who sent it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.routing import Mount

from assistant.config import Settings
from assistant.ui.app import place
from assistant.ui.base import AssistantLike, Visitor
from assistant.ui.wire import build_blocks

#: Open pages whose state is kept, and events of one kind at once: how many answers are made at
#: once, and for whom, is the server's own admission to say.
PAGES, SEATS = 1000, 64


def mount(
    app: FastAPI,
    assistant: AssistantLike,
    settings: Settings,
    root: str,
    visitor: Callable[[dict[str, Any]], Visitor],
) -> Callable[[], None]:
    """Serve the chat at `root`; returns what ends the connections that its pages keep open.

    `visitor` finds out from the ASGI scope of a request who sent it. A layer around the
    application must have let them in.
    """

    def who(request: gr.Request) -> Visitor:
        assert request.request is not None
        return visitor(dict(request.request.scope))

    own = settings.server
    blocks = build_blocks(assistant, settings, host=own.host, visitors=who, seats=SEATS)
    blocks.state_session_capacity = PAGES
    url = own.url.rstrip("/")
    place(app, blocks, settings, root, f"{url}{root}" if url else "")
    mounted = next(r.app for r in app.routes if isinstance(r, Mount) and r.path == root)
    ended: Any = mounted
    return lambda: ended.stop_event.set()
