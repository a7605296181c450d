"""Rows that the support check learns from: a sentence, a window of a passage, and what it says.

Supported: sentences of the passage as they stand, in other words (`_support_english`,
`_support_chinese`), questions with their answers as statements (`_support_asked`), and what was
written by hand. Contradicted: the same sentences and statements made false. Neither: sentences of
other passages on the same subject, true ones with something added that nobody said, answers to
questions that the passage does not answer. A sentence is made false after it was put in other
words, so that the wording gives nothing away. Across languages: aligned sentences of the Python
documentation, translated questions with their answers, and English with its words exchanged.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from assistant.errors import ConfigError
from assistant.fit import _support_asked as statements
from assistant.fit import _support_chinese as han
from assistant.fit import _support_english as latin
from assistant.fit._support_english import Pool, Rule
from assistant.fit._support_places import LONG, SHORT, Place, read
from assistant.fit.base import apart
from assistant.support import kind, units, windows
from retrieval.fit._glossary import Switch, glossary
from retrieval.text import is_han, language, simplified

WRITTEN = Path(__file__).resolve().parent / "support"
UNKNOWN, NO, YES = -1, 0, 1
#: labels of HEADS: supported, contradicted, answers.
SAID, OPPOSED, APART, UNSAID = (
    (YES, NO, UNKNOWN), (NO, YES, UNKNOWN), (NO, NO, UNKNOWN), (NO, UNKNOWN, UNKNOWN)
)  # fmt: skip
ANSWERS, UNANSWERED = (UNKNOWN, UNKNOWN, YES), (UNKNOWN, UNKNOWN, NO)
#: Pairs of the Python documentation, and the share of English rows that are mixed.
ALIGNED, SWITCHED = 2_500, 0.07


@dataclass(frozen=True, slots=True)
class Row:
    """One pair. `labels` follows `assistant.support.HEADS`: 1, 0, or -1 where unknown."""

    claim: str
    window: str
    labels: tuple[int, int, int]
    source: str
    group: str

    @property
    def kind(self) -> str:
        """The pair's languages."""
        return kind(self.claim, self.window)

    @property
    def held_out(self) -> bool:
        """Whether the row is for calibration, with all rows of its group."""
        return apart(self.group)


def rows(places: Sequence[Place], data: Path, seed: int = 7) -> Iterator[Row]:
    """All rows of passages, of the data folder's parallel text, and of this folder's support/.

    Raises:
        ConfigError: a training file is missing or malformed.
    """
    yield from written(WRITTEN)
    by_group: dict[str, list[Place]] = defaultdict(list)
    for place in places:
        by_group[place.group].append(place)
    pools = {tongue: _far(places, tongue) for tongue in ("en", "zh")}
    switch = Switch(glossary())
    for place in places:
        # what a place gives does not depend on the others but through what is put in
        dice = random.Random(f"{seed}{place.text[:80]}{place.source}")
        beside = [p for p in by_group[place.group] if p is not place]
        for row in made(place, beside, pools[language(place.text)], dice):
            yield row
            if kind(row.claim, row.window) == "en" and dice.random() < SWITCHED:
                mixed = switch(row.claim, dice.choice((0.8, 0.95, 1.0)), dice)
                if kind(mixed, row.window) == "cross":
                    labels = row.labels if row.labels != OPPOSED else UNSAID
                    yield Row(mixed, row.window, labels, "switched", row.group)
    yield from _aligned(data, seed)
    yield from _translated(places, data, seed)


