"""Finds the phrases of a policy in a text, in time linear in the text.

No regular expression over gaps: phrases are looked up word by word (Latin script) or as
substrings (Chinese), and a rule is a chain of phrase groups close to each other. So a policy
author cannot write a pattern that hangs on a hostile text.
"""

from __future__ import annotations

import itertools
import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence

_TOKEN = re.compile(r"[a-z0-9]+(?:'[a-z]{1,3})?")
_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]{1,3})?\*?")
_HAN = re.compile(r"[\u3400-\u9fff]")
_BRACES = re.compile(r"\{([^{}]*)\}")
#: A full stop inside a number or an address ends no sentence.
_BREAK = re.compile(r"[!?。！？\n]+|[.;；](?=\s|$)")
_JOINTS = " \t\n-_*\"'/"
_PREFIX = 3
_MOST = 1500
#: One hit: start, end (code points).
Hit = tuple[int, int]
#: How many first words are remembered, and how long such a word may be.
_MEMO, _MEMO_WORD = 20000, 24


def expand(phrase: str) -> list[str]:
    """`{a,b} c` -> `a c`, `b c`; an empty alternative leaves the word out."""
    parts = _BRACES.split(phrase)
    options = [p.split(",") if i % 2 else [p] for i, p in enumerate(parts)]
    if math.prod(map(len, options)) > _MOST:
        raise ValueError(f"phrase {phrase!r} stands for more than {_MOST} phrases")
    return [" ".join("".join(c).split()) for c in itertools.product(*options)]


class _Node:
    """Where a phrase may go on: word -> node; `stems` by the letters before the `*`."""

    __slots__ = ("exact", "groups", "longest", "stems")

    def __init__(self) -> None:
        self.exact: dict[str, _Node] = {}
        self.stems: dict[str, _Node] = {}
        self.longest = 0
        self.groups: list[str] = []

    def child(self, word: str) -> _Node:
        """The node behind `word`, made where there is none."""
        if not word.endswith("*"):
            return self.exact.setdefault(word, _Node())
        self.longest = max(self.longest, len(word) - 1)
        return self.stems.setdefault(word[:-1], _Node())

    def step(self, word: str) -> list[_Node]:
        """The nodes that `word` leads to."""
        out = [self.exact[word]] if word in self.exact else []
        for length in range(_PREFIX, min(len(word), self.longest) + 1):
            if word[:length] in self.stems:
                out.append(self.stems[word[:length]])
        return out


class Lexicon:
    """All phrases of a policy, indexed. A phrase's words may end in `*` (any ending)."""

    def __init__(self, groups: Mapping[str, Iterable[str]]) -> None:
        self._root = _Node()
        self._han: dict[str, list[tuple[str, str]]] = {}
        self._known: dict[str, list[_Node]] = {}
        for group, phrases in groups.items():
            for phrase in itertools.chain.from_iterable(map(expand, phrases)):
                self._add(phrase.lower(), group)

    def _add(self, phrase: str, group: str) -> None:
        if _HAN.search(phrase):
            self._han.setdefault(phrase[:2], []).append((phrase, group))
            return
        words = phrase.split()
        if not words or not all(_WORD.fullmatch(w) for w in words):
            raise ValueError(f"phrase {phrase!r} of group {group!r} is not made of words")
        if any(w.endswith("*") and len(w) <= _PREFIX for w in words):
            raise ValueError(f"phrase {phrase!r} of group {group!r}: a stem under {_PREFIX}")
        node = self._root
        for word in words:
            node = node.child(word)
        node.groups.append(group)

    def _first(self, word: str) -> list[_Node]:
        """`step` from the root, remembered: most words of a text start nothing."""
        known = self._known.get(word)
        if known is None:
            known = self._root.step(word)
            if len(word) < _MEMO_WORD and len(self._known) < _MEMO:
                self._known[word] = known
        return known

    def find(self, text: str) -> dict[str, list[Hit]]:
        """Group -> its hits in `text` (lower case), sorted by start."""
        hits: dict[str, set[Hit]] = {}
        tokens = [(m.group(), m.start(), m.end()) for m in _TOKEN.finditer(text)]
        for at, (word, start, end) in enumerate(tokens):
            nodes, follower = self._first(word), at + 1
            while nodes:
                for node in nodes:
                    for group in node.groups:
                        hits.setdefault(group, set()).add((start, end))
                if follower == len(tokens):
                    break
                word, begin, stop = tokens[follower]
                if begin - end > 3 or text[end:begin].strip(_JOINTS):
                    break
                nodes = [n for node in nodes for n in node.step(word)]
                end, follower = stop, follower + 1
        if _HAN.search(text):
            self._find_han(text, hits)
        return {group: sorted(found) for group, found in hits.items()}

    def _find_han(self, text: str, hits: dict[str, set[Hit]]) -> None:
        for at in range(len(text)):
            for key in (text[at : at + 2], text[at]):
                for phrase, group in self._han.get(key, ()):
                    if text.startswith(phrase, at):
                        hits.setdefault(group, set()).add((at, at + len(phrase)))


class Sentences:
    """Which sentence of a text an offset stands in."""

    def __init__(self, text: str) -> None:
        self._starts = [m.end() for m in _BREAK.finditer(text)]

    def of(self, offset: int) -> int:
        """Number of the sentence that holds `offset`, from 0."""
        return bisect_right(self._starts, offset)


def chain(parts: Sequence[Sequence[Hit]], within: int, sentences: Sentences | None) -> list[Hit]:
    """Stretches where one hit of each part follows the one before by at most `within` characters.

    With `sentences`, a chain stays inside one sentence. Each part is sorted by start.
    """
    reach = list(parts[0])
    for part in parts[1:]:
        by_end = sorted(reach, key=lambda hit: hit[1])
        ends = [hit[1] for hit in by_end]
        following = []
        for start, end in part:
            before = bisect_right(ends, start) - 1
            if before < 0 or start - ends[before] > within:
                continue
            first = by_end[before][0]
            if sentences is None or sentences.of(first) == sentences.of(start):
                following.append((first, end))
        reach = following
    return reach


def near(parts: Sequence[Sequence[Hit]], within: int, sentences: Sentences | None) -> list[Hit]:
    """Stretches around a hit of the rarest part with every other part at most `within` away."""
    rarest = min(parts, key=len)
    out = []
    for start, end in rarest:
        low, high = start, end
        for part in parts:
            if part is rarest:
                continue
            hit = _closest(part, start, end)
            gap = max(hit[0] - end, start - hit[1])
            apart = sentences is not None and sentences.of(hit[0]) != sentences.of(start)
            if gap > within or apart:
                break
            low, high = min(low, hit[0]), max(high, hit[1])
        else:
            out.append((low, high))
    return out


def _closest(part: Sequence[Hit], start: int, end: int) -> Hit:
    at = bisect_left(part, (start, end))
    around = part[max(0, at - 1) : at + 1]
    return min(around, key=lambda hit: max(hit[0] - end, start - hit[1]))
