"""/v1/feedback: what a user thinks of an answer of theirs, for the preference log."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from pydantic import BaseModel, ConfigDict, Field

from assistant.errors import TurnNotFound
from assistant.schema import Feedback, FeedbackKind
from assistant.server.base import Light, missing, server_of
from assistant.server.errors import ApiError
from assistant.server.principal import Principal

router = APIRouter()


class FeedbackRequest(BaseModel):
    """The body: a rating, a better text, or both. `choice` is the index of an answer of several."""

    model_config = ConfigDict(strict=True, extra="ignore")

    response_id: str = Field(max_length=80)
    rating: int | None = Field(None, ge=-1, le=1)
    label: str | None = Field(None, max_length=64)
    comment: str | None = Field(None, max_length=4000)
    correction: str | None = Field(None, min_length=1, max_length=16_000)
    choice: int | None = Field(None, ge=0, le=8)


@router.post("/v1/feedback")
def feedback(
    body: FeedbackRequest,
    request: Request,
    who: Annotated[Principal, Depends(Light("feedback"))],
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> dict[str, Any]:
    """Rate or correct an answer; with an Idempotency-Key, a retry changes nothing."""
    server = server_of(request)
    if body.rating is None and body.correction is None:
        raise ApiError(
            400, "Give a rating of -1, 0 or 1, or a correction.", "invalid_value", "rating"
        )
    response = server.records.get(body.response_id.removeprefix("chatcmpl-"), who.owner)
    at = body.choice or 0
    if response is None or at >= len(response.turn_ids):
        raise missing("response")
    done = {"object": "feedback", "response_id": body.response_id, "accepted": True}
    if idempotency_key and server.records.done(who.owner, idempotency_key):
        return done

    def give(kind: FeedbackKind, value: int, text: str) -> None:
        reasons = (_clean(body.label),) if body.label else ()
        server.assistant.give_feedback(
            Feedback(
                turn_id=response.turn_ids[at],
                conversation_id=response.conversation_id,
                user_id=who.owner,
                kind=kind,
                candidate_ids=(response.candidate_ids[at],),
                value=value,
                reasons=reasons,
                text=_clean(text),
                surface="http",
            ),
            kept=response.stored,
        )

    try:
        if body.rating is not None:
            give("thumb", body.rating, body.comment or "")
        if body.correction is not None:
            give("edit", 0, body.correction)
    except TurnNotFound:
        raise missing("response") from None
    if idempotency_key:
        server.records.note(who.owner, idempotency_key)
    return done


def _clean(text: str) -> str:
    return text.encode(errors="replace").decode()
