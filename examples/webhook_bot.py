"""A bot behind a webhook: a chat platform posts messages, the answers are posted back to it.

    export WEBHOOK_SECRET=... REPLY_URL=https://chat.example/reply
    uvicorn --app-dir examples webhook_bot:app

A message is {"id", "user", "thread", "text"}. Its headers are X-Timestamp (seconds since the epoch)
and X-Signature: sha256= and the hexadecimal HMAC-SHA256, keyed with the secret, of the timestamp, a
full stop, and the body. What is accepted (202) is kept in WEBHOOK_DB until its answer was
delivered: a message that the platform sends again is answered once, and a restart loses none.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256

import httpx
from fastapi import FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, Field, ValidationError

from assistant import Assistant, build_assistant, load
from assistant.errors import AssistantError, ConversationNotFound

#: Bytes of a body, seconds that a signature holds, messages waiting, messages not yet delivered.
BODY, WINDOW, WAITING, UNDONE = 16_384, 300, 32, 512
#: Characters of an answer, and seconds for which the id of an answered message is known.
ANSWER, KNOWN = 2000, 7 * 86_400
#: Seconds before each further attempt to deliver; after the last, the next start tries again.
PAUSES = (1.0, 4.0)
SORRY = "Sorry, no answer could be made."
TABLES = """
CREATE TABLE IF NOT EXISTS message (id TEXT PRIMARY KEY, body TEXT, answer TEXT, done REAL);
CREATE TABLE IF NOT EXISTS thread (user TEXT, thread TEXT, conversation TEXT,
                                   PRIMARY KEY (user, thread));
"""
logger = logging.getLogger(__name__)


class Incoming(BaseModel):
    """One message of the platform."""

    id: str = Field(min_length=1, max_length=128)
    user: str = Field(min_length=1, max_length=128)
    thread: str = Field(min_length=1, max_length=128)
    text: str = Field(min_length=1, max_length=4000)


@dataclass
class Desk:
    """What the route and the worker share. The reply's address is set here, never by a message."""

    assistant: Assistant
    secret: bytes
    reply_url: str
    kept: sqlite3.Connection
    waiting: asyncio.Queue[Incoming] = field(default_factory=lambda: asyncio.Queue(WAITING))
    in_hand: set[str] = field(default_factory=set)


async def read(request: Request, secret: bytes) -> bytes:
    """The body, once it is known to be the platform's, small enough and fresh."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY:
            raise HTTPException(413, "the body is too large")
    stamp = request.headers.get("x-timestamp", "")
    given = request.headers.get("x-signature", "")
    expected = "sha256=" + hmac.new(secret, f"{stamp}.".encode() + body, sha256).hexdigest()
    # bytes, compared in constant time: how far a guess was right cannot be told from the delay
    genuine = hmac.compare_digest(expected.encode(), given.encode())
    fresh = stamp.isascii() and stamp.isdigit() and abs(time.time() - int(stamp)) <= WINDOW
    if not (genuine and fresh):
        raise HTTPException(401, "the signature is wrong or too old")
    return body


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open everything, take up what a restart left undone, and work until the end."""
    secret = os.environ["WEBHOOK_SECRET"].encode()
    if len(secret) < 32:
        raise ValueError("WEBHOOK_SECRET is shorter than 32 bytes; make a long random one")
    kept = sqlite3.connect(os.environ.get("WEBHOOK_DB", "webhook.db"), isolation_level=None)
    kept.executescript(TABLES)
    with build_assistant(load()) as assistant:
        desk = app.state.desk = Desk(assistant, secret, os.environ["REPLY_URL"], kept)
        worker = asyncio.create_task(work(desk))
        yield
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker
    kept.close()


app = FastAPI(lifespan=lifespan, docs_url=None, openapi_url=None)


