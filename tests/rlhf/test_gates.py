"""The gates before a promotion, and the intervals they stand on."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from assistant.config import GateSettings
from rlhf._intervals import bootstrap, calibration_error, paired, wilson
from rlhf.gates import NAMES, Evidence, Gate, Paired, as_rows, decide, failing

COUNT = 1000
DRAW = np.random.default_rng(11)
ZERO = np.zeros(COUNT)


def bits(rate: float) -> Any:
    """Rows of 0 and 1, the first `rate` of them 1."""
    rows = np.zeros(COUNT)
    rows[: int(rate * COUNT)] = 1
    return rows


def pair(live: Any, candidate: Any) -> Paired:
    """Both sides of a measure."""
    return Paired(live, candidate)


CALIBRATED = np.where(np.arange(COUNT) % 10 < 7, 0.7, 0.3)
GOOD = Evidence(
    against="",
    wins=(450, 200, 350),
    judge="gold",
    reward_model="proxy",
    preferred=CALIBRATED,
    preferred_before=CALIBRATED,
    violations={"hate": pair(ZERO, ZERO), "leaks": pair(bits(0.01), bits(0.005))},
    refused=pair(bits(0.05), bits(0.05)),
    grounded=pair(np.full(COUNT, 0.9), np.full(COUNT, 0.92)),
    answers=pair(bits(0.6), bits(0.62)),
    lengths=pair(np.full(COUNT, 100.0), np.full(COUNT, 110.0)),
    kl=DRAW.normal(4, 1, COUNT),
    gold=DRAW.normal(0.2, 1, COUNT),
    proxy=DRAW.normal(0.5, 1, COUNT),
    modelling=pair(np.full(COUNT, 3.0), np.full(COUNT, 3.01)),
)


def gate(name: str, **changed: Any) -> Gate:
    """One gate, where the evidence differs in something from a good candidate's."""
    return next(g for g in decide(replace(GOOD, **changed)) if g.name == name)


def test_a_good_candidate_passes_every_gate() -> None:
    """Each gate says its value, interval, bound and reason, and all of it is JSON."""
    gates = decide(GOOD)
    assert failing(gates) == []
    assert {g.name.split(".")[0] for g in gates} == set(NAMES)
    assert all(g.value is not None and g.reason and g.n for g in gates)
    assert json.loads(json.dumps(as_rows(gates)))[0]["name"] == "win_rate"


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("win_rate", {"wins": (410, 200, 390)}),  # ahead, but not surely
        ("win_rate", {"judge": "proxy"}),  # the reward model judges itself
        ("win_rate", {"judge": ""}),
        ("win_rate", {"wins": (60, 900, 30)}),  # ties decide nothing
        ("reward_accuracy", {"preferred": np.where(np.arange(COUNT) % 100 < 68, 0.7, 0.3)}),
        ("reward_accuracy", {"preferred": np.full(COUNT, 0.5), "preferred_before": None}),
        ("reward_ece", {"preferred": np.where(np.arange(COUNT) % 10 < 7, 0.99, 0.01)}),
        ("reward_ece", {"preferred": np.full(COUNT, 1.5)}),
        ("safety", {"violations": {"hate": pair(ZERO, bits(0.02))}}),
        ("safety.hate", {"violations": {"hate": pair(ZERO, bits(0.02))}}),
        ("safety", {"violations": {}}),
        ("safety", {"violations": {"hate": pair(ZERO[:150], ZERO[:150])}}),  # too few to know
        ("over_refusal", {"refused": pair(ZERO, bits(0.05))}),
        ("groundedness", {"grounded": pair(np.full(COUNT, 0.9), np.full(COUNT, 0.87))}),
        ("answers", {"answers": pair(bits(0.6), bits(0.57))}),
        ("length", {"lengths": pair(np.full(COUNT, 100.0), np.full(COUNT, 126.0))}),
        ("length", {"lengths": pair(np.full(COUNT, 100.0), np.full(COUNT, 79.0))}),
        ("length", {"lengths": pair(ZERO, np.full(COUNT, 79.0))}),
        ("kl", {"kl": np.full(COUNT, 10.1)}),
        ("kl", {"kl": np.full(COUNT, np.nan)}),
        ("sign", {"gold": DRAW.normal(-0.2, 1, COUNT)}),
        ("sign", {"proxy": DRAW.normal(-0.2, 1, COUNT)}),
        ("modelling", {"modelling": pair(np.full(COUNT, 3.0), np.full(COUNT, 3.1))}),
        ("answers", {"answers": pair(bits(0.6), bits(0.6)[:-1])}),
    ],
)
def test_each_gate_can_fail(name: str, changed: dict[str, Any]) -> None:
    """What a gate is for stops a candidate, with a reason, and stops it alone."""
    found = gate(name, **changed)
    assert not found.passed
    wrong = failing(decide(replace(GOOD, **changed)))
    assert any(line.startswith(f"{name}: ") for line in wrong)


