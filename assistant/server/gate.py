"""The outermost layer: nothing behind it runs for a stranger, and nothing gets out but answers.

In this order: an id for the request, the host it was sent to, who sent it, how large it is. The
body is read only for one who may come in, whole and bounded, before anything parses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assistant.config import Settings
from assistant.server.engine import broken
from assistant.server.errors import ApiError
from assistant.server.keys import KeyStore
from assistant.server.principal import (
    GROUPS_HEADER,
    LOCAL,
    USER_HEADER,
    Needs,
    Principal,
    acting,
)
from assistant.ui.middleware import foreign, hostname, is_loopback

logger = logging.getLogger(__name__)

#: Answered to anybody.
PUBLIC = frozenset({"/livez", "/readyz"})
#: Where files come in: these are not held in memory, and may be larger.
FILES = "/v1/documents"
#: A body comes in within so many seconds.
BODY_SECONDS = 30.0
#: A body that is refused is read on for so long: closing on unread data resets the connection, and
#: its sender would never see the answer.
LINGER_SECONDS = 2.0
_FIXED = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
_OURS = frozenset(name for name, _ in _FIXED)
#: Where the chat is served.
PAGE = "/ui"
#: What browsers ask for unbidden: where the chat is served, they are led to it, and get its icon.
DOORS = frozenset({"/", "/favicon.ico"})


class Gate:
    """ASGI middleware around everything."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        keys: KeyStore,
        page: Callable[[ASGIApp], ASGIApp] | None = None,
    ) -> None:
        self.app = app
        #: Who sees to the requests for the chat, where it is served: a browser has no key to send.
        self.page = page(app) if page is not None else None
        self.keys = keys
        self.loopback = is_loopback(settings.server.host)
        self.body = settings.server.max_body_kb * 1024
        self.file = settings.serve.max_upload_mb * 1024 * 1024 + 64 * 1024

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on; whatever is not an answer becomes an error body."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self.page is not None and at_page(scope["path"]):
            await self.page(scope, receive, send)
            return
        outlet = _Outlet(send)
        scope.setdefault("state", {})["request_id"] = outlet.id
        try:
            receive = await self._checked(scope, receive)
            await self.app(scope, receive, outlet)
        except ApiError as error:
            await outlet.fail(error, scope, receive)
        except Gone:
            return
        except Exception as error:
            await outlet.fail(broken(error), scope, receive)

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        self._from_here(headers)
        open_to_all = scope["path"] in PUBLIC or (self.page is not None and scope["path"] in DOORS)
        if not open_to_all:
            scope["state"]["principal"] = await self._principal(headers)
        length = headers.get(b"content-length", "")
        uploads = scope["path"].startswith(FILES) and "multipart" in headers.get(
            b"content-type", ""
        )
        most = self.file if uploads else self.body
        if length and (not length.isascii() or not length.isdecimal() or int(length) > most):
            raise _large(most)
        if not uploads:
            return await read_body(receive, most)
        if scope["method"] == "POST":
            Needs("ingest").of(scope["state"]["principal"])  # before anything is read of it
        if not length:
            raise ApiError(411, "Say in Content-Length how large the upload is.")
        return _paced(receive)

    def _from_here(self, headers: dict[bytes, str]) -> None:
        """A page of some web site cannot reach a server on this computer through its reader."""
        host = headers.get(b"host", "")
        if self.loopback and not is_loopback(hostname(host)):
            raise ApiError(421, "This name is not served here; use 127.0.0.1 or localhost.")
        if foreign(headers.get(b"origin"), host):
            raise ApiError(403, "This request comes from a web page of another site.")

    async def _principal(self, headers: dict[bytes, str]) -> Principal:
        given = _key(headers)
        found = self._recalled(given) or await run_in_threadpool(self._find, given)
        if found is None:
            told = "Incorrect API key provided." if given else "You did not provide an API key."
            raise ApiError(
                401, f"{told} Send one as 'Authorization: Bearer KEY'; `keys create` makes it."
            )
        user, groups = (_words(headers.get(n.encode())) for n in (USER_HEADER, GROUPS_HEADER))
        return acting(found, user, groups)

    def _recalled(self, given: str) -> Principal | None:
        """As `_find`, of what is remembered; a thread that looks costs more than all of this."""
        found = self.keys.recall(given) if given else None
        return LOCAL if found is None and self.loopback and self.keys.none() else found

    def _find(self, given: str) -> Principal | None:
        found = self.keys.find(given)
        if found is None and self.loopback and not self.keys.any():
            return LOCAL
        return found


class Gone(Exception):
    """The client left before its request was whole."""


class _Outlet:
    """A `send` that adds headers, and knows whether an answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._began = time.perf_counter()
        self.id = f"req_{secrets.token_hex(16)}"
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            spent = round((time.perf_counter() - self._began) * 1000)
            kept = [(n, v) for n, v in message.get("headers", ()) if n.lower() not in _OURS]
            own = [
                (b"x-request-id", self.id.encode()),
                (b"openai-processing-ms", str(spent).encode()),
            ]
            message = dict(message, headers=[*kept, *_FIXED, *own])
        await self._send(message)

    async def fail(self, error: ApiError, scope: Scope, receive: Receive) -> None:
        """Answer with an error, where no answer has begun."""
        if not self.started:
            logger.info("refused request=%s status=%d code=%s", self.id, error.status, error.code)
            response = error.response()
            unread = error.status in (408, 411, 413)
            if unread:
                response.headers["connection"] = "close"
            await response(scope, receive, _lingering(self, receive) if unread else self)


async def read_body(receive: Receive, most: int) -> Receive:
    """Read the whole body, and give it out again.

    Raises:
        ApiError: it is longer than `most` bytes, or too slow.
        Gone: the client left.
    """
    parts, size, more = [], 0, True
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                more = message.get("more_body", False)
                if size > most:
                    raise _large(most)
    except TimeoutError:
        raise ApiError(408, "The body did not arrive in time.") from None
    body: list[Message] = [{"type": "http.request", "body": b"".join(parts), "more_body": False}]

    async def again() -> Message:
        return body.pop() if body else await receive()

    return again


def _paced(receive: Receive) -> Receive:
    """A `receive` that gives up on a body of which nothing comes for a while."""
    more = True

    async def next_piece() -> Message:
        nonlocal more
        if not more:
            return await receive()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                message = await receive()
        except TimeoutError:
            raise ApiError(408, "The body did not arrive in time.") from None
        more = bool(message.get("more_body", False))
        return message

    return next_piece


def at_page(path: str) -> bool:
    """Whether this is an address of the chat."""
    return path == PAGE or path.startswith(PAGE + "/")


def _lingering(send: Send, receive: Receive) -> Send:
    """A `send` that gives the whole answer out, then reads on for a while, and then ends it."""

    async def sent(message: Message) -> None:
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        await send(dict(message, more_body=True) if last else message)
        if last:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER_SECONDS):
                    while (await receive()).get("more_body", False):
                        pass
            await send({"type": "http.response.body", "body": b""})

    return sent


def _words(value: str | None) -> str | None:
    """A header's value as UTF-8, which is what clients send names in that Latin-1 has not."""
    try:
        return value and value.encode("latin-1").decode()
    except ValueError:
        return value


def _large(most: int) -> ApiError:
    return ApiError(413, f"The body is too large; {most // 1024} KiB are taken.")


def _key(headers: dict[bytes, str]) -> str:
    kind, _, token = headers.get(b"authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return token.strip()
    return headers.get(b"api-key", "").strip()
