"""/ui/sign-in and /ui/sign-out: a key for a session, and its end. No script runs here.

Beside them what a browser asks for unbidden: the front door, and an icon.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from assistant import ui
from assistant.server.base import server_of
from assistant.server.front import SIGN_IN, SIGN_OUT, token_of
from assistant.server.gate import PAGE
from assistant.server.sessions import COOKIE, Sessions
from assistant.ui.middleware import is_loopback
from assistant.ui.strings import Language, pick, say

router = APIRouter(include_in_schema=False)

LANGUAGE, CONSENT = "plumbline_language", "plumbline_consent"
#: The referrer policy lets the form name its origin, which the layer around it looks at.
_HTML = """<!doctype html>
<html lang="{tag}"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="same-origin"><link rel="icon" href="data:,"><title>plumbline</title>
<style>
body {{ margin: 0; min-height: 100vh; display: grid; place-items: center;
  font: 16px/1.5 system-ui, sans-serif; background: Canvas; color: CanvasText; }}
form {{ width: min(22rem, 90vw); display: grid; gap: .75rem; }}
h1 {{ margin: 0; font-size: 1.4rem; }} small {{ opacity: .75; }}
input, button {{ font: inherit; padding: .6rem .75rem; border-radius: .5rem; }}
input {{ border: 1px solid GrayText; background: Field; color: FieldText; }}
button {{ border: 0; background: #0f6b5c; color: #fff; cursor: pointer; }}
[role=alert] {{ margin: 0; color: #b3261e; }}
@media (prefers-color-scheme: dark) {{ [role=alert] {{ color: #f2b8b5; }} }}
</style></head><body><main><form method="post" action="{action}">
<h1>plumbline</h1>{wrong}
<label for="key">{label}</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus
 maxlength="200" spellcheck="false">
<button type="submit">{button}</button><small>{hint}</small>
</form></main></body></html>
"""


@router.get("/")
def led() -> Response:
    """Lead a browser to the chat."""
    return RedirectResponse(PAGE + "/", 303)


@router.get("/favicon.ico")
def icon() -> Response:
    """The icon of the whole server."""
    return FileResponse(Path(ui.__file__).with_name("favicon.svg"), media_type="image/svg+xml")


@router.get(PAGE + SIGN_IN)
def asked(request: Request) -> Response:
    """The form."""
    return _form(_language(request))


@router.post(PAGE + SIGN_IN)
async def signed_in(request: Request) -> Response:
    """Begin a session with the key of the form."""
    server, language = server_of(request), _language(request)
    form = parse_qs((await request.body()).decode(errors="replace"))
    key = form.get("key", [""])[0].strip()
    who = await run_in_threadpool(server.keys.find, key)
    if who is None:
        return _form(language, "sign_in_wrong", 401)
    if "chat" not in who.scopes:
        return _form(language, "sign_in_scope", 403)
    server.admission.tap(who)
    sessions = _sessions(request)
    sessions.end(token_of(dict(request.scope["headers"])))
    answer = RedirectResponse(PAGE + "/", 303)
    public = server.settings.server
    answer.set_cookie(
        COOKIE,
        sessions.begin(who.key),
        max_age=int(sessions.seconds),
        path=PAGE,
        secure=not is_loopback(public.host) or public.url.lower().startswith("https:"),
        httponly=True,
        samesite="lax",
    )
    return _unkept(answer)


@router.post(PAGE + SIGN_OUT)
async def signed_out(request: Request) -> Response:
    """End the session."""
    _sessions(request).end(request.scope["state"]["token"])
    answer = RedirectResponse(PAGE + SIGN_IN, 303)
    answer.delete_cookie(COOKIE, path=PAGE)
    return _unkept(answer)


def _unkept(answer: Response) -> Response:
    """Nothing stays in caches; consent is one user's, and goes with them."""
    answer.delete_cookie(CONSENT, path="/")
    answer.headers["cache-control"] = "no-store"
    return answer


def _sessions(request: Request) -> Sessions:
    found = request.scope["state"]["sessions"]
    assert isinstance(found, Sessions)
    return found


def _language(request: Request) -> Language:
    setting = server_of(request).settings.serve.language
    accept = request.headers.get("accept-language", "")
    return pick(setting, request.cookies.get(LANGUAGE, ""), accept)


def _form(language: Language, wrong: str = "", status: int = 200) -> HTMLResponse:
    told = f'<p role="alert">{escape(say(language, wrong))}</p>' if wrong else ""
    page = _HTML.format(
        tag="zh-CN" if language == "zh" else "en",
        action=PAGE + SIGN_IN,
        wrong=told,
        label=escape(say(language, "sign_in_key")),
        button=escape(say(language, "sign_in")),
        hint=escape(say(language, "sign_in_hint")),
    )
    return HTMLResponse(page, status, {"cache-control": "no-store"})
