"""English sentences said in other words, and made false: by rule, for the support check.

A rule takes a sentence and gives another, or None where it does not fit. What it gives need not be
elegant; it must keep the sense, or change it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

WORDS = Path(__file__).resolve().parent / "support"

Rule = Callable[[str, random.Random], str | None]


@dataclass(frozen=True, slots=True)
class Pool:
    """What may be put into a sentence to make it false.

    Names of its passage and of elsewhere, and clauses of elsewhere that could go on any sentence.
    """

    near: Sequence[str]
    far: Sequence[str]
    clauses: Sequence[str]


_SMALL = "zero one two three four five six seven eight nine ten eleven twelve".split()
_MONTHS = (
    "January February March April May June July August September October November December".split()
)
_NOT_A_ROLE = re.compile(
    r"\b(?:and|or|with|between|near|against|married|met|joined|both|like|as well as|vs)\b|^\W*$"
)
NAME = re.compile(r"\b[A-Z][\w'’.-]*[a-z](?:\s+(?:(?:of|the|de|von|van)\s+)?[A-Z][\w'’-]*[a-z])*")
_FIRST = re.compile(
    r"^(?:The|A|An|It|He|She|They|This|These|There|In|We|His|Her|Their|Its|Some|Many)\b"
)
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_SAYS = (
    "According to the passage, ", "The text says that ", "It is stated that ", "As described, ",
    "In fact, ", "Notably, ", "The document notes that ",
)  # fmt: skip


def listed(name: str) -> list[str]:
    """The lines of a file of words beside the written pairs."""
    return (WORDS / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def table(name: str) -> dict[str, tuple[str, ...]]:
    """A file of lines `a/b` as word -> its others."""
    found: dict[str, tuple[str, ...]] = {}
    for row in listed(name):
        words = row.split("/")
        for word in words:
            found[word] = (*found.get(word, ()), *(w for w in words if w != word))
    return found


def exchange(found: dict[str, tuple[str, ...]], most: int) -> Rule:
    """A rule that puts up to `most` words of a table for their others."""
    ways = "|".join(map(re.escape, sorted(found, key=len, reverse=True)))
    known = re.compile(rf"(?<![\w-])(?:{ways})(?![\w-])")

    def rule(text: str, dice: random.Random) -> str | None:
        places = list(known.finditer(text))
        for match in sorted(
            dice.sample(places, min(len(places), dice.randint(1, most))), key=lambda m: -m.start()
        ):
            other = dice.choice(found[match.group()])
            text = text[: match.start()] + other + text[match.end() :]
        return text if places else None

    return rule


def lowered(text: str) -> str:
    """A sentence as it stands inside another: its first word small where it is no name."""
    return text[0].lower() + text[1:] if _FIRST.match(text) else text


def raised(text: str) -> str:
    """With a capital at its head."""
    return text[:1].upper() + text[1:]


def _turned(text: str, dice: random.Random) -> str | None:
    """In 1999, it closed. -> It closed in 1999. And back."""
    lead = re.match(
        r"^((?:In|On|During|After|Before|At|Since|By|For)\s[^,]{3,40}), (.{15,})\.$", text
    )
    if lead:
        return f"{raised(lead[2])} {lowered(lead[1][0].lower() + lead[1][1:])}."
    tail = re.match(
        r"^(.{15,}) ((?:in|on|since|until|during) (?:[A-Z]\w+ )?\d[\w ]{1,14})\.$", text
    )
    return f"{raised(tail[2])}, {lowered(tail[1])}." if tail else None


def _active(text: str, dice: random.Random) -> str | None:
    """A was founded by B. -> B founded A."""
    found = re.match(
        r"^((?:\w[\w'’-]*\s){1,6})(?:was|were) (\w+ed) by ((?:\w[\w'’-]*\s?){1,5})([.,;].*)?$", text
    )
    return f"{raised(found[3].strip())} {found[2]} {lowered(found[1].strip())}." if found else None


def _cut(text: str, dice: random.Random) -> str | None:
    """Without what stands in brackets, beside, or behind; every part left was said."""
    ways = [
        re.sub(r"\s*\([^()]*\)", "", text),
        re.sub(r", (?:which|who|whose|where)\b[^,]{5,80}(?=,|\.$),?", "", text),
        re.sub(r"(?:;|, (?:and|but|while|whereas|although)) [^;]{12,}\.$", ".", text),
        re.sub(
            r"^(?:In|On|At|After|Before|During|As|For|However|\w+ly)\b[^,]{0,50}, (?=[a-z])",
            "",
            text,
        ),
    ]
    ways = [
        w for w in ways if 20 < len(w) < len(text) and not re.match(r"^(?:If|Unless|When)\b", text)
    ]
    return raised(dice.choice(ways)) if ways else None


def _aside(text: str, dice: random.Random) -> str | None:
    """Mara Lind, a painter, lived ... -> Mara Lind was a painter."""
    found = re.match(
        r"^([A-Z][^,]{2,40}), (an? [^,]{4,60}), (is|are|has|have|was|were|\w+ed)\b", text
    )
    if not found:
        return None
    return f"{found[1]} {'is' if found[3] in ('is', 'are', 'has', 'have') else 'was'} {found[2]}."


def _figures(text: str, dice: random.Random) -> str | None:
    """Numbers and dates written another way."""
    said = text
    text = re.sub(r"\b(\d{1,3}),(\d{3})\b(?!,)", r"\1\2", text)
    if text == said:
        text = re.sub(r"(?<![\d.,])\d{4,6}(?![\d.,s])", lambda m: _parted(m[0]), text)
    months = "|".join(_MONTHS)
    text = re.sub(rf"\b({months}) (\d{{1,2}}), (\d{{4}})", r"\2 \1 \3", text)
    if text == said:
        text = re.sub(rf"\b(\d{{1,2}}) ({months}) (\d{{4}})", r"\2 \1, \3", text)
    text = re.sub(r"(\d)%", r"\1 percent", text) if "%" in text else text
    text = re.sub(
        rf"\b({'|'.join(_SMALL[2:])})\b(?= [a-z]+s\b)", lambda m: str(_SMALL.index(m[0])), text
    )
    return text if text != said else None


def _parted(number: str) -> str:
    """1500 as it is, for it may be a year; 25000 as 25,000."""
    return number if 1000 <= int(number) <= 2100 else f"{int(number):,}"


def _short(text: str, dice: random.Random) -> str | None:
    """Mara Lind -> Lind."""
    found = re.search(r"(?<=[a-z,] )[A-Z][a-z]+ ([A-Z][a-z]+)(?=[ ,.]|['’]s)", text)
    return text[: found.start()] + found[1] + text[found.end() :] if found else None


def _told(text: str, dice: random.Random) -> str | None:
    return dice.choice(_SAYS) + lowered(text)


def _merged(text: str, dice: random.Random) -> str | None:
    """Did not -> didn't, and back."""
    verbs = "did is was are were does do has have had could would should".split()
    for a, b in [(f" {v} not ", f" {v}n't ") for v in verbs]:
        if a in text or b in text:
            return text.replace(a, b) if a in text else text.replace(b, a)
    return None


