"""What the encoder is trained on, read once and kept in memory."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retrieval.fit._pairs import Pair
from retrieval.text import is_han, sentences

#: Pairs of one document that stand side by side in a batch.
GROUP = 8
LAWS = "prc_laws"


@dataclass(slots=True)
class Corpus:
    """Parallel pairs with the English side's vectors, and Chinese questions with passages.

    `teacher` is (pairs, width), float16. `place` names the passage a question belongs to: two
    questions of one passage are no negatives of each other. Held-out rows are never trained on.
    """

    pairs: list[Pair]
    teacher: NDArray[np.float16]
    questions: list[tuple[str, str]]
    place: list[int]
    real: int
    held_pairs: list[int] = field(default_factory=list)
    held_questions: list[int] = field(default_factory=list)
    _groups: list[NDArray[np.int64]] = field(default_factory=list)
    _asked: list[NDArray[np.int64]] = field(default_factory=list)

    def __post_init__(self) -> None:
        held = {i for i, p in enumerate(self.pairs) if _share(p.source) < 0.02}
        self.held_pairs = sorted(held)[:1000]
        by_source: dict[str, list[int]] = defaultdict(list)
        for i, pair in enumerate(self.pairs):
            if i not in held:
                by_source[pair.source].append(i)
        rows = [i for name in sorted(by_source) for i in by_source[name]]
        usable = len(rows) // GROUP * GROUP
        self._groups = list(np.array(rows[:usable], dtype=np.int64).reshape(-1, GROUP))
        out = {i for i in range(self.real) if _share(self.questions[i][1]) < 0.08}
        self.held_questions = sorted(out)
        texts = {self.questions[i][1] for i in out}
        free = [i for i in range(len(self.questions)) if self.questions[i][1] not in texts]
        asked = np.array([i for i in free if i < self.real], dtype=np.int64)
        made = np.array([i for i in free if i >= self.real], dtype=np.int64)
        self._asked = [asked, made]

    def batch(self, step: int, size: int, seed: int) -> NDArray[np.int64]:
        """Rows of the pairs for a step: groups of one document each; an epoch has each once."""
        count = size // GROUP
        per_epoch = len(self._groups) // count
        epoch, at = divmod(step, per_epoch)
        order = np.random.default_rng((seed, epoch)).permutation(len(self._groups))
        return np.concatenate([self._groups[g] for g in order[at * count : (at + 1) * count]])

    def question_batch(self, random: np.random.Generator, size: int) -> list[int]:
        """Rows of the questions for a step: half of them asked by people, half made from text."""
        asked, made = self._asked
        half = size // 2 if len(made) else size
        rows = [*random.choice(asked, half, replace=False)]
        if len(made):
            rows += [*random.choice(made, size - half, replace=False)]
        return [int(i) for i in rows]


def chinese_texts(data: Path) -> Iterator[tuple[str, float]]:
    """(text, weight) of Chinese text, for choosing tokens; laws, a fifth of all, count little."""
    for path in sorted((data / "text").glob("zh-*.txt.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for row in map(json.loads, file):
                if LAWS not in path.name or _share(row["id"]) < 0.25:
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
        with gzip.open(data / "qa" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
            for row in map(json.loads, file):
                yield row["question"], row["context"], row.get("title") or ""


def _paragraphs(data: Path) -> Iterator[str]:
    """Paragraphs of Chinese prose with several sentences."""
    for path in sorted((data / "text").glob("zh-*.txt.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for row in map(json.loads, file):
                if LAWS in path.name and _share(row["id"]) >= 0.1:
                    continue
                for line in row["text"].splitlines():
                    mostly = sum(map(is_han, line)) > 0.5 * len(line)
                    if mostly and 80 <= len(line) <= 500 and len(sentences(line)) >= 3:
                        yield line


def _share(text: str) -> float:
    """A number in [0, 1) that only depends on the text."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32
