"""The preference log -> training examples. Only of users who allow training as of now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Engine, Row, Table, and_, exists, func, select
from sqlalchemy.engine import Connection

from assistant.prompt import ABSTAIN
from assistant.schema import Consent, Message, PolicyCard
from rlhf.schema import Counts, EditExample, Origin, Preference, Sample, Split, ThumbExample
from rlhf.tables import candidate, consent, erased, evidence, feedback, person, prompt, turn

#: Outcomes that a policy wrote; refusals, crisis replies and small talk are canned.
WRITTEN = ("answered", "abstained")


@dataclass(frozen=True, slots=True)
class Found:
    """One feedback event that stands, with its turn, person, candidates by id and prompts."""

    event: Row[Any]
    turn: Row[Any]
    split: Split
    candidates: dict[str, Row[Any]]
    prompts: dict[str, Row[Any]]


def events(
    engine: Engine, kinds: tuple[str, ...], split: Split | None, page: int
) -> Iterator[Found]:
    """Standing events of `kinds`, oldest first.

    Read page by page, each in a transaction of its own: a slow reader never holds up the writer.
    """
    newer = feedback.alias("newer")
    standing = ~exists().where(newer.c.supersedes == feedback.c.event_id)
    where = [feedback.c.kind.in_(kinds), standing, *_usable(split)]
    last = 0
    while True:
        query = (
            select(feedback, turn.c.split.label("turn_split"))
            .join(turn, turn.c.turn_id == feedback.c.turn_id)
            .where(and_(*where, feedback.c.seq > last))
            .order_by(feedback.c.seq)
            .limit(page)
        )
        with engine.begin() as db:
            rows = db.execute(query).all()
            found = [_complete(db, row) for row in rows]
        yield from found
        if len(rows) < page:
            return
        last = rows[-1].seq


def pairs(found: Found, *, raw: bool, edit_weight: float) -> Iterator[Preference]:
    """Yield what one pick or edit says: the picked over each other, the edit over its own."""
    event = found.event
    if event.kind == "edit":
        for edit in edits(found, raw=raw):
            yield Preference(
                edit.origin,
                "edit",
                edit.prompt,
                edit.prompt_sha256,
                chosen=edit.edited,
                rejected=edit.original,
                chosen_id="",
                rejected_id=edit.candidate_id,
                chosen_policy=None,
                rejected_policy=edit.policy,
                chosen_position=0,
                rejected_position=0,
                order_randomised=False,
                weight=edit_weight,
            )
        return
    if event.value < 0:
        return
    best = found.candidates[event.candidate_ids[event.value]]
    for position, name in enumerate(event.candidate_ids):
        other = found.candidates[name]
        if not _comparable(best, other, raw):
            continue
        yield Preference(
            _origin(found),
            "pick",
            _prompt(found, best, raw),
            best.prompt_sha256,
            chosen=_completion(best, raw),
            rejected=_completion(other, raw),
            chosen_id=best.candidate_id,
            rejected_id=other.candidate_id,
            chosen_policy=PolicyCard(**best.policy),
            rejected_policy=PolicyCard(**other.policy),
            chosen_position=event.value,
            rejected_position=position,
            order_randomised=event.order_randomised,
            weight=1.0,
        )


def edits(found: Found, *, raw: bool) -> Iterator[EditExample]:
    """Yield the demonstration an edit gives; none where it changed nothing."""
    answer = found.candidates[found.event.candidate_ids[0]]
    text = found.event.text if raw else found.event.redacted_text
    original = _completion(answer, raw)
    if answer.outcome in WRITTEN and text != original:
        yield EditExample(
            _origin(found),
            _prompt(found, answer, raw),
            answer.prompt_sha256,
            original=original,
            edited=text,
            candidate_id=answer.candidate_id,
            policy=PolicyCard(**answer.policy),
        )


def thumbs(found: Found, *, raw: bool) -> Iterator[ThumbExample]:
    """Yield the label a thumb gives; none where it was taken back."""
    answer = found.candidates[found.event.candidate_ids[0]]
    if answer.outcome in WRITTEN and found.event.value != 0:
        yield ThumbExample(
            _origin(found),
            _prompt(found, answer, raw),
            answer.prompt_sha256,
            completion=_completion(answer, raw),
            label=found.event.value > 0,
            reasons=tuple(found.event.reasons),
            candidate_id=answer.candidate_id,
            policy=PolicyCard(**answer.policy),
        )


def comparisons(found: Found, *, raw: bool, edit_weight: float) -> Iterator[Sample]:
    """Yield what one pick or edit compares: every candidate that can be, ties among them.

    A pick ranks the picked first and all others second, since no more was said of them.
    """
    event = found.event
    shared = _marks(found)
    if event.kind == "edit":
        for edit in edits(found, raw=raw):
            yield Sample(
                "comparison",
                edit.prompt,
                (edit.edited, edit.original),
                ranks=(1, 2),
                models=("", edit.policy.model),
                weight=edit_weight,
                source="edit",
                **shared,
            )
        return
    shown = [found.candidates[name] for name in event.candidate_ids]
    best = shown[max(event.value, 0)]
    kept = [a for a in shown if a is best or _comparable(best, a, raw)]
    if len(kept) > 1:
        yield Sample(
            "comparison",
            _prompt(found, best, raw),
            tuple(_completion(a, raw) for a in kept),
            ranks=tuple(1 if event.value < 0 or a is best else 2 for a in kept),
            models=tuple(PolicyCard(**a.policy).model for a in kept),
            source="pick",
            **shared,
        )


def prompts(engine: Engine, split: Split | None, page: int, *, raw: bool) -> Iterator[Sample]:
    """What a policy answered, each prompt once, oldest first, page by page."""
    seen: set[str] = set()
    last = 0
    while True:
        written = exists().where(
            candidate.c.turn_id == prompt.c.turn_id,
            candidate.c.prompt_sha256 == prompt.c.prompt_sha256,
            candidate.c.outcome.in_(WRITTEN),
        )
        turns = select(turn).where(and_(*_usable(split), turn.c.seq > last))
        with engine.begin() as db:
            rows = db.execute(turns.order_by(turn.c.seq).limit(page)).all()
            mine = prompt.c.turn_id.in_([row.turn_id for row in rows])
            found = db.execute(select(prompt).where(mine, written)).all()
        asked = {row.turn_id: row for row in rows}
        place = {turn_id: n for n, turn_id in enumerate(asked)}
        for row in sorted(found, key=lambda r: (place[r.turn_id], r.prompt_sha256)):
            if row.prompt_sha256 in seen:
                continue
            seen.add(row.prompt_sha256)
            of = asked[row.turn_id]
            yield Sample(
                "prompt",
                _messages(row, raw),
                id=of.turn_id,
                turn=of.turn_id,
                user=of.pseudonym,
                language=of.language,
                created=of.created,
                source="turn",
                split=of.split,
            )
        if len(rows) < page:
            return
        last = rows[-1].seq


def records(engine: Engine, split: Split | None, page: int) -> Iterator[dict[str, Any]]:
    """Whole turns as JSON-ready dicts, oldest first, with everything logged under them."""
    last = 0
    while True:
        query = (
            select(turn)
            .where(and_(*_usable(split), turn.c.seq > last))
            .order_by(turn.c.seq)
            .limit(page)
        )
        with engine.begin() as db:
            rows = db.execute(query).all()
            found = [_whole(db, row) for row in rows]
        yield from found
        if len(rows) < page:
            return
        last = rows[-1].seq


def counts(db: Connection) -> Counts:
    """Count what is there."""

    def size(table: Table, *where: ColumnElement[bool]) -> int:
        return db.execute(select(func.count()).select_from(table).where(*where)).scalar_one()

    newer = feedback.alias("newer")
    standing = ~exists().where(newer.c.supersedes == feedback.c.event_id)
    kinds = (
        select(feedback.c.kind, func.count())
        .where(standing)
        .group_by(feedback.c.kind)
        .order_by(feedback.c.kind)
    )
    return Counts(
        users=size(person),
        deleted_users=size(erased),
        turns=size(turn),
        trainable=size(turn, turn.c.allow_train),
        candidates=size(candidate),
        evidence=size(evidence),
        feedback=tuple((str(kind), int(n)) for kind, n in db.execute(kinds)),
    )


def allowed(db: Connection, pseudonym: str) -> Consent:
    """Find what a person allowed last, by a change of mind or with a turn."""
    given = select(consent).where(consent.c.pseudonym == pseudonym)
    asked = select(turn).where(turn.c.pseudonym == pseudonym)
    change = db.execute(given.order_by(consent.c.seq.desc()).limit(1)).first()
    latest = db.execute(asked.order_by(turn.c.seq.desc()).limit(1)).first()
    if latest is not None and (change is None or latest.seq > change.last_turn):
        return Consent(
            latest.consent_train,
            latest.consent_evaluate,
            latest.consent_publish,
            latest.consent_version,
        )
    if change is None:
        return Consent()
    return Consent(change.train, change.evaluate, change.publish, change.text_version)


def _usable(split: Split | None) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = [turn.c.allow_train.is_(True)]
    if split is not None:
        where.append(turn.c.split == split)
    return where


def _complete(db: Connection, event: Row[Any]) -> Found:
    asked = db.execute(select(turn).where(turn.c.turn_id == event.turn_id)).one()
    answers = db.execute(select(candidate).where(candidate.c.turn_id == event.turn_id)).all()
    prompts = db.execute(select(prompt).where(prompt.c.turn_id == event.turn_id)).all()
    return Found(
        event,
        asked,
        event.turn_split,
        {row.candidate_id: row for row in answers},
        {row.prompt_sha256: row for row in prompts},
    )


def _whole(db: Connection, row: Row[Any]) -> dict[str, Any]:
    def below(table: Table, *order: ColumnElement[Any]) -> list[dict[str, Any]]:
        query = select(table).where(table.c.turn_id == row.turn_id).order_by(*order)
        return [dict(found) for found in db.execute(query).mappings()]

    answers = below(candidate, candidate.c.seq)
    for answer in answers:
        mine = evidence.c.candidate_id == answer["candidate_id"]
        seen = select(evidence).where(mine).order_by(evidence.c.rank)
        answer["evidence"] = [dict(found) for found in db.execute(seen).mappings()]
    return {
        **row._mapping,
        "prompts": below(prompt, prompt.c.prompt_sha256),
        "candidates": answers,
        "feedback": below(feedback, feedback.c.seq),
    }


def _comparable(best: Row[Any], other: Row[Any], raw: bool) -> bool:
    return (
        best.prompt_sha256 == other.prompt_sha256
        and best.outcome in WRITTEN
        and other.outcome in WRITTEN
        and _completion(best, raw) != _completion(other, raw)
    )


def _completion(answer: Row[Any], raw: bool) -> str:
    """Take what the policy wrote: an abstention's wording is the dialogue manager's."""
    if answer.outcome == "abstained":
        return ABSTAIN
    return str(answer.text if raw else answer.redacted_text)


def _prompt(found: Found, answer: Row[Any], raw: bool) -> tuple[Message, ...]:
    return _messages(found.prompts[answer.prompt_sha256], raw)


def _messages(row: Row[Any], raw: bool) -> tuple[Message, ...]:
    return tuple(
        Message(role, text) for role, text in (row.messages if raw else row.redacted_messages)
    )


def _marks(found: Found) -> dict[str, Any]:
    """Name what every sample of an event says about where it is from."""
    origin = _origin(found)
    return {
        "id": origin.event_id,
        "turn": origin.turn_id,
        "user": origin.user,
        "language": origin.language,
        "created": origin.created,
        "split": origin.split,
    }


def _origin(found: Found) -> Origin:
    event, asked = found.event, found.turn
    return Origin(
        event.event_id, event.turn_id, asked.pseudonym, found.split, asked.language, event.created
    )
