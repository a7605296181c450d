"""A guard model as a moderator: windows over long texts, a deadline, one verdict per text."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from safety.config import SafetySettings
from safety.errors import ModeratorUnavailable
from safety.moderator._families import FAMILIES, Answer, Query, cut
from safety.moderator._hazards import Finding, verdict, worst
from safety.schema import Side, Verdict

logger = logging.getLogger(__name__)

#: Characters of one look at a text, how far two looks overlap, and the most looks at one text.
WINDOW, OVERLAP, MOST = 3000, 200, 64
#: Characters of the question that every look at a long answer has room for.
ASKED = 1000


class Plugin:
    """A guard behind the moderator's protocol. Thread-safe where `find` is.

    Args:
        name: the file's name.
        identity: which model judges, for the audit log.
        find: looks at one window; takes it, the side, the question that it answers ("" for none,
            together with the window `WINDOW` characters at most), and the time (monotonic) to be
            done by.
        settings: thresholds and deadlines.
    """

    def __init__(
        self,
        name: str,
        identity: str,
        find: Callable[[str, Side, str, float], Finding],
        settings: SafetySettings,
    ) -> None:
        self.name = name
        self.policy = identity
        self._find = find
        self._settings = settings

    def judge(self, texts: Sequence[str], side: Side, question: str = "") -> list[Verdict]:
        """One verdict per text; of several texts, one that cannot be judged is blocked alone.

        Of a long `question` the middle is left out, never anything of the texts.

        Raises:
            ModeratorUnavailable: no text could be judged.
        """
        deadline = time.monotonic() + patience(self._settings)
        verdicts: list[Verdict] = []
        failures: list[ModeratorUnavailable] = []
        for text in texts:
            try:
                verdicts.append(self._one(text, side, question, deadline))
            except ModeratorUnavailable as error:
                failures.append(error)
                reason = f"fault.{self.name}"
                verdicts.append(Verdict("block", "fault", 1.0, side, self.name, reason))
        if failures and len(failures) == len(texts):
            raise failures[0]
        for failure in failures:
            logger.error("guard_failed moderator=%s error=%s", self.name, failure)
        return verdicts

    def _one(self, text: str, side: Side, question: str, deadline: float) -> Verdict:
        begin = time.monotonic()
        findings = []
        asked = cut(question, max(ASKED, WINDOW - len(text))) if side == "output" else ""
        for window in windows(text, WINDOW - min(len(asked), ASKED)):
            if time.monotonic() >= deadline:
                raise late(self.name, self._settings)
            findings.append(self._find(window, side, asked, deadline))
        found = verdict(worst(findings), text, side, self.name, self._settings)
        return replace(found, seconds=time.monotonic() - begin)


def asking(
    name: str,
    identity: str,
    family: str,
    ask: Callable[[Query, float], Answer],
    settings: SafetySettings,
) -> Plugin:
    """A plug-in that asks a model of `family` (see _families) through `ask`."""
    judge = FAMILIES[family]

    def find(text: str, side: Side, question: str, deadline: float) -> Finding:
        return judge(lambda query: ask(query, deadline), text, side, settings, question)

    return Plugin(name, identity, find, settings)


def windows(text: str, size: int = WINDOW) -> list[str]:
    """The text in overlapping pieces of `size`; none where there is nothing to read.

    Raises:
        ModeratorUnavailable: it would be more than `MOST` pieces of `WINDOW`.
    """
    if not text.strip():
        return []
    most = MOST * (WINDOW - OVERLAP) + OVERLAP
    if len(text) > most:
        raise ModeratorUnavailable(
            f"a text of {len(text)} characters is too long for a guard model; {most} at most"
        )
    starts = range(0, max(1, len(text) - OVERLAP), size - OVERLAP)
    return [text[start : start + size] for start in starts]


def patience(settings: SafetySettings) -> float:
    """Seconds after which nobody waits for an answer any more, first line or second."""
    return max(settings.seconds, settings.second_seconds)


def late(name: str, settings: SafetySettings) -> ModeratorUnavailable:
    """The error of a guard that took too long."""
    return ModeratorUnavailable(
        f"{name}: no judgement within {patience(settings):g} s; raise safety.second_seconds, or "
        "use a smaller or faster guard model"
    )
