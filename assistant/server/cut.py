"""Where an answer ends early: at a stop string, or after so many tokens.

What comes out depends on the whole text only, never on how it was cut into pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal


class Cut:
    """Text in, text out until the end. `ended` says why it ended: stop, length, or "" not yet."""

    def __init__(
        self, stops: Sequence[str], limit: int | None, count: Callable[[str], int]
    ) -> None:
        self.text = ""
        self.ended: Literal["", "stop", "length"] = ""
        self._stops = stops
        self._limit = limit
        self._count = count
        self._held = ""

    def feed(self, text: str) -> str:
        """What may be shown now; what could be the beginning of a stop string waits."""
        if self.ended:
            return ""
        held = self._held + text
        found = [(at, stop) for stop in self._stops if (at := held.find(stop)) >= 0]
        if found:
            self._held = ""
            shown = self._within(held[: min(found)[0]])
            self.ended = self.ended or "stop"
            return shown
        keep = max((_overlap(held, stop) for stop in self._stops), default=0)
        self._held = held[len(held) - keep :]
        return self._within(held[: len(held) - keep])

    def finish(self) -> str:
        """What was waiting."""
        rest, self._held = self._held, ""
        return "" if self.ended else self._within(rest)

    def _within(self, text: str) -> str:
        if self._limit is not None and self._count(self.text + text) > self._limit:
            low, high = 0, len(text)
            while low < high:
                middle = (low + high + 1) // 2
                fits = self._count(self.text + text[:middle]) <= self._limit
                low, high = (middle, high) if fits else (low, middle - 1)
            text, self.ended = text[:low], "length"
        self.text += text
        return text


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text begin the stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
