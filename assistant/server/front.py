"""The layer around the chat, where the server serves it: who signed in, and what is theirs.

A browser sends no key but a cookie, which stands for one (`sessions`). In this order: the host and
the site that a request comes from, the session, the address, the size. Names that pages choose for
their connections are made the session's own, so that nobody can listen at or act for another's.
"""

from __future__ import annotations

import json
import logging
import secrets
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from assistant.config import Settings
from assistant.server.admission import Admission
from assistant.server.engine import broken
from assistant.server.errors import ApiError
from assistant.server.gate import PAGE, Gone, read_body
from assistant.server.keys import KeyStore
from assistant.server.principal import LOCAL, Principal
from assistant.server.sessions import COOKIE, OPEN, Session, Sessions
from assistant.ui.middleware import Shield, answer, elsewhere, headed, is_loopback

logger = logging.getLogger(__name__)

SIGN_IN, SIGN_OUT = "/sign-in", "/sign-out"
_API = f"{PAGE}/gradio_api"
#: Where pages send what was pressed, and files.
JOIN, UPLOAD = f"{_API}/queue/join", f"{_API}/upload"
#: Bodies that name a connection, and the field that does.
_NAMING = {JOIN, f"{_API}/cancel", f"{_API}/reset"}
_NAMES = {"session_hash", "upload_id"}
HEARTBEAT = f"{_API}/heartbeat/"
#: Connections that pages hold open: an answer is counted where it is made.
LISTENING = (HEARTBEAT, f"{_API}/queue/data")
#: A form with a key in it.
FORM_BYTES = 4096
_FORWARDED = (b"x-forwarded-", b"forwarded", b"x-gradio-", b"x-original-")


class Front:
    """ASGI middleware around the chat."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        keys: KeyStore,
        sessions: Sessions,
        admission: Admission,
    ) -> None:
        self.loopback = is_loopback(settings.server.host)
        self.app = Shield(app, loopback=self.loopback, root=PAGE, more=(SIGN_IN, SIGN_OUT))
        self.keys = keys
        self.sessions = sessions
        self.admission = admission
        self.body = settings.server.max_body_kb * 1024
        self.file = settings.serve.max_upload_mb * 1024 * 1024 + 64 * 1024

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on as who signed in."""
        request_id = f"req_{secrets.token_hex(16)}"
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def sent(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._pass(scope, receive, sent)
        except ApiError as error:
            if not started:
                logger.info("refused request=%s status=%d", request_id, error.status)
                await error.response()(scope, receive, headed(sent))
        except Gone:
            return
        except Exception as error:
            failed = broken(error)
            if not started:
                await failed.response()(scope, receive, headed(sent))

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = elsewhere(scope, loopback=self.loopback)
        if refused:
            await answer(headed(send), *refused)
            return
        path, headers = scope["path"], dict(scope["headers"])
        if path == PAGE + SIGN_IN:
            scope["state"]["sessions"] = self.sessions
            await self.app(scope, await read_body(receive, FORM_BYTES), send)
            return
        token = token_of(headers)
        found = await self._who(token)
        if found is None:
            if scope["method"] == "GET" and path in (PAGE, PAGE + "/"):
                await _lead(send, PAGE + SIGN_IN)
                return
            raise ApiError(401, f"Sign in first, at {PAGE}{SIGN_IN}.", "not_signed_in")
        if path == PAGE:
            await _lead(send, PAGE + "/")
            return
        who, session = found
        scope["state"].update(principal=who, sessions=self.sessions, token=token)
        receive = await self._bounded(scope, receive, who)
        if path in _NAMING:
            receive = await _renamed(receive, session)
        await self.app(_own(scope, session), receive, send)

    async def _who(self, token: str) -> tuple[Principal, Session] | None:
        session = self.sessions.find(token) if token else None
        if session is not None:
            who = self.keys.recall_holder(session.key) or await run_in_threadpool(
                self.keys.holder, session.key
            )
            if who is not None and "chat" in who.scopes:
                return who, session
            self.sessions.end(token)
        if self.loopback and (self.keys.none() or not await run_in_threadpool(self.keys.any)):
            return LOCAL, OPEN
        return None

    async def _bounded(self, scope: Scope, receive: Receive, who: Principal) -> Receive:
        path = scope["path"]
        if path in (JOIN, UPLOAD):
            self.admission.tap(who)
        length = dict(scope["headers"]).get(b"content-length", b"").decode("latin-1")
        most = self.file if path == UPLOAD else self.body
        if length and (not length.isascii() or not length.isdecimal() or int(length) > most):
            raise ApiError(413, f"The body is too large; {most // 1024} KiB are taken.")
        if path != UPLOAD:
            return await read_body(receive, most)
        if "ingest" not in who.scopes:
            raise ApiError(403, "This key is not for this; it needs the scope 'ingest'.")
        if not length:
            raise ApiError(411, "Say in Content-Length how large the upload is.")
        return receive


def token_of(headers: dict[bytes, bytes]) -> str:
    """The session's token of a request; "" where it has none."""
    try:
        jar = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1"))
    except CookieError:
        return ""
    return jar[COOKIE].value if COOKIE in jar else ""


async def _lead(send: Send, where: str) -> None:
    headers = [(b"location", where.encode()), (b"content-length", b"0"), _UNKEPT]
    out = headed(send)
    await out({"type": "http.response.start", "status": 303, "headers": headers})
    await out({"type": "http.response.body", "body": b""})


_UNKEPT = (b"cache-control", b"no-store")


def _own(scope: Scope, session: Session) -> Scope:
    """The request with the names in its address made the session's own.

    What a gateway says of itself goes: links are made of `server.url`, or of the address itself.
    """
    path: str = scope["path"]
    changed: dict[str, Any] = {
        "headers": [(n, v) for n, v in scope["headers"] if not n.lower().startswith(_FORWARDED)]
    }
    if path.startswith(HEARTBEAT):
        path = HEARTBEAT + session.own(path[len(HEARTBEAT) :])
        changed.update(path=path, raw_path=path.encode())
    query = scope["query_string"].decode("latin-1")
    if any(name in query for name in _NAMES):
        pairs = parse_qsl(query, keep_blank_values=True)
        own = [(n, session.own(v) if n in _NAMES else v) for n, v in pairs]
        changed["query_string"] = urlencode(own).encode()
    return dict(scope, **changed)


async def _renamed(receive: Receive, session: Session) -> Receive:
    message = await receive()
    try:
        body = json.loads(message.get("body", b""))
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not valid JSON; send a JSON object.") from None
    if not isinstance(body, dict):
        raise ApiError(400, "The body is not a JSON object.")
    for name in _NAMES & body.keys():
        body[name] = session.own(str(body[name]))
    made = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

    async def again() -> Message:
        return made.pop() if made else await receive()

    return again


def waits(path: str) -> bool:
    """Whether this is a connection that a page holds open, busy or not."""
    return path.startswith(LISTENING)
