"""Comparisons made of questions whose answer is known: what a product that quotes should say.

To a question that its paragraph answers, best first:

1. the sentence that holds the answer, and no more;
2. that sentence among its neighbours;
3. an honest abstention;
4. sentences of the same paragraph, or of another one, that do not hold the answer.

Where the paragraph does not answer, abstaining is better than any of its sentences. A wrong quote
is one sentence or several, like a right one, so that length alone tells neither.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

from assistant.prompt import ABSTAIN
from retrieval.text import content_words, is_han, sentences
from rlhf.fit._asked import plan
from rlhf.fit._kinds import Asked
from rlhf.fit._reward_rows import Compared, owner

#: Questions of each language at most that are learnt from and held out, and the share of those
#: whose paragraph does not answer (there are some in English only).
MOST, HELD, IMPOSSIBLE = 3000, 200, 0.2
KINDS = (
    *("squad/squad2_dev", "nq_oracle/dev", "squadshifts/new_wiki", "impossible", "crossed"),
    *("cmrc2018/dev", "cmrc2018/trial", "drcd/test"),
)
#: Share of the wrong quotes that are of the same paragraph, and of quotes that are widened.
NEAR, WIDE = 0.7, 0.5
#: Neighbours that a widened quote has at most.
AROUND = 2


def quoted(data: Path) -> Iterator[Compared]:
    """Comparisons of the questions of qa/, in the order that all trainers take them.

    Raises:
        TrainingError: a training file is missing or malformed.
    """
    yield from compared([row for row in plan(data) if row.kind in KINDS])


def compared(rows: Sequence[Asked], seed: int = 7) -> Iterator[Compared]:
    """Comparisons of these questions; which only depends on them and the seed."""
    said = {row.context: _said(row.context) for row in rows}
    away: dict[str, list[str]] = defaultdict(list)
    for row in {row.context: row for row in rows}.values():
        away[_tongue(row)].append(row.context)
    taken: Counter[tuple[str, bool]] = Counter()
    without: Counter[tuple[str, bool]] = Counter()
    for row in rows:
        dice = random.Random(f"{seed} {row.kind} {row.id}")
        key = row.lang, row.held
        most = HELD if row.held else MOST
        lacking = not row.answers
        if taken[key] >= most or (lacking and without[key] >= most * IMPOSSIBLE):
            continue
        others = [said[dice.choice(away[_tongue(row)])] for _ in range(3)]
        order = _order(row, said[row.context], others, dice)
        if order:
            taken[key] += 1
            without[key] += lacking
            for better, worse in combinations(order, 2):
                for good, bad in ((good, bad) for good in better for bad in worse):
                    about = owner(f"article {row.title or row.context}")
                    yield Compared("quoted", about, row.text, good, bad, row.held)


def _order(
    row: Asked, own: Sequence[str], others: Sequence[Sequence[str]], dice: random.Random
) -> list[list[str]]:
    """Replies in tiers, best first; [] where the paragraph gives none."""
    words = set(content_words(row.text))
    right = [n for n, text in enumerate(own) if any(a in text for a in row.answers)]
    if len(own) < 3 or bool(right) != bool(row.answers) or len(right) == len(own):
        return []
    if not right:
        likely, every = _near(own, range(len(own)), words)[:2], frozenset(range(len(own)))
        return [[ABSTAIN], [_wide(own, n, every, dice) for n in likely]]
    best = _near(own, right, words)[0]
    short = own[best]
    long = _run(own, *_around(len(own), best, dice))
    wrong = [n for n in range(len(own)) if n not in right]
    if dice.random() < NEAR:
        at = _near(own, wrong, words)[0] if dice.random() < 0.5 else dice.choice(wrong)
        bad = _wide(own, at, frozenset(wrong), dice)
    else:
        other = next((o for o in others if len(o) > 2 and o != own), None)
        if other is None or any(a in text for a in row.answers for text in other):
            return []
        bad = _wide(other, dice.randrange(len(other)), frozenset(range(len(other))), dice)
    return [[short], [long], [ABSTAIN], [bad]]


def _near(own: Sequence[str], among: Sequence[int], words: set[str]) -> list[int]:
    """Sentences by how many of the question's words they have, most first."""
    return sorted(among, key=lambda n: -len(words & set(content_words(own[n]))))


def _wide(own: Sequence[str], at: int, among: frozenset[int], dice: random.Random) -> str:
    """A sentence, or it and its neighbours as far as those are `among`."""
    if dice.random() >= WIDE:
        return own[at]
    low, high = _around(len(own), at, dice)
    while low < at and not among.issuperset(range(low, at)):
        low += 1
    while high > at + 1 and not among.issuperset(range(at, high)):
        high -= 1
    return _run(own, low, high)


def _around(count: int, at: int, dice: random.Random) -> tuple[int, int]:
    """Some sentences beside one another, the one at `at` among them: never it alone."""
    low = max(0, at - dice.randint(0, AROUND))
    high = min(count, at + 1 + dice.randint(0, AROUND))
    if high - low == 1:
        low, high = (at - 1, high) if at else (low, at + 2)
    return low, high


def _run(own: Sequence[str], low: int, high: int) -> str:
    return ("" if is_han(own[low]) else " ").join(own[low:high])


def _said(context: str) -> list[str]:
    return [context[a:b] for a, b in sentences(context)]


def _tongue(row: Asked) -> str:
    return "zh" if is_han(row.context[:200]) else "en"
