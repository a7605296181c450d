"""What must not be learnt from, as the guard sees it: attacks, and what a moderator cannot judge.

Everything else that is harmful a preference may be about.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from safety.guard import Guard


def attacks(
    guard: Guard, texts: Sequence[str], side: Literal["input", "passage"] = "passage"
) -> list[str]:
    """Of each text, why it must not be learnt from, "" where it may be."""
    return [
        next((v.reason for v in said if v.stops and v.category in ("attack", "fault")), "")
        for said in guard.opinions(texts, side)
    ]
