"""Records as they come from a conversation -> rows of the preference log. Pure functions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row

from assistant.schema import Consent, Feedback, TurnRecord
from rlhf.errors import BadRecord
from rlhf.tables import SCHEMA_VERSION

Redact = Callable[[str], str]
Values = dict[str, Any]

#: Kinds of which a later event corrects the earlier one; the others add up.
CORRECTABLE = ("thumb", "ab_pick", "edit")


def of_turn(record: TurnRecord, pseudonym: str, retention_until: float, redact: Redact) -> Values:
    """Make the row of `turn`."""
    return {
        "turn_id": record.turn_id,
        "schema_version": SCHEMA_VERSION,
        "conversation_id": record.conversation_id,
        "parent_id": record.parent_id,
        "pseudonym": pseudonym,
        "surface": record.surface,
        "language": record.language,
        "created": record.created,
        "user_text": record.user_text,
        "redacted_text": redact(record.user_text),
        "consent_version": record.consent.text_version,
        "retention_until": retention_until,
        **{f"consent_{name}": on for name, on in flags(record.consent).items()},
        **{f"allow_{name}": on for name, on in flags(record.consent).items()},
    }


def of_prompt(record: TurnRecord, redact: Redact) -> Values:
    """Make the row of `prompt`."""
    system = "\n\n".join(m.text for m in record.prompt if m.role == "system")
    return {
        "turn_id": record.turn_id,
        "prompt_sha256": record.prompt_sha256,
        "system_sha256": hashlib.sha256(system.encode()).hexdigest(),
        "messages": [[m.role, m.text] for m in record.prompt],
        "redacted_messages": [[m.role, redact(m.text)] for m in record.prompt],
    }


def of_candidate(record: TurnRecord, redact: Redact) -> Values:
    """Make the row of `candidate`. Of verdicts and steps the codes are kept, not their texts."""
    reply = record.reply
    codes = ("action", "category", "score", "side", "moderator", "reason", "decision_id")
    cited = ("number", "chunk_id", "document_id", "version", "start", "end", "verbatim")
    return {
        "candidate_id": record.candidate_id,
        "turn_id": record.turn_id,
        "prompt_sha256": record.prompt_sha256,
        "created": record.created,
        "text": reply.text,
        "redacted_text": redact(reply.text),
        "outcome": reply.outcome,
        "language": reply.language,
        "finish": record.finish,
        "position": record.position,
        "shown": record.shown,
        "policy": asdict(reply.policy),
        "sampling": asdict(record.sampling),
        "token_ids": list(record.token_ids),
        "logprobs": list(record.logprobs),
        "confidence": reply.confidence,
        "seconds": reply.seconds,
        "understanding": asdict(reply.understanding),
        "verdicts": [{name: getattr(v, name) for name in codes} for v in reply.verdicts],
        "citations": [{name: getattr(c, name) for name in cited} for c in reply.citations],
        "steps": [[s.name, s.seconds] for s in reply.steps],
    }


def of_evidence(record: TurnRecord) -> list[Values]:
    """Make the rows of `evidence`: the passages the policy saw, in their order."""
    return [
        {
            "candidate_id": record.candidate_id,
            "rank": rank,
            "document_id": passage.chunk.document_id,
            "chunk_id": passage.chunk.id,
            "version": passage.version,
            "source": passage.source,
            "start": passage.chunk.start,
            "end": passage.chunk.end,
            "text": passage.chunk.text,
            "score": passage.score,
            "modified": passage.modified,
            "indexed": passage.indexed,
        }
        for rank, passage in enumerate(record.reply.passages, start=1)
    ]


def of_feedback(event: Feedback, candidate_ids: Sequence[str], redact: Redact) -> Values:
    """Make the row of `feedback`, still without its id, time and place in the chain."""
    return {
        "turn_id": event.turn_id,
        "kind": event.kind,
        "slot": " ".join((event.kind, *sorted(candidate_ids))),
        "candidate_ids": list(candidate_ids),
        "value": event.value,
        "reasons": list(event.reasons),
        "text": event.text,
        "redacted_text": redact(event.text),
        "order_randomised": event.order_randomised,
        "explicit": event.explicit,
        "surface": event.surface,
        "language": event.language,
        "dwell_ms": event.dwell_ms,
    }


def flags(allowed: Consent) -> dict[str, bool]:
    """Name what is allowed."""
    return {"train": allowed.train, "evaluate": allowed.evaluate, "publish": allowed.publish}


def equal(old: Row[Any], new: Values) -> bool:
    """Whether a stored event says the same as a new one; how long the user looked is no matter."""
    return all(getattr(old, name) == value for name, value in new.items() if name != "dwell_ms")


def event_id(pseudonym: str, row: Values, before: str) -> str:
    """Derive an id that follows from the event and the one it comes after (128 bits, hex)."""
    content = {k: v for k, v in row.items() if k != "dwell_ms"}
    text = json.dumps([pseudonym, before, content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def check_feedback(event: Feedback, candidate_ids: Sequence[str], known: Sequence[str]) -> None:
    """Refuse feedback that does not fit its kind or its turn.

    Raises:
        BadRecord: says which value is wrong.
    """
    strange = [c for c in candidate_ids if c not in known]
    if strange:
        raise BadRecord(f"turn {event.turn_id!r} has no candidate {strange[0]!r}")
    count = len(candidate_ids)
    if len(set(candidate_ids)) != count:
        raise BadRecord(f"feedback on turn {event.turn_id!r} names a candidate twice")
    if event.kind == "ab_pick":
        if count < 2 or not -1 <= event.value < count:
            raise BadRecord(
                f"a pick needs two candidates or more and a value from -1 to {count - 1}; "
                f"got {count} candidates and {event.value}"
            )
        return
    if event.kind == "thumb" and event.value not in (-1, 0, 1):
        raise BadRecord(f"a thumb is -1, 0 or 1, not {event.value}")
    if event.kind == "edit" and not event.text.strip():
        raise BadRecord("an edit needs the user's text")
    if event.kind in ("thumb", "edit") and count != 1:
        raise BadRecord(f"a {event.kind} is on one candidate, not {count}")
