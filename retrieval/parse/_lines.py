"""Joining lines that were only broken to fit a page or a column."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

#: Below this many columns, lines are short on purpose: verse, addresses, lists.
NARROW = 40
#: Above this many columns, nobody wrapped the text: each line is a paragraph.
WIDE = 120

_IDEOGRAPH = re.compile(
    "[\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)
_PUNCTUATION = re.compile(
    "[\u3001-\u3003\u3008-\u3020\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff65]"
)
_ITEM = re.compile(
    r"(?:[-*+•·▪●○◦–—]\s|\(?\d{1,3}[.)、]\s?\D|[（(][一二三四五六七八九十\d]{1,3}[）)]"
    r"|[一二三四五六七八九十]{1,3}、|第[一二三四五六七八九十百\d]+[章节条])"
)


def _closes_up(before: str, after: str) -> bool:
    """Whether two characters stand side by side without a space in Chinese text."""
    if _PUNCTUATION.match(before) or _PUNCTUATION.match(after):
        return True
    return bool(_IDEOGRAPH.match(before) and _IDEOGRAPH.match(after))


def join_lines(lines: Iterable[str]) -> str:
    """One line from several: English joined by a space, Chinese by nothing."""
    joined = ""
    for line in lines:
        if not line:
            continue
        if joined and not _closes_up(joined[-1], line[0]):
            joined += " "
        joined += line
    return joined


def columns(text: str) -> int:
    """Width on a terminal: a full-width character counts as two."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def starts_item(line: str) -> bool:
    """Whether the line opens with a bullet or an ordinal."""
    return bool(_ITEM.match(line))


def _first_word(line: str) -> int:
    """Columns of what a typesetter would have had to fit at the end of the line before."""
    if not line:
        return 0
    if columns(line[0]) == 2:
        return 2
    return columns(line.split(" ", 1)[0])


def unwrap(lines: Sequence[str]) -> list[str]:
    """Undo hard wrapping in one paragraph's stripped lines; gives its real lines.

    A break counts as wrapping when the next line's first word would not have fitted: the test a
    typesetter makes, read backwards.
    """
    widths = [columns(line) for line in lines]
    widest = max(widths, default=0)
    if not NARROW <= widest <= WIDE:
        return list(lines)
    joined: list[list[str]] = []
    for index, line in enumerate(lines):
        wrapped = index > 0 and widths[index - 1] + _first_word(line) >= widest
        if wrapped and not starts_item(line):
            joined[-1].append(line)
        else:
            joined.append([line])
    return [join_lines(group) for group in joined]
