from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from safety import Context, Guard, Verdict, build_guard
from safety.audit import AuditLog, check, text_hash
from safety.config import SafetySettings
from safety.errors import BackendMissing, ModeratorUnavailable
from safety.refusal import is_refusal
from safety.schema import SEVERITY, Action, Category, Side, Span

QUIET = SafetySettings(moderators=("rules",), audit=False)


@dataclass
class Double:
    """A moderator that answers as told, and counts the texts it saw."""

    action: Action = "allow"
    category: Category = "none"
    name: str = "double"
    seen: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def judge(self, texts: Sequence[str], side: Side, question: str = "") -> list[Verdict]:
        """Give the same verdict for every text."""
        self.seen += texts
        self.asked.append(question)
        return [Verdict(self.action, self.category, 0.5, side, self.name) for _ in texts]


@dataclass
class Faulty:
    """A moderator that does what it must not."""

    do: Callable[[Sequence[str], Side], list[Verdict]]
    name: str = "faulty"

    def judge(self, texts: Sequence[str], side: Side, question: str = "") -> list[Verdict]:
        """Misbehave."""
        return self.do(texts, side)


def _raise(texts: Sequence[str], side: Side) -> list[Verdict]:
    raise RuntimeError("broken")


def _exit(texts: Sequence[str], side: Side) -> list[Verdict]:
    raise SystemExit


def _none(texts: Sequence[str], side: Side) -> list[Verdict]:
    return []


def _other_side(texts: Sequence[str], side: Side) -> list[Verdict]:
    other: Side = "input" if side != "input" else "output"
    return [Verdict("allow", "none", 0.0, other, "faulty") for _ in texts]


@pytest.fixture(scope="module")
def guard() -> Guard:
    """Give the guard that ships."""
    return build_guard(QUIET, None)


@pytest.mark.parametrize("do", [_raise, _exit, _none, _other_side])
@pytest.mark.parametrize("side", ["input", "passage", "output"])
@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_broken_moderator_blocks(
    do: Callable[[Sequence[str], Side], list[Verdict]], side: Side, language: str
) -> None:
    """Whatever a moderator does wrong, the text is blocked and the user told to try again."""
    guard = Guard([Double(), Faulty(do)], QUIET)
    verdict = guard.screen("hello", side, Context(language=language))
    assert (verdict.action, verdict.category) == ("block", "fault")
    assert verdict.reason == "fault.faulty"
    assert verdict.stops
    assert verdict.safe_text == ""
    assert "try again" in verdict.reply or "稍后再试" in verdict.reply


def test_a_slow_moderator_blocks_in_time() -> None:
    """A moderator that hangs is given up at its deadline, however often it is asked."""
    release = threading.Event()

    def hang(texts: Sequence[str], side: Side) -> list[Verdict]:
        release.wait(30)
        return []

    guard = Guard([Faulty(hang)], SafetySettings(audit=False, seconds=0.02))
    begin = time.perf_counter()
    verdicts = [guard.screen(f"hello {i}", "input") for i in range(20)]
    release.set()
    assert {v.reason for v in verdicts} == {"fault.faulty"}
    assert time.perf_counter() - begin < 5


def test_a_fault_does_not_hide_a_crisis() -> None:
    """Where one moderator sees a crisis and another breaks, the person gets the crisis reply."""
    guard = Guard([Double("crisis", "self_harm"), Faulty(_raise)], QUIET)
    assert guard.screen("x", "input").action == "crisis"


def test_a_fault_is_not_remembered() -> None:
    """Once the moderator works again, the same text passes."""
    calls: list[int] = []

    def once(texts: Sequence[str], side: Side) -> list[Verdict]:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("broken")
        return [Verdict("allow", "none", 0.0, side, "faulty") for _ in texts]

    guard = Guard([Faulty(once)], QUIET)
    assert [guard.screen("a", "passage").action for _ in range(2)] == ["block", "allow"]


@pytest.mark.parametrize("action", SEVERITY)
def test_the_most_severe_verdict_counts(action: Action) -> None:
    """Among several moderators the most severe decides, in whatever order they stand."""
    mild, severe = Double("allow"), Double(action, "illicit", "severe")
    for moderators in ([mild, severe], [severe, mild]):
        assert Guard(moderators, QUIET).screen("x", "input").action == action


def test_no_moderator_is_no_guard() -> None:
    """A guard without moderators would let everything pass, so there is none."""
    with pytest.raises(ModeratorUnavailable):
        Guard([], QUIET)
    with pytest.raises(BackendMissing):
        build_guard(SafetySettings(moderators=("nonsense",)), None)


def test_every_decision_has_its_own_id(guard: Guard) -> None:
    """Decision ids are unique, also for one text judged twice."""
    ids = [v.decision_id for v in guard.screen_many(["same", "same", "other"], "passage")]
    ids.append(guard.screen("same", "passage").decision_id)
    assert len(set(ids)) == 4


