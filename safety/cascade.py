"""How the verdicts of several moderators become one.

The first line judges every text. Where one of its verdicts is grey, second opinions are asked:
they can lift what is grey, and can make anything more severe; they never lift what is sure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from safety.schema import SEVERITY, Verdict, stopping

RANK = {action: rank for rank, action in enumerate(SEVERITY)}


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """The most severe verdict; a fault yields to one that stops the text for a known reason."""
    known = [v for v in verdicts if v.stops and v.category != "fault"]
    return max(known or verdicts, key=lambda v: (RANK[v.action], v.score))


def stricter(verdict: Verdict) -> Verdict:
    """A grey verdict read as a stop; one that names no category becomes a fault."""
    if verdict.stops:
        return verdict
    if verdict.category == "none":
        return replace(verdict, action="block", category="fault", reason="fault.unconfirmed")
    action = stopping(verdict.category, verdict.side)
    return replace(verdict, action=action, reason=f"{verdict.reason}.unconfirmed")


def settle(
    first: Sequence[Verdict],
    second: Sequence[Verdict] = (),
    fails: Literal["closed", "open"] = "closed",
) -> Verdict:
    """One verdict out of the first line's and the second opinions.

    Args:
        first: one verdict per first-line moderator, at least one.
        second: one per second moderator that was asked, faults included; empty if none was.
        fails: what a missing second opinion does to a grey verdict: "closed" reads it as a stop,
            "open" leaves it as the first line read it.
    """
    if not second:
        return worst(first)
    sound = [v for v in second if v.category != "fault"]
    sure = [v for v in first if not v.grey]
    grey = [v for v in first if v.grey]
    confirmed = any(v.action != "allow" or v.grey for v in sound)
    missing = len(sound) < len(second)
    if confirmed or not grey or not (sound or fails == "closed"):
        return worst([*first, *sound])
    if missing and fails == "closed":
        return worst([*sound, *sure, *(stricter(v) for v in grey)])
    return worst([*sound, *sure])
