"""The outermost layer: who may talk to the chat, and what its pages may do.

A page of ours loads nothing from elsewhere and runs no script but ours: scripts come from this
server, and the inline ones of the index page carry a nonce that changes with every response. So
even markup that slipped past the sanitiser could neither run nor reach the network.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

#: All that the page asks for. What else Gradio would serve (its API, its file endpoint and proxy,
#: monitoring, logins) is not there for anybody.
_PATHS = {
    "/",
    "/config",
    "/theme.css",
    "/favicon.ico",
    "/manifest.json",
    "/robots.txt",
    "/gradio_api/queue/join",
    "/gradio_api/queue/data",
    "/gradio_api/upload",
    "/gradio_api/upload_progress",
    "/gradio_api/cancel",
    "/gradio_api/reset",
    "/gradio_api/app_id",
    "/gradio_api/startup-events",
}
_FOLDERS = ("/assets/", "/static/", "/plumbline/", "/gradio_api/heartbeat/")
_CROOKED = re.compile(r"\.\.|//|[\\\x00-\x1f]")

_POLICY = (
    "default-src 'self'; script-src 'self'{nonce}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; "
    "connect-src 'self'; worker-src 'self' blob:; frame-ancestors 'none'; form-action 'self'; "
    "base-uri 'self'; object-src 'none'"
)
_FIXED = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"permissions-policy",
        b"accelerometer=(), camera=(), display-capture=(), geolocation=(), gyroscope=(), "
        b"magnetometer=(), microphone=(), midi=(), payment=(), usb=()",
    ),
)
_OURS = {name for name, _ in _FIXED} | {b"content-security-policy", b"server"}
_SCRIPT = re.compile(rb"<script(?=[\s>])")

Headers = list[tuple[bytes, bytes]]


class Shield:
    """ASGI middleware: Host, path and Origin checks, security headers, a nonce on scripts.

    The page is at `root` and a slash; `more` are addresses below it that are served besides.
    """

    def __init__(
        self, app: ASGIApp, *, loopback: bool, root: str = "", more: Sequence[str] = ()
    ) -> None:
        self.app = app
        self.loopback = loopback
        self.root = root
        self.more = frozenset(more)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with the headers added to whatever comes back."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        index = scope["path"] == f"{self.root}/"
        refused = elsewhere(scope, loopback=self.loopback) or self._nothing(scope["path"])
        if refused:
            await answer(headed(send), *refused)
            return
        if index:
            # the index is rewritten below, so it must not arrive compressed
            scope = dict(scope, headers=_without(scope["headers"], (b"accept-encoding",)))
        await self.app(scope, receive, _Guarded(send, index and scope["method"] == "GET"))

    def _nothing(self, path: str) -> tuple[int, bytes] | None:
        if not path.startswith(self.root):
            return 404, b"There is nothing here."
        below = path[len(self.root) :]
        ours = below in self.more or _is_ours(below)
        return None if ours else (404, b"There is nothing here.")


class _Guarded:
    """A `send` that adds the headers, and buffers HTML to give its scripts a nonce."""

    def __init__(self, send: Send, index: bool) -> None:
        self.send = send
        self.index = index
        self.start: Message | None = None
        self.body: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message = dict(message, headers=_without(message.get("headers", ()), _OURS))
            if self.index and _is_html(message["headers"]):
                self.start = message
                return
            await self.send(_with_policy(message, ""))
        elif self.start is not None and message["type"] == "http.response.body":
            self.body.append(message.get("body", b""))
            if not message.get("more_body", False):
                await self._send_index(self.start)
        else:
            await self.send(message)

    async def _send_index(self, start: Message) -> None:
        nonce = secrets.token_urlsafe(16)
        page = _SCRIPT.sub(b'<script nonce="%s"' % nonce.encode(), b"".join(self.body))
        headers = _without(start["headers"], (b"content-length",))
        headers.append((b"content-length", str(len(page)).encode()))
        headers.append((b"cache-control", b"no-store"))
        await self.send(_with_policy(dict(start, headers=headers), nonce))
        await self.send({"type": "http.response.body", "body": page})


def elsewhere(scope: Scope, *, loopback: bool) -> tuple[int, bytes] | None:
    """Status and words for a request that was sent elsewhere, or by a page of another site."""
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    host = headers.get(b"host", "")
    if loopback and not is_loopback(hostname(host)):
        return 421, b"This address is not served here. Use http://127.0.0.1 or localhost."
    if scope["method"] in SAFE_METHODS:
        return None
    if foreign(headers.get(b"origin"), host):
        return 403, b"This request comes from another site."
    if headers.get(b"sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return 403, b"This request comes from another site."
    return None


def headed(send: Send) -> Send:
    """A `send` that puts our headers on every answer."""
    return _Guarded(send, index=False)


def foreign(origin: str | None, host: str) -> bool:
    """Whether a request's Origin is another site's than its Host, or nobody's at all."""
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc.lower() != host.lower()
    except ValueError:
        return True


def hostname(netloc: str) -> str:
    """The name in a Host header, without its port; "" where it is none."""
    try:
        return urlsplit(f"//{netloc}").hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether `host` (no port) names this computer: localhost or a loopback address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_ours(path: str) -> bool:
    return path in _PATHS or (path.startswith(_FOLDERS) and not _CROOKED.search(path))


def _with_policy(message: Message, nonce: str) -> Message:
    policy = _POLICY.format(nonce=f" 'nonce-{nonce}'" if nonce else "").encode()
    headers: Headers = [*message["headers"], *_FIXED, (b"content-security-policy", policy)]
    return dict(message, headers=headers)


def _without(headers: Iterable[tuple[bytes, bytes]], names: Iterable[bytes]) -> Headers:
    unwanted = set(names)
    return [(name, value) for name, value in headers if name.lower() not in unwanted]


def _is_html(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    return any(n.lower() == b"content-type" and v.startswith(b"text/html") for n, v in headers)


async def answer(send: Send, status: int, text: bytes) -> None:
    """Answer with a sentence."""
    headers: Headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(text)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
