"""Quotes the sentences that answer, word for word, and abstains when none does.

No text is written: an answer is one to three sentences of the evidence, best first, each with its
citation. Sentences are ranked by the linear model of `_ranker`; how many are shown depends on how
sure the ranking is. It is the embedded default until a trained policy beats it, and stays as the
baseline to beat.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from assistant.config import PolicySettings
from assistant.errors import ModelNotFound
from assistant.policy._ranker import (
    ANSWERABLE,
    FEATURES,
    OPEN_ENDS,
    Candidate,
    Matrix,
    answerable,
    weigh,
)
from assistant.policy.base import Resources
from assistant.schema import Delta, PolicyCard, Prompt, Sampling
from retrieval.schema import Chunk
from retrieval.text import count_tokens, language

WEIGHTS = Path(__file__).resolve().parents[2] / "models" / "extract" / "weights.json"

#: Sentences are added until their probabilities sum to this, three at the most.
ENOUGH = 0.75
MOST = 3
#: A second or third sentence must be at least this probable, relative to the best.
WORTHY = 0.3
#: What a sentence announces is quoted with it: so many lines of a list or of code at the most;
#: code that follows any sentence, when it is this short.
LIST_LINES = 6
CODE_LINES = 14
SHORT_CODE_LINES = 4
_BLANK_LINE = re.compile(r"\n[ \t]*\n")


@dataclass(frozen=True, slots=True)
class Weights:
    """A fitted model of one language; arrays follow FEATURES and ANSWERABLE."""

    mean: Matrix
    scale: Matrix
    weight: Matrix
    answer_mean: Matrix
    answer_scale: Matrix
    answer_weight: Matrix
    answer_bias: float
    threshold: float

    def scores(self, matrix: Matrix) -> Matrix:
        """Logits (n,) of candidates (n, len(FEATURES))."""
        return np.asarray(((matrix - self.mean) / self.scale) @ self.weight)

    def confidence(self, question: Matrix) -> float:
        """Probability in [0, 1] that the evidence answers, from features (len(ANSWERABLE),)."""
        value = ((question - self.answer_mean) / self.answer_scale) @ self.answer_weight
        return float(1 / (1 + np.exp(-(value + self.answer_bias))))


@dataclass(frozen=True, slots=True)
class Fitted:
    """The weights of each language, and what they were fitted with.

    `resources` are those lent, without the reranker and the answerer where no fit is for them.
    """

    weights: dict[str, Weights]
    revision: str
    resources: Resources


class Extract:
    """The policy; see the module's text."""

    writes = False

    def __init__(
        self, weights: dict[str, Weights], revision: str, resources: Resources, minimum: float
    ) -> None:
        self._weights = weights
        self._resources = resources
        self._minimum = minimum
        self.card = PolicyCard("extract", "linear sentence ranker", revision, engine="numpy")

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Delta]:
        """One delta a quote, best first; `sampling.variant` n gives the n-th disjoint answer."""
        evidence = weigh(prompt, self._resources)
        if evidence is None:
            yield Delta("", finish="abstain", confidence=0.0)
            return
        weights = self._weights[tongue(prompt.question)]
        scores = weights.scores(evidence.matrix)
        sure = weights.confidence(answerable(evidence, scores))
        minimum = self._minimum if self._minimum >= 0 else weights.threshold
        found = variant(prompt, evidence.candidates, scores, sampling.variant)
        if not found or sure < minimum:
            yield Delta("", finish="abstain", confidence=sure)
            return
        for quote in found:
            number, start, end = quote
            text = prompt.passages[number - 1].chunk.text[start:end]
            yield Delta(text, quote=quote)
        yield Delta("", finish="stop", confidence=sure)

    def count_tokens(self, text: str) -> int:
        """The project's own estimate; this policy has no vocabulary."""
        return count_tokens(text)

    def close(self) -> None:
        """Nothing to give back."""


def variant(
    prompt: Prompt, found: Sequence[Candidate], scores: Matrix, number: int
) -> list[tuple[int, int, int]]:
    """Quotes of the answer `number` (0 = the best); no two answers share a word of the evidence."""
    left = list(range(len(found)))
    spans: list[tuple[int, int, int]] = []
    for _ in range(number + 1):
        spans = quotes(prompt, [found[i] for i in pick(scores, left)])
        left = [i for i in left if not any(inside(found[i], span) for span in spans)]
    return spans


def pick(scores: Matrix, left: Sequence[int]) -> list[int]:
    """Which of the candidates `left` to quote, best first: as many as it takes to be sure."""
    order = sorted(left, key=lambda i: -scores[i])
    if not order:
        return []
    odds = np.exp(scores[order] - scores[order[0]])
    odds /= odds.sum()
    chosen: list[int] = []
    mass = 0.0
    for i, probability in zip(order[:MOST], odds[:MOST], strict=False):
        if chosen and (mass >= ENOUGH or probability < WORTHY * odds[0]):
            break
        chosen.append(i)
        mass += float(probability)
    return chosen


