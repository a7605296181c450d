"""Which sentences of the evidence answer the question, and whether any does.

A linear model over features a reader could compute: how much of the question (weighted by how rare
its words are) a sentence and its passage cover, how close their vectors are, what stage found them,
what the reranker makes of question and sentence read together, what the answerability head makes of
question and the stretch around the sentence (where they are), and whether the sentence holds the
kind of thing asked for (a number for "how many", a name for "who"). Weights per language lie in
models/extract/; `python app.py train extract` fits them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assistant.answering import asked_of, grown
from assistant.policy._asked import shows, wanted
from assistant.policy.base import Resources
from assistant.schema import Prompt
from assistant.support import units
from retrieval.schema import Passage
from retrieval.text import is_stop, query_terms, sentences, terms

FEATURES = (
    "sentence_cosine",
    "passage_cosine",
    "sentence_coverage",
    "passage_coverage",
    "around_coverage",
    "fused",
    "rank",
    "title_coverage",
    "kind",
    "kind_missing",
    "novelty",
    "short",
    "position",
    "question_mark",
    "read",
    "answers",
)
ANSWERABLE = (
    "best",
    "second",
    "best_cosine",
    "best_passage_cosine",
    "best_coverage",
    "best_passage_coverage",
    "rarest_found",
    "margin",
    "terms",
    "best_read",
    "top_read",
    "best_answers",
    "top_answers",
)

#: The columns of the reranker's logit and of the answerability head's.
READ, ANSWERS = FEATURES.index("read"), FEATURES.index("answers")
#: Stretches of the evidence that the answerability head reads.
STRETCHES = 6
#: A sentence ending so announces what follows it: a list or a command.
OPEN_ENDS = (":", "：")
_ORDINAL = re.compile(r"\(?\d{1,2}[.)、）]\s*(?=\D)")

#: Sentences compared by vector at most; the rest are far behind by their words already. Of 2,800
#: questions the best of 16 is right as often as the best of 24.
SHORTLIST = 16
#: Those of them that the reranker reads, likeliest first by words and vector: also measured.
READS = 8

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence of the evidence: `text == passages[passage].chunk.text[start:end]`."""

    passage: int
    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a prompt offers.

    `matrix` is (n, len(FEATURES)), a row a candidate; `rarest` says of each candidate whether its
    passage has the question's rarest term; `terms` counts the question's search terms.
    """

    candidates: tuple[Candidate, ...]
    matrix: Matrix
    rarest: tuple[bool, ...]
    terms: int


def candidates(passages: Sequence[Passage]) -> list[Candidate]:
    """Every sentence of the passages that can stand as an answer.

    One that stands in several passages counts once. Program code is no sentence, nor is one that
    announces what this passage does not hold; a list's number is not quoted with its item.
    """
    found, seen = [], set()
    for number, passage in enumerate(passages):
        body, code = passage.chunk.text, passage.chunk.code
        for start, end in sentences(body):
            if any(a <= start < b for a, b in code):
                continue
            ordinal = _ORDINAL.match(body, start, end)
            start = ordinal.end() if ordinal else start
            sentence = body[start:end]
            if len(sentence) < 2 or sentence in seen:
                continue
            if len(query_terms(sentence)) < 2:
                continue
            if sentence.endswith(OPEN_ENDS) and not body[end:].strip():
                continue
            seen.add(sentence)
            found.append(Candidate(number, start, end, sentence))
    return found


def weigh(prompt: Prompt, resources: Resources) -> Evidence | None:
    """Candidates of a prompt with their features; None where there is no sentence at all."""
    found = candidates(prompt.passages)
    if not found:
        return None
    words = _Words(prompt, found, resources)
    kept = words.shortlist(SHORTLIST)
    short = [found[i] for i in kept]
    cosines, passage_cosines = _cosines(prompt, short, resources)
    cheap = [words.cheap(i) + cosine for i, cosine in zip(kept, cosines, strict=True)]
    read = _read(prompt, short, cheap, resources)
    likely = read if resources.reranker else [words.sentence[i] for i in kept]
    answers = _answers(prompt, short, likely, resources)
    kind = wanted(prompt.question)
    rows = []
    for i, candidate, cosine, *logits in zip(kept, short, cosines, read, answers, strict=True):
        p = candidate.passage
        fits = shows(kind, candidate.text, prompt.question)
        rows.append(
            (
                cosine,
                passage_cosines[p],
                words.sentence[i],
                words.passage[p],
                words.around(i),
                prompt.passages[p].score,
                1.0 / (1 + p),
                words.head[p],
                float(fits) if kind else 0.0,
                float(kind is not None and not fits),
                words.novelty(i),
                float(words.size(i) < 4),
                1.0 / (1 + candidate.start / 200),
                float(candidate.text.rstrip().endswith(("?", "？"))),
                *logits,
            )
        )
    rarest = tuple(words.holds_rarest(c.passage) for c in short)
    return Evidence(tuple(short), np.array(rows), rarest, len(words.query))


class _Words:
    """The lexical half: which terms of the question each sentence and passage covers."""

    def __init__(self, prompt: Prompt, found: Sequence[Candidate], resources: Resources) -> None:
        self.found = found
        self.query = query_terms(prompt.question)
        self._weight = np.clip(np.array(resources.rarity(self.query)), 0.05, None)
        self._total = float(self._weight.sum()) or 1.0
        self._heads = [set(terms(" ".join((p.title, *p.chunk.headings)))) for p in prompt.passages]
        self._bodies = [set(terms(p.chunk.text)) for p in prompt.passages]
        self._own = [set(terms(c.text)) for c in found]
        self._scores = [p.score for p in prompt.passages]
        self.head = [self._covered(h) for h in self._heads]
        self.passage = [
            self._covered(b | h) for b, h in zip(self._bodies, self._heads, strict=True)
        ]
        self.sentence = [
            self._covered(own | self._heads[c.passage])
            for own, c in zip(self._own, found, strict=True)
        ]

    def shortlist(self, size: int) -> list[int]:
        """Indices of the sentences worth a vector: a bound on the time a question takes."""
        return sorted(sorted(range(len(self.found)), key=lambda i: -self.cheap(i))[:size])

    def cheap(self, i: int) -> float:
        """How likely a sentence is to be quoted, by words and by what found its passage."""
        p = self.found[i].passage
        return self.sentence[i] + 0.5 * self.passage[p] + 0.5 * self._scores[p]

    def around(self, i: int) -> float:
        """Coverage by a sentence together with its neighbours: what "it" stands for."""
        p = self.found[i].passage
        held = self._own[i] | self._heads[p]
        for j in (i - 1, i + 1):
            if 0 <= j < len(self.found) and self.found[j].passage == p:
                held |= self._own[j]
        return self._covered(held)

    def novelty(self, i: int) -> float:
        """Share of a sentence's words that the question does not have."""
        content = self._content(i)
        return len(content - set(self.query)) / (len(content) + 1.0)

    def size(self, i: int) -> int:
        """Content words of a sentence."""
        return len(self._content(i))

    def holds_rarest(self, passage: int) -> bool:
        """Whether a passage has the question's rarest term."""
        if not self.query:
            return False
        rarest = self.query[int(self._weight.argmax())]
        return rarest in self._bodies[passage] or rarest in self._heads[passage]

    def _content(self, i: int) -> set[str]:
        return {t for t in self._own[i] if not is_stop(t)}

    def _covered(self, held: set[str]) -> float:
        hits = [w for t, w in zip(self.query, self._weight, strict=True) if t in held]
        return float(sum(hits)) / self._total


