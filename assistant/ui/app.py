"""The chat as a web application: the page mounted behind our middleware, and its server."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI
from fastapi.responses import FileResponse, JSONResponse, Response

from assistant.config import Settings
from assistant.server.listen import listen, run
from assistant.training import Trainer
from assistant.ui.base import AssistantLike
from assistant.ui.middleware import Shield, is_loopback
from assistant.ui.theme import build_theme
from assistant.ui.wire import build_blocks

_HERE = Path(__file__).resolve().parent

#: Served as files: Gradio's own `css` option rewrites selectors, and inline scripts are forbidden.
_ASSETS = {
    "page.js": "text/javascript",
    "style.css": "text/css",
    "train.css": "text/css",
    "favicon.svg": "image/svg+xml",
}
_HEAD = (
    '<link rel="stylesheet" href="{root}/plumbline/style.css">'
    '<link rel="stylesheet" href="{root}/plumbline/train.css">'
    '<script src="{root}/plumbline/page.js"></script>'
    '<link rel="icon" type="image/svg+xml" href="{root}/plumbline/favicon.svg">'
    '<meta name="color-scheme" content="light dark">'
)


def create_app(
    assistant: AssistantLike, settings: Settings, trainer: Trainer | None = None
) -> FastAPI:
    """The chat at `/`, with strict headers on every response and foreign requests refused."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Shield, loopback=is_loopback(settings.serve.host))
    place(app, build_blocks(assistant, settings, trainer), settings)
    return app


def place(
    app: FastAPI, blocks: gr.Blocks, settings: Settings, root: str = "", url: str = ""
) -> None:
    """Put the page at `root` and a slash, with what it loads.

    `url` is its public address where a gateway hides it. Who may come is for a layer around it.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    _add_assets(app, root)
    gr.mount_gradio_app(
        app,
        blocks,
        path=root or "/",
        root_path=url or None,
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        blocked_paths=[str(settings.home.resolve())],
        show_error=False,
        max_file_size=settings.serve.max_upload_mb * 1024 * 1024,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=build_theme(),
        head=_HEAD.format(root=root),
    )


def serve(
    assistant: AssistantLike,
    settings: Settings,
    on_ready: Callable[[str], None],
    trainer: Trainer | None = None,
) -> None:
    """Serve the chat until interrupted; `on_ready` gets its address once it answers.

    Without a `trainer` the page on training says that there is none.

    Raises:
        ConfigError: the address or the port cannot be used.
    """
    host = settings.serve.host
    listener, address = listen(host, settings.serve.port, named="serve", backlog=128)
    config = uvicorn.Config(
        create_app(assistant, settings, trainer),
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=3,
    )
    run(config, listener, lambda: on_ready(address))


def _add_assets(app: FastAPI, root: str) -> None:
    @app.get(root + "/plumbline/{name}", include_in_schema=False)
    def asset(name: str) -> Response:
        kind = _ASSETS.get(name)
        if kind is None:
            return Response("Not found", 404, media_type="text/plain")
        headers = {"cache-control": "no-cache"}
        return FileResponse(_HERE / name, media_type=kind, headers=headers)

    @app.get(root + "/favicon.ico", include_in_schema=False)
    def icon() -> Response:
        return asset("favicon.svg")

    @app.get(root + "/manifest.json", include_in_schema=False)
    def manifest() -> Response:
        icons = [{"src": f"{root}/plumbline/favicon.svg", "sizes": "any", "type": "image/svg+xml"}]
        return JSONResponse({"name": "plumbline", "icons": icons, "display": "browser"})
