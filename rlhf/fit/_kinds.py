"""Questions of further kinds, made by rule from training rows and from texts written by hand.

Beside questions as they stand, people ask for a summary, type bare words, ask two things at once,
follow up with a pronoun, say hello, or say nothing that could be searched:

* `bare`: a training question without its function words; its answers stay.
* `joint`: two questions on one paragraph as one; answers that stand in different sentences.
* `followed`: a question with a pronoun for its title, asked after another one on the same title, as
  `assistant.understand` makes it standalone. The pronoun is the one its paragraph uses most.
* `summaries`: a request for a summary of an article of which the base holds a paragraph or three;
  `_gist` says which sentences tell it.
* `phrases`: what is answered from the phrase book (`assistant.phrases`): greetings, thanks,
  goodbyes, questions on the assistant itself, and messages that must be asked back.

`said.tsv` beside this file (columns said, lang, text; `{}` stands for the title) was written for
this project by a language model, in both languages, without a hand check of each line and without
a look at any evaluation set.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations
from pathlib import Path

from assistant.fit.base import apart, standing_alone
from retrieval.fit._glossary import share
from retrieval.text import content_words, sentences

SAID = Path(__file__).with_name("said.tsv")
BARE, JOINT, FOLLOWED = "bare", "joint", "followed"
SUMMARIES, PHRASES = "summaries", "phrases"
#: Kinds of which each marked sentence answers a part, so that some of them are better than none.
PARTIAL = (SUMMARIES, JOINT)
#: Share of the articles that are never trained on.
HELD = 0.1
#: Sets that the reranker has not learnt from, and of these the ones the head has not either.
UNREAD = ("squad/squad2_dev", "impossible", "nq_oracle/dev", "cmrc2018/dev", "drcd/test")
UNHEARD = ("drcd/test",)
#: Share of the questions that are also asked without function words.
_BARE = 0.1
#: Words of a request without function words, and the words of English questions left out as well.
_WORDS = (2, 8)
_COUNTING = frozenset("many much".split())
#: Paragraphs of an article that is summed up, at most.
_PARAGRAPHS = 3
_ASKS = re.compile(
    r"(who|what|when|where|why|which|how|is|are|was|were|did|does|do|in|on|at|the)\b", re.I
)
_JOINTS = {
    "en": (" and ", ", and ", "? Also, "),
    "zh": ("？另外，", "？还有，", "，以及", "，而且"),
}
#: Subject, object and possessive of each English pronoun.
_FORMS = {
    "he": ("he", "him", "his"),
    "she": ("she", "her", "her"),
    "they": ("they", "them", "their"),
    "it": ("it", "it", "its"),
}
_BEFORE = re.compile(r"\b(of|in|on|at|to|from|by|for|with|about|near|than|into|as|after|before) $")
_HAN_PRONOUNS = "他她它"


@dataclass(frozen=True, slots=True)
class Asked:
    """A question to be searched: `kind` is where it comes from, `held` is not trained on.

    `parts` are the answers to each half of a joint question; `phrase` is the key of the phrase
    that is the reply.
    """

    id: str
    kind: str
    lang: str
    text: str
    context: str
    title: str
    answers: tuple[str, ...]
    parts: tuple[tuple[str, ...], ...] = ()
    phrase: str = ""

    @property
    def held(self) -> bool:
        """Whether its article is for checking only, here or where the answerability head learns."""
        return share(f"lesson:{self.title or self.context or self.text}") < HELD or self._apart

    @property
    def unseen(self) -> bool:
        """Whether neither policy, reranker nor answerability head has learnt from its article."""
        return self.held and self.kind in UNREAD and (self._apart or self.kind in UNHEARD)

    @property
    def _apart(self) -> bool:
        return apart(self.title.replace(" ", "_")) or apart(self.title or self.context[:60])

    @property
    def answerable(self) -> bool:
        """Whether there is something to quote, where its paragraph is found."""
        return bool(self.answers) or self.kind == SUMMARIES


@cache
def said(path: Path = SAID) -> tuple[tuple[str, str, str], ...]:
    """(what is said, language, text) of the texts written by hand.

    Raises:
        ValueError: a line has not three columns.
    """
    _, *lines = path.read_text(encoding="utf-8").splitlines()
    found = []
    for number, line in enumerate(lines, start=2):
        columns = line.split("\t")
        if len(columns) != 3:
            raise ValueError(f"{path}, line {number}: {len(columns)} columns; give three")
        found.append((columns[0], columns[1], columns[2]))
    return tuple(found)


def phrases() -> Iterator[Asked]:
    """What is answered from the phrase book."""
    for key, lang, text in said():
        if key != "summary":
            number = _digest(f"{lang}:{text}")
            yield Asked(f"said-{number}", PHRASES, lang, text, "", "", (), phrase=key)


def summaries(rows: Sequence[Asked]) -> Iterator[Asked]:
    """A request for a summary of each article that is short in the base."""
    held: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        if row.title and row.kind != "covidqa":
            held[row.lang, row.title].add(row.context)
    for (lang, title), paragraphs in held.items():
        if len(paragraphs) <= _PARAGRAPHS:
            forms = [text for key, tongue, text in said() if (key, tongue) == ("summary", lang)]
            text = _dice("summary", title).choice(forms).replace("{}", _plain(title))
            yield Asked(f"sum-{_digest(title)}", SUMMARIES, lang, text, "", title, ())


def bare(rows: Sequence[Asked]) -> Iterator[Asked]:
    """Questions as a few words, in their order."""
    for row in rows:
        if not row.answers or share(f"bare:{row.id}") > _BARE:
            continue
        words = [w for w in content_words(row.text) if w.lower() not in _COUNTING]
        if _WORDS[0] <= len(words) <= _WORDS[1]:
            text = " ".join(words)
            if row.lang == "zh" and _dice("bare", row.id).random() < 0.5:
                text = _close(words, row.text)
            yield replace(row, id=f"{row.id}-bare", kind=BARE, text=text)


def joint(rows: Sequence[Asked]) -> Iterator[Asked]:
    """Two questions of each paragraph as one, where their answers stand apart."""
    for context, mine in _by_context(rows).items():
        dice = _dice("joint", context)
        said_here = [context[a:b] for a, b in sentences(context)]
        where = [{n for n, s in enumerate(said_here) if _holds(s, row.answers)} for row in mine]
        pairs = [
            (a, b)
            for (a, x), (b, y) in permutations(zip(mine, where, strict=True), 2)
            if x and y and not x & y
        ]
        if pairs:
            first, second = dice.choice(pairs)
            link = dice.choice(_JOINTS[first.lang])
            behind = second.text.strip()
            if first.lang == "en" and _ASKS.match(behind):
                behind = behind[0].lower() + behind[1:]
            yield replace(
                first,
                id=f"{first.id}+{second.id}",
                kind=JOINT,
                text=first.text.strip().rstrip("?？") + link + behind,
                answers=(*first.answers, *second.answers),
                parts=(first.answers, second.answers),
            )


def followed(rows: Sequence[Asked]) -> Iterator[Asked]:
    """A question of each paragraph as it is asked after another one on the same article."""
    by_title: dict[str, list[Asked]] = defaultdict(list)
    for row in rows:
        if row.title and row.title.lower() in row.text.lower():
            by_title[row.title].append(row)
    for context, mine in _by_context(rows).items():
        dice = _dice("followed", context)
        row = dice.choice(mine)
        before = [x for x in by_title[row.title] if x.id != row.id]
        if row in by_title[row.title] and before:
            earlier = dice.choice(before).text
            text = _pointing(row)
            whole = standing_alone(text, earlier, row.title)
            if whole != text:
                yield replace(row, id=f"{row.id}-next", kind=FOLLOWED, text=whole)


def _pointing(row: Asked) -> str:
    """A question with a pronoun for its title, as it is where the title is part of a name."""
    name = re.escape(row.title)
    if row.lang == "zh":
        pronoun = max(_HAN_PRONOUNS[::-1], key=row.context.count)
        return re.sub(rf"(^|[，在是由]){name}", rf"\g<1>{pronoun}", row.text, flags=re.I)
    counts = {p: len(re.findall(rf"\b{p}\b", row.context, re.I)) for p in reversed(_FORMS)}
    forms = _FORMS[max(counts, key=lambda p: counts[p])]

    def put(found: re.Match[str]) -> str:
        if found["own"]:
            return forms[2]
        ends = not row.text[found.end() :].strip(" ?.!")
        return forms[1 if ends or _BEFORE.search(row.text[: found.start()]) else 0]

    own = rf"(\bthe )?\b{name}\b(?P<own>['’]s\b)?(?! ?(?-i:[-A-Z]))"
    return re.sub(own, put, row.text, flags=re.I)


def _by_context(rows: Sequence[Asked]) -> dict[str, list[Asked]]:
    found: dict[str, list[Asked]] = defaultdict(list)
    for row in rows:
        if row.answers and row.kind != "covidqa":
            found[row.context].append(row)
    return found


def _close(words: Sequence[str], text: str) -> str:
    """Words with a blank only where they stood apart in the text."""
    joined = words[0]
    for word in words[1:]:
        whole = joined.split(" ")[-1] + word
        joined = f"{joined}{word}" if whole in text else f"{joined} {word}"
    return joined


def _holds(text: str, answers: Sequence[str]) -> bool:
    return any(answer in text for answer in answers)


def _plain(title: str) -> str:
    """A title without what only tells it from others of its name."""
    return re.sub(r"\s*[(（][^()（）]*[)）]$", "", title).strip() or title


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _dice(kind: str, text: str) -> random.Random:
    return random.Random(f"{kind} {_digest(text)}")
