"""The operator's listener: metrics and state, on a port of its own that only this computer reaches.

It runs in a thread of its own, so that it still answers where the server's event loop does not.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from assistant.server.listen import Announcing, listen
from assistant.server.operation import Operation
from assistant.ui.middleware import hostname, is_loopback

HOST = "127.0.0.1"


def create_admin(operation: Operation) -> Starlette:
    """/metrics for Prometheus, /state for people, /livez and /readyz as on the public port."""

    def guarded(request: Request) -> Response:
        """A page of some web site cannot read this through its reader."""
        host = hostname(request.headers.get("host", ""))
        if not is_loopback(host) or "origin" in request.headers:
            return PlainTextResponse("This name is not served here; use 127.0.0.1.\n", 421)
        return _PAGES[request.url.path](operation)

    routes = [Route(path, guarded, methods=["GET"]) for path in _PAGES]
    return Starlette(routes=routes)


@contextmanager
def listening(operation: Operation, port: int) -> Iterator[None]:
    """Answer on this loopback port; on none where it is 0.

    Raises:
        ConfigError: the port cannot be used.
    """
    if not port:
        yield
        return
    listener, _ = listen(HOST, port, setting="operation.admin_port")
    config = uvicorn.Config(
        create_admin(operation),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    ready = threading.Event()
    server = Announcing(config, ready.set)
    thread = threading.Thread(target=server.run, args=([listener],), name="admin", daemon=True)
    thread.start()
    ready.wait()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def _metrics(operation: Operation) -> Response:
    body, kind = operation.meter.page()
    return Response(body, media_type=kind)


def _state(operation: Operation) -> Response:
    return JSONResponse(operation.state())


def _live(operation: Operation) -> Response:
    stuck = operation.stuck()
    return JSONResponse({"reasons": [stuck] if stuck else []}, 503 if stuck else 200)


def _ready(operation: Operation) -> Response:
    reasons = operation.unready()
    return JSONResponse({"reasons": reasons}, 503 if reasons else 200)


_PAGES = {"/metrics": _metrics, "/state": _state, "/livez": _live, "/readyz": _ready}
