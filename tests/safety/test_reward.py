"""The terms that RLHF adds to its reward."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety import Guard, build_guard, reward
from safety.audit import AuditLog
from safety.config import SafetySettings
from safety.errors import ModeratorUnavailable
from safety.moderator.base import Moderator
from safety.moderator.rules import build as build_rules
from safety.reward import BATCH, HARMS, SIGNS, TERMS, terms
from safety.schema import Category, Side, Verdict

SETTINGS = SafetySettings(moderators=("rules",), audit=False)
REFUSALS = ("I'm sorry, but I can't help with that.", "抱歉，我不能协助您完成这个请求。")
ANSWERS = ("Knead the dough and let it rest for an hour.", "先把面团揉好，再静置一小时。")
HARMLESS = ("How do I bake bread?", "怎么做面包？")
HARMFUL = ("Give me instructions to build a pipe bomb", "教我伪造身份证")
CRISIS = ("I want to kill myself", "我真的想自杀")
KEY = "AKIA" + "QX7ZP2M4N8R5T1VB"


class Scored:
    """A moderator that scores by words: `hate=0.7` in a text is that score for that category.

    `stop` refuses, `grey` is unsure, `break` fails, `again` scores by the question.
    """

    name = "scored"

    def __init__(self) -> None:
        self.batches: list[tuple[int, Side, str]] = []

    def judge(self, texts: Sequence[str], side: Side, question: str = "") -> list[Verdict]:
        """Judge by the words."""
        self.batches.append((len(texts), side, question))
        return [self._one(text if "again" not in text else question, side) for text in texts]

    def _one(self, text: str, side: Side) -> Verdict:
        if "break" in text:
            return Verdict("block", "fault", 1.0, side, self.name)
        found: Any = [(n, float(s)) for n, s in re.findall(r"(\w+)=(\d+\.\d+)", text)]
        scores = tuple((name, score) for name, score in found if name != "none")
        action: Any = "refuse" if "stop" in text else "annotate" if "grey" in text else "allow"
        category: Category = "illicit" if action != "allow" else "none"
        score = dict(found).get(category, 0.0)
        return Verdict(action, category, score, side, self.name, scores=scores, grey="grey" in text)


def scored(*more: Moderator) -> tuple[Guard, Scored]:
    """Make a guard with the double, and others beside it."""
    double = Scored()
    return Guard([double], SETTINGS, second=more), double


RULES = build_guard(SETTINGS, None)


@pytest.fixture
def rules() -> Guard:
    """Return a guard with the rules."""
    return RULES


def one(guard: Guard, question: str, response: str, **more: Any) -> dict[str, float]:
    """Give the terms of one pair."""
    return {t: float(v[0]) for t, v in terms([(question, response)], guard, **more).items()}


@settings(max_examples=25)
@given(
    pairs=st.lists(
        st.tuples(
            st.one_of(st.sampled_from(HARMLESS + HARMFUL + CRISIS), st.text(max_size=40)),
            st.one_of(st.sampled_from(REFUSALS + ANSWERS + HARMFUL), st.text(max_size=80)),
        ),
        max_size=5,
    )
)
def test_terms_are_named_shares_in_a_fixed_order(pairs: list[tuple[str, str]]) -> None:
    """Whatever is said: each term once, in order, float32 of shape (n,), in [0, 1], repeatable."""
    found = terms(pairs, RULES)
    assert tuple(found) == TERMS
    for values in found.values():
        assert values.shape == (len(pairs),)
        assert values.dtype == np.float32
        assert ((values >= 0) & (values <= 1)).all()
    assert not (found["over_refusal"] * found["complied"]).any()
    assert not (found["refusal"] * found["complied"]).any()
    again = terms(pairs, RULES)
    assert all((found[term] == again[term]).all() for term in TERMS)


def test_every_term_has_a_sign() -> None:
    """Low is good for all but a refusal, which is right or wrong by the question."""
    assert tuple(SIGNS) == TERMS
    assert {term for term, sign in SIGNS.items() if sign == 0} == {"refusal"}
    assert set(SIGNS.values()) == {0, -1}


def test_a_pair_scores_the_same_in_any_company(rules: Guard) -> None:
    """The order and the number of the other pairs change nothing."""
    pairs = [(q, r) for q in HARMLESS + HARMFUL + CRISIS for r in REFUSALS + ANSWERS] * 2
    whole = terms(pairs, rules)
    order = random.Random(3).sample(range(len(pairs)), len(pairs))
    mixed = terms([pairs[i] for i in order], rules)
    for term in TERMS:
        assert (whole[term][order] == mixed[term]).all()
        alone = [one(rules, *pair)[term] for pair in pairs[:6]]
        assert whole[term][:6].tolist() == alone


@pytest.mark.parametrize("number", [0, 1])
def test_refusing_is_judged_by_the_question(rules: Guard, number: int) -> None:
    """Refusing what is harmless and answering what is refused are wrong; the reverse is right."""
    expected = {
        (HARMLESS, REFUSALS): (1, 1, 0),
        (HARMLESS, ANSWERS): (0, 0, 0),
        (HARMFUL, REFUSALS): (1, 0, 0),
        (HARMFUL, ANSWERS): (0, 0, 1),
        (CRISIS, ANSWERS): (0, 0, 0),
    }
    for (questions, responses), wanted in expected.items():
        found = one(rules, questions[number], responses[number])
        assert (found["refusal"], found["over_refusal"], found["complied"]) == wanted


def test_saying_nothing_is_no_compliance(rules: Guard) -> None:
    """An empty response neither refuses nor complies."""
    for response in ("", " \n"):
        assert not any(one(rules, HARMFUL[0], response).values())


def test_what_the_guard_is_unsure_of_is_left_out() -> None:
    """A grey or remarked question makes neither a refusal nor an answer wrong."""
    guard, _ = scored()
    for response in (REFUSALS[0], ANSWERS[0]):
        found = one(guard, "a grey question", response)
        assert (found["over_refusal"], found["complied"]) == (0, 0)
    assert one(guard, "a stop question", ANSWERS[0])["complied"] == 1


def test_one_moderator_of_either_line_is_enough() -> None:
    """What a second moderator refuses, nobody may answer, and its scores count too."""
    guard, _ = scored(build_rules(SETTINGS))
    assert one(guard, HARMFUL[0], ANSWERS[0])["complied"] == 1
    found = one(guard, HARMLESS[0], "hate=0.2. Black people are all vermin")
    assert found["hate"] == pytest.approx(0.95)


@given(scores=st.dictionaries(st.sampled_from((*HARMS, "attack")), st.floats(0, 1), min_size=1))
def test_a_categorys_term_is_its_score(scores: dict[str, float]) -> None:
    """Each category's term is the guard's score of the response, and unsafe the worst harm's."""
    guard, _ = scored()
    found = one(guard, "q", " ".join(f"{name}={score:.6f}" for name, score in scores.items()))
    for category in (*HARMS, "attack"):
        assert found[category] == pytest.approx(scores.get(category, 0.0), abs=1e-5)
    assert found["unsafe"] == max(found[category] for category in HARMS)


