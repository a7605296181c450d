"""/v1/chat/completions, streamed and not."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import JSONResponse, Response

from assistant.server import tasks
from assistant.server.answer import Choice, Piece, answer
from assistant.server.base import base_of, present, server_of
from assistant.server.engine import Job
from assistant.server.principal import Needs, Principal
from assistant.server.reading import Ask, read
from assistant.server.schema import ChatRequest
from assistant.server.streaming import EventStream, begun, frame
from assistant.server.verdicts import moderation_of

router = APIRouter()
_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A completion, or with stream: true its chunks as server-sent events",
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "text/event-stream": {"schema": {"type": "string"}},
        },
    }
}


@router.post("/v1/chat/completions", responses=_STREAMED, response_class=JSONResponse)
async def complete(
    body: ChatRequest,
    request: Request,
    who: Annotated[Principal, Depends(Needs("chat"))],
    x_conversation_id: Annotated[str | None, Header(max_length=128)] = None,
) -> Response:
    """Answer the last message of a conversation from the documents that the caller may read."""
    server = server_of(request)
    ask = read(body, server, x_conversation_id)
    task = tasks.of(ask)
    name = uuid4().hex
    base = base_of(request)
    ticket = await present(request, server.admission.enter(who, ask.tokens))
    job: Job[Piece | Choice] = server.engine.start(
        (lambda _: tasks.answer(server, ask, task))
        if task is not None
        else (lambda stopped: answer(server, who, ask, name, base, stopped)),
        ticket,
        lambda item: item.tokens if isinstance(item, Choice) else 0,
    )
    head = _head(ask, name)
    if not ask.stream:
        return JSONResponse(await present(request, _whole(job, head)), headers=ticket.headers)
    seconds = server.settings.server.send_seconds
    frames = await present(request, begun(_chunks(job, head, ask)))
    return EventStream(frames, job.stop, seconds, ticket.headers)


def _head(ask: Ask, name: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{name}", "created": int(time.time()), "model": ask.model}


async def _whole(job: Job[Piece | Choice], head: dict[str, Any]) -> dict[str, Any]:
    choices = [item async for item in job.items() if isinstance(item, Choice)]
    first = choices[0].reply
    return {
        **head,
        "object": "chat.completion",
        "choices": [_finished(c) for c in choices],
        "usage": _usage(choices),
        "moderation": moderation_of([v for c in choices for v in c.reply.verdicts]),
        "citations": [citation for c in choices for citation in c.citations],
        "conversation_id": first.conversation_id,
    }


def _finished(choice: Choice) -> dict[str, Any]:
    return {
        "index": choice.index,
        "message": {
            "role": "assistant",
            "content": choice.content,
            "refusal": choice.refusal,
            "annotations": list(choice.annotations),
        },
        "logprobs": None,
        "finish_reason": choice.finish,
    }


async def _chunks(job: Job[Piece | Choice], head: dict[str, Any], ask: Ask) -> AsyncIterator[bytes]:
    head = {**head, "object": "chat.completion.chunk"}
    more: dict[str, Any] = {"usage": None} if ask.usage else {}
    choices: list[Choice] = []

    def chunk(index: int, delta: dict[str, Any], finish: str | None = None, **top: Any) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return frame({**head, "choices": [choice], **more, **top})

    opened = -1
    async for item in job.items():
        if item.index > opened:
            opened = item.index
            yield chunk(opened, {"role": "assistant", "content": ""})
        if isinstance(item, Piece):
            yield chunk(item.index, {"content": item.text})
            continue
        choices.append(item)
        if item.refusal is not None:
            yield chunk(item.index, {"refusal": item.refusal})
        if item.annotations:
            yield chunk(item.index, {"annotations": list(item.annotations)})
        yield chunk(
            item.index,
            {},
            item.finish,
            citations=list(item.citations),
            moderation=moderation_of(item.reply.verdicts),
            conversation_id=item.reply.conversation_id,
        )
    if ask.usage:
        yield frame({**head, "choices": [], "usage": _usage(choices)})


def _usage(choices: list[Choice]) -> dict[str, Any]:
    read, made = choices[0].prompt_tokens, sum(c.tokens for c in choices)
    cached = choices[0].reply.usage.cached if choices[0].reply.usage else 0
    return {
        "prompt_tokens": read,
        "completion_tokens": made,
        "total_tokens": read + made,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
    }
