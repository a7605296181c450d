"""Rows that the answerability head learns from: a question, a window, and whether it answers.

It does: the window around a gold answer. It does not, though it looks so: windows of the same
passage and of the same article without the answer, the windows of all other articles that share
most words with the question, SQuAD 2.0's impossible questions (Rajpurkar et al. 2018), questions of
that manner written for this project in both languages (answers/*.tsv), and real questions with a
name or a number exchanged.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from assistant.answering import asked_of, grown
from assistant.errors import ConfigError
from assistant.fit._support_asked import sort
from assistant.fit._support_places import Place, asked, read
from assistant.fit._support_rows import ANSWERS, UNANSWERED, Row
from assistant.fit.base import Question, apart
from assistant.support import units
from retrieval.text import is_han, is_stop, language, terms

WRITTEN = Path(__file__).resolve().parent / "answers"
#: Questions of a passage, answered and open, that are used.
MOST, OPEN = 5, 8
#: Passages that share most words with a question; words in more passages than this say nothing.
FAR, COMMON = 2, 400
FORUM = 3_000
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][\w’'-]+(?: [A-Z][\w’'-]+)*")
_YEAR = re.compile(r"(?<!\d)1[0-9]\d\d(?!\d)|(?<!\d)20[0-2]\d(?!\d)")
_NUMBER = re.compile(r"(?<![\d.,])\d{1,3}(?![\d,.]*\d)")


def rows(places: Sequence[Place], data: Path, seed: int = 7) -> Iterator[Row]:
    """Rows of passages with questions, and what was written for them.

    Raises:
        ConfigError: a line of answers/ is malformed.
    """
    with_questions = [p for p in places if p.asked or p.open]
    search = {t: _Search([p for p in places if language(p.text) == t]) for t in ("en", "zh")}
    articles: dict[str, list[Place]] = defaultdict(list)
    for place in with_questions:
        articles[place.group].append(place)
    for place in with_questions:
        dice = random.Random(f"{seed}answers{place.text[:80]}")
        beside = [p for p in articles[place.group] if p is not place]
        yield from _of_place(place, beside, search[language(place.text)], dice)
    yield from written(WRITTEN, places, seed)
    yield from _translated(places, data, search, seed)
    yield from _forum(data, search["en"], seed)


def held(data: Path, tongue: str) -> list[Question]:
    """Questions of articles that the head does not learn from, such as have no answer among them.

    Raises:
        ConfigError: a file of the data folder is missing, or a line of answers/ is malformed.
    """
    places = [p for p in asked(data) if apart(p.group) and language(p.text) == tongue]
    found = [
        _question(place, question, (answer,))
        for place in places
        if place.source == "squad" and place.open
        for question, answer in dict.fromkeys(place.asked)
    ]
    found += [_question(place, question, ()) for place in places for question in place.open]
    # what was written has no marked answer, so those that are answered are of no use here
    return found + [
        _question(place, question, ())
        for place, question, answered in _lines(WRITTEN, places)
        if not answered
    ]


def _question(place: Place, question: str, answers: tuple[str, ...]) -> Question:
    title = place.group if place.titled else ""
    return Question(digest(question), question, place.text, title, answers, not answers, "")


def written(folder: Path, places: Sequence[Place], seed: int) -> Iterator[Row]:
    """Lines `digest, yes or no, question`; the digest is that of a passage of the data folder.

    Raises:
        ConfigError: names the line that is none.
    """
    for place, question, answered in _lines(folder, places):
        dice = random.Random(f"{seed}{question}")
        spans = units(place.text)
        best = sorted(range(len(spans)), key=lambda i: -_shared(question, place, spans[i]))
        for anchor in best[: 1 if answered else 2]:
            found = grown(place.text, anchor, dice.random() < 0.5)
            yield _row(question, place, found, answered, "asked", dice)


def _lines(folder: Path, places: Sequence[Place]) -> Iterator[tuple[Place, str, bool]]:
    """Each line's passage, question, and whether it is answered."""
    known = {digest(p.text): p for p in places}
    for path in sorted(folder.glob("*.tsv")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            key, _, rest = line.partition("\t")
            label, _, question = rest.partition("\t")
            if label not in ("yes", "no") or not question:
                raise ConfigError(
                    f"{path}, line {number}: {label!r}; write a passage's digest, yes or no, and "
                    "a question, with tabs"
                )
            if key in known:  # the data folder may have fewer passages
                yield known[key], question, label == "yes"


def digest(passage: str) -> str:
    """What a passage is found by: 12 hex digits of the SHA-256 of its text without white space."""
    return hashlib.sha256("".join(passage.split()).encode()).hexdigest()[:12]


def _of_place(
    place: Place, beside: Sequence[Place], search: _Search, dice: random.Random
) -> Iterator[Row]:
    spans = units(place.text)
    pairs = list(dict.fromkeys(place.asked))
    answers = [a for _, a in pairs]
    for question, answer in dice.sample(pairs, min(len(pairs), MOST)):
        at = place.text.find(answer)
        right = next((i for i, (a, b) in enumerate(spans) if a <= at < b), None)
        if right is None:
            continue
        yes = grown(place.text, right, dice.random() < 0.5)
        yield _row(question, place, yes, True, place.source, dice)
        wrong = _exchanged(question, place, answers, dice)
        if wrong:
            yield _row(wrong, place, yes, False, "exchanged", dice)
        others = [i for i in range(len(spans)) if answer not in place.text[slice(*spans[i])]]
        others.sort(key=lambda i: -_shared(question, place, spans[i]))
        for anchor in others[:2]:
            a, b = grown(place.text, anchor, dice.random() < 0.5)
            if answer not in place.text[a:b]:
                yield _row(question, place, (a, b), False, "beside", dice)
                break
        near = search.best(question, beside, 1) if beside else []
        for other in (*near, *search.far(question, place.group, FAR)):
            window = _window(question, other)
            if answer.lower() not in other.text[slice(*window)].lower():
                yield _row(question, other, window, False, "elsewhere", dice, place.group)
    for question in dice.sample(place.open, min(len(place.open), OPEN)):
        window = _window(question, place)
        yield _row(question, place, window, False, "impossible", dice)


def _translated(
    places: Sequence[Place], data: Path, search: dict[str, _Search], seed: int
) -> Iterator[Row]:
    """Translated questions against the passages of the other language."""
    names = ("squadshifts/new_wiki", "drcd/dev", "cmrc2018/trial")
    known = {
        str(r["id"]): r
        for n in names
        for r in read(data / "qa" / f"{n}.jsonl.gz")
        if r.get("split") != "test" and r.get("answers")
    }
    by_text = {p.text: p for p in places}
    path = Path(__file__).resolve().parents[2] / "retrieval" / "fit" / "asked.tsv"
    for line in path.read_text(encoding="utf-8").splitlines():
        key, _, question = line.partition("\t")
        row = known.get(key)
        place = by_text.get(str(row["context"]).strip()) if row else None
        if row is None or place is None:
            continue
        dice = random.Random(f"{seed}{key}answers")
        answer = str(row["answers"][0]["text"]).strip()
        spans, at = units(place.text), place.text.find(answer)
        right = next((i for i, (a, b) in enumerate(spans) if a <= at < b), None)
        if right is None:
            continue
        yes = grown(place.text, right, dice.random() < 0.5)
        yield _row(question, place, yes, True, "translated", dice)
        here = search[language(place.text)]
        for other in here.far(str(row["question"]), place.group, 1):
            window = _window(str(row["question"]), other)
            if answer not in other.text[slice(*window)]:
                yield _row(question, other, window, False, "translated", dice, place.group)


def _forum(data: Path, search: _Search, seed: int) -> Iterator[Row]:
    """Questions of a forum with a stretch of people's answer, and with another page."""
    found = [r for r in read(data / "sft" / "lfrqa" / "answers.jsonl.gz") if r["split"] != "test"]
    dice = random.Random(seed)
    for row in dice.sample(found, min(len(found), FORUM)):
        question, group = str(row["prompt"]), str(row["id"])
        place = Place(str(row["response"])[:1_600], group, "forum", 1)
        if not units(place.text):
            continue
        yield _row(question, place, _window(question, place), True, "forum", dice)
        for other in search.far(question, group, 1):
            yield _row(question, other, _window(question, other), False, "forum", dice, group)


def _row(
    question: str,
    place: Place,
    window: tuple[int, int],
    answers: bool,
    source: str,
    dice: random.Random,
    group: str = "",
) -> Row:
    """A row as the policy asks: now and then without the title."""
    title = place.group if place.titled and dice.random() < 0.8 else ""
    text = asked_of(title.replace("_", " "), place.text[slice(*window)])
    return Row(question, text, ANSWERS if answers else UNANSWERED, source, group or place.group)


def _window(question: str, place: Place) -> tuple[int, int]:
    """The window around the unit that shares most with the question."""
    spans = units(place.text)
    best = max(range(len(spans)), key=lambda i: _shared(question, place, spans[i]))
    return grown(place.text, best, True)


def _shared(question: str, place: Place, span: tuple[int, int]) -> int:
    """How many of the question's words a stretch has."""
    own = set(terms(place.text[slice(*span)]))
    return len({t for t in terms(question) if not is_stop(t)} & own)


def _exchanged(
    question: str, place: Place, answers: Sequence[str], dice: random.Random
) -> str | None:
    """The question about another name, year or number, which the passage has where it can."""
    ways: list[tuple[int, int, list[str]]] = []
    if is_han(question):
        for own in answers:
            at = question.find(own)
            if len(own) > 1 and at >= 0:
                other = [a for a in answers if sort(a) == sort(own) and a not in question]
                ways.append((at, at + len(own), other))
    for pattern in (_NAME, _YEAR, _NUMBER):
        for match in pattern.finditer(question):
            other = [m.group() for m in pattern.finditer(place.text)]
            other = [o for o in other if o not in question]
            if pattern is not _NAME and not other:
                value = int(match.group())
                other = [str(max(2, value + dice.choice((-7, -3, -2, 2, 5, 11))))]
            ways.append((*match.span(), other))
    ways = [way for way in ways if way[2]]
    if not ways:
        return None
    start, end, other = dice.choice(ways)
    return question[:start] + dice.choice(other) + question[end:]


class _Search:
    """Passages of one language by the rare words they share with a question."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = places
        self._held = [{t for t in terms(p.text) if not is_stop(t)} for p in places]
        self._having: dict[str, list[int]] = defaultdict(list)
        for number, held in enumerate(self._held):
            for term in held:
                self._having[term].append(number)
        self._number = {id(p): n for n, p in enumerate(places)}

    def far(self, question: str, group: str, most: int) -> list[Place]:
        """The best passages of other articles."""
        found: Counter[int] = Counter()
        for term in set(terms(question)):
            having = self._having.get(term, ())
            if 0 < len(having) <= COMMON:
                weight = int(1000 * math.log(1 + len(self._places) / len(having)))
                for number in having:
                    found[number] += weight
        best = (self._places[n] for n, _ in found.most_common(most + 30))
        return [p for p in best if p.group != group][:most]

    def best(self, question: str, places: Sequence[Place], most: int) -> list[Place]:
        """The best of some passages."""
        wanted = {t for t in terms(question) if not is_stop(t)}
        return sorted(places, key=lambda p: -len(wanted & self._held[self._number[id(p)]]))[:most]
