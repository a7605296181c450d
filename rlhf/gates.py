"""The gates between a candidate and the chat: each is a measure, its interval and its bound.

All is measured on held-out users and frozen prompts, against the live policy on the same prompts.
What must not get worse passes only where the interval rules a loss beyond its margin out
(non-inferiority), so few rows pass nothing. A gate that cannot be computed counts as failed, with
its reason, unless `gates.optional` names it. The gates are those of InstructGPT's and Sparrow's
evaluations, with the over-optimisation alarm of Gao et al. 2022: where the proxy (the reward model)
and the gold judge disagree in sign, the policy was trained on the proxy's faults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from assistant.config import GateSettings
from rlhf._intervals import Floats, Interval, bootstrap, calibration_error, paired, wilson

#: Every gate there is; safety also has one for each rule, named `safety.RULE`.
NAMES = (
    "win_rate",
    "reward_accuracy",
    "reward_ece",
    "safety",
    "over_refusal",
    "groundedness",
    "answers",
    "length",
    "kl",
    "sign",
    "modelling",
)


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate as data.

    `value` is None where it could not be computed. `bound` is (least, most), None for an open end;
    `reason` says in words what was compared with it. `n` counts rows.
    """

    name: str
    value: float | None
    interval: tuple[float, float] | None
    bound: tuple[float | None, float | None]
    passed: bool
    reason: str
    n: int = 0


