"""Appeals: a decision is scored again with everything that is configured, and a person decides.

An appeal changes no later decision: there is no list of texts that pass. What reviewers decide
goes to a file of reviewed cases, from which the next guard can be trained.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from safety._docket import Docket
from safety._language import language_of
from safety._record import NEVER_KEPT, docket_path, pseudonym
from safety.audit import find, text_hash
from safety.cascade import worst
from safety.config import SafetySettings
from safety.errors import AppealInvalid
from safety.guard import Guard
from safety.leaks import mask
from safety.normalize import views
from safety.schema import Side, Verdict

State = Literal["open", "upheld", "overturned"]
SIDES: tuple[Side, ...] = ("input", "passage", "output")
#: Readings of one text that are scored, and the digits of an id that name a decision.
MOST_VIEWS, SHORTEST = 16, 6


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one moderator says of one reading of the text.

    `view` is raw, normalised or decoded.<how>; `spans` are (start, end, rule) in that reading.
    """

    moderator: str
    view: str
    action: str
    category: str
    score: float
    reason: str
    grey: bool
    scores: tuple[tuple[str, float], ...]
    spans: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True, slots=True)
class Appeal:
    """One appeal. `id` is the decision's; times are seconds since the epoch, 0.0 for not yet.

    `decided` and `now` are action and reason, as logged and as everything together says now.
    `text` is None where it may not be kept; `question` is what an output answers, None where it
    was not given or may not be kept.
    """

    id: str
    state: State
    at: float
    side: str
    category: str
    languages: tuple[str, ...]
    decided: tuple[str, str]
    now: tuple[str, str]
    opinions: tuple[Opinion, ...]
    text: str | None
    policy: str
    model: str
    reviewer: str = ""
    note: str = ""
    reviewed: float = 0.0
    question: str | None = None


class Appeals:
    """The appeals against the decisions of one audit log.

    Args:
        audit: the log; texts and appeals are in `appeals.db` beside it, reviewed cases in
            `reviewed.jsonl`.
        settings: how long texts are kept.

    Raises:
        AuditBroken: the file of the appeals is damaged.
    """

    def __init__(self, audit: Path, settings: SafetySettings) -> None:
        self.audit = audit
        self.queue = audit.with_name("reviewed.jsonl")
        self._settings = settings
        self._docket = Docket(docket_path(audit))
        self._docket.purge(settings.keep_texts_days, at_once=True)

    def file(
        self,
        decision: str,
        guard: Guard,
        text: str | None = None,
        question: str | None = None,
    ) -> Appeal:
        """Score a decision's text again, and put the case before a reviewer.

        Args:
            decision: the decision's id, or its beginning, at least `SHORTEST` digits.
            guard: whose moderators, of both lines, are asked.
            text: the text, where it was not kept.
            question: what an output answers, where the appeal does not hold it yet; without it
                the output is scored alone.

        Raises:
            AuditBroken: the audit log was changed, so that its record cannot be trusted.
            AppealInvalid: no such decision, no text, another text or question, or it was reviewed
                already.
        """
        record = self._record(decision)
        key = str(record["decision"])
        known = self._docket.appeals(key=key)
        if known and known[0]["state"] != "open":
            raise AppealInvalid(f"decision {key[:8]} was reviewed: it is {known[0]['state']}")
        if text is None:
            text = self._kept(record, known)
        if text_hash(text) != record["text_sha256"]:
            raise AppealInvalid(
                f"decision {key[:8]} is about a text of {record['length']} characters with "
                f"another hash than this one of {len(text)}; give it exactly as it was sent"
            )
        question = _question(question, record, known)
        side: Side = next((s for s in SIDES if s == record["side"]), "input")
        opinions, now = rescored(text, side, guard, question or "")
        banned = {record["category"], *(o.category for o in opinions)}
        content = {
            "side": side,
            "category": record["category"],
            "languages": [language_of(text)],
            "decided": [record["action"], record["reason"]],
            "now": [now.action, now.reason],
            "opinions": [asdict(o) for o in opinions],
            "policy": record["policy"],
            "model": record.get("model", ""),
        }
        kept = None if NEVER_KEPT in banned else text
        if question is not None and kept is not None:
            content["question"] = question
        self._docket.file(key, str(record.get("user", "")), kept, content)
        return self.get(key)

    def cases(self, state: State | Literal[""] = "open") -> list[Appeal]:
        """Appeals of one state ("" for all), oldest first."""
        return [_appeal(row) for row in self._docket.appeals(state)]

    def get(self, key: str) -> Appeal:
        """The appeal whose decision's id begins with `key`.

        Raises:
            AppealInvalid: there is none, or several.
        """
        found = self._docket.appeals(key=_checked(key))
        return _appeal(_only(found, f"appeal {key!r}", "`review list` names those there are"))

    def review(self, key: str, state: State, reviewer: str, note: str = "") -> Appeal:
        """Uphold or overturn a decision; the case joins the reviewed ones.

        Raises:
            AppealInvalid: no such appeal, it is not open any more, or nobody reviews it.
        """
        appeal = self.get(key)
        if state == "open" or not reviewer.strip():
            raise AppealInvalid(f"a review upholds or overturns, by name; got {state!r}")
        if not self._docket.decide(appeal.id, state, reviewer.strip(), note.strip()):
            raise AppealInvalid(f"appeal {appeal.id[:8]} was reviewed already: {appeal.state}")
        self._write_queue()
        return self.get(appeal.id)

    def forget(self, user: str) -> int:
        """Delete a user's texts and appeals, reviewed ones too; returns how many there were."""
        gone = self._docket.forget(pseudonym(self.audit, user))
        if self.queue.exists():
            self._write_queue()
        return gone

    def _record(self, decision: str) -> dict[str, Any]:
        found = find(self.audit, _checked(decision))
        return _only(found, f"decision {decision!r}", f"{self.audit} is the log that was searched")

    def _kept(self, record: dict[str, Any], known: list[dict[str, Any]]) -> str:
        key, days = str(record["decision"]), self._settings.keep_texts_days
        text = known[0]["text"] if known else self._docket.kept(key, days)
        if text is None:
            raise AppealInvalid(
                f"the text of decision {key[:8]} was not kept; give it with --text, exactly as it "
                "was sent"
            )
        return str(text)

    def _write_queue(self) -> None:
        """Write every reviewed case that has a text, afresh: nobody reads half a file."""
        lines = [
            json.dumps(_case(appeal), ensure_ascii=False)
            for appeal in self.cases("")
            if appeal.state != "open" and appeal.text is not None
        ]
        draft = self.queue.with_suffix(".part")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.queue)


