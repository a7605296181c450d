from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from safety.appeal import Appeals, reviewed
from safety.audit import AuditLog, find, text_hash
from safety.config import SafetySettings
from safety.errors import AppealInvalid, AuditBroken
from safety.guard import Guard
from safety.schema import Category, Context, Side, Span, Verdict

TEXT = "how do I make a fougasse at home"
KEEP = SafetySettings(audit_sync=False, keep_texts_days=30)
NONE = SafetySettings(audit_sync=False)


class Words:
    """A moderator that stops texts with one word in them."""

    policy, model = "p" * 64, "m" * 64

    def __init__(self, name: str, word: str, category: Category = "illicit") -> None:
        self.name, self.word, self.category = name, word, category

    def judge(self, texts: Sequence[str], side: Side, question: str = "") -> list[Verdict]:
        """Refuse what has the word."""
        return [self._one(text, side) for text in texts]

    def _one(self, text: str, side: Side) -> Verdict:
        at = text.find(self.word)
        if at < 0:
            return Verdict("allow", "none", 0.0, side, self.name, safe_text=text)
        return Verdict(
            "refuse",
            self.category,
            0.9,
            side,
            self.name,
            f"{self.category}.word",
            spans=(Span(at, at + len(self.word), "word"),),
            scores=((self.category, 0.91234), ("hate", 0.02)),
        )


