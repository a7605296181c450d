"""A bot inside a FastAPI service that you already have: answers at once, or as they are written.

    BOT_USERS=users.json uvicorn --app-dir examples fastapi_bot:app

`users.json` stands for the sign-in that your service has: {"a long random token": {"name": "ann",
"groups": ["staff"]}}. Settings of the assistant come from the PLUMBLINE_ variables, for example
PLUMBLINE_HOME, the folder into which `python app.py ingest` has put your documents.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from assistant import Assistant, Reply, build_assistant, load
from assistant.errors import AssistantError, ConversationNotFound
from assistant.schema import Asked

#: Turns at once; more are told to come back, so that nobody waits without end.
TURNS = 4


class User(BaseModel):
    """Who asks, and the groups that documents with a list of readers are open to."""

    name: str
    groups: list[str] = []


class Question(BaseModel):
    """One message; `conversation_id`, from an earlier answer, goes on with that conversation."""

    text: str = Field(min_length=1, max_length=4000)
    conversation_id: str | None = Field(None, max_length=64)


def signed_in(request: Request, authorization: Annotated[str, Header()] = "") -> User:
    """Say who asks; put the check that your service has in its place."""
    token = authorization.removeprefix("Bearer ").encode()
    users: dict[str, User] = request.app.state.users
    for known, user in users.items():
        if hmac.compare_digest(known.encode(), token):
            return user
    raise HTTPException(401, "sign in", {"WWW-Authenticate": "Bearer"})


async def turn(request: Request, _: Annotated[User, Depends(signed_in)]) -> AsyncIterator[None]:
    """One of the turns that run at once; it ends with the response, however that ends."""
    state = request.app.state
    if state.running >= TURNS:
        raise HTTPException(503, "too many questions at once", {"Retry-After": "2"})
    state.running += 1
    try:
        yield
    finally:
        state.running -= 1


bot = APIRouter(prefix="/bot", dependencies=[Depends(turn)])


@bot.post("/ask")
async def ask(
    question: Question, request: Request, user: Annotated[User, Depends(signed_in)]
) -> Response:
    """Answer in one piece; the policy stops when the caller goes away."""
    assistant: Assistant = request.app.state.assistant
    work = asyncio.ensure_future(assistant.areply(question.text, **_asked(question, user)))
    try:
        while not (await asyncio.wait({work}, timeout=0.25))[0]:
            if await request.is_disconnected():
                return Response(status_code=499)  # nobody reads it
        body = _as_json(await work)
    except ConversationNotFound as error:
        raise HTTPException(404, str(error)) from error
    except AssistantError as error:
        raise HTTPException(503 if error.retryable else 500, "no answer could be made") from error
    finally:
        work.cancel()
    return Response(json.dumps(body), media_type="application/json")


@bot.post("/stream")
async def stream(
    question: Question, request: Request, user: Annotated[User, Depends(signed_in)]
) -> StreamingResponse:
    """Answer as server-sent events: pieces of text, then the whole; screened before they leave."""
    assistant: Assistant = request.app.state.assistant

    async def events() -> AsyncIterator[str]:
        # when the caller goes away this is cancelled, and with it the turn
        async with aclosing(assistant.astream(question.text, **_asked(question, user))) as pieces:
            try:
                async for event in pieces:
                    if event.text:
                        yield _line({"text": event.text})
                    if event.reply is not None:  # its text counts: an answer may be withdrawn
                        yield _line({"reply": _as_json(event.reply)})
            except AssistantError:
                yield _line({"error": "no answer could be made"})

    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(events(), media_type="text/event-stream", headers=headers)


def _asked(question: Question, user: User) -> Asked:
    """What goes with the question: users are kept apart by their name and by what they may read."""
    return {
        "conversation_id": question.conversation_id,
        "user_id": user.name,
        "readers": frozenset({user.name, *user.groups}),
        "surface": "service",
    }


def _as_json(reply: Reply) -> dict[str, Any]:
    sources = [{"number": c.number, "title": c.title, "quote": c.quote} for c in reply.citations]
    return {
        "text": reply.text,
        "outcome": reply.outcome,
        "sources": sources,
        "conversation_id": reply.conversation_id,
    }


def _line(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the assistant once, before the first request, and close it after the last."""
    users = json.loads(Path(os.environ["BOT_USERS"]).read_text(encoding="utf-8"))
    app.state.users = {token: User.model_validate(user) for token, user in users.items()}
    app.state.running = 0
    with build_assistant(load()) as assistant:
        await asyncio.to_thread(assistant.warm)
        app.state.assistant = assistant
        yield


app = FastAPI(lifespan=lifespan)
app.include_router(bot)


@app.get("/orders")
def orders() -> list[str]:
    """A route that your service had before the bot."""
    return ["what your service does"]