def inside(candidate: Candidate, span: tuple[int, int, int]) -> bool:
    """Whether a candidate shares a word with a span (passage number, start, end)."""
    number, start, end = span
    return candidate.passage + 1 == number and candidate.start < end and candidate.end > start


def quotes(prompt: Prompt, chosen: Sequence[Candidate]) -> list[tuple[int, int, int]]:
    """(passage number, start, end) of each quote; neighbours in one passage become one quote."""
    spans: list[tuple[int, int, int]] = []
    for candidate in chosen:
        end = _continued(prompt.passages[candidate.passage].chunk, candidate.end)
        spans.append((candidate.passage + 1, candidate.start, end))
    merged: list[tuple[int, int, int]] = []
    for number, start, end in spans:
        body = prompt.passages[number - 1].chunk.text
        for i, (other, left, right) in enumerate(merged):
            low, high = sorted([(left, right), (start, end)])
            if other == number and not body[low[1] : max(high[0], low[1])].strip():
                merged[i] = (number, low[0], max(high[1], low[1]))
                break
        else:
            merged.append((number, start, end))
    return merged


def _continued(chunk: Chunk, end: int) -> int:
    """Where a quote ends: after the code or the list that its sentence announces."""
    body = chunk.text
    announces = body[:end].endswith(OPEN_ENDS)
    for start, stop in chunk.code:
        if start >= end and not body[end:start].strip():
            most = CODE_LINES if announces else SHORT_CODE_LINES
            whole = body[start:stop].strip().count("\n") < most
            if not whole and not announces:
                return end
            return stop if whole else _lines(body, start, stop, most)
    return _lines(body, end, _paragraph_end(body, end), LIST_LINES) if announces else end


def _paragraph_end(body: str, start: int) -> int:
    """Where the paragraph (or list) after `start` ends: before the next blank line."""
    begin = start + len(body[start:]) - len(body[start:].lstrip())
    blank = _BLANK_LINE.search(body, begin)
    return blank.start() if blank else len(body)


def _lines(body: str, start: int, stop: int, most: int) -> int:
    """The end of the first `most` lines of body[start:stop] that hold anything."""
    lines, end = 0, start
    while lines < most and end < stop:
        following = body.find("\n", end + 1, stop)
        following = stop if following < 0 else following
        lines += bool(body[end:following].strip())
        end = following
    return len(body[:end].rstrip())


def build(options: PolicySettings, resources: Resources) -> Extract:
    """Read the fitted weights.

    Raises:
        ModelNotFound: the weights are missing, or fitted for other features.
    """
    read = fitted(resources)
    return Extract(read.weights, read.revision, read.resources, options.min_confidence)


def fitted(resources: Resources) -> Fitted:
    """The fitted weights: those for reranker and answerer at hand, else those for fewer of them.

    Raises:
        ModelNotFound: the weights are missing, or fitted for other features.
    """
    values = _values()
    reader = resources.reranker.id if resources.reranker else ""
    answerer = resources.answerer.id if resources.answerer else ""
    fit = _fit(values, reader, answerer)
    lent = replace(
        resources,
        reranker=resources.reranker if fit["reranker"] else None,
        answerer=resources.answerer if fit["answers"] else None,
    )
    return Fitted(_chosen(fit), values["revision"], lent)


def ranker(reader: str, answerer: str) -> dict[str, Weights]:
    """The weights of each language for the reranker and the answerer with these ids; "" is none.

    Raises:
        ModelNotFound: the weights are missing, or fitted for other features.
    """
    return _chosen(_fit(_values(), reader, answerer))


def _values() -> dict[str, Any]:
    try:
        values = json.loads(WEIGHTS.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelNotFound(
            f"cannot read {WEIGHTS}: {error}; restore it, or fit it with "
            "`python app.py train extract`"
        ) from error
    if (values.get("features"), values.get("answerable")) != (list(FEATURES), list(ANSWERABLE)):
        raise ModelNotFound(
            f"{WEIGHTS} was fitted for other features; fit it with `python app.py train extract`"
        )
    found: dict[str, Any] = values
    return found


def _fit(values: dict[str, Any], reader: str, answerer: str) -> dict[str, Any]:
    """The fit that uses most of what there is."""
    fits = {(fit["reranker"], fit["answers"]): fit for fit in values["fits"]}
    wanted = ((reader, answerer), (reader, ""), ("", ""))
    found: dict[str, Any] = next(fits[key] for key in wanted if key in fits)
    return found


def _chosen(fit: dict[str, Any]) -> dict[str, Weights]:
    return {lang: _weights(part) for lang, part in fit["languages"].items()}


def tongue(question: str) -> str:
    """Whose weights a question is answered with: "zh" or "en"."""
    return "zh" if language(question) == "zh" else "en"


def _weights(part: dict[str, Any]) -> Weights:
    values: dict[str, Any] = {k: np.array(v) if isinstance(v, list) else v for k, v in part.items()}
    return Weights(**values)