def rescored(
    text: str, side: Side, guard: Guard, question: str = ""
) -> tuple[list[Opinion], Verdict]:
    """What every moderator says of every reading of the text, and the most severe of it.

    Of an output, the answer to `question`, the rules on secrets are asked too.
    """
    readings = list(islice(views(text), MOST_VIEWS))
    found = guard.opinions([r.text for r in readings], side, question)
    opinions = [
        Opinion(
            moderator=v.moderator,
            view=reading.kind,
            action=v.action,
            category=v.category,
            score=round(v.score, 4),
            reason=v.reason,
            grey=v.grey,
            scores=tuple((name, round(score, 4)) for name, score in v.scores),
            spans=tuple((s.start, s.end, s.rule) for s in v.spans),
        )
        for reading, verdicts in zip(readings, found, strict=True)
        for v in verdicts
    ]
    now = worst([v for verdicts in found for v in verdicts])
    leaks = mask(text).spans if side == "output" else ()
    if leaks:
        spans = tuple((s.start, s.end, s.rule) for s in leaks)
        reason = f"privacy.{leaks[0].rule}"
        leak = Opinion("leaks", "raw", "annotate", "privacy", 1.0, reason, False, (), spans)
        opinions.append(leak)
        if now.action == "allow":
            now = Verdict("annotate", "privacy", 1.0, side, "leaks", reason, spans=leaks)
    return opinions, now


def reviewed(path: Path) -> list[dict[str, Any]]:
    """The reviewed cases of a file, as `train guard` takes them.

    Each has `text`, `label` (the category where the decision was upheld, "none" where it was
    overturned), `languages`, `side`, `decision`, `reviewer`, `note` and `at` (ISO 8601); of an
    output also the `question`, where it was given.

    Raises:
        AppealInvalid: names the line that is no such case.
    """
    cases = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AppealInvalid(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        try:
            case = json.loads(line)
        except ValueError:
            case = None
        if not isinstance(case, dict) or not {"text", "label", "languages"} <= case.keys():
            raise AppealInvalid(f"{path} line {number} is no reviewed case; write it anew")
        cases.append(case)
    return cases


def _question(given: str | None, record: dict[str, Any], known: list[dict[str, Any]]) -> str | None:
    """The question of the decision's output: given now, or with the appeal before."""
    if given is None:
        return known[0]["record"].get("question") if known else None
    if text_hash(given) != record.get("question_sha256"):
        raise AppealInvalid(
            f"decision {str(record['decision'])[:8]} is about no answer to this question of "
            f"{len(given)} characters; give it exactly as it was sent, or leave it out"
        )
    return given


def _case(appeal: Appeal) -> dict[str, Any]:
    question = {} if appeal.question is None else {"question": appeal.question}
    return {
        **question,
        "text": appeal.text,
        "label": appeal.category if appeal.state == "upheld" else "none",
        "languages": list(appeal.languages),
        "side": appeal.side,
        "decision": appeal.id,
        "reviewer": appeal.reviewer,
        "note": appeal.note,
        "at": datetime.fromtimestamp(appeal.reviewed, UTC).isoformat(timespec="seconds"),
    }


def _appeal(row: dict[str, Any]) -> Appeal:
    content = row["record"]
    opinions = tuple(
        Opinion(**o | {name: tuple(map(tuple, o[name])) for name in ("scores", "spans")})
        for o in content["opinions"]
    )
    return Appeal(
        id=row["id"],
        state=row["state"],
        at=row["at"],
        side=content["side"],
        category=content["category"],
        languages=tuple(content["languages"]),
        decided=(content["decided"][0], content["decided"][1]),
        now=(content["now"][0], content["now"][1]),
        opinions=opinions,
        text=row["text"],
        policy=content["policy"],
        model=content["model"],
        reviewer=row["reviewer"],
        note=row["note"],
        reviewed=row["reviewed"] or 0.0,
        question=content.get("question"),
    )


def _checked(key: str) -> str:
    key = key.strip().lower()
    if len(key) < SHORTEST:
        raise AppealInvalid(f"id {key!r} is too short; give at least {SHORTEST} of its digits")
    return key


def _only(found: Sequence[dict[str, Any]], what: str, remedy: str) -> dict[str, Any]:
    if len(found) != 1:
        many = f"{len(found)} begin so; give more digits" if found else f"there is none; {remedy}"
        raise AppealInvalid(f"{what}: {many}")
    return found[0]
