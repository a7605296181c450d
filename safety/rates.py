"""How often texts are stopped, by category and language, read from the audit log.

No model is loaded, and nothing of a person is read: a line gives its side, action, category,
language and hour. The log is read once, then only what was added to it.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

HOUR = 3_600
_STOPS = (b"refuse", b"crisis", b"block", b"quarantine")
#: A record's fields are in the order of their names, so these three come first.
_HEAD = re.compile(rb'\{"action":"(\w*)","at":"(\d{4}-\d\d-\d\dT\d\d)[^"]*","category":"(\w*)",')
#: Quotes inside a value are escaped, so these stand for fields only.
_LANGUAGE = re.compile(rb',"language":"(\w*)"')
_SIDE = re.compile(rb',"side":"(\w*)"')
_TALLY = b'"kind":"tally"'


@dataclass(frozen=True, slots=True)
class Rate:
    """How many of the `judged` texts of a side and language were stopped for a category."""

    side: str
    language: str
    category: str
    stopped: int
    judged: int

    @property
    def share(self) -> float:
        """Stopped out of judged, 0 to 1."""
        return self.stopped / self.judged if self.judged else 0.0


@dataclass(frozen=True, slots=True)
class Rates:
    """The window's numbers: texts judged, texts stopped, and the rates, the most stopped first.

    `language` of a rate is "" for records of before it was written down.
    """

    days: float
    judged: int
    stopped: int
    rates: tuple[Rate, ...]


class RateReader:
    """Reads the rates of one audit log. Thread-safe; a log that is not there has none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        self._offset, self._file = 0, 0
        self._stopped: Counter[tuple[int, str, str, str]] = Counter()
        self._judged: Counter[tuple[int, str, str]] = Counter()

    def read(self, days: float = 7.0, now: float | None = None) -> Rates:
        """The rates of the last `days`, to the hour.

        Raises:
            OSError: the log cannot be read.
        """
        since = int(((time.time() if now is None else now) - days * 86_400) // HOUR)
        with self._lock:
            self._catch_up()
            judged: Counter[tuple[str, str]] = Counter()
            stopped: Counter[tuple[str, str, str]] = Counter()
            for (hour, side, language), number in self._judged.items():
                if hour >= since:
                    judged[side, language] += number
            for (hour, side, language, category), number in self._stopped.items():
                if hour >= since:
                    stopped[side, language, category] += number
        rates = [
            Rate(side, language, category, number, judged[side, language])
            for (side, language, category), number in stopped.items()
        ]
        rates.sort(key=lambda r: (-r.stopped, r.side, r.category, r.language))
        return Rates(days, judged.total(), stopped.total(), tuple(rates))

    def _catch_up(self) -> None:
        """Count the whole lines that were added since the last time."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            self._start()
            return
        with file:
            state = os.fstat(file.fileno())
            if state.st_ino != self._file or state.st_size < self._offset:
                self._start()  # another log has taken this one's place
                self._file = state.st_ino
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                self._count(line)

    def _count(self, line: bytes) -> None:
        head = _HEAD.match(line)
        if head is None:
            if _TALLY in line:
                self._count_passed(line)
            return
        side = _SIDE.search(line, head.end())
        if side is None:
            return
        language = _LANGUAGE.search(line, head.end())
        spoken = language[1].decode() if language else ""
        hour = _hour(head[2])
        self._judged[hour, side[1].decode(), spoken] += 1
        if head[1] in _STOPS:
            self._stopped[hour, side[1].decode(), spoken, head[3].decode()] += 1

    def _count_passed(self, line: bytes) -> None:
        try:
            record = json.loads(line)
            hour = _hour(record["at"][:13].encode())
            for key, number in record["passed"].items():
                side, _, language = key.partition(".")
                self._judged[hour, side, language] += int(number)
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # a torn or changed line: `verify` names it


_hours: dict[bytes, int] = {}


def _hour(stamp: bytes) -> int:
    """Hours since the epoch of `2026-11-22T07`."""
    if stamp not in _hours:
        moment = datetime.strptime(stamp.decode(), "%Y-%m-%dT%H").replace(tzinfo=UTC)
        _hours[stamp] = int(moment.timestamp()) // HOUR
    return _hours[stamp]
