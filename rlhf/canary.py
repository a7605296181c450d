"""A trial with a share of the conversations, decided by their thumbs at any time.

The candidate answers the conversations that a stable hash gives it. After every vote the confidence
sequence of the difference between the two shares of thumbs up is drawn again; it holds the true
difference at all times at once with probability 1 - alpha (Ville's inequality), so looking after
every vote costs nothing and stopping at any of them is right.

For each arm the Beta(1/2, 1/2) mixture of the likelihood ratio,

    M(p) = B(1/2 + up, 1/2 + down) / (B(1/2, 1/2) p^up (1 - p)^down),

is a martingale that starts at 1 where p is the arm's true rate (Robbins 1970; the conjugate mixture
of Howard, Ramdas, McAuliffe and Sekhon, Annals of Statistics 49, 2021). The product over both arms
at (p, p + d) is one too, however the votes are shared out, so that

    { d : min over p of M_live(p) M_candidate(p + d) < 1 / alpha }

is a confidence sequence for d: a mixture sequential probability ratio test, inverted. It is exact,
with no normal approximation, for independent votes of constant rates in each arm.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from math import lgamma, log
from pathlib import Path
from typing import Literal

from assistant.config import CanarySettings
from assistant.policy._promoted import Decision
from rlhf.errors import CandidateBroken, RlhfError
from rlhf.preferences_votes import Tally, votes
from rlhf.registry import Registry

logger = logging.getLogger(__name__)

WHO = "canary"
#: Halvings of an interval of length 2 at most: an edge to 3e-11, a rate (flat there) to 6e-11.
_STEPS = 36


@dataclass(frozen=True, slots=True)
class Finding:
    """What the votes say: go on, promote, or take back (`rollback`), and why.

    `interval` holds the candidate's share of thumbs up less that of the other side.
    """

    action: Literal["continue", "promote", "rollback"]
    reason: str
    live: Tally
    candidate: Tally
    interval: tuple[float, float]

    @property
    def facts(self) -> dict[str, float]:
        """The numbers, for the log of decisions."""
        return {
            "live_up": self.live.up,
            "live_down": self.live.down,
            "candidate_up": self.candidate.up,
            "candidate_down": self.candidate.down,
            "low": self.interval[0],
            "high": self.interval[1],
        }


def sequence(live: Tally, candidate: Tally, alpha: float) -> tuple[float, float]:
    """The confidence sequence of candidate's rate less live's, at these votes, within [-1, 1]."""

    def inside(gap: float) -> bool:
        return covers(live, candidate, gap, alpha)

    best = candidate.share - live.share  # the likelihood's own maximum is always inside
    return _edge(inside, best, -1.0), _edge(inside, best, 1.0)


def covers(live: Tally, candidate: Tally, gap: float, alpha: float) -> bool:
    """Whether a difference of the two rates is still in the sequence at these votes."""
    return _profile(live, candidate, gap) > _mixture(live) + _mixture(candidate) - log(1 / alpha)


def judge(live: Tally, candidate: Tally, settings: CanarySettings | None = None) -> Finding:
    """Decide a trial as of these votes; the chance of ever deciding wrongly is below alpha.

    Taken back where the candidate is surely worse, promoted where it is surely not worse by more
    than the margin, and taken back where `most` votes have not decided it.
    """
    own = settings or CanarySettings()
    interval = low, high = sequence(live, candidate, own.alpha)
    said = (
        f"{candidate.share:.3f} of {candidate.count} votes are up, {live.share:.3f} of "
        f"{live.count} on the other side; the difference is in [{low:+.3f}, {high:+.3f}]"
    )

    def finding(action: Literal["continue", "promote", "rollback"], why: str) -> Finding:
        return Finding(action, f"{why}: {said}", live, candidate, interval)

    if min(live.count, candidate.count) < own.least:
        return finding("continue", f"fewer than {own.least} votes on a side")
    if high < 0:
        return finding("rollback", "surely worse")
    if low > -own.margin:
        return finding("promote", f"surely not worse by {own.margin:g}")
    if candidate.count >= own.most:
        return finding("rollback", f"not decided by {own.most} votes")
    return finding("continue", "not decided yet")


def look(
    registry: Registry, log_path: Path, settings: CanarySettings | None = None
) -> Finding | None:
    """What the votes say now of the candidate on trial, else of the live one against the last.

    A live candidate is only ever taken back: its votes since it was promoted stand against those
    that the policy before it got until then. None where no candidate answers anybody.

    Raises:
        RlhfError: the pointer or the preference log cannot be read.
    """
    own = settings or CanarySettings()
    pointer = registry.pointer()
    live = pointer.live.id if pointer.live is not None else ""
    if (trial := pointer.trial) is not None:
        mine = votes(log_path, trial.ref.id, trial.since, per_user=own.per_user)
        theirs = votes(log_path, live, trial.since, per_user=own.per_user)
        return judge(theirs, mine, own)
    if pointer.live is None:
        return None
    last = pointer.before[0] if pointer.before else None
    mine = votes(log_path, live, pointer.since, per_user=own.per_user)
    theirs = votes(log_path, last.id if last else "", until=pointer.since, per_user=own.per_user)
    found = judge(theirs, mine, own)
    if found.action == "rollback" and found.interval[1] < 0:
        return found
    return Finding("continue", f"answers on: {found.reason}", theirs, mine, found.interval)


def consider(
    registry: Registry, log_path: Path, settings: CanarySettings | None = None
) -> tuple[Finding, Decision | None] | None:
    """Look, and carry out what was found; None where there is nothing to look at.

    Raises:
        RlhfError: the registry or the preference log cannot be used.
    """
    found = look(registry, log_path, settings)
    if found is None or found.action == "continue":
        return None if found is None else (found, None)
    pointer = registry.pointer()
    if pointer.trial is None:
        return found, registry.rollback(who=WHO, reason=found.reason, facts=found.facts)
    name = pointer.trial.ref.id
    if found.action == "rollback":
        return found, registry.end_trial(who=WHO, reason=found.reason, facts=found.facts)
    try:
        made = registry.promote(name, who=WHO, reason=found.reason, facts=found.facts)
    except CandidateBroken as error:
        logger.error("candidate not promoted id=%s reason=%s", name, error)
        made = registry.end_trial(who=WHO, reason=str(error), facts=found.facts)
    return found, made


def heard(registry: Registry, log_path: Path, settings: CanarySettings | None = None) -> None:
    """`consider` after a thumb in the chat, which must be taken whatever comes of it."""
    try:
        consider(registry, log_path, settings)
    except RlhfError as error:
        logger.error("trial not judged error=%s", error)


def _mixture(arm: Tally) -> float:
    """Log of B(1/2 + up, 1/2 + down) / B(1/2, 1/2)."""
    whole = lgamma(arm.up + 0.5) + lgamma(arm.down + 0.5) - lgamma(arm.count + 1)
    return whole - (2 * lgamma(0.5) - lgamma(1))


def _likelihood(arm: Tally, p: float) -> float:
    if (arm.up and p <= 0) or (arm.down and p >= 1):
        return float("-inf")
    return (arm.up * log(p) if arm.up else 0.0) + (arm.down * log(1 - p) if arm.down else 0.0)


def _profile(live: Tally, candidate: Tally, gap: float) -> float:
    """The largest log-likelihood of rates (p, p + gap). It is concave in p: halve by its slope."""
    low, high = max(0.0, -gap), min(1.0, 1.0 - gap)
    for _ in range(_STEPS):
        p = (low + high) / 2
        if _slope(live, p) + _slope(candidate, p + gap) > 0:
            low = p  # the likelihood still rises
        else:
            high = p
    p = (low + high) / 2
    return _likelihood(live, p) + _likelihood(candidate, min(max(p + gap, 0.0), 1.0))


def _slope(arm: Tally, p: float) -> float:
    up = arm.up / p if p > 0 else (float("inf") if arm.up else 0.0)
    down = arm.down / (1 - p) if p < 1 else (float("inf") if arm.down else 0.0)
    return up - down


def _edge(inside: Callable[[float], bool], best: float, end: float) -> float:
    """Where the interval around `best` ends towards `end`: it has no gaps, so halving finds it."""
    if inside(end):
        return end
    within, without = best, end
    for _ in range(_STEPS):
        middle = (within + without) / 2
        if inside(middle):
            within = middle
        else:
            without = middle
    return without
