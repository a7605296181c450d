"""Documents that teach to point at sentences, made from the text itself.

Evidence is sentences of several texts, each behind a label, under their headings. Then someone
asks a few times with what is left of one of the sentences: words are dropped, and a stretch may be
replaced by a question word. The answer is the sentence's label; where the sentence is not among
the evidence, the answer is to abstain. The policy will be asked for just that, with better
questions.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from assistant.policy._signs import LABELS, Sign
from retrieval.fit._glossary import Switch
from retrieval.text import sentences
from rlhf.fit._text import Document

#: Characters of a sentence that is worth asking for.
SENTENCE = {"en": (30, 320), "zh": (12, 120)}
#: Words, or Han characters, that it has at least.
FEWEST = {"en": 5, "zh": 8}
HEADING = 80
STRETCHES, LONGEST = 4, 8
QUERIES = (3, 6)
#: Share of the queries whose sentence is not there, and of English ones asked half in Chinese.
ABSENT, MIXED = 0.15, 0.1
ASKED = {
    "en": ("what", "which", "who", "where", "how", "when", "why"),
    "zh": ("什么", "哪个", "谁", "哪里", "怎么", "什么时候", "为什么", "多少"),
}
_WORD = {"en": re.compile(r"[A-Za-z]{2,}"), "zh": re.compile(r"[\u3400-\u9fff]")}
_PIECE = {"en": re.compile(r"\S+"), "zh": re.compile(r"[\u3400-\u9fff]{1,3}|[^\u3400-\u9fff]+")}


@dataclass(frozen=True, slots=True)
class Stretch:
    """Consecutive sentences of one text, and the text's first line where it is a heading."""

    heading: str
    said: tuple[str, ...]


def stretches(document: Document) -> Iterator[Stretch]:
    """A text's sentences of prose, in stretches; code, lists of links and the like are left out."""
    first, _, _ = document.text.partition("\n")
    heading = first.strip() if len(first) <= HEADING and document.text != first else ""
    least, most = SENTENCE[document.lang]
    said = [
        text
        for start, end in sentences(document.text)
        if least <= end - start <= most
        and (text := document.text[start:end]) != heading
        and len(_WORD[document.lang].findall(text)) >= FEWEST[document.lang]
    ]
    for at in range(0, len(said), LONGEST):
        yield Stretch(heading, tuple(said[at : at + LONGEST]))


def lookups(
    found: Sequence[Stretch], lang: str, count: int, seed: int, switch: Switch | None = None
) -> Iterator[Document]:
    """`count` documents; which ones only depends on the arguments.

    Args:
        found: of texts in one language, in any order.
        lang: their language.
        count: of documents.
        seed: of all chance.
        switch: exchanges English words for Chinese ones.
    """
    dice = random.Random(f"lookup {lang} {seed}")
    for number in range(count):
        chosen = dice.sample(found, min(len(found), dice.randint(2, STRETCHES) + 1))
        *whole, away = chosen
        shown = [Stretch(s.heading, _some(s.said, dice)) for s in whole]
        # half of what is missing stands beside what is shown: absence must not show by the topic
        beside = [text for s in whole for text in s.said]
        missing = beside if dice.random() < 0.5 else away.said
        yield Document(
            f"lookup:{number}", lang, "lookup", tuple(_parts(shown, missing, lang, dice, switch))
        )


def _some(said: Sequence[str], dice: random.Random) -> tuple[str, ...]:
    """Sentences that stand side by side."""
    size = dice.randint(1, len(said))
    start = dice.randint(0, len(said) - size)
    return tuple(said[start : start + size])


def cloze(text: str, lang: str, dice: random.Random) -> str:
    """What is left of a sentence as a question."""
    pieces = _PIECE[lang].findall(text.rstrip("。.!！?？;；"))
    asked = dice.choice(ASKED[lang])
    drop = dice.uniform(0.1, 0.65)
    if len(pieces) > 4 and dice.random() < 0.7:
        at = dice.randrange(len(pieces))
        pieces[at : at + dice.randint(1, 3)] = []
    left = [piece for piece in pieces if dice.random() >= drop]
    left = left or [max(pieces, key=len)]
    if dice.random() < 0.15:
        dice.shuffle(left)
    if dice.random() < 0.7:
        left.insert(0 if lang == "en" else dice.choice((0, len(left))), asked)
    joint, mark = (" ", "?") if lang == "en" else ("", "？")
    return joint.join(left) + (mark if dice.random() < 0.7 else "")


def _parts(
    shown: Sequence[Stretch],
    away: Sequence[str],
    lang: str,
    dice: random.Random,
    switch: Switch | None,
) -> Iterator[str]:
    labels = list(range(1, LABELS + 1))
    if dice.random() < 0.5:  # so that late labels are learnt as well as early ones
        dice.shuffle(labels)
    there: list[tuple[str, int]] = []
    yield Sign(lang)
    yield Sign("evidence")
    for stretch in shown:
        said = stretch.said[: LABELS - len(there)]
        if stretch.heading and said and dice.random() < 0.8:
            yield Sign("heading")
            yield stretch.heading
        for text in said:
            there.append((text, labels[len(there)]))
            yield Sign(f"s{there[-1][1]}")
            yield text
    known = {text for text, _ in there}
    missing = [text for text in away if text not in known]
    for _ in range(dice.randint(*QUERIES)):
        text, label = dice.choice(there)
        absent = bool(missing) and dice.random() < ABSENT
        query = cloze(dice.choice(missing) if absent else text, lang, dice)
        if switch is not None and dice.random() < MIXED:
            query = switch(query, dice.choice((0.5, 0.9, 1.0)), dice)
        yield Sign("user")
        yield query
        yield Sign("end")
        yield Sign("assistant")
        if absent:
            yield Sign("abstain")
        else:
            yield Sign("cite")
            yield Sign(f"s{label}")
        yield Sign("end")