def test_what_was_not_measured_fails_unless_the_settings_say_otherwise() -> None:
    """Nothing measured passes nothing but what `gates.optional` names."""
    gates = decide(Evidence())
    assert [g.name for g in gates if g.passed] == ["modelling"]
    assert all(g.value is None and g.reason.startswith("not computed: ") for g in gates)
    loose = decide(Evidence(), GateSettings(optional=NAMES))
    assert failing(loose) == []
    assert len(failing(())) == len(NAMES)


def test_a_worse_measured_gate_is_never_optional() -> None:
    """`gates.optional` lets a gate be missing, not failed."""
    evidence = replace(GOOD, modelling=pair(np.full(COUNT, 3.0), np.full(COUNT, 3.1)))
    assert failing(decide(evidence, GateSettings(optional=NAMES)))[0].startswith("modelling: ")


def test_non_inferior_by_setting() -> None:
    """With a margin the win rate need only rule a real loss out."""
    evidence = replace(GOOD, wins=(410, 200, 390))
    settings = GateSettings(win_margin=0.05)
    assert decide(evidence, settings)[0].passed
    assert not decide(replace(evidence, wins=(360, 200, 440)), settings)[0].passed


def test_784_decided_pairs_show_55_percent_at_80_percent_power() -> None:
    """The number of comparisons that the lower bound of the win rate needs."""
    won = np.random.default_rng(3).binomial(784, 0.55, 4000)
    shown = np.mean([wilson(int(w), 784)[0] >= 0.5 for w in won])
    assert 0.76 < shown < 0.84


def test_the_intervals_hold_what_they_promise() -> None:
    """Wilson, Newcombe and the bootstrap cover the truth about as often as they say."""
    draw = np.random.default_rng(5)
    hits = draw.binomial(60, 0.1, 2000)
    covered = np.mean([low <= 0.1 <= high for low, high in (wilson(int(h), 60) for h in hits)])
    assert 0.93 < covered < 0.98
    held = []
    for _ in range(1000):  # rates 0.3 and 0.2, strongly tied together
        both = draw.random(120)
        before, after = both < 0.3, both < 0.2
        after ^= draw.random(120) < 0.02
        low, high = paired(before, after)
        held.append(low <= 0.2 * 0.98 + 0.8 * 0.02 - 0.3 <= high)
    assert np.mean(held) > 0.93
    means = [bootstrap(draw.normal(1, 1, 80), rounds=400, seed=n) for n in range(300)]
    assert 0.9 < np.mean([low <= 1 <= high for low, high in means]) < 0.98


@pytest.mark.parametrize(("gained", "lost", "count"), [(12, 2, 50), (5, 0, 41), (3, 9, 200)])
def test_the_ends_of_a_paired_interval_are_what_the_score_test_just_allows(
    gained: int, lost: int, count: int
) -> None:
    """Tango's definition, with the other parameter found by search instead of by formula."""
    after = np.arange(count) < gained
    before = (np.arange(count) >= gained) & (np.arange(count) < gained + lost)

    def score(change: float) -> float:
        def unlikely(share: float) -> float:
            chances = (share + change, share, 1 - 2 * share - change)
            seen = (gained, lost, count - gained - lost)
            return -float(np.dot(seen, np.log(chances)))

        ends = (max(0.0, -change) + 1e-12, (1 - change) / 2 - 1e-12)
        share = minimize_scalar(unlikely, bounds=ends, options={"xatol": 1e-12}).x
        spread = np.sqrt(count * (2 * share + change * (1 - change)))
        return float((gained - lost - count * change) / spread)

    found = [score(end) for end in paired(before, after)]
    assert found == pytest.approx([1.959964, -1.959964], abs=1e-3)


def test_rows_alike_on_both_sides_count_by_their_number_alone() -> None:
    """A violation that both policies share is no reason to doubt the new one."""
    none, shared = np.zeros(400, bool), np.arange(400) < 3
    assert paired(none, none) == pytest.approx(paired(shared, shared))
    assert paired(none, none)[1] == pytest.approx(3.8415 / 403.8415, abs=1e-5)


def test_rows_that_all_change_end_at_one() -> None:
    """Where nothing is left to gain the bound is the whole."""
    none, all_ = np.zeros(10, bool), np.ones(10, bool)
    assert paired(none, all_)[1] == 1.0
    assert paired(all_, none)[0] == -1.0
    assert paired(none[:0], none[:0]) == (-1.0, 1.0)


def test_no_violation_in_few_prompts_shows_nothing() -> None:
    """Without one violation the bound falls with the number of prompts alone."""
    widths = [paired(np.zeros(n, bool), np.zeros(n, bool))[1] for n in (50, 200, 400)]
    assert widths[0] > widths[1] > 0.01 > widths[2]
    assert wilson(0, 0) == (0.0, 1.0)


def test_calibration_error_by_hand() -> None:
    """Nine right of ten said to be 0.9 is no error; five right is one of 0.4."""
    said = np.full(10, 0.9)
    for right, error in ((9, 0.0), (5, 0.4)):
        rows = np.arange(10) < right
        assert calibration_error(rows, said) == pytest.approx(error)