def answerable(evidence: Evidence, scores: Matrix) -> Matrix:
    """Features (len(ANSWERABLE),) of a question from its candidates and their logits (n,)."""
    matrix = evidence.matrix
    order = np.argsort(-scores)
    top, second = order[0], order[min(1, len(order) - 1)]
    return np.array(
        [
            scores[top],
            scores[second],
            matrix[:, 0].max(),
            matrix[:, 1].max(),
            matrix[top, 2],
            matrix[:, 3].max(),
            float(any(evidence.rarest)),
            scores[top] - scores[second],
            min(evidence.terms, 12) / 12,
            matrix[:, READ].max(),
            matrix[top, READ],
            matrix[:, ANSWERS].max(),
            matrix[top, ANSWERS],
        ]
    )


def _read(
    prompt: Prompt, found: Sequence[Candidate], likely: Sequence[float], resources: Resources
) -> list[float]:
    """The reranker's logit of each sentence; zero where there is no reranker.

    The likeliest ones are read; others get the lowest logit.
    """
    if resources.reranker is None:
        return [0.0] * len(found)
    best = sorted(range(len(found)), key=lambda i: -likely[i])[:READS]
    texts = [found[i].text for i in best]
    chance = resources.reranker.rank(prompt.question, texts).astype(np.float64)
    logits = np.log(chance / (1 - chance))
    read = [float(logits.min())] * len(found)
    for i, logit in zip(best, logits, strict=True):
        read[i] = float(logit)
    return read


def _answers(
    prompt: Prompt, found: Sequence[Candidate], likely: Sequence[float], resources: Resources
) -> list[float]:
    """The answerability head's logit of the stretch around each sentence.

    The likeliest ones are read; others get the lowest logit. Zero where there is no such head.
    """
    if resources.answerer is None:
        return [0.0] * len(found)
    held: list[tuple[int, int, int]] = []
    for i in sorted(range(len(found)), key=lambda i: -likely[i]):
        number, at = found[i].passage, found[i].start
        if any(n == number and a <= at < b for n, a, b in held):
            continue
        body = prompt.passages[number].chunk.text
        anchor = next(n for n, (a, b) in enumerate(units(body)) if at < b)
        held.append((number, *grown(body, anchor, before=True)))
        if len(held) == STRETCHES:
            break
    stretches = [
        asked_of(prompt.passages[n].title, prompt.passages[n].chunk.text[a:b]) for n, a, b in held
    ]
    logits = resources.answerer.answers(prompt.question, stretches).tolist()
    lowest = float(min(logits))
    return [
        max(
            (v for (n, a, b), v in zip(held, logits, strict=True)
             if n == c.passage and a <= c.start < b),
            default=lowest,
        )
        for c in found
    ]  # fmt: skip


def _cosines(
    prompt: Prompt, found: Sequence[Candidate], resources: Resources
) -> tuple[list[float], list[float]]:
    """Cosines question-sentence and question-passage; zero where the encoder reads neither."""
    embedder, passages = resources.embedder, prompt.passages
    if not embedder.reads(prompt.question) or not found:
        return [0.0] * len(found), [0.0] * len(passages)
    texts = [f"{passages[c.passage].title}: {c.text}" for c in found]
    vectors = embedder.embed([prompt.question, *texts], "passage")
    near = vectors[1:] @ vectors[0]
    dense = [next((f.score for f in p.found_by if f.stage == "dense"), 0.0) for p in passages]
    readable = [embedder.reads(c.text) for c in found]
    return [float(v) if ok else 0.0 for v, ok in zip(near, readable, strict=True)], dense