def denied(text: str, dice: random.Random) -> str | None:
    """The opposite, by a "not" more or less."""
    less = re.search(r"\b(?:not|never) |(?<=[a-z])n['’]t\b|\b(?:without|No|no)\b", text)
    if less and not re.search(r"\bnot only\b", text):
        word = {"without": "with", "No": "A", "no": "a"}.get(less.group(), "")
        return text[: less.start()] + word + text[less.end() :]
    places = list(
        re.finditer(r"\b(?:is|are|was|were|can|could|will|would|should|may|must)\b", text)
    )
    if places and dice.random() < 0.8:
        at = dice.choice(places[:2]).end()
        return f"{text[:at]} {dice.choice(('not', 'not', 'never'))}{text[at:]}"
    verb = re.search(r"(?<=[a-z] )(?!need|indeed)[a-z]+ed (?=[a-z])", text)
    if verb and not re.search(
        r"\b(?:is|are|was|were|be|been|has|have|had)\b", text[: verb.start()]
    ):
        return f"{text[: verb.start()]}never {text[verb.start() :]}"
    return None


def renumbered(text: str, dice: random.Random) -> str | None:
    """Another number."""
    places = list(_NUMBER.finditer(text))
    if not places:
        words = [w for w in _SMALL[2:] if re.search(rf"\b{w}\b", text)]
        if not words:
            return None
        word = dice.choice(words)
        return re.sub(
            rf"\b{word}\b", dice.choice([w for w in _SMALL[2:] if w != word]), text, count=1
        )
    match = dice.choice(places)
    plain = match.group().replace(",", "")
    value = float(plain)
    year = plain.isdigit() and 1000 <= value <= 2100
    other = value + dice.choice((-1, 1)) * dice.randint(1, 60 if year else max(2, int(value * 0.7)))
    other = other if other > 0 else value + 3
    shown = (
        f"{other:,.0f}"
        if "," in match.group()
        else f"{other:g}"
        if "." in plain
        else f"{other:.0f}"
    )
    return text[: match.start()] + shown + text[match.end() :]


def remonthed(text: str, dice: random.Random) -> str | None:
    """Another month."""
    held = [m for m in _MONTHS if re.search(rf"\b{m}\b(?= \d|,)", text)]
    return (
        text.replace(held[0], dice.choice([m for m in _MONTHS if m != held[0]])) if held else None
    )


def renamed(text: str, dice: random.Random, pool: Pool) -> str | None:
    """Another name, of the passage where it has one."""
    places = [m for m in NAME.finditer(text) if not _FIRST.match(m.group())]
    if not places:
        return None
    match = dice.choice(places)
    near = [n for n in pool.near if n not in text and match.group() not in n]
    others = near if near and dice.random() < 0.7 else [n for n in pool.far if n not in text]
    return text[: match.start()] + dice.choice(others) + text[match.end() :] if others else None


def swapped(text: str, dice: random.Random) -> str | None:
    """Who did it to whom, the other way round."""
    names = [m for m in NAME.finditer(text) if not _FIRST.match(m.group())]
    for one, two in pairwise(names):
        between = text[one.end() : two.start()]
        if one.group() != two.group() and not _NOT_A_ROLE.search(between) and len(between) > 5:
            return text[: one.start()] + two.group() + between + one.group() + text[two.end() :]
    return None


def extended(text: str, dice: random.Random, pool: Pool) -> str | None:
    """True, and then something that nobody said."""
    tail = (
        dice.choice(pool.clauses) if pool.clauses and dice.random() < 0.7 else dice.choice(_ADDED)
    )
    return text.rstrip(". ") + tail.rstrip(". ") + "." if text.endswith(".") else None


_ADDED = listed("added_en")
TRUE: tuple[Rule, ...] = (
    *(exchange(table("same_en"), 3),) * 4, _turned, _turned, _active, _cut, _cut, _cut, _aside,
    _figures, _figures, _short, _told, _merged,
)  # fmt: skip
opposite, remeasured = exchange(table("opposite_en"), 1), exchange(table("units_en"), 1)
#: What makes a sentence contradict its passage: rules, and how often each is tried.
FALSE: tuple[Rule, ...] = (
    denied, denied, denied, opposite, opposite, opposite, renumbered, renumbered, remonthed,
    remeasured, swapped, swapped,
)  # fmt: skip
