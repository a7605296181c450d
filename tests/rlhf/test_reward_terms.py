from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from assistant.prompt import ABSTAIN
from rlhf.errors import RewardError
from rlhf.reward import (
    RULE,
    TERMS,
    WEIGHTS,
    Composite,
    Mix,
    Sample,
    combined,
    form,
    words,
)
from safety import build_guard
from safety import reward as rules
from safety.config import SafetySettings
from tests.rlhf.conftest import passage

PASSAGES = (passage(1), passage(2))
GOOD = Sample("What is fact 1?", "Fact 1 is so [1].", PASSAGES, True)
SAMPLES = (
    GOOD,
    Sample("What is fact 1?", ABSTAIN, PASSAGES, True),
    Sample("What is fact 9?", ABSTAIN, PASSAGES, False),
    Sample("事实九是什么？", "事实一是这样的[1]。", PASSAGES, False),
    Sample("What is fact 1?", "Fact one is so. " * 60, PASSAGES, None),
)
OWN = ("abstained", "over_refused", "made_up", "length", "format")


def preference(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """Prefer short replies."""
    return np.array([1 - len(reply) / 500 for _, reply in pairs], dtype=np.float32)


def broken(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """A network gone wrong."""
    return np.full(len(pairs), np.nan, dtype=np.float32)


def mix(**weights: float) -> Mix:
    """A mix of these terms alone."""
    return Mix(weights)


@pytest.mark.parametrize("name", ["preference", "length", "format", "made_up", "abstained"])
def test_d10_weight_0_removes_a_term_bit_exactly(name: str) -> None:
    """The rewards are those of a mix which never had the term."""
    weights = {"preference": 0.7, "length": -0.3, "format": -0.1, "made_up": -1.1, "abstained": 0.9}
    without = {k: v for k, v in weights.items() if k != name}
    off = Composite(Mix({**weights, name: 0.0}), preference=preference)(SAMPLES)
    never = Composite(Mix(without), preference=preference)(SAMPLES)
    assert off.total.tobytes() == never.total.tobytes()
    assert name not in off.terms
    assert Composite(Mix(weights), preference=preference)(SAMPLES).total.tobytes() != (
        never.total.tobytes()
    )


def test_d10_a_term_that_is_off_may_even_be_broken() -> None:
    """It is not computed, so it neither fails nor reaches the sum; on, it is named."""
    fine = Composite(mix(preference=0.0, length=-1.0), preference=broken)(SAMPLES)
    assert np.isfinite(fine.total).all()
    with pytest.raises(RewardError, match="preference is nan for reply 0"):
        Composite(mix(preference=1.0), preference=broken)(SAMPLES)


def test_d10_the_sensitivity_to_a_term_is_its_weight() -> None:
    """A finite difference in any term moves the reward by its weight, and no other reply's."""
    weights = {name: (n + 1) * 0.125 * (-1) ** n for n, name in enumerate(TERMS)}
    made = Mix(weights, clip=1e6)
    draw = np.random.default_rng(0)
    values = {name: draw.normal(size=4) for name in TERMS}
    base = combined(made, values).total
    for name in TERMS:
        moved = {**values, name: values[name] + np.array([0.0, 0.5, 0.0, 0.0])}
        change = combined(made, moved).total - base
        assert change / 0.5 == pytest.approx([0, weights[name], 0, 0], abs=1e-9)


def test_d10_every_term_is_logged() -> None:
    """Its mean, and what it adds; the parts add up to the whole."""
    found = Composite(Mix(WEIGHTS).but(support=0.0, **_no_rules()), preference=preference)(SAMPLES)
    log = found.log()
    assert {f"reward/{name}" for name in (*OWN, "preference")} <= log.keys()
    parts = [value for name, value in log.items() if name.endswith("/weighted")]
    assert sum(parts) == pytest.approx(log["reward"])


def test_d9_rewards_are_clipped_for_safety_only() -> None:
    """Nothing is clipped in a normal run; where something is, the log says how much."""
    normal = Composite(mix(preference=1.0, length=-1.0), preference=preference)(SAMPLES[:4])
    assert normal.clipped == 0
    assert normal.log()["reward/clipped"] == 0
    wild = combined(Mix({"preference": 1.0}), {"preference": np.array([50.0, 1.0, -50.0, 2.0])})
    assert wild.total.tolist() == [10.0, 1.0, -10.0, 2.0]
    assert wild.clipped == 0.5


def test_rules_are_judged_by_the_guard() -> None:
    """A reply that breaks a rule earns less than one that does not; every rule has its term."""
    guard = build_guard(SafetySettings(moderators=("rules",)), None)
    asked = "Who wrote it?"
    samples = [
        Sample(asked, "Anna wrote it [1].", PASSAGES, True),
        Sample(asked, "See ![x](https://evil.example/p.png) [1].", PASSAGES, True),
        Sample(asked, "The secret is kwxqz [1].", PASSAGES, True),
    ]
    weights = {RULE + "bad_link": -1.0, RULE + "leak": -3.0}
    found = Composite(Mix(weights), guard=guard, canary="kwxqz")(samples)
    assert found.total.tolist() == [0.0, -1.0, -3.0]
    assert {RULE + name for name in rules.TERMS} < set(TERMS)


def test_support_is_asked_of_what_is_cited() -> None:
    """The callable gets the text without its marks, and what it cites; abstaining needs none."""
    seen = []

    def support(text: str, passages: Sequence[object]) -> float:
        seen.append((text, len(passages)))
        return 0.75

    found = Composite(mix(support=2.0), support=support)(SAMPLES)
    assert seen == [("Fact 1 is so.", 1), ("事实一是这样的。", 1)]
    assert found.total.tolist() == [1.5, 0.0, 0.0, 1.5, 0.0]


def test_abstaining_is_right_only_where_there_is_no_answer() -> None:
    """Right abstention, over-refusal and made-up answers are three terms; unknown is none."""
    found = Composite(mix(abstained=1.0, over_refused=-1.0, made_up=-1.0))(SAMPLES)
    assert found.total.tolist() == [0.0, -1.0, 1.0, -1.0, 0.0]


def test_length_counts_both_languages_alike() -> None:
    """Enough words cost nothing, twice as many cost all; Han characters are weighed."""
    assert words("It was built in 1874 [12].") == 5
    assert words("它建于一八七四年[3]。") == pytest.approx(4.8)
    found = Composite(mix(length=-1.0), enough=10)(
        [Sample("?", "word " * n) for n in (0, 10, 15, 20, 90)]
    )
    assert found.total.tolist() == [0.0, 0.0, -0.5, -1.0, -1.0]


@pytest.mark.parametrize(
    ("reply", "share"),
    [
        ("Fact 1 is so [1]. Fact 2 is so [2].", 0),
        ("事实一[1]。事实二。[2]", 0),
        ("Fact 1 is so. [1] Fact 2 is so. [2]", 0),
        ("Fact 1 is so [1]. Fact 2 is so.", 1 / 3),
        ("Fact 1 is so [7].", 1 / 3),
        ("It is old [1]. It is red [1]. It is big [1]. It is his [1].", 1 / 3),
        ("It is old. It is red. It is big. It is his [9].", 1),
        ("", 1),
        (ABSTAIN, 0),
        (f"{ABSTAIN} But fact 1 is so [1].", 1),
    ],
)
def test_form(reply: str, share: float) -> None:
    """Three sentences at most, a citation behind each, of what there is; or the one word alone."""
    assert form(Sample("?", reply, PASSAGES)) == pytest.approx(share)


def test_what_cannot_be_weighed_is_refused() -> None:
    """Unknown names, weights that are no number, a clip of nothing, and terms without a judge."""
    with pytest.raises(RewardError, match="no reward term 'brevity'"):
        mix(brevity=1.0)
    with pytest.raises(RewardError, match="weight of length"):
        mix(length=float("inf"))
    with pytest.raises(RewardError, match="positive"):
        Mix({"length": 1.0}, clip=0)
    for name in ("preference", "support", RULE + "unsafe"):
        with pytest.raises(RewardError, match="nothing to judge it"):
            Composite(Mix({name: 1.0}))
    with pytest.raises(RewardError, match="no values"):
        combined(mix(length=1.0), {})


def test_nothing_to_score_gives_nothing() -> None:
    """No samples, no rewards, and a log all the same."""
    found = Composite(mix(length=1.0))(())
    assert found.total.shape == (0,)
    assert found.log()["reward"] == 0


def _no_rules() -> dict[str, float]:
    return {f"rule_{name}": 0.0 for name in rules.TERMS}
