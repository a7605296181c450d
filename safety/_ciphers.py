"""Shifted alphabets, mirrored words and words run together, told by the words they hide."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from safety._words import chinese, english, split_english

_A = "abcdefghijklmnopqrstuvwxyz"
#: Words that nearly every English sentence holds.
_COMMON = frozenset(
    "the and for that with you this are have not from your but can what how all was will would "
    "there their which about if when into they them who then than make give write create some "
    "someone to of in is it on as at be by or an my me do using without tell explain could should "
    "provide instructions people against please".split()
)
_WORD = re.compile(r"[a-z]+")
#: Where a text names the trick, it is done whatever the words look like.
_ROT13 = re.compile(r"(?i)rot[- _]?13|caesar|凯撒")
_BACKWARD = re.compile(r"(?i)\bbackwards?\b|\brevers(?:e|ed|ing)\b|倒序|反转|倒着|逆序")
_HAN_RUN = re.compile(r"[\u4e00-\u9fff]{2,}")
_HAN = re.compile(r"[\u4e00-\u9fff]")
#: Words read at most, and the share of a reading's words that must be known.
_WORDS, _SHARE = 120, 0.6
#: Neighbours in this order; the other way round the words are in reverse.
_ORDER = frozenset(
    "how to|of the|in the|on the|for the|at the|with the|from the|by the|of a|for a|with a|"
    "to make|for an|into a|into the|against the|about the|of an|to create|to write".split("|")
)


def _shifted(word: str, shift: int) -> str:
    """Letters moved on by `shift`; 26 stands for the mirrored alphabet (atbash)."""
    return word.translate(_ALPHABETS[shift])


_ALPHABETS = [
    str.maketrans(_A + _A.upper(), (_A[s:] + _A[:s]) + (_A[s:] + _A[:s]).upper()) for s in range(26)
]
_ALPHABETS.append(str.maketrans(_A + _A.upper(), _A[::-1] + _A[::-1].upper()))
_MIRROR = 27
#: A disguised common word -> the ways that bring it back: shifts, atbash, or reading backwards.
_SIGNS: dict[str, list[int]] = {}
for _word in sorted(_COMMON):
    for _shift in range(27):
        _back = -_shift % 26 if _shift < 26 else 26
        _SIGNS.setdefault(_shifted(_word, _shift), []).append(_back)
    _SIGNS.setdefault(_word[::-1], []).append(_MIRROR)


def _undo(word: str, way: int) -> str:
    return word[::-1] if way == _MIRROR else _shifted(word, way)


def _way(words: list[str]) -> int:
    """How the words are disguised, 0 for not."""
    hits: dict[int, float] = {0: 0.0}
    for word in set(words):
        for way in _SIGNS.get(word, ()):
            hits[way] = hits.get(way, 0.0) + (1.0 if len(word) > 2 else 0.5)
    if hits[0] >= 1 or len(words) < 3:
        (way, most) = max(hits.items(), key=lambda item: item[1])
        return way if most > 2 * hits[0] + 1 and len(words) >= 3 else 0
    known = english()
    long = sorted({w for w in words if len(w) > 2})
    if len(long) < 3:
        return 0
    if sum(w in known for w in long) >= 0.4 * len(long):
        return 0
    shares = {way: sum(_undo(w, way) in known for w in long) for way in range(1, _MIRROR + 1)}
    way = max(shares, key=lambda w: shares[w])
    return way if shares[way] >= max(2.0, _SHARE * len(long)) else 0


def readings(text: str) -> Iterator[tuple[str, str]]:
    """(how, plain text) for each way in which `text` as a whole is turned."""
    low = text.lower()
    words = [m.group() for m in _WORD.finditer(low, 0, 4000)][:_WORDS]
    latin = sum(map(len, words))
    way = _way(words) if latin >= len(_HAN.findall(text, 0, 4000)) else 0
    if _ROT13.search(text) and way != 13:
        yield "rot13", _shifted(text, 13)
    if _BACKWARD.search(text) and way != _MIRROR:
        yield "backward", text[::-1]
    if way == _MIRROR:
        # Letters of each word, or the line as a whole: the words are the same, in two orders.
        yield "backward", text[::-1]
        yield "backward", re.sub(r"\S+", lambda m: m.group()[::-1], text)
    elif way:
        yield "rot13" if way == 13 else "cipher", _shifted(text, way)
    elif _turned(words):
        yield "backward", " ".join(reversed(text.split(" ")))
    if len(_HAN.findall(text, 0, 400)) >= 4 and _mirrored(text):
        yield "backward", text[::-1]


def _turned(words: list[str]) -> bool:
    pairs = [f"{a} {b}" for a, b in itertools.pairwise(words)]
    back = [f"{b} {a}" for a, b in itertools.pairwise(words)]
    return sum(p in _ORDER for p in back) > sum(p in _ORDER for p in pairs)


def _mirrored(text: str) -> bool:
    """Whether the pairs of Chinese characters are words backwards rather than forwards."""
    known = chinese()
    forward = backward = 0.0
    for run in _HAN_RUN.findall(text, 0, 2000):
        for a, b in itertools.pairwise(run):
            if a != b:
                forward += max(0.0, 16 + known.get(a + b, -16.0))
                backward += max(0.0, 16 + known.get(b + a, -16.0))
    return backward > 6 and backward > 2 * forward


def parted(text: str, before: str) -> tuple[str, list[int]] | None:
    """`text` with blanks where words run together that did not in `before`; None without any."""
    out: list[str] = []
    offsets: list[int] = []
    at = 0
    for token in re.finditer(r"(?<![a-z])[a-z]{9,400}(?![a-z])", text):
        if token.group() in before or token.group() in english():
            continue
        starts = split_english(token.group())
        for start in (starts or [])[1:]:
            place = token.start() + start
            out += [*text[at:place], " "]
            offsets += [*range(at, place), place]
            at = place
    if not at:
        return None
    return "".join([*out, text[at:]]), [*offsets, *range(at, len(text) + 1)]
