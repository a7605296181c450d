"""The layer around the gate: how many requests are here, how long each took, how it ended."""

from __future__ import annotations

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assistant.server.front import waits
from assistant.server.gate import PUBLIC
from assistant.server.meter import Done
from assistant.server.operation import Operation

logger = logging.getLogger(__name__)


class Watch:
    """ASGI middleware that counts, and changes nothing."""

    def __init__(self, app: ASGIApp, operation: Operation) -> None:
        self.app = app
        self.operation = operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and note how it went."""
        if scope["type"] != "http" or scope["path"] in PUBLIC:
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        status, first = 0, None

        async def noted(message: Message) -> None:
            nonlocal status, first
            if message["type"] == "http.response.start":
                status = message["status"]
            elif first is None and message.get("body"):
                first = time.perf_counter() - began
            await send(message)

        # a page listens for as long as it is open; its answers are counted where they are made
        counts = not waits(scope["path"])
        self.operation.open += counts
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        try:
            with self.operation.tracer.request(headers, method) as ended:
                try:
                    await self.app(scope, receive, noted)
                finally:
                    seconds = time.perf_counter() - began
                    route = getattr(scope.get("route"), "path", "")
                    done = Done(route, method, status or 499, seconds, first)
                    request_id = scope.get("state", {}).get("request_id", "")
                    ended(done, request_id)
                    self._note(done, request_id, scope)
        finally:
            self.operation.open -= counts

    def _note(self, done: Done, request_id: str, scope: Scope) -> None:
        self.operation.meter.request(done)
        who = scope.get("state", {}).get("principal")
        logger.info(
            "request id=%s method=%s route=%s status=%d ms=%d key=%s",
            request_id,
            done.method,
            done.route,
            done.status,
            round(done.seconds * 1000),
            who.key if who is not None else "",
        )


METHODS = frozenset({"GET", "POST", "DELETE", "PATCH", "PUT", "HEAD", "OPTIONS"})