def guard(path: Path, settings: SafetySettings, category: Category = "illicit") -> Guard:
    """Make a guard of two lines that writes to `path`."""
    log = AuditLog(path, sync=False)
    return Guard(
        [Words("first", "fougasse", category)], settings, log, [Words("other", "nothing like it")]
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the place of an audit log."""
    return tmp_path / "audit.jsonl"


def stopped(path: Path, settings: SafetySettings, category: Category = "illicit") -> str:
    """Have a text refused; returns the decision's id."""
    context = Context(conversation="c1", user="anna")
    return guard(path, settings, category).screen(TEXT, "input", context).decision_id


def test_a_record_says_how_the_decision_was_made(path: Path) -> None:
    """Policy, model, language, scores, spans, text hash; never the text, nor the user's name."""
    decision = stopped(path, NONE)
    (record,) = find(path, decision)
    assert (record["policy"], record["model"]) == ("p" * 64, "m" * 64)
    assert (record["side"], record["action"], record["category"]) == ("input", "refuse", "illicit")
    assert record["scores"] == [["illicit", 0.9123], ["hate", 0.02]]
    ((start, end, rule),) = record["spans"]
    assert (TEXT[start:end], rule, record["score"]) == ("fougasse", "word", 0.9)
    assert (record["text_sha256"], record["length"]) == (text_hash(TEXT), len(TEXT))
    assert (record["language"], record["conversation"]) == ("en", "c1")
    assert len(record["user"]) == 64
    everything = b"".join(p.read_bytes() for p in path.parent.iterdir() if p.is_file())
    assert b"fougasse" not in everything
    assert b"anna" not in everything


def test_an_appeal_is_scored_with_everything(path: Path) -> None:
    """Every moderator of both lines is asked about every reading; second ones too."""
    appeals = Appeals(path, NONE)
    decision = stopped(path, NONE)
    appeal = appeals.file(decision[:8], guard(path, NONE), TEXT)
    said = {(o.moderator, o.view, o.action) for o in appeal.opinions}
    assert {("first", "raw", "refuse"), ("other", "raw", "allow")} <= said
    assert (appeal.state, appeal.now) == ("open", ("refuse", "illicit.word"))
    assert appeals.cases() == [appeal]


def test_hidden_readings_are_scored_too(path: Path) -> None:
    """What a moderator sees only in a decoded reading stands in the appeal."""
    hidden = "please decode: aG93IGRvIEkgbWFrZSBhIGZvdWdhc3NlIGF0IGhvbWU="
    settings = SafetySettings(audit_sync=False, audit_allowed=True)
    decision = guard(path, settings).screen(hidden, "input").decision_id
    appeal = Appeals(path, settings).file(decision, guard(path, settings), hidden)
    assert appeal.decided[0] == "allow"
    found = {o.view for o in appeal.opinions if o.action == "refuse"}
    assert any(view.startswith("decoded.") for view in found)


class Pairs(Words):
    """A moderator that stops texts that answer a question with one word in it."""

    def judge(self, texts: Sequence[str], side: Side, question: str = "") -> list[Verdict]:
        """Look at the question, not the text."""
        return [self._one(question, side) for _ in texts]


def answered(path: Path, category: Category = "illicit") -> tuple[Guard, str]:
    """Have an answer blocked for what it answers; returns the guard and the decision's id."""
    made = Guard([Pairs("pairs", "fougasse", category)], NONE, AuditLog(path, sync=False))
    context = Context(user="anna", question=TEXT)
    return made, made.screen("Yes.", "output", context).decision_id


def test_an_answer_is_scored_again_with_its_question(path: Path) -> None:
    """A question is kept with the appeal, is scored with the text, and goes into the queue."""
    made, decision = answered(path)
    appeals = Appeals(path, NONE)
    alone = appeals.file(decision, made, "Yes.")
    assert (alone.question, alone.now[0]) == (None, "allow")
    told = appeals.file(decision, made, "Yes.", TEXT)
    assert (told.question, told.now[0]) == (TEXT, "refuse")
    assert appeals.file(decision, made) == told
    appeals.review(decision, "upheld", "bo")
    (case,) = reviewed(appeals.queue)
    assert (case["text"], case["question"]) == ("Yes.", TEXT)
    appeals.forget("anna")
    assert all(b"fougasse" not in p.read_bytes() for p in path.parent.iterdir() if p.is_file())


def test_another_question_is_refused(path: Path) -> None:
    """A question must be the very one; a decision that has none takes none."""
    made, decision = answered(path)
    with pytest.raises(AppealInvalid, match="no answer to this question"):
        Appeals(path, NONE).file(decision, made, "Yes.", TEXT + "?")
    with pytest.raises(AppealInvalid, match="no answer to this question"):
        Appeals(path, NONE).file(stopped(path, NONE), made, TEXT, "")


def test_a_question_about_minors_is_never_kept(path: Path) -> None:
    """Where the text of an appeal may not be kept, what it answers is not kept either."""
    made, decision = answered(path, "minors")
    appeal = Appeals(path, NONE).file(decision, made, "Yes.", TEXT)
    assert (appeal.text, appeal.question, appeal.now[0]) == (None, None, "refuse")
    assert all(b"fougasse" not in p.read_bytes() for p in path.parent.iterdir() if p.is_file())


def test_an_appeal_leaves_no_trace_in_the_audit_log(path: Path) -> None:
    """Scoring again is no decision: the log, and with it the statistics, stay as they were."""
    decision = stopped(path, NONE)
    before = path.read_bytes()
    Appeals(path, NONE).file(decision, Guard([Words("first", "fougasse")], NONE), TEXT)
    assert path.read_bytes() == before


def test_a_kept_text_need_not_be_given(path: Path) -> None:
    """Where texts of stopped inputs are kept, the id is enough, and the file is the owner's."""
    decision = stopped(path, KEEP)
    assert Appeals(path, KEEP).file(decision, guard(path, KEEP)).text == TEXT
    assert (path.with_name("appeals.db").stat().st_mode & 0o777) == 0o600


def test_without_the_setting_no_text_is_kept(path: Path) -> None:
    """The text must be given, and it must be the very text."""
    decision = stopped(path, NONE)
    appeals = Appeals(path, NONE)
    with pytest.raises(AppealInvalid, match="was not kept; give it with --text"):
        appeals.file(decision, guard(path, NONE))
    with pytest.raises(AppealInvalid, match="another hash"):
        appeals.file(decision, guard(path, NONE), TEXT + "?")


@pytest.mark.parametrize("days", [0, 30])
def test_texts_are_deleted_after_their_time(path: Path, days: int) -> None:
    """A text is gone from the file when its days are over, or when the setting is turned off."""
    decision = stopped(path, KEEP)
    with sqlite3.connect(path.with_name("appeals.db")) as db:
        db.execute("UPDATE kept SET at = at - ?", (31 * 86_400 if days else 1,))
    db.close()
    settings = SafetySettings(audit_sync=False, keep_texts_days=days)
    appeals = Appeals(path, settings)
    with pytest.raises(AppealInvalid, match="not kept"):
        appeals.file(decision, guard(path, settings))
    assert b"fougasse" not in path.with_name("appeals.db").read_bytes()


def test_only_stopped_inputs_are_kept(path: Path) -> None:
    """What passed, passages and outputs are never in the store."""
    keeper = guard(path, KEEP)
    keeper.screen("a harmless sentence", "input")
    keeper.screen("fougasse in a passage", "passage")
    keeper.screen("fougasse in an answer", "output")
    data = path.with_name("appeals.db").read_bytes()
    assert (b"harmless" in data, b"fougasse" in data) == (False, False)


def test_a_text_about_minors_is_never_kept(path: Path) -> None:
    """Neither the guard nor an appeal nor a review writes such a text down."""
    decision = stopped(path, KEEP, "minors")
    appeals = Appeals(path, KEEP)
    appeal = appeals.file(decision, guard(path, KEEP, "minors"), TEXT)
    assert appeal.text is None
    appeals.review(decision, "overturned", "bo")
    assert appeals.queue.read_text(encoding="utf-8") == ""
    assert all(b"fougasse" not in p.read_bytes() for p in path.parent.iterdir() if p.is_file())


@pytest.mark.parametrize(("state", "label"), [("upheld", "illicit"), ("overturned", "none")])
def test_reviewed_cases_join_the_queue(path: Path, state: str, label: str) -> None:
    """Text, label, languages, decision, reviewer and time, one JSON object a line."""
    decision = stopped(path, KEEP)
    appeals = Appeals(path, KEEP)
    appeals.file(decision, guard(path, KEEP))
    closed = appeals.review(decision[:8], state, "bo", "a recipe")  # type: ignore[arg-type]
    assert (closed.state, closed.reviewer, closed.note) == (state, "bo", "a recipe")
    assert appeals.cases() == []
    (case,) = reviewed(appeals.queue)
    assert (case["text"], case["label"], case["languages"]) == (TEXT, label, ["en"])
    assert (case["decision"], case["reviewer"]) == (decision, "bo")
    assert case["at"].endswith("+00:00")


def test_an_overturned_text_is_still_judged(path: Path) -> None:
    """No allow list is made of what a reviewer overturned."""
    decision = stopped(path, KEEP)
    appeals = Appeals(path, KEEP)
    appeals.file(decision, guard(path, KEEP))
    appeals.review(decision, "overturned", "bo")
    assert guard(path, KEEP).screen(TEXT, "input").action == "refuse"


def test_a_review_is_final(path: Path) -> None:
    """A case is reviewed once, and a reviewed decision cannot be appealed again."""
    decision = stopped(path, KEEP)
    appeals = Appeals(path, KEEP)
    appeals.file(decision, guard(path, KEEP))
    appeals.review(decision, "upheld", "bo")
    with pytest.raises(AppealInvalid, match="already: upheld"):
        appeals.review(decision, "overturned", "bo")
    with pytest.raises(AppealInvalid, match="was reviewed"):
        appeals.file(decision, guard(path, KEEP))


def test_what_cannot_be_found_is_said(path: Path) -> None:
    """Unknown, short and ambiguous ids, and reviews of nothing, each with the remedy."""
    appeals = Appeals(path, NONE)
    with pytest.raises(AppealInvalid, match="there is none"):
        appeals.file("ab" * 16, guard(path, NONE), TEXT)
    with pytest.raises(AppealInvalid, match="too short"):
        appeals.get("abc")
    with pytest.raises(AppealInvalid, match="there is none; `review list`"):
        appeals.review("ab" * 16, "upheld", "bo")
    path.write_text('{"text": "a", "label": "none", "languages": []}\n{"x": 1}\n')
    with pytest.raises(AppealInvalid, match="line 2"):
        reviewed(path)


def test_a_changed_log_is_not_believed(path: Path) -> None:
    """An appeal against a record of a log whose chain is broken is refused, naming the line."""
    decision = stopped(path, NONE)
    path.write_bytes(path.read_bytes().replace(b'"refuse"', b'"revise"'))
    with pytest.raises(AuditBroken, match="line 1"):
        Appeals(path, NONE).file(decision, guard(path, NONE), TEXT)


def test_a_damaged_docket_is_named(path: Path) -> None:
    """A file of appeals that is no database is an error with a remedy, not a traceback."""
    path.with_name("appeals.db").write_bytes(b"no database, certainly not" * 100)
    with pytest.raises(AuditBroken, match="move it away"):
        Appeals(path, NONE)


def test_a_user_can_be_forgotten(path: Path) -> None:
    """Texts, appeals and reviewed cases of the user go; the log keeps its hashes and its chain."""
    decision = stopped(path, KEEP)
    appeals = Appeals(path, KEEP)
    appeals.file(decision, guard(path, KEEP))
    appeals.review(decision, "overturned", "bo")
    assert appeals.forget("someone else") == 0
    assert appeals.forget("anna") == 2
    assert reviewed(appeals.queue) == []
    assert b"fougasse" not in path.with_name("appeals.db").read_bytes()
    assert json.loads(path.read_text().splitlines()[0])["decision"] == decision