def written(folder: Path) -> Iterator[Row]:
    """Lines `label, sentence, passage` that were written for this; a passage's lines lie together.

    Raises:
        ConfigError: names the line that is none.
    """
    names = {"supported": SAID, "contradicted": OPPOSED, "neutral": APART}
    for path in sorted(folder.glob("*.tsv")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            label, _, rest = line.partition("\t")
            claim, _, passage = rest.partition("\t")
            if label not in names or not claim or not passage:
                raise ConfigError(
                    f"{path}, line {number}: {label!r} with {len(claim)} and {len(passage)} "
                    f"characters; write {', '.join(names)}, a sentence and a passage, with tabs"
                )
            for a, b in windows(claim, passage)[:2]:
                yield Row(claim, passage[a:b], names[label], "written", passage)


def made(place: Place, beside: Sequence[Place], far: Pool, dice: random.Random) -> Iterator[Row]:
    """The rows of one passage."""
    rules = han if language(place.text) == "zh" else latin
    pool = _near(place, far)
    spans = place.spans
    for span in dice.sample(spans, min(len(spans), place.most)):
        said = place.text[slice(*span)]
        yield _row(said if dice.random() < 0.15 else worded(said, dice), SAID, place, span, dice)
        if dice.random() < 0.6:
            yield _row(worded(said, dice, 2), SAID, place, span, dice)
        for _ in range(2):
            base = worded(said, dice) if dice.random() < 0.6 else said
            wrong = falsified(base, pool, dice)
            if wrong and wrong != base:
                yield _row(wrong, OPPOSED, place, span, dice)
        if dice.random() < 0.35:
            more = rules.extended(worded(said, dice), dice, pool)
            if more:
                yield _row(more, APART, place, span, dice)
        if beside and dice.random() < 0.5:
            other = dice.choice(beside)
            if other.spans:
                strange = other.text[slice(*dice.choice(other.spans))]
                if strange not in place.text:
                    yield _row(strange, APART, place, None, dice)
    yield from _answered(place, dice)


def worded(text: str, dice: random.Random, most: int = 3) -> str:
    """The sentence by one to three rules that keep its sense; Chinese in either characters."""
    rules = han.TRUE if language(text) == "zh" else latin.TRUE
    for rule in dice.sample(rules, dice.randint(1, most)):
        text = rule(text, dice) or text
    return simplified(text) if is_han(text) and dice.random() < 0.3 else text


def falsified(text: str, pool: Pool, dice: random.Random) -> str | None:
    """The sentence by one rule that changes its sense."""
    rules = han if language(text) == "zh" else latin
    # as many tries with another name as the rules have of their commonest kind
    ways: list[Rule | None] = [*rules.FALSE, None, None, None]
    dice.shuffle(ways)
    for way in ways:
        found = rules.renamed(text, dice, pool) if way is None else way(text, dice)
        if found and found != text:
            return found
    return None


def _answered(place: Place, dice: random.Random) -> Iterator[Row]:
    """Questions with their answers, with answers to others, and such that have none."""
    state = statements.chinese if language(place.text) == "zh" else statements.english
    taken = dice.sample(place.asked, min(len(place.asked), place.most))
    for question, answer in taken:
        at = place.text.find(answer)
        span = (at, at + len(answer)) if at >= 0 else None
        said = state(question, answer)
        if said:
            yield _row(
                said if dice.random() < 0.6 else worded(said, dice, 1), SAID, place, span, dice
            )
        others = [
            a
            for _, a in place.asked
            if statements.sort(a) == statements.sort(answer) and a not in answer and answer not in a
        ]
        wrong = state(question, dice.choice(others)) if others else None
        if wrong:
            yield _row(wrong, OPPOSED if said else UNSAID, place, span, dice)
    for question in dice.sample(place.open, min(len(place.open), 3)):
        offered = [a for _, a in place.asked]
        wrong = state(question, dice.choice(offered)) if offered else None
        if wrong:
            yield _row(wrong, UNSAID, place, None, dice)


def _row(
    claim: str,
    labels: tuple[int, int, int],
    place: Place,
    span: tuple[int, int] | None,
    dice: random.Random,
) -> Row:
    """The row with a window as the check would read: with the place where there is one."""
    found = windows(claim, place.text)
    around = [w for w in found if span and w[0] <= span[0] and span[1] <= w[1]]
    if span and (dice.random() < 0.25 or not around):
        around = [u for u in units(place.text) if u[0] <= span[0] < u[1]]
    if not around or (labels != SAID and dice.random() < 0.2):
        around = found[:2]
    a, b = dice.choice(around) if around else (0, len(place.text))
    return Row(claim, place.text[a:b], labels, place.source, place.group)


def _near(place: Place, far: Pool) -> Pool:
    rules = han if language(place.text) == "zh" else latin
    held = [m.group() for m in rules.NAME.finditer(place.text)]
    answers = [a for _, a in place.asked if len(a) < 30]
    names = [n for n in held if not re.match(r"(?:The|In|It|He|She|A|An|This|As|On|At)\b", n)]
    return Pool(
        tuple(dict.fromkeys([*names, *(answers if rules is han else ())])), far.near, far.clauses
    )


def _far(places: Sequence[Place], tongue: str) -> Pool:
    """Names and clauses of all passages of a language."""
    dice = random.Random(tongue)
    some = [p for p in places if language(p.text) == tongue]
    some = dice.sample(some, min(len(some), 1_500))
    rules = han if tongue == "zh" else latin
    names = [m.group() for p in some for m in rules.NAME.finditer(p.text) if len(m.group()) < 40]
    names = [n for n in names if not re.match(r"(?:The|In|It|He|She|A|An|This|As|On|At)\b", n)]
    if tongue == "zh":
        names += [a for p in some for _, a in p.asked if len(a) < 16]
        tails = [
            f"，{t}"
            for p in some
            for t in re.findall(r"，((?:并|也|而|因此|后来|其中)[^，。]{6,24})。", p.text)
        ]
    else:
        tails = [
            t
            for p in some
            for t in re.findall(r"(, (?:which|and|but|because)\s[a-z][^,.;]{15,70})\.", p.text)
        ]
    return Pool(
        tuple(dice.sample(names, min(len(names), 600))),
        (),
        tuple(dice.sample(tails, min(len(tails), 800))),
    )


def _aligned(data: Path, seed: int) -> Iterator[Row]:
    """Sentences of the Python documentation against the other language's, with its neighbours."""
    pairs = list(read(data / "text" / "parallel-python_docs.jsonl.gz"))
    dice = random.Random(seed)
    for at in dice.sample(range(1, len(pairs) - 1), min(len(pairs) - 2, ALIGNED)):
        row, page = pairs[at], str(pairs[at]["id"]).rsplit(":", 1)[0]
        near = [p for p in pairs[at - 1 : at + 2] if str(p["id"]).rsplit(":", 1)[0] == page]
        one, two = dice.choice((("en", "zh"), ("zh", "en")))
        claim = str(row[one])
        if not (SHORT[one] <= len(claim) <= LONG[one]) or kind(claim, str(row[two])) != "cross":
            continue
        around = " ".join(str(p[two]) for p in (near if dice.random() < 0.5 else [row]))
        place = Place(around, page, "aligned", 1)
        yield _row(claim, SAID, place, None, dice)
        wrong = falsified(claim, Pool((), han.PLACES if one == "zh" else (), ()), dice)
        if wrong:
            yield _row(wrong, OPPOSED, place, None, dice)
        other = str(pairs[(at + dice.choice((2, 3, 4, 5))) % len(pairs)][one])
        if len(other) >= SHORT[one]:
            yield _row(other, APART, place, None, dice)


def _translated(places: Sequence[Place], data: Path, seed: int) -> Iterator[Row]:
    """Translated questions as statements with the answers of the passage's language."""
    names = ("squadshifts/new_wiki", "drcd/dev", "cmrc2018/trial")
    known = {
        str(r["id"]): r
        for n in names
        for r in read(data / "qa" / f"{n}.jsonl.gz")
        if r.get("split") != "test" and r.get("answers")
    }
    by_text = {p.text: p for p in places}
    path = Path(statements.__file__).resolve().parents[2] / "retrieval" / "fit" / "asked.tsv"
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, question = line.partition("\t")
        row = known.get(key)
        place = by_text.get(str(row["context"]).strip()) if row else None
        if row is None or place is None:
            continue
        state = statements.chinese if is_han(question) else statements.english
        answer = str(row["answers"][0]["text"]).strip()
        dice = random.Random(f"{seed}{key}")
        at = place.text.find(answer)
        here = Place(place.text, place.group, "translated", 1)
        said, others = (
            state(question, answer),
            [a for _, a in place.asked if statements.sort(a) == statements.sort(answer)],
        )
        if said and kind(said, place.text) == "cross":
            yield _row(said, SAID, here, (at, at + len(answer)) if at >= 0 else None, dice)
            wrong = next((a for a in others if a not in answer and answer not in a), None)
            false = (
                state(question, wrong) if wrong else falsified(said, Pool((), han.PLACES, ()), dice)
            )
            if false and kind(false, place.text) == "cross":
                yield _row(false, OPPOSED, here, (at, at + len(answer)) if at >= 0 else None, dice)
