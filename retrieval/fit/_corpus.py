"""What the encoder is trained on, read once and kept in memory."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.fit._glossary import Asked, seen, share
from retrieval.fit._pairs import Pair
from retrieval.text import is_han, sentences

#: Pairs of one document that stand side by side in a batch.
GROUP = 8
LAWS = "prc_laws"


@dataclass(slots=True)
class Corpus:
    """Parallel pairs with the English side's vectors, and Chinese questions with passages.

    The first `mined` pairs are of documents in both languages, the others are made from general
    text and from words; a batch takes half of its pairs from each. `teacher` is (pairs, width),
    float16. `place` names the passage a question belongs to: two questions of one passage are no
    negatives of each other. Held-out rows are never trained on.
    """

    pairs: list[Pair]
    mined: int
    teacher: NDArray[np.float16]
    questions: list[tuple[str, str]]
    place: list[int]
    real: int
    held_pairs: list[int] = field(default_factory=list)
    held_questions: list[int] = field(default_factory=list)
    _groups: list[NDArray[np.int64]] = field(default_factory=list)
    _asked: list[NDArray[np.int64]] = field(default_factory=list)

    def __post_init__(self) -> None:
        held = {i for i, p in enumerate(self.pairs[: self.mined]) if share(p.source) < 0.02}
        self.held_pairs = sorted(held)[:1000]
        for part in (range(self.mined), range(self.mined, len(self.pairs))):
            by_source: dict[str, list[int]] = defaultdict(list)
            for i in part:
                if i not in held:
                    by_source[self.pairs[i].source].append(i)
            rows = [i for name in sorted(by_source) for i in by_source[name]]
            usable = len(rows) // GROUP * GROUP
            self._groups.append(np.array(rows[:usable], dtype=np.int64).reshape(-1, GROUP))
        out = {i for i in range(self.real) if held_out(self.questions[i][1])}
        self.held_questions = sorted(out)
        texts = {self.questions[i][1] for i in out}
        free = [i for i in range(len(self.questions)) if self.questions[i][1] not in texts]
        asked = np.array([i for i in free if i < self.real], dtype=np.int64)
        made = np.array([i for i in free if i >= self.real], dtype=np.int64)
        self._asked = [asked, made]

    def batch(self, step: int, size: int, seed: int) -> NDArray[np.int64]:
        """Rows of the pairs for a step: groups of one document each; an epoch has each once."""
        parts = [groups for groups in self._groups if len(groups)]
        found = []
        for number, groups in enumerate(parts):
            count = size // GROUP // len(parts)
            epoch, at = divmod(step, len(groups) // count)
            order = np.random.default_rng((seed, number, epoch)).permutation(len(groups))
            found += [groups[g] for g in order[at * count : (at + 1) * count]]
        return np.concatenate(found)

    def question_batch(self, random: np.random.Generator, size: int) -> list[int]:
        """Rows of the questions for a step: half of them asked by people, half made from text."""
        asked, made = self._asked
        half = size // 2 if len(made) else size
        rows = [*random.choice(asked, half, replace=False)]
        if len(made):
            rows += [*random.choice(made, size - half, replace=False)]
        return [int(i) for i in rows]


@dataclass(slots=True)
class Crossed:
    """Questions in one language about passages in the other.

    The English side is known by the frozen encoder's vectors, float32: `passages` (m, width) of
    the English passages and `questions` (n, width) of the English questions. `asked` is (Chinese
    question, row of its passage); `read` the Chinese passage of each English question.
    """

    asked: list[tuple[str, int]]
    passages: NDArray[np.float32]
    read: list[str]
    questions: NDArray[np.float32]
    held_asked: list[int] = field(default_factory=list)
    held_read: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.held_read = [i for i, text in enumerate(self.read) if held_out(text)]

    def rows(self, size: int, random: np.random.Generator) -> tuple[list[int], list[int]]:
        """Rows of `asked` and of `read` for a step."""
        parts = ((len(self.asked), self.held_asked), (len(self.read), self.held_read))
        free = [np.setdiff1d(np.arange(count), held) for count, held in parts]
        a, b = (random.choice(rows, min(size, len(rows)), replace=False).tolist() for rows in free)
        return a, b


def crossed(
    rows: Sequence[Asked], embed: Callable[[Sequence[str]], NDArray[np.float32]]
) -> Crossed:
    """The translated questions with the frozen encoder's vectors of what is English."""
    english = [row for row in rows if row.lang == "en"]
    passages = {text: n for n, text in enumerate(dict.fromkeys(row.passage for row in english))}
    chinese = [row for row in rows if row.lang == "zh"]
    found = Crossed(
        [(row.zh, passages[row.passage]) for row in english],
        embed(list(passages)),
        [row.passage for row in chinese],
        embed([row.en for row in chinese]),
    )
    found.held_asked = [i for i, row in enumerate(english) if held_out(row.passage)]
    return found


def held_out(passage: str) -> bool:
    """Whether questions about this passage are for checking only."""
    return share(passage) < 0.08


def chinese_texts(data: Path) -> Iterator[tuple[str, float]]:
    """(text, weight) of Chinese text, for choosing tokens; laws, a fifth of all, count little."""
    for path in sorted((data / "text").glob("zh-*.txt.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for row in map(json.loads, file):
                if LAWS not in path.name or share(row["id"]) < 0.25:
                    yield row["text"], 1.0
    for _, context, _ in _questions(data):
        yield context, 1.0


def questions(data: Path, made: int, seed: int) -> tuple[list[tuple[str, str]], list[int], int]:
    """((question, passage) rows, passage number of each, how many were asked by people).

    People's questions first; then `made` rows from plain text: a sentence of a paragraph against
    the rest of it (the inverse cloze task, Lee et al. 2019).
    """
    rows: list[tuple[str, str]] = []
    place: list[int] = []
    numbers: dict[str, int] = {}
    for question, context, title in _questions(data):
        rows.append((question, f"{title}\n{context}"))
        place.append(numbers.setdefault(context, len(numbers)))
    real = len(rows)
    random = np.random.default_rng(seed)
    paragraphs = list(_paragraphs(data))
    for i in random.permutation(len(paragraphs))[:made]:
        text = paragraphs[i]
        spans = sentences(text)
        a, b = spans[int(random.integers(len(spans)))]
        rest = text if random.random() < 0.15 else text[:a] + text[b:]
        rows.append((text[a:b].strip(), rest.strip()))
        place.append(len(numbers) + len(rows))
    return rows, place, real


def _questions(data: Path) -> Iterator[tuple[str, str, str]]:
    for name in ("drcd/dev", "cmrc2018/trial"):
        for row in seen(data / "qa" / f"{name}.jsonl.gz"):
            yield row["question"], row["context"], row.get("title") or ""


def _paragraphs(data: Path) -> Iterator[str]:
    """Paragraphs of Chinese prose with several sentences."""
    for path in sorted((data / "text").glob("zh-*.txt.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for row in map(json.loads, file):
                if LAWS in path.name and share(row["id"]) >= 0.1:
                    continue
                for line in row["text"].splitlines():
                    mostly = sum(map(is_han, line)) > 0.5 * len(line)
                    if mostly and 80 <= len(line) <= 500 and len(sentences(line)) >= 3:
                        yield line