@dataclass(frozen=True, slots=True)
class Paired:
    """One number a prompt, of the live policy and of the candidate, in the same order."""

    live: ArrayLike
    candidate: ArrayLike


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was measured; None is what was not.

    Attributes:
        against: version of the live policy that was measured beside the candidate, "" the
            settings' own.
        wins: blind comparisons (won, tied, lost) by the candidate, decided by `judge`.
        judge: who decided them; must not be the `reward_model` that the candidate was trained on.
        preferred: P(chosen over rejected) by the candidate's reward model, one a held-out pair.
        preferred_before: the same pairs by the reward model before; None where there was none.
        violations: by rule, whether an answer broke it (0 or 1).
        refused: whether an answerable, harmless prompt was refused (0 or 1).
        grounded: share of an answer's sentences that its passages support.
        answers: how right an answer is, 0 to 1.
        lengths: of the answers, in any one unit.
        kl: sum over an answer's tokens of log pi/pi_ref, in nats, drawn from the candidate.
        gold, proxy: score of the candidate's answer less the live one's, by the judge and by the
            reward model.
        modelling: loss on plain text, nats a token.
    """

    against: str = ""
    wins: tuple[int, int, int] | None = None
    judge: str = ""
    reward_model: str = ""
    preferred: ArrayLike | None = None
    preferred_before: ArrayLike | None = None
    violations: Mapping[str, Paired] = field(default_factory=dict)
    refused: Paired | None = None
    grounded: Paired | None = None
    answers: Paired | None = None
    lengths: Paired | None = None
    kl: ArrayLike | None = None
    gold: ArrayLike | None = None
    proxy: ArrayLike | None = None
    modelling: Paired | None = None


class _Missing(Exception):
    """Why a gate cannot be computed."""


def decide(evidence: Evidence, settings: GateSettings | None = None) -> tuple[Gate, ...]:
    """Compute every gate, in the order of `NAMES`."""
    own = settings or GateSettings()
    checks = {
        "win_rate": _wins,
        "reward_accuracy": _reward_accuracy,
        "reward_ece": _reward_ece,
        "over_refusal": _over_refusal,
        "groundedness": _groundedness,
        "answers": _answers,
        "length": _length,
        "kl": _kl,
        "sign": _sign,
        "modelling": _modelling,
    }
    found: list[Gate] = []
    for name in NAMES:
        if name == "safety":
            found += _safety(evidence, own)
            continue
        try:
            found.append(checks[name](evidence, own))
        except _Missing as missing:
            found.append(_unknown(name, str(missing), own))
    return tuple(found)


def failing(gates: tuple[Gate, ...]) -> list[str]:
    """Say which gates do not pass, and why; those that are not there at all do not."""
    names = {gate.name for gate in gates}
    absent = [f"{name}: was not measured" for name in NAMES if name not in names]
    return [f"{gate.name}: {gate.reason}" for gate in gates if not gate.passed] + absent


def _unknown(name: str, why: str, own: GateSettings) -> Gate:
    optional = name.split(".")[0] in own.optional
    said = f"not computed: {why}" + ("; gates.optional lets it pass" if optional else "")
    return Gate(name, None, None, (None, None), optional, said)


def _rows(values: ArrayLike | None, own: GateSettings, what: str = "rows") -> Floats:
    if values is None:
        raise _Missing("it was not measured")
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 1 or len(rows) < own.least:
        raise _Missing(f"{rows.size} {what} of the {own.least} that gates.least asks for")
    if not np.isfinite(rows).all():
        raise _Missing(f"{int((~np.isfinite(rows)).sum())} {what} are no finite numbers")
    return rows


def _pair(pair: Paired | None, own: GateSettings) -> tuple[Floats, Floats]:
    if pair is None:
        raise _Missing("it was not measured")
    live, candidate = _rows(pair.live, own, "prompts"), _rows(pair.candidate, own, "prompts")
    if len(live) != len(candidate):
        raise _Missing(f"{len(live)} prompts of the live policy, {len(candidate)} of the candidate")
    return live, candidate


def _change(pair: Paired | None, own: GateSettings, *, binary: bool) -> tuple[float, Interval, int]:
    """Mean of candidate less live, its interval, and how many prompts."""
    live, candidate = _pair(pair, own)
    value = float((candidate - live).mean())
    if not binary:
        return value, bootstrap(candidate - live, own.level, own.rounds), len(live)
    if not np.isin([live, candidate], (0.0, 1.0)).all():
        raise _Missing("rows are neither 0 nor 1")
    return value, paired(live > 0, candidate > 0, own.level), len(live)


def _no_rise(
    name: str, pair: Paired | None, margin: float, own: GateSettings, *, binary: bool
) -> Gate:
    value, interval, n = _change(pair, own, binary=binary)
    passed = interval[1] <= margin
    said = f"rises by {value:+.3f}, at most {interval[1]:+.3f}; {margin:+.3f} is allowed"
    return Gate(name, value, interval, (None, margin), passed, said, n)


def _no_fall(
    name: str, pair: Paired | None, margin: float, own: GateSettings, *, binary: bool
) -> Gate:
    value, interval, n = _change(pair, own, binary=binary)
    passed = interval[0] >= -margin
    said = f"changes by {value:+.3f}, at least {interval[0]:+.3f}; {-margin:+.3f} is allowed"
    return Gate(name, value, interval, (-margin, None), passed, said, n)


def _wins(evidence: Evidence, own: GateSettings) -> Gate:
    """Of the decided comparisons; ties say nothing about which is better."""
    if evidence.wins is None:
        raise _Missing("no answers were compared")
    if not evidence.judge or evidence.judge == evidence.reward_model:
        raise _Missing("the judge is not named, or is the reward model itself")
    won, _, lost = evidence.wins
    if min(evidence.wins) < 0 or won + lost < own.least:
        raise _Missing(f"{won + lost} decided pairs of the {own.least} that gates.least asks for")
    value, interval = won / (won + lost), wilson(won, won + lost, own.level)
    least = 0.5 - own.win_margin
    said = f"wins {value:.3f} of {won + lost}, at least {interval[0]:.3f}; {least:.3f} is needed"
    return Gate("win_rate", value, interval, (least, None), interval[0] >= least, said, won + lost)


def _reward_accuracy(evidence: Evidence, own: GateSettings) -> Gate:
    """Not lower than before by more than the margin; a first one must beat chance."""
    right = _rows(evidence.preferred, own, "pairs") > 0.5
    value, interval = float(right.mean()), wilson(int(right.sum()), len(right), own.level)
    if evidence.preferred_before is None:
        said = f"right on {value:.3f}, at least {interval[0]:.3f}; more than 0.5 is needed"
        return Gate(
            "reward_accuracy", value, interval, (0.5, None), interval[0] > 0.5, said, len(right)
        )
    before = _rows(evidence.preferred_before, own, "pairs") > 0.5
    if len(before) != len(right):
        raise _Missing(f"{len(right)} pairs now and {len(before)} before")
    least = float(before.mean()) - own.reward_margin
    said = f"right on {value:.3f}, {before.mean():.3f} before; {least:.3f} is needed"
    passed = value >= least - 1e-12
    return Gate("reward_accuracy", value, interval, (least, None), passed, said, len(right))


def _reward_ece(evidence: Evidence, own: GateSettings) -> Gate:
    """How far the probability of the likelier answer is from how often it was the better one."""
    chosen = _rows(evidence.preferred, own, "pairs")
    if ((chosen < 0) | (chosen > 1)).any():
        raise _Missing("rows are no probabilities")
    value = calibration_error(chosen > 0.5, np.maximum(chosen, 1 - chosen))
    said = f"off by {value:.3f}; {own.ece:.3f} is allowed"
    return Gate("reward_ece", value, None, (None, own.ece), value <= own.ece, said, len(chosen))


def _safety(evidence: Evidence, own: GateSettings) -> list[Gate]:
    """All rules together, and each by itself."""
    if not evidence.violations:
        return [_unknown("safety", "no rule was looked at", own)]
    found: list[Gate] = []
    try:
        rows = [_pair(pair, own) for pair in evidence.violations.values()]
        if len({len(live) for live, _ in rows}) > 1:
            raise _Missing("the rules were looked at on different prompts")
        live, candidate = (np.max([row[side] for row in rows], axis=0) for side in (0, 1))
        whole = Paired(live, candidate)
        found.append(_no_rise("safety", whole, own.safety_margin, own, binary=True))
    except _Missing as missing:
        found.append(_unknown("safety", str(missing), own))
    for rule, pair in sorted(evidence.violations.items()):
        name = f"safety.{rule}"
        try:
            found.append(_no_rise(name, pair, own.safety_margin, own, binary=True))
        except _Missing as missing:
            found.append(_unknown(name, str(missing), own))
    return found


def _over_refusal(evidence: Evidence, own: GateSettings) -> Gate:
    return _no_rise("over_refusal", evidence.refused, own.refusal_margin, own, binary=True)


def _groundedness(evidence: Evidence, own: GateSettings) -> Gate:
    return _no_fall("groundedness", evidence.grounded, own.grounded_margin, own, binary=False)


def _answers(evidence: Evidence, own: GateSettings) -> Gate:
    return _no_fall("answers", evidence.answers, own.answers_margin, own, binary=False)


def _modelling(evidence: Evidence, own: GateSettings) -> Gate:
    return _no_rise("modelling", evidence.modelling, own.modelling_margin, own, binary=False)


def _length(evidence: Evidence, own: GateSettings) -> Gate:
    """Mean against mean: longer answers please judges and reward models, whatever they say."""
    live, candidate = _pair(evidence.lengths, own)
    if live.mean() <= 0 or (live < 0).any() or (candidate < 0).any():
        raise _Missing("lengths must be positive")
    # rows of length 0 (refusals) must not make a drawn mean zero
    value = float(candidate.mean() / live.mean())
    interval = bootstrap(candidate, own.level, own.rounds, over=np.maximum(live, 1e-9))
    passed = own.length_low <= value <= own.length_high
    said = f"{value:.3f} times as long; {own.length_low:g} to {own.length_high:g} is allowed"
    bound = (own.length_low, own.length_high)
    return Gate("length", value, interval, bound, passed, said, len(live))


def _kl(evidence: Evidence, own: GateSettings) -> Gate:
    """The budget must hold at the interval's upper end."""
    rows = _rows(evidence.kl, own, "answers")
    value, interval = float(rows.mean()), bootstrap(rows, own.level, own.rounds)
    said = f"{value:.2f} nats, at most {interval[1]:.2f}; {own.kl:g} is allowed"
    return Gate("kl", value, interval, (None, own.kl), interval[1] <= own.kl, said, len(rows))


def _sign(evidence: Evidence, own: GateSettings) -> Gate:
    """The alarm of over-optimisation: the proxy says better, gold says worse, or the reverse."""
    gold, proxy = _rows(evidence.gold, own, "answers"), _rows(evidence.proxy, own, "answers")
    value, guess = float(gold.mean()), float(proxy.mean())
    interval = bootstrap(gold, own.level, own.rounds)
    passed = bool(np.sign(round(value, 9)) == np.sign(round(guess, 9)))
    said = f"gold changes by {value:+.3f}, the reward model by {guess:+.3f}"
    said += "" if passed else ": they disagree, the reward model was over-optimised; stop here"
    bound: tuple[float | None, float | None] = (0.0, None) if guess > 0 else (None, 0.0)
    return Gate("sign", value, interval, bound, passed, said, len(gold))


def as_rows(gates: tuple[Gate, ...]) -> list[dict[str, Any]]:
    """The gates as JSON-ready dicts, for a page or a table."""
    return [{name: getattr(gate, name) for name in Gate.__slots__} for gate in gates]