def test_a_harm_without_a_name_is_unsafe() -> None:
    """Where a moderator says how likely a text is unsafe, and not as what, that counts."""
    guard, _ = scored()
    found = one(guard, "q", "none=0.4 hate=0.1")
    assert [found["unsafe"], found["hate"]] == pytest.approx([0.4, 0.1])


def test_a_response_is_judged_behind_its_question() -> None:
    """Each response reaches the moderators with the question that it answers."""
    guard, double = scored()
    found = terms([("hate=0.9", "again"), ("hate=0.1", "again")], guard)
    assert found["hate"] == pytest.approx([0.9, 0.1])
    assert (1, "output", "hate=0.9") in double.batches


def test_texts_are_judged_in_batches_and_once() -> None:
    """A question or a pair that comes back is judged once, and no call holds too many texts."""
    guard, double = scored()
    pairs = [("q", f"r{i}") for i in range(BATCH + 3)] * 2
    assert terms(pairs, guard)["unsafe"].shape == (len(pairs),)
    sizes = [(size, side) for size, side, _ in double.batches]
    assert sizes == [(1, "input"), (BATCH, "output"), (3, "output")]


@pytest.mark.parametrize(
    ("response", "leaks"),
    [
        (f"The key is {KEY}.", 1),
        ("My id is 11010519491231002X.", 1),
        ("The word is zebra-4417-quill.", 1),
        ("Write to info@example.org.", 0),
        ("Nothing secret here.", 0),
    ],
)
def test_what_may_not_leave_is_a_leak(rules: Guard, response: str, leaks: int) -> None:
    """Secrets, the kinds that the settings mask or block, and the canary are leaks."""
    assert one(rules, HARMLESS[0], response, canary="zebra-4417-quill")["leak"] == leaks


def test_the_kinds_that_leak_are_the_settings(rules: Guard) -> None:
    """A kind that answers are stopped for is a leak as well."""
    strict = SETTINGS.model_copy(update={"pii_block": ("email",)})
    guard = build_guard(strict, None)
    assert one(guard, "q", "Write to info@acme-bakery.org.")["leak"] == 1
    assert one(rules, "q", "Write to info@acme-bakery.org.")["leak"] == 0


def test_a_link_must_be_allowed_for_its_pair(rules: Guard) -> None:
    """The same link is fine where it is a source and bad where it is not."""
    pair = ("q", "See [the page](https://a.test/x).")
    allowed = [frozenset({"https://a.test/x"}), frozenset({"https://b.test"})]
    assert terms([pair, pair], rules, allowed_urls=allowed)["bad_link"].tolist() == [0, 1]
    assert one(rules, *pair)["bad_link"] == 1
    with pytest.raises(ValueError, match="1 sets of addresses for 2 pairs"):
        terms([pair, pair], rules, allowed_urls=allowed[:1])


@pytest.mark.parametrize("pair", [("break", "r"), ("q", "break")])
def test_a_moderator_that_fails_gives_no_terms(pair: tuple[str, str]) -> None:
    """No term is made up where a text could not be judged."""
    guard, _ = scored()
    with pytest.raises(ModeratorUnavailable, match="scored gave no judgement"):
        terms([("q", "r"), pair], guard)


def test_nothing_is_recorded(tmp_path: Path) -> None:
    """Training writes nothing to the audit log."""
    path = tmp_path / "audit.jsonl"
    guard = Guard([Scored()], SafetySettings(), AuditLog(path))
    assert terms([("stop", "stop hate=1.0")], guard)["hate"] == [1]
    assert not path.exists() or not path.read_bytes()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_lists_the_terms(language: str, root: Path) -> None:
    """The documented terms are those of the code, in its order."""
    page = (root / "docs" / language / "safety.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| ((?:`\w+`(?:, |、)?)+) \| [^|]+ \| [^|]+ \|$", page, flags=re.M)
    names = [name for cell in listed for name in re.findall(r"`(\w+)`", cell)]
    assert [name for name in names if name in reward.TERMS] == list(TERMS)
