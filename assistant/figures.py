"""What a sentence may not say unless its passage does: numbers, and names in Latin letters.

Numbers are compared by their value: 1,000 and 1000, 1.5 million and 150万, forty-two and 四十二 and
42, February and 02 beside a day or a year. Numbers up to ten are compared only where they are
written in digits: "two brothers" may well stand for two names. A name is a capitalised word that
does not open its sentence; it is found where the passage, its title or its headings have a word
that begins alike (America, American), its nation (French, France) or its initials.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from decimal import Decimal

from retrieval.text import is_stop, language, simplified

_SCALES = {
    "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
    "千": 10**3, "万": 10**4, "亿": 10**8,
}  # fmt: skip
_WORDS = dict(
    zip(
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
        "sixteen seventeen eighteen nineteen".split(),
        range(1, 20),
        strict=True,
    )
) | dict(
    zip(
        "twenty thirty forty fifty sixty seventy eighty ninety".split(),
        range(20, 100, 10),
        strict=True,
    )
)
_HAN = {c: n for n, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_MONTHS = {
    name: str(number)
    for number, names in enumerate(
        "january,jan february,feb march,mar april,apr may june,jun july,jul august,aug "
        "september,sept,sep october,oct november,nov december,dec".split(),
        start=1,
    )
    for name in names.split(",")
}
_NATIONS = dict(
    pair.split("=")
    for pair in (
        "french=france dutch=netherlands spanish=spain british=britain swiss=switzerland "
        "greek=greece danish=denmark polish=poland welsh=wales irish=ireland scottish=scotland "
        "turkish=turkey swedish=sweden finnish=finland english=england norwegian=norway"
    ).split()
)
#: Letters in which a name and its inflections agree.
_STEM = 5
_DIGITS = re.compile(
    r"(?:\d+(?:\.\d+)?\s*[千万亿])+|(\d+(?:[.,]\d+)*)(?:[\s-]*(thousand|million|billion|trillion)\b)?",
    re.I,
)
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([千万亿])")
_SPELLED = re.compile(
    rf"(?<!\d )(?<!\d-)\b(?:{'|'.join(_WORDS)}|hundred|thousand|million)\b"
    rf"(?:(?:\s+and\s+|[\s-]+)(?:{'|'.join(_WORDS)}|hundred|thousand|million)\b)*",
    re.I,
)
_NUMERAL = re.compile(r"[零〇一二三四五六七八九十百千万亿两]{2,}")
_MONTH = re.compile(
    rf"\b({'|'.join(sorted(_MONTHS, key=len, reverse=True))})\b\.?(?=\s*\d)|"
    rf"(?<=\d)(?:st|nd|rd|th)?\s+(?:of\s+)?({'|'.join(sorted(_MONTHS, key=len, reverse=True))})\b",
    re.I,
)
_LATIN = "A-Za-z0-9\u00c0-\u024f"
_NAME = re.compile(rf"(?<![{_LATIN}'’])[A-Z\u00c0-\u00de][{_LATIN}'’-]*[{_LATIN}]")
_OPENS = re.compile(r"(?:^|[.!?:;。！？：；\n])[\s\"'“‘(（「《]*$")
_WORD = re.compile(r"[A-Za-z\u00c0-\u024f]+")


def figures(text: str) -> set[str]:
    """The values of the numbers of a text, as digits."""
    plain = simplified(unicodedata.normalize("NFKC", text))
    plain = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", plain)
    found = set()
    for match in _DIGITS.finditer(plain):
        number, scale = match.group(1), match.group(2)
        if number is None:
            parts = _PART.findall(match.group())
            found.add(_digits(sum((Decimal(n) * _SCALES[s] for n, s in parts), Decimal())))
        elif scale and number.replace(".", "", 1).isdigit():
            found.add(_digits(Decimal(number) * _SCALES[scale.lower()]))
        else:
            found.add(re.sub(r"^0+(?=\d)", "", number))
    for match in _SPELLED.finditer(plain):
        value = _spelled(match.group().lower())
        found |= {str(value)} if value > 10 else set()
    for match in _NUMERAL.finditer(plain):
        numeral = _numeral(match.group())
        found |= {str(numeral)} if numeral > 10 else set()
    for one, two in _MONTH.findall(plain):
        found.add(_MONTHS[(one or two).lower()])
    return found


def missing(text: str, body: str, around: str = "") -> bool:
    """Whether `text` has a number that `body` lacks, or a name that it and `around` lack.

    Args:
        text: a sentence.
        body: the passage.
        around: its title and headings.
    """
    return not figures(text) <= _held(body)[1] or not names(text, f"{body}\n{around}")


def names(text: str, body: str) -> bool:
    """Whether the body has the names of the text; yes where they are written in other scripts."""
    chinese = language(text) == "zh"
    if language(body) == "zh" and not chinese:
        return True
    words, values = _held(body)
    initials = {w[:_STEM] for w in words} | _initials(body)
    for match in _NAME.finditer(text):
        name = re.sub(r"['’]s?$", "", match.group()).lower()
        opens = not chinese and _OPENS.search(text[: match.start()]) is not None
        if opens and not _NAME.match(text, match.end() + 1):
            continue
        for part in re.split(r"['’-]", name):
            if len(part) < 2 or is_stop(part) or _MONTHS.get(part) in values:
                continue
            if part[:_STEM] not in initials and _NATIONS.get(part, "") not in words:
                return False
    return True


@functools.lru_cache(maxsize=64)
def _held(body: str) -> tuple[frozenset[str], frozenset[str]]:
    """(words in lower case, values of the numbers) of a passage, once for all its sentences."""
    return frozenset(w.lower() for w in _WORD.findall(body)), frozenset(figures(body))


@functools.lru_cache(maxsize=64)
def _initials(body: str) -> frozenset[str]:
    """Initials of runs of capitalised words: who reads National Park Service may say NPS."""
    runs = re.findall(r"(?:[A-Z][\w-]+(?:\s+(?:of|and|the|for)\s+|[\s-]+)?){2,8}", body)
    found = ("".join(re.findall(r"(?<![a-z])[A-Z]", run)).lower() for run in runs)
    # a run may open with a word that is no part of the name: The National Park Service
    return frozenset(word[at:][:_STEM] for word in found for at in range(len(word) - 1))


def _digits(value: Decimal) -> str:
    plain = format(value, "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def _spelled(text: str) -> int:
    """The value of "two hundred and five thousand"."""
    total = part = 0
    for word in re.findall(r"[a-z]+", text):
        if word == "hundred":
            part = max(part, 1) * 100
        elif word in _SCALES:
            total, part = total + max(part, 1) * _SCALES[word], 0
        elif word in _WORDS:
            part += _WORDS[word]
    return total + part


def _numeral(text: str) -> int:
    """The value of 三百零五 or of 一九九九; 0 where it is no number (七八十, 千万)."""
    if all(c in _HAN for c in text):
        return int("".join(str(_HAN[c]) for c in text)) if len(text) > 2 else 0
    if text[0] not in _HAN and text[0] != "十":
        return 0
    total = part = digit = 0
    for before, char in zip(" " + text, text, strict=False):
        if char in _HAN:
            if _HAN.get(before):
                return 0
            digit = _HAN[char]
        elif char in "十百千":
            part += max(digit, 1) * 10 ** ("十百千".index(char) + 1)
            digit = 0
        else:
            total, part = (total + part + digit) * _SCALES[char], 0
            digit = 0
    return total + part + digit
