"""/v1/conversations: those that the server remembers, each its user's alone."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from assistant.errors import ConversationNotFound
from assistant.schema import Turn
from assistant.server.answer import REFUSED, citation_of
from assistant.server.base import (
    LISTED,
    After,
    Light,
    Limit,
    base_of,
    missing,
    page_of,
    server_of,
)
from assistant.server.principal import Principal
from assistant.server.records import Response

router = APIRouter()
Chatter = Annotated[Principal, Depends(Light("chat"))]


class Named(BaseModel):
    """A conversation's title."""

    model_config = ConfigDict(strict=True, extra="ignore")

    title: str | None = Field(None, max_length=200)


@router.post("/v1/conversations")
def begin(body: Named, request: Request, who: Chatter) -> dict[str, Any]:
    """Begin a conversation; its id in a chat request makes the server remember the turns."""
    memory = server_of(request).assistant.parts.memory
    title = (body.title or "").encode(errors="replace").decode()
    return {"id": memory.open(None, who.owner, title), "object": "conversation", "title": title}


@router.get("/v1/conversations")
def listed(
    request: Request, who: Chatter, limit: Limit = LISTED, after: After = None
) -> JSONResponse:
    """The caller's conversations that have turns, the last used first; `after` that of this id."""
    found = server_of(request).assistant.conversations(who.owner)
    if after is not None:
        at = next((n for n, c in enumerate(found) if c.id == after), None)
        if at is None:
            raise missing("conversation", "after")
        found = found[at + 1 :]
    found = found[: limit + 1]
    data = [
        {
            "id": c.id,
            "object": "conversation",
            "title": c.title,
            "created": int(c.created),
            "updated": int(c.updated),
            "turns": c.turns,
        }
        for c in found
    ]
    return page_of(data, limit)


@router.get("/v1/conversations/{conversation_id}")
def shown(conversation_id: str, request: Request, who: Chatter) -> dict[str, Any]:
    """A conversation's messages; answers with the id that rates them, and their citations."""
    server = server_of(request)
    try:
        turns = server.assistant.turns(conversation_id, user_id=who.owner)
    except ConversationNotFound:
        raise missing("conversation") from None
    given = {
        turn_id: (response, index)
        for response in server.records.of_conversation(conversation_id, who.owner)
        for index, turn_id in enumerate(response.turn_ids)
    }
    base = base_of(request)
    messages = [message for turn in turns for message in _messages(turn, given.get(turn.id), base)]
    return {"id": conversation_id, "object": "conversation", "messages": messages}


@router.post("/v1/conversations/{conversation_id}")
def renamed(conversation_id: str, body: Named, request: Request, who: Chatter) -> dict[str, Any]:
    """Give a conversation another title; an empty one keeps the old."""
    title = (body.title or "").encode(errors="replace").decode()
    try:
        server_of(request).assistant.turns(conversation_id, user_id=who.owner)
        server_of(request).assistant.rename(conversation_id, title, user_id=who.owner)
    except ConversationNotFound:
        raise missing("conversation") from None
    return {"id": conversation_id, "object": "conversation", "title": title}


@router.delete("/v1/conversations/{conversation_id}")
def deleted(conversation_id: str, request: Request, who: Chatter) -> dict[str, Any]:
    """Delete a conversation, with the citations of its answers."""
    server = server_of(request)
    try:
        server.assistant.delete(conversation_id, user_id=who.owner)
    except ConversationNotFound:
        raise missing("conversation") from None
    server.records.forget_conversation(conversation_id, who.owner)
    return {"id": conversation_id, "object": "conversation.deleted", "deleted": True}


def _messages(turn: Turn, given: tuple[Response, int] | None, base: str) -> list[dict[str, Any]]:
    """Question and answer; what was answered elsewhere than here has no id and no citations."""
    created, reply = int(turn.created), turn.reply
    about: dict[str, Any] = {"response_id": None, "citations": []}
    if given is not None:
        response, index = given
        name = f"{response.id}-{index}"
        about = {
            "response_id": f"chatcmpl-{response.id}",
            "citations": [citation_of(c, name, base) for c in response.citations[index]],
        }
    refusal = reply.text if reply.outcome in REFUSED else None
    return [
        {"role": "user", "content": turn.user_text, "created": created},
        {
            "role": "assistant",
            "content": reply.text,
            "refusal": refusal,
            "created": created,
            **about,
        },
    ]
