"""/v1/moderations: what the guard says of texts."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import uuid4

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from assistant.server.base import MODERATE, server_of, worked
from assistant.server.errors import ApiError
from assistant.server.principal import Needs, Principal
from assistant.server.reading import CHARACTERS, QUESTION
from assistant.server.schema import Part
from assistant.server.verdicts import result_of
from safety import Context, Verdict

router = APIRouter()
TEXTS = 64


class ModerationRequest(BaseModel):
    """The body. `side` is this server's own: whether a user said it, or an assistant."""

    model_config = ConfigDict(strict=True, extra="ignore")

    input: (
        str
        | Annotated[list[str], Field(max_length=TEXTS)]
        | Annotated[list[Part], Field(max_length=TEXTS)]
    )
    model: str | None = Field(None, max_length=256)
    side: Literal["input", "output"] | None = None


@router.post("/v1/moderations")
async def moderate(
    body: ModerationRequest,
    request: Request,
    who: Annotated[Principal, Depends(Needs("moderate"))],
) -> JSONResponse:
    """Judge texts; the decisions are on the audit's record as those on questions are."""
    server = server_of(request)
    if body.model is not None:
        server.model(body.model)
    texts = _texts(body)
    guard = server.assistant.parts.guard

    def work() -> list[Verdict]:
        return guard.screen_many(texts, body.side or "input", Context(user=who.owner))

    size = sum(map(len, texts)) // CHARACTERS + 1
    verdicts, ticket = await worked(request, who, size, work)
    results = [result_of([v]) for v in verdicts]
    made = {"id": f"modr-{uuid4().hex}", "model": MODERATE, "results": results}
    return JSONResponse(made, headers=ticket.headers)


def _texts(body: ModerationRequest) -> list[str]:
    given = [body.input] if isinstance(body.input, str) else body.input
    texts = [part if isinstance(part, str) else part.text for part in given]
    if not texts or any(text is None for text in texts):
        raise ApiError(400, "Texts are judged, and nothing else.", "unsupported_value", "input")
    kept = [(text or "").encode(errors="replace").decode() for text in texts]
    if max(map(len, kept)) > QUESTION:
        raise ApiError(
            400, f"A text has at most {QUESTION} characters.", "context_length_exceeded", "input"
        )
    return kept
