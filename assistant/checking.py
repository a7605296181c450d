"""One sentence against passages: by its words, and by what trained heads find where there are any.

`assistant.grounding` says what comes of it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from assistant.figures import missing
from assistant.support import Found, Supporter
from retrieval.text import is_han, is_stop, language, sentences, terms

#: Share of a sentence's weighted content words that its passage must hold.
SUPPORT = 0.6
#: The same where the trained heads believe the sentence: other words may say it, but not any words.
FLOOR = 0.1
#: Passages that the heads read for one sentence, those with most of its words first.
READ = 4
#: Probability from which a passage is said to contradict.
AGAINST = 0.5

_AUXILIARY = re.compile(r"\b\w+n['’]t\b", re.I)
_NEGATION = re.compile(
    r"\b(?:not|no|never|none|nor|neither|cannot|without|nobody|nothing)\b|n['’]t\b|"
    r"不(?![但仅同断久过管论少锈])|没|沒|未(?!来)|无(?![锡线论])|無(?![線論])|并非",
    re.I,
)

Support = Literal["quote", "supported", "unchecked", "unsupported"]
Rarity = Callable[[list[str]], list[float]]


@dataclass(frozen=True, slots=True)
class Checked:
    """What a passage is to a sentence: support in [0, 1], its kind, and [start, end) of the place.

    `against` says that the place contradicts the sentence.
    """

    score: float
    start: int
    end: int
    support: Support
    against: bool = False


@dataclass(frozen=True, slots=True)
class _Fact:
    """A sentence of a passage: where it stands, its terms, whether it denies."""

    start: int
    end: int
    held: frozenset[str]
    denies: bool


def check(
    text: str,
    bodies: Sequence[str],
    rarity: Rarity,
    supporter: Supporter | None = None,
    around: Sequence[str] = (),
) -> list[Checked]:
    """What each passage is to one sentence.

    Args:
        text: the sentence, without marks.
        bodies: the passages.
        rarity: inverse document frequency of terms.
        supporter: the trained heads; None: words are compared.
        around: title and headings of each passage, where names may stand; () for none.
    """
    beside = [*around, *[""] * (len(bodies) - len(around))]
    found = [_compared(text, b, a, rarity) for b, a in zip(bodies, beside, strict=True)]
    if supporter is None:
        return [each for each, _ in found]
    asked = [row for row, (_, shared) in enumerate(found) if shared is not None]
    asked = sorted(asked, key=lambda row: -(found[row][1] or 0.0))[:READ]
    scores = supporter.score([text] * len(asked), [bodies[row] for row in asked]) if asked else []
    result = [
        each if shared is None else Checked(0.0, 0, 0, "unsupported") for each, shared in found
    ]
    for row, score in zip(asked, scores, strict=True):
        result[row] = _agreed(score, found[row][1] or 0.0)
    return result


def _agreed(found: Found, shared: float) -> Checked:
    """What the heads found, where the words do not speak against it.

    Probabilities are scaled so that they are believed from `SUPPORT` on, whatever the language.
    """
    value, level = found.probability, found.level
    if found.supported and shared >= FLOOR:
        score = SUPPORT + (1 - SUPPORT) * (value - level) / max(1 - level, 1e-6)
        return Checked(score, found.start, found.end, "supported")
    score = SUPPORT * min(value / level, 0.999)
    return Checked(score, found.start, found.end, "unsupported", found.against >= AGAINST)


def _compared(text: str, body: str, around: str, rarity: Rarity) -> tuple[Checked, float | None]:
    """By words; and the share of them that a place has, None where the heads have no say.

    They have none on quotes, nor on what must be wrong.
    """
    at = _find(text, body)
    if at >= 0:
        return Checked(1.0, at, at + len(text), "quote"), None
    facts = _facts(body)
    if not facts or missing(text, body, around):
        return Checked(0.0, 0, 0, "unsupported"), None
    if language(text) != language(body):
        return Checked(0.0, facts[0].start, max(f.end for f in facts), "unchecked"), 1.0
    spoken = _AUXILIARY.sub(" ", text)
    wanted = list(dict.fromkeys(t for t in terms(spoken) if not is_stop(t) and "'" not in t))
    weights = [max(w, 0.05) for w in rarity(wanted)]
    whole = sum(weights) or 1.0
    weighed = dict(zip(wanted, weights, strict=True))

    def share(held: frozenset[str]) -> float:
        return sum(w for t, w in weighed.items() if t in held) / whole

    shares = [share(f.held) for f in facts]
    denying = [f.denies for f in facts]
    for (i, one), (j, two) in pairwise(enumerate(facts)):
        shares.append(share(one.held | two.held))
        denying.append(one.denies if shares[i] >= shares[j] else two.denies)
    spans = [(f.start, f.end) for f in facts]
    spans += [(one.start, two.end) for one, two in pairwise(facts)]
    own = _denies(text)
    alike = [n for n, denies in enumerate(denying) if denies == own]
    row = max(alike, key=lambda n: shares[n], default=-1)
    best = shares[row] if row >= 0 else 0.0
    said: Support = "supported" if best >= SUPPORT else "unsupported"
    where = spans[row] if best > 0 else (0, 0)
    return Checked(best, *where, said), max(shares)


@functools.lru_cache(maxsize=64)
def _facts(body: str) -> tuple[_Fact, ...]:
    """The sentences of a passage, read once for all sentences of an answer."""
    return tuple(
        _Fact(a, b, frozenset(terms(body[a:b])), _denies(body[a:b])) for a, b in sentences(body)
    )


def _denies(text: str) -> bool:
    return _NEGATION.search(text) is not None


def _find(text: str, body: str) -> int:
    """Where `text` stands in `body`, not inside a word or a number; -1 for nowhere."""
    at = body.find(text)
    while at >= 0:
        before, after = body[at - 1 : at], body[at + len(text) : at + len(text) + 1]
        if not (_joined(before, text[:1]) or _joined(text[-1:], after)):
            return at
        at = body.find(text, at + 1)
    return -1


def _joined(left: str, right: str) -> bool:
    return left.isalnum() and right.isalnum() and not is_han(left) and not is_han(right)
