"""Characters written as their parts, put together: 火乍弓单 is 炸弹."""

from __future__ import annotations

import re
from collections.abc import Iterator

from safety._words import Edge, best_words, chinese, parts

_HAN_RUN = re.compile(r"[\u2e80-\u2fdf\u3400-\u9fff\U00020000-\U0002fa1f]{2,}")
#: Log probability that a character is written as parts, where nothing says so.
_RARE = -5.0
#: Characters beside a possible whole that are read with it, and characters read at most.
_MARGIN, _MOST = 4, 4000
_LONGEST = 5


def joined(text: str) -> tuple[str, list[int]] | None:
    """`text` with parts put together, and the place of each character; None without any."""
    table = parts()
    out: list[str] = []
    offsets: list[int] = []
    at = 0
    for start, end in _windows(text):
        for low, word in _read(text[start:end], table):
            out += text[at : start + low]
            offsets += range(at, start + low)
            whole, width = word
            out.append(whole)
            offsets.append(start + low)
            at = start + low + width
    if not at:
        return None
    out += text[at:]
    return "".join(out), [*offsets, *range(at, len(text) + 1)]


def _windows(text: str) -> Iterator[tuple[int, int]]:
    """Stretches of Chinese that hold two characters which can be parts of one."""
    table = parts()
    for run in _HAN_RUN.finditer(text, 0, _MOST):
        start, end = -1, -1
        for at in range(run.start(), run.end() - 1):
            if text[at : at + 2] not in table and text[at : at + 3] not in table:
                continue
            if start >= 0 and at - _MARGIN > end:
                yield start, end
                start = -1
            if start < 0:
                start = max(run.start(), end, at - _MARGIN)
            end = min(run.end(), at + 3 + _MARGIN)
        if start >= 0:
            yield start, end


def _read(text: str, table: dict[str, str]) -> list[tuple[int, tuple[str, int]]]:
    """(place, (character, width)) of the parts that are likelier one character."""
    known = chinese()
    ways: dict[tuple[int, int, str], list[tuple[int, tuple[str, int]]]] = {}

    def edges(at: int) -> list[Edge]:
        found: dict[tuple[int, str], float] = {}
        open_: list[tuple[int, str, list[tuple[int, tuple[str, int]]]]] = [(at, "", [])]
        while open_:
            end, word, made = open_.pop()
            if word and (len(word) == 1 or word in known):
                cost = _RARE * len(made)
                if cost > found.get((end, word), -1e9):
                    found[end, word] = cost
                    ways[at, end, word] = made
            if len(word) == _LONGEST or end == len(text):
                continue
            open_.append((end + 1, word + text[end], made))
            for width in (2, 3):
                whole = table.get(text[end : end + width])
                if whole and end + width <= len(text):
                    open_.append((end + width, word + whole, [*made, (end, (whole, width))]))
        return [(end, word, cost) for (end, word), cost in found.items()]

    chain = best_words(len(text), edges)
    return [step for start, end, word in chain for step in ways.get((start, end, word), [])]
