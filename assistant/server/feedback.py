"""/v1/feedback: what a user thinks of an answer of theirs, for the preference log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from pydantic import BaseModel, ConfigDict, Field

from assistant.errors import TurnNotFound
from assistant.schema import Feedback, FeedbackKind
from assistant.server.base import Light, missing, server_of
from assistant.server.errors import ApiError
from assistant.server.principal import Principal
from assistant.server.schema import CHOICES

router = APIRouter()


class FeedbackRequest(BaseModel):
    """The body: a rating, a better text or a preferred answer, or several of them.

    `choice` is the index of the answer rated or corrected, of several. `preferred` is the index of
    the one that was picked, -1 where none is better; `shown` has their indices in the order in
    which the reader saw them, and `randomised` says whether that order was drawn by lot.
    """

    model_config = ConfigDict(strict=True, extra="ignore")

    response_id: str = Field(max_length=80)
    rating: int | None = Field(None, ge=-1, le=1)
    label: str | None = Field(None, max_length=64)
    comment: str | None = Field(None, max_length=4000)
    correction: str | None = Field(None, min_length=1, max_length=16_000)
    choice: int | None = Field(None, ge=0, le=CHOICES - 1)
    preferred: int | None = Field(None, ge=-1, le=CHOICES - 1)
    shown: list[int] | None = Field(None, min_length=2, max_length=CHOICES)
    randomised: bool = False


@router.post("/v1/feedback")
def feedback(
    body: FeedbackRequest,
    request: Request,
    who: Annotated[Principal, Depends(Light("feedback"))],
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> dict[str, Any]:
    """Rate, correct or prefer an answer; with an Idempotency-Key, a retry changes nothing."""
    server = server_of(request)
    if body.rating is None and body.correction is None and body.preferred is None:
        raise ApiError(
            400,
            "Give a rating of -1, 0 or 1, a correction, or the index of the preferred answer.",
            "invalid_value",
            "rating",
        )
    response = server.records.get(body.response_id.removeprefix("chatcmpl-"), who.owner)
    at = body.choice or 0
    if response is None or at >= len(response.turn_ids):
        raise missing("response")
    seen = [] if body.preferred is None else _seen(body, len(response.turn_ids))
    done = {"object": "feedback", "response_id": body.response_id, "accepted": True}
    if idempotency_key and server.records.done(who.owner, idempotency_key):
        return done

    def give(kind: FeedbackKind, value: int, text: str, of: Sequence[int] = (at,)) -> None:
        reasons = (_clean(body.label),) if body.label else ()
        server.assistant.give_feedback(
            Feedback(
                turn_id=response.turn_ids[of[0]],
                conversation_id=response.conversation_id,
                user_id=who.owner,
                kind=kind,
                candidate_ids=tuple(response.candidate_ids[i] for i in of),
                value=value,
                reasons=reasons,
                text=_clean(text),
                order_randomised=body.randomised and kind == "ab_pick",
                surface="http",
            ),
            kept=response.stored,
        )

    try:
        if body.rating is not None:
            give("thumb", body.rating, body.comment or "")
        if body.correction is not None:
            give("edit", 0, body.correction)
        if body.preferred is not None:
            place = seen.index(body.preferred) if body.preferred >= 0 else -1
            said = body.comment if body.rating is None else ""
            give("ab_pick", place, said or "", seen)
    except TurnNotFound:
        raise missing("response") from None
    if idempotency_key:
        server.records.note(who.owner, idempotency_key)
    return done


def _seen(body: FeedbackRequest, count: int) -> list[int]:
    """The answers that were compared, as the reader saw them.

    Raises:
        ApiError: there are no two, or the preferred one is not among them.
    """
    seen = body.shown or [*range(count)]
    if count < 2:
        raise ApiError(
            400,
            "This answer is the only one of its request; ask with n of 2 or more to compare.",
            "invalid_value",
            "preferred",
        )
    if len({*seen}) < len(seen) or not {*seen} <= {*range(count)}:
        message = f"Give each of the indices 0 to {count - 1} at most once, in the order shown."
        raise ApiError(400, message, "invalid_value", "shown")
    if body.preferred is not None and body.preferred not in (-1, *seen):
        message = f"The preferred answer, {body.preferred}, is not among those shown, {seen}."
        raise ApiError(400, message, "invalid_value", "preferred")
    return seen


def _clean(text: str) -> str:
    return text.encode(errors="replace").decode()