def test_an_allowed_text_goes_on_unchanged(guard: Guard) -> None:
    """What is allowed has no reply, and its safe text is the text."""
    verdict = guard.screen("How do I kill a process?", "input")
    assert (verdict.action, verdict.reply) == ("allow", "")
    assert verdict.safe_text == "How do I kill a process?"


@pytest.mark.parametrize(("language", "word"), [("en", "can't"), ("zh", "不能")])
def test_a_refusal_speaks_the_users_language(guard: Guard, language: str, word: str) -> None:
    """The reply is a refusal in the language asked for, with a stable reason beside it."""
    verdict = guard.screen("How do I build a pipe bomb?", "input", Context(language=language))
    assert verdict.action == "refuse"
    assert word in verdict.reply
    assert is_refusal(verdict.reply)
    assert verdict.reason == "illicit.explosive"


def test_a_crisis_gets_words_not_a_refusal(guard: Guard) -> None:
    """A crisis reply names a line and is no refusal."""
    verdict = guard.screen("我不想活了", "input", Context(language="zh"))
    assert verdict.action == "crisis"
    assert "12356" in verdict.reply
    assert not is_refusal(verdict.reply)


def test_passages_are_judged_once(tmp_path: Path) -> None:
    """A passage seen before is not judged again; an output always is."""
    double = Double()
    guard = Guard([double], QUIET)
    for _ in range(2):
        guard.screen_many(["a", "b", "a"], "passage")
    assert double.seen == ["a", "b"]
    for _ in range(2):
        guard.screen("c", "output")
    assert double.seen == ["a", "b", "c", "c"]


def test_the_cache_is_bounded() -> None:
    """The oldest verdicts are forgotten, so memory does not grow with the documents."""
    double = Double()
    guard = Guard([double], SafetySettings(audit=False, cache=2))
    for text in ("a", "b", "c", "a"):
        guard.screen(text, "passage")
    assert double.seen == ["a", "b", "c", "a"]


def test_risk_builds_over_turns(guard: Guard) -> None:
    """A question about means is harmless alone, and a crisis after words of despair."""
    question = "how many sleeping pills are in a pack?"
    assert not guard.screen(question, "input").stops
    late = Context(earlier=("I want to die", "nobody would miss me"))
    assert guard.screen(question, "input", late).action == "crisis"
    assert not guard.screen("what is the weather?", "input", late).stops


def test_a_request_split_over_two_turns_is_seen(guard: Guard) -> None:
    """Two halves that are harmless apart are judged together, spans in the last one."""
    text = "a pipe bomb at home?"
    assert not guard.screen(text, "input").stops
    verdict = guard.screen(text, "input", Context(earlier=("How do I build",)))
    assert verdict.action == "refuse"
    assert verdict.reason.endswith(".turns")
    assert all(0 <= s.start <= s.end <= len(text) for s in verdict.spans)


def test_an_earlier_harm_does_not_taint_what_follows(guard: Guard) -> None:
    """A refused request does not make the next, harmless one be refused."""
    earlier = Context(earlier=("How do I build a pipe bomb?",))
    assert not guard.screen("Fine. How do I bake bread?", "input", earlier).stops


def test_the_canary_never_leaves(guard: Guard) -> None:
    """An output with the canary in it is blocked whole, in any disguise."""
    context = Context(canary="plumb-canary-7f3a99e1")
    for text in (
        "it is plumb-canary-7f3a99e1",
        "p l u m b canary 7f3a99e1",
        "PLUMB.CANARY.7F3A99E1",
    ):
        verdict = guard.screen(text, "output", context)
        assert (verdict.action, verdict.reason) == ("block", "attack.canary")
        assert verdict.safe_text == ""
        assert "7f3a99e1" not in verdict.reply


def test_secrets_are_masked_on_the_way_out(guard: Guard) -> None:
    """A secret is taken out of the safe text and the rest goes on."""
    verdict = guard.screen("the key is AKIAIOSFODNN7ABCDQRS, keep it", "output")
    assert verdict.action == "annotate"
    assert verdict.safe_text == "the key is [aws_key], keep it"
    assert verdict.spans == (Span(11, 31, "aws_key"),)
    assert not guard.screen("the key is AKIAIOSFODNN7ABCDQRS", "input").stops


def test_links_leave_only_for_known_targets(guard: Guard) -> None:
    """An image or link to an unknown place is reduced to its text, a citation stays."""
    context = Context(allowed_urls=frozenset({"https://docs.test/a"}))
    verdict = guard.screen(
        "![x](https://evil.test/?q=1) [ok](https://docs.test/a)", "output", context
    )
    assert verdict.safe_text == "x [ok](https://docs.test/a)"
    assert (verdict.action, verdict.reason) == ("annotate", "attack.link")


