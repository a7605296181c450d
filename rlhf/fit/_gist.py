"""Which sentences tell what an article says, and which answer a question of two halves.

The gist is labelled by rule, as there is no set of gold summaries in both languages that may be
trained on. It is the first sentence of the article, and those that add most of what the article
keeps talking about. First sentences hold a paragraph's topic in 85 of 100 paragraphs (Baxendale
1958), and summaries of leads are hard to beat on encyclopaedic and news text; the rest is near to
SumBasic (Nenkova and Vanderwende 2005): the sentence with the highest mean probability of its
words, after which the words that it told count for half. (SumBasic squares them; in a paragraph,
that prefers what is said once and by the way.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from assistant.policy._ranker import Candidate
from retrieval.schema import Passage
from retrieval.text import is_stop, sentences, terms

#: Sentences of an article for each one of its gist, which has three at the most.
EACH, MOST = 3, 3
#: What a word counts once it was told.
TOLD = 0.5
#: What a year, a month and a day are written with.
_DATES = frozenset("年 月 日".split())
#: Words that a sentence has at the least.
FEWEST = 4


def gist(
    found: Sequence[Passage], gold: Sequence[bool], candidates: Sequence[Candidate]
) -> tuple[int, ...]:
    """Candidates that sum up the gold passages, in rising order; none where there is none of them.

    Args:
        found: the passages, best first.
        gold: of each, whether it is of the article.
        candidates: sentences of the passages.
    """
    texts = [p.chunk.text for p, mine in zip(found, gold, strict=True) if mine]
    counts = Counter(word for text in texts for word in terms(text) if _tells(word))
    left = {
        i: held
        for i, c in enumerate(candidates)
        if gold[c.passage] and len(held := {w for w in terms(c.text) if _tells(w)}) >= FEWEST
    }
    if not left:
        return ()
    chances = {word: count / counts.total() for word, count in counts.items()}
    size = min(MOST, max(1, sum(len(sentences(text)) for text in texts) // EACH))
    chosen = [min(left, key=lambda i: _place(found, candidates[i]))]
    while True:
        for word in left.pop(chosen[-1]):
            chances[word] *= TOLD
        if not left or len(chosen) == size:
            return tuple(sorted(chosen))
        chosen.append(max(left, key=lambda i: sum(chances[w] for w in left[i]) / len(left[i])))


def halves(
    parts: Sequence[Sequence[str]], gold: Sequence[bool], candidates: Sequence[Candidate]
) -> tuple[tuple[bool, ...], tuple[int, ...]]:
    """Candidates that hold an answer to every part, or the first of each part where none does."""
    held = [
        {i for i, c in enumerate(candidates) if gold[c.passage] and any(a in c.text for a in part)}
        for part in parts
    ]
    whole = set.intersection(*held)
    if whole:
        return tuple(i in whole for i in range(len(candidates))), ()
    return (False,) * len(candidates), tuple(sorted({min(mine) for mine in held if mine}))


def _place(found: Sequence[Passage], candidate: Candidate) -> tuple[int, int, int]:
    """Where a sentence stands: in its document, of documents the best first."""
    passage = found[candidate.passage]
    best = next(n for n, p in enumerate(found) if p.source == passage.source)
    return best, passage.chunk.start, candidate.start


def _tells(word: str) -> bool:
    """Whether a word can be what a text is about; numbers come back in any text."""
    return not is_stop(word) and not any(c.isdigit() for c in word) and word not in _DATES