@app.post("/webhook")
async def webhook(request: Request) -> Response:
    """Accept a message at once; its answer follows. Sent again, it is not answered again."""
    desk: Desk = request.app.state.desk
    body = await read(request, desk.secret)
    try:
        message = Incoming.model_validate_json(body)
    except ValidationError as error:
        raise HTTPException(422, "not a message: id, user, thread and text are needed") from error
    row = desk.kept.execute("SELECT done FROM message WHERE id = ?", (message.id,)).fetchone()
    if message.id in desk.in_hand or (row and row[0] is not None):
        return Response(status_code=202)  # sent again: nothing more is to be done
    (undone,) = desk.kept.execute("SELECT count(*) FROM message WHERE done IS NULL").fetchone()
    if desk.waiting.full() or (row is None and undone >= UNDONE):
        raise HTTPException(503, "too many messages are waiting", {"Retry-After": "5"})
    if row is None:
        desk.kept.execute(
            "INSERT INTO message (id, body) VALUES (?, ?)", (message.id, body.decode())
        )
    desk.in_hand.add(message.id)
    desk.waiting.put_nowait(message)
    return Response(status_code=202)


async def work(desk: Desk) -> None:
    """Answer one message after the other: first those that were accepted before the start."""
    desk.kept.execute("DELETE FROM message WHERE done < ?", (time.time() - KNOWN,))
    undone = desk.kept.execute("SELECT body FROM message WHERE done IS NULL ORDER BY rowid")
    left = deque(Incoming.model_validate_json(body) for (body,) in undone.fetchall())
    desk.in_hand |= {message.id for message in left}
    async with httpx.AsyncClient(timeout=10, follow_redirects=False) as client:
        while True:
            message = left.popleft() if left else await desk.waiting.get()
            try:
                await handle(desk, message, client)
            except Exception:  # one message must not end the work; sent again, it is tried again
                logger.exception("not_handled id=%s", message.id)
            finally:
                desk.in_hand.discard(message.id)


async def handle(desk: Desk, message: Incoming, client: httpx.AsyncClient) -> None:
    """Answer a message, unless that was done before, and deliver the answer."""
    (answer,) = desk.kept.execute(
        "SELECT answer FROM message WHERE id = ?", (message.id,)
    ).fetchone()
    if answer is None:
        answer = await reply(desk, message)
        desk.kept.execute("UPDATE message SET answer = ? WHERE id = ?", (answer, message.id))
    body = {"thread": message.thread, "text": answer}
    # a delivery whose confirmation was lost is made again: the key lets the platform see that
    headers = {"Idempotency-Key": message.id}
    for pause in (*PAUSES, None):
        try:
            (await client.post(desk.reply_url, json=body, headers=headers)).raise_for_status()
        except httpx.HTTPError as error:
            logger.warning("not_delivered id=%s error=%s", message.id, type(error).__name__)
            if pause is not None:
                await asyncio.sleep(pause)
            continue
        # the id stays, so that the message is known; its words go
        desk.kept.execute(
            "UPDATE message SET done = ?, body = '', answer = '' WHERE id = ?",
            (time.time(), message.id),
        )
        return


async def reply(desk: Desk, message: Incoming) -> str:
    """The answer, cut to what the platform shows, in the conversation of this user's thread."""
    key = (message.user, message.thread)
    row = desk.kept.execute(
        "SELECT conversation FROM thread WHERE user = ? AND thread = ?", key
    ).fetchone()
    for conversation in (row[0], None) if row else (None,):
        try:
            made = await desk.assistant.areply(
                message.text,
                conversation_id=conversation,
                user_id=message.user,
                readers=frozenset({message.user}),
                surface="webhook",
            )
        except ConversationNotFound:
            continue  # deleted since: the thread begins anew
        except AssistantError as error:
            logger.error("not_answered id=%s error=%s", message.id, type(error).__name__)
            return SORRY
        desk.kept.execute(
            "INSERT OR REPLACE INTO thread VALUES (?, ?, ?)", (*key, made.conversation_id)
        )
        return made.text if len(made.text) <= ANSWER else made.text[: ANSWER - 1] + "…"
    return SORRY