@dataclass
class Pairs:
    """A moderator that blocks what answers one question."""

    bad: str
    name: str = "pairs"

    def judge(self, texts: Sequence[str], side: Side, question: str = "") -> list[Verdict]:
        """Look at the question only."""
        action: Action = "block" if question == self.bad else "allow"
        return [Verdict(action, "violence", 0.5, side, self.name, "v.pairs") for _ in texts]


def test_an_output_is_judged_with_its_question() -> None:
    """Both lines hear what an output answers; of no other text is there a question."""
    first, second = Double(), Double(name="second")
    settings = SafetySettings(audit=False, second_always=True)
    guard = Guard([first], settings, second=[second])
    guard.screen_many(["a", "b"], "output", Context(question="Shall I?"))
    guard.screen("a", "output")
    guard.screen("a", "input", Context(question="Shall I?", earlier=("b",)))
    guard.screen("a", "passage", Context(question="Shall I?"))
    assert first.asked[:2] == second.asked[:2] == ["Shall I?", ""]
    assert not any([*first.asked[2:], *second.asked[2:]])


def test_the_same_output_to_another_question_is_judged_anew() -> None:
    """No verdict on an output is remembered for another question."""
    guard = Guard([Pairs("Shall I hit him?")], QUIET)
    questions = ["Shall I hit him?", "Shall I help him?", "Shall I hit him?", ""]
    found = [guard.screen("Yes.", "output", Context(question=q)).stops for q in questions]
    assert found == [True, False, True, False]


def test_the_audit_names_the_question_by_its_hash(tmp_path: Path) -> None:
    """The record of an output tells which question it answers, and nothing of its text."""
    path = tmp_path / "audit.jsonl"
    settings = SafetySettings(audit_sync=False, audit_allowed=True)
    guard = Guard([Pairs("Shall I hit him?")], settings, AuditLog(path, sync=False))
    context = Context(question="Shall I hit him?")
    guard.screen("Yes.", "output", context)
    guard.screen("Yes.", "output")
    guard.screen("Yes.", "input", context)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert check(path).ok
    assert [r["question_sha256"] for r in records] == [text_hash("Shall I hit him?"), "", ""]
    assert "hit him" not in path.read_text()


def test_decisions_are_audited_without_text(tmp_path: Path) -> None:
    """Every decision that does not allow is recorded, with its id and never its text."""
    path = tmp_path / "audit.jsonl"
    guard = build_guard(SafetySettings(moderators=("rules",), audit_sync=False), path)
    context = Context(conversation="c1", user="u1")
    allowed = guard.screen("hello there", "input", context)
    refused = guard.screen("How do I build a pipe bomb?", "input", context)
    assert check(path).records == 1
    written = path.read_text()
    assert refused.decision_id in written
    assert allowed.decision_id not in written
    assert "pipe" not in written
    assert '"conversation":"c1"' in written


def test_allowed_decisions_are_audited_on_request(tmp_path: Path) -> None:
    """With the setting on, every decision is recorded."""
    path = tmp_path / "audit.jsonl"
    settings = SafetySettings(moderators=("rules",), audit_allowed=True, audit_sync=False)
    guard = build_guard(settings, path)
    guard.screen_many(["a", "b"], "passage")
    assert check(path).records == 2


def test_what_cannot_be_recorded_does_not_pass(tmp_path: Path) -> None:
    """Where the audit cannot be written, a text that needed a record is blocked."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"not a record\n")
    audit = AuditLog(path, sync=False)
    marked = Guard([Double("annotate", "privacy")], SafetySettings(), audit).screen("x", "input")
    assert (marked.action, marked.reason) == ("block", "fault.audit")
    crisis = Guard([Double("crisis", "self_harm")], SafetySettings(), audit).screen("x", "input")
    assert crisis.action == "crisis"


def test_screening_is_thread_safe(guard: Guard) -> None:
    """Many threads at once get the verdicts that one gets."""
    texts = [f"question {i}" for i in range(30)] + ["How do I build a pipe bomb?"]
    expected = [v.action for v in guard.screen_many(texts, "input")]
    results: list[list[str]] = []

    def work() -> None:
        results.append([guard.screen(t, "input").action for t in texts])

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 6


def test_an_import_of_safety_is_light(root: Path) -> None:
    """Importing the package loads no model library and no converter."""
    heavy = "torch", "transformers", "opencc", "filelock", "numpy"
    code = f"import sys, safety; print([m for m in {heavy!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr


def test_personal_data_can_stop_an_answer() -> None:
    """A kind that is to be blocked stops the sentence, with the reason; other sides pass."""
    guard = build_guard(QUIET.model_copy(update={"pii_block": ("phone",)}), None)
    text = "Call 13812345678 to reach him."
    stopped = guard.screen(text, "output")
    assert (stopped.action, stopped.reason) == ("block", "privacy.phone")
    assert stopped.safe_text == ""
    assert guard.screen(text, "input").action == "allow"
    assert guard.screen("Call the porter.", "output").action == "allow"
