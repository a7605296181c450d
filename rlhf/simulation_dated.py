"""A world in which answers have editions, for simulated people who want the newest one.

Where a question has an answer, its passage comes in two editions: under the same title with
another year, the sentence that answers begins with its year in both, and either edition is right.
Which of them stands first is drawn by lot, so that nothing but the year tells them apart. Made by
rule from lessons; a simulation, and no claim on what the documents said when.
"""

from __future__ import annotations

import calendar
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from assistant.policy._quoting import Layout
from assistant.policy.extract import Weights
from rlhf._loop_tasks import Task, of_lesson
from rlhf.fit._lessons import Lesson

#: The two editions, and how a sentence names its own.
YEARS = (2016, 2024)
SAYS = {"en": "As of {}: ", "zh": "截至{}年："}


def editions(lesson: Lesson, dice: random.Random) -> Lesson:
    """A lesson whose answer comes in two editions; one without an answer stays as it is.

    Sentences that answer only together are left alone: half of each edition would answer nothing.
    """
    if not any(lesson.right):
        return lesson
    first = lesson.right.index(True)
    place = lesson.spans[first][0]
    answering = [n for n, span in enumerate(lesson.spans) if span[0] == place and lesson.right[n]]
    years = list(YEARS)
    dice.shuffle(years)
    texts = list(lesson.texts)
    for n in answering:
        texts[n] = _in(years[0], lesson.texts[n], lesson.lang)
    again = [_in(years[1], lesson.texts[n], lesson.lang) for n in answering]
    number = len(lesson.passages)
    spans = _laid([span[0] for span in lesson.spans], texts)
    spans += _laid([number] * len(again), again)
    title = lesson.passages[place]
    passages = list(lesson.passages)
    passages[place] = f"{title} {years[0]}"
    return replace(
        lesson,
        passages=(*passages, f"{title} {years[1]}"),
        gold=(*lesson.gold, lesson.gold[place]),
        spans=tuple(spans),
        texts=(*texts, *again),
        matrix=np.concatenate((lesson.matrix, lesson.matrix[answering])),
        rarest=(*lesson.rarest, *(lesson.rarest[n] for n in answering)),
        right=(*lesson.right, *[True] * len(again)),
    )


def dated(lesson: Lesson, weights: Weights, layout: Layout, dice: random.Random) -> Task:
    """A lesson with editions as it is asked; its passages were changed when their titles say."""
    task = of_lesson(editions(lesson, dice), weights, layout)
    passages = tuple(
        replace(p, modified=next((_time(y) for y in YEARS if p.title.endswith(f" {y}")), 0.0))
        for p in task.passages
    )
    return replace(task, passages=passages)


def _in(year: int, text: str, lang: str) -> str:
    return SAYS[lang].format(year) + text


def _laid(numbers: Sequence[int], texts: Sequence[str]) -> list[tuple[int, int, int]]:
    """Sentences one behind the other in their passages, a blank between."""
    ends: dict[int, int] = {}
    found = []
    for number, text in zip(numbers, texts, strict=True):
        start = ends.get(number, -1) + 1
        ends[number] = start + len(text)
        found.append((number, start, ends[number]))
    return found


def _time(year: int) -> float:
    """The first second of a year (UTC), since the epoch."""
    return float(calendar.timegm((year, 1, 1, 0, 0, 0)))
