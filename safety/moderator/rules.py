"""Judges by the rules of the policy files beside this one, in every view of a text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from safety.config import SafetySettings
from safety.normalize import View, views
from safety.policy import Match, Policy, load
from safety.schema import SEVERITY, Side, Span, Verdict

FOLDER = Path(__file__).parent
FILES = ("rules_en.toml", "rules_zh.toml")
_SPANS = 16


def _lower(text: str) -> str:
    """Lower case of the same length, so that offsets hold."""
    low = text.lower()
    if len(low) != len(text):
        low = "".join(c.lower() if len(c.lower()) == 1 else c for c in text)
    return low.replace("’", "'")


class Rules:
    """The rule moderator."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    @property
    def name(self) -> str:
        """`rules`."""
        return "rules"

    @property
    def policy(self) -> str:
        """SHA-256 of the policy files."""
        return self._policy.sha256

    def judge(self, texts: Sequence[str], side: Side, question: str = "") -> list[Verdict]:
        """One verdict per text; of several rules the most severe, then the surest, counts.

        The rules are about words, whatever `question` they answer.
        """
        return [self._one(text, side) for text in texts]

    def _one(self, text: str, side: Side) -> Verdict:
        begin = time.perf_counter()
        best: tuple[tuple[int, float], Match, View] | None = None
        seen = set()
        for view in views(text):
            low = _lower(view.text)
            if low in seen:
                continue
            seen.add(low)
            for match in self._policy.match(low, side):
                rank = (SEVERITY.index(match.rule.action), match.rule.score)
                if best is None or rank > best[0]:
                    best = (rank, match, view)
        seconds = time.perf_counter() - begin
        if best is None:
            return Verdict("allow", "none", 0.0, side, self.name, safe_text=text, seconds=seconds)
        _, match, view = best
        spans = tuple(Span(*view.original(s.start, s.end), s.rule) for s in match.spans[:_SPANS])
        return Verdict(
            match.rule.action,
            match.rule.category,
            match.rule.score,
            side,
            self.name,
            reason=match.rule.id,
            safe_text=text,
            spans=spans,
            seconds=seconds,
        )


def build(settings: SafetySettings) -> Rules:
    """The moderator with the policy that ships.

    Raises:
        PolicyInvalid: a policy file does not say what it must.
    """
    return Rules(load([FOLDER / name for name in FILES]))
