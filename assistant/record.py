"""What is kept of a finished turn: the reply, and the record that the preference log takes."""

from __future__ import annotations

import time
from dataclasses import replace
from uuid import uuid4

from assistant import steps
from assistant.prompt import fingerprint
from assistant.schema import Reply, TurnRecord
from assistant.steps import Parts, State


def reply_of(state: State, parts: Parts) -> Reply:
    """The reply of a turn that has an outcome; it names the one policy that the turn ran with."""
    assert state.outcome is not None
    return Reply(
        turn_id=state.turn_id,
        candidate_id=uuid4().hex,
        conversation_id=state.conversation_id,
        text=state.answer,
        outcome=state.outcome,
        language=state.language,
        citations=state.citations,
        passages=steps.kept_passages(state, parts),
        verdicts=tuple(state.verdicts),
        steps=tuple(state.steps),
        understanding=state.understanding,
        policy=replace(parts.policy.card, version=parts.version),
        confidence=state.confidence,
        seconds=time.monotonic() - state.began,
        finish=state.finish,
        usage=state.usage,
    )


def record_of(state: State, parts: Parts, reply: Reply, position: int) -> TurnRecord:
    """The turn as the preference log takes it; `position` counts its answers from 0."""
    messages = steps.kept_prompt(state, parts)
    return TurnRecord(
        turn_id=reply.turn_id,
        candidate_id=reply.candidate_id,
        conversation_id=state.conversation_id,
        parent_id=state.history[-1].id if state.history else "",
        user_id=state.user_id,
        surface=state.surface,
        language=state.language,
        created=time.time(),
        user_text=state.user_text,
        prompt=messages,
        prompt_sha256=fingerprint(messages),
        reply=reply,
        sampling=state.sampling,
        finish=state.finish,
        token_ids=tuple(state.token_ids),
        logprobs=tuple(state.logprobs),
        consent=state.consent,
        position=position,
    )
