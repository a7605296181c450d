"""Lessons as what the policy is shown and what it should decide, another way in every epoch.

Nothing is searched again: sentences are left out, drawn from further down the ranking or moved,
scores are blurred, and the linear ranker looks at what is left. Where no sentence that answers is
shown, the answer is to abstain.

What comes after the first label is learnt from a first label drawn as the linear ranker would draw
it: after a right one the answer ends, after a wrong one a right one follows. So the network learns
how likely its choice was right, and adds a sentence where it was not. To miss the answer costs more
than to say a sentence too much, so wrong ones are drawn oftener than they come (cost-sensitive
learning by sampling: Elkan 2001).

Of a summary, or of a question of two halves, what is shown of the marked sentences is quoted. What
is answered from the phrase book is answered so whatever evidence stands beside.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from assistant.policy._quoting import Layout, Shown, shown
from assistant.policy._ranker import ANSWERS, READ
from assistant.policy._trie import Path, Paths
from assistant.policy.extract import Weights
from rlhf.fit._kinds import BARE, FOLLOWED, JOINT, SUMMARIES
from rlhf.fit._lessons import Lesson

#: How often what answers is taken away, one by one or with its whole passage.
GONE = 0.15
#: How often distractors are thinned out, and the most of them that go.
THINNED, MOST_GONE = 0.3, 0.6
#: How often sentences are drawn from further down, passages shuffled.
WIDER, SHUFFLED = 0.2, 0.3
#: How many sentences too much weigh as much as an answer that was missed. On held-out questions
#: (137 English, 150 Chinese) a network trained without this says one sentence, and goes on where it
#: is less than 5/6 sure in half of them (.29 in Chinese): .86 are answered then, not .77 (.82).
MISSED = 5.0
#: Standard deviation of what is added to a logit of reranker or head, by how often it is.
NOISE, NOISY = 1.0, 0.2
#: How often there is no reranker.
UNREAD = 0.1
#: Sets the reranker was trained on: its scores are too good there, so noise is added always.
READ_BEFORE = (
    "squadshifts/new_wiki", "cmrc2018/trial", "covidqa", "crossed", BARE, JOINT, FOLLOWED,
)  # fmt: skip
#: Sets that the answerability head was trained on.
ANSWERED_BEFORE = (
    "squad/squad2_dev", "impossible", "squadshifts/new_wiki", "cmrc2018/dev", "cmrc2018/trial",
    "nq_oracle/dev", "covidqa", "crossed", BARE, JOINT, FOLLOWED,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Drill:
    """A prompt and what should be decided.

    Attributes:
        ids: of the prompt.
        paths: the answers there are.
        answer: a path that is followed, not all of which is right.
        targets: place in `answer` -> tokens that are right there; elsewhere nothing is learnt.
        labels: token of each line shown; `right` are those of lines that answer.
    """

    ids: tuple[int, ...]
    paths: Paths
    answer: Path
    targets: dict[int, frozenset[int]]
    labels: Path
    right: frozenset[int]


def plain(lesson: Lesson, weights: Weights, layout: Layout) -> Drill:
    """A lesson as it is when someone asks."""
    kept = range(len(lesson.texts))
    return _drill(lesson, _shown(lesson, kept, weights), list(kept), layout, None)


def varied(lesson: Lesson, weights: Weights, layout: Layout, dice: random.Random) -> Drill:
    """A lesson as `dice` will have it."""
    kept = _kept(lesson, dice)
    seen = _shown(lesson, kept, weights, dice)
    lines = list(seen.lines)
    if dice.random() < UNREAD:
        lines = [replace(line, read=None) for line in lines]
    order = list(range(len(lines)))
    if dice.random() < SHUFFLED:
        passages = list(dict.fromkeys(line.passage for line in lines))
        dice.shuffle(passages)
        order.sort(key=lambda i: passages.index(lines[i].passage))
    moved = Shown(
        tuple(seen.kept[i] for i in order),
        tuple(lines[i] for i in order),
        tuple(seen.labels[i] for i in order),
        seen.sure,
    )
    return _drill(lesson, moved, kept, layout, dice)


def _shown(
    lesson: Lesson, kept: Sequence[int], weights: Weights, dice: random.Random | None = None
) -> Shown:
    """What is shown; with `dice`, logits that are too good to be true are made less sure."""
    evidence = lesson.evidence(kept)
    for column, before in ((READ, READ_BEFORE), (ANSWERS, ANSWERED_BEFORE)):
        logits = evidence.matrix[:, column].tolist()
        noisy = dice is not None and (lesson.kind in before or dice.random() < NOISY)
        if dice is not None and noisy and any(logits):
            added = {value: dice.gauss(0, NOISE) for value in dict.fromkeys(logits)}
            evidence.matrix[:, column] += [added[value] for value in logits]
    return shown(evidence, lesson.passages, weights, reads=lesson.read)


def _kept(lesson: Lesson, dice: random.Random) -> list[int]:
    """Which sentences are there; at least one is."""
    answers = {*np.flatnonzero(lesson.right).tolist(), *lesson.needed}
    gone: set[int] = set()
    everything = range(len(lesson.texts))
    if answers and dice.random() < GONE:
        gone = answers | lesson.saying()
        if lesson.kind == SUMMARIES or dice.random() < 0.5:
            gone |= {i for i in everything if lesson.gold[lesson.spans[i][0]]}
    rest = [i for i in everything if i not in answers]
    if dice.random() < THINNED:
        share = dice.uniform(0, MOST_GONE)
        gone |= {i for i in rest if dice.random() < share}
    if dice.random() < WIDER:
        gone |= set(dice.sample(rest, len(rest) // 2))
    return [i for i in everything if i not in gone] or [dice.choice(rest or [*everything])]


def _drill(
    lesson: Lesson, seen: Shown, kept: Sequence[int], layout: Layout, dice: random.Random | None
) -> Drill:
    """Lay out; without `dice` a right sentence is quoted first, if there is one."""
    numbers = seen.labels
    tokens = [layout.labels[n - 1] for n in numbers]
    there = [kept[i] for i in seen.kept]  # a line's number in the lesson
    texts = [line.text for line in seen.lines]
    paths = layout.paths(texts, numbers)
    ids = tuple(layout.prompt(lesson.question, seen.lines, seen.sure, numbers))
    right = [n for n, i in enumerate(there) if lesson.right[i]]
    needed = [n for n, i in enumerate(there) if i in lesson.needed]
    whole = lesson.partial or len(needed) == len(lesson.needed)
    pieces = [layout.option(number, text) for number, text in zip(numbers, texts, strict=True)]
    follow = _Follow(layout, tokens)
    if lesson.phrase:
        follow.say(lesson.phrase)
    elif right:
        first = _first(seen, right, dice)
        follow.quote(pieces[first], right)
        if first not in right:
            follow.quote(pieces[right[0] if dice is None else dice.choice(right)], right)
        follow.stop()
    elif needed and whole:
        for at, n in enumerate(needed):
            follow.quote(pieces[n], needed[at:])
        follow.stop()
    else:
        follow.abstain()
    answers = frozenset(tokens[n] for n in (right or (needed if whole else ())))
    return Drill(ids, paths, tuple(follow.path), follow.targets, tuple(tokens), answers)


def _first(seen: Shown, right: Sequence[int], dice: random.Random | None) -> int:
    if dice is None:
        return right[0]
    chances = [line.chance + 1e-4 for line in seen.lines]
    weights = [p if n in right else MISSED * p for n, p in enumerate(chances)]
    return dice.choices(range(len(weights)), weights)[0]


class _Follow:
    """An answer as it grows, with what is right at each decision."""

    def __init__(self, layout: Layout, tokens: Sequence[int]) -> None:
        self._layout, self._tokens = layout, tokens
        self.path: list[int] = []
        self.targets: dict[int, frozenset[int]] = {}

    def quote(self, piece: Path, right: Sequence[int]) -> None:
        """To quote is right, and so are the labels of the lines `right`."""
        self.targets[len(self.path)] = frozenset({self._layout.cite})
        self.targets[len(self.path) + 1] = frozenset(self._tokens[n] for n in right)
        self.path += piece

    def stop(self) -> None:
        """To end is right."""
        self.targets[len(self.path)] = frozenset({self._layout.end})
        self.path.append(self._layout.end)

    def say(self, phrase: str) -> None:
        """A phrase of the book is right, to abstain where the book is not offered."""
        if phrase not in self._layout.phrases:
            self.abstain()
            return
        piece = self._layout.phrase(phrase)
        self.targets = {at: frozenset({token}) for at, token in enumerate(piece)}
        self.path += (*piece, self._layout.end)

    def abstain(self) -> None:
        """To abstain is right."""
        self.targets[0] = frozenset({self._layout.abstain})
        self.path += (self._layout.abstain, self._layout.end)
