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
from assistant.policy.base import Resources
from assistant.schema import Prompt
from assistant.support import units
from retrieval.schema import Passage
from retrieval.text import is_stop, query_terms, sentences, simplified, terms

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

#: Sentences compared by vector at most; the rest are far behind by their words already.
SHORTLIST = 24

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


_KINDS: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...] = (
    (
        re.compile(r"\b(when|what (year|date|month|day|century)|which year)\b", re.I),
        re.compile(
            r"\d{3,4}|\b(january|february|march|april|may|june|july|august|september|october|"
            r"november|december|century|monday|tuesday|wednesday|thursday|friday|saturday|sunday|"
            r"spring|summer|autumn|winter|today|yesterday)\b",
            re.I,
        ),
    ),
    (
        re.compile(
            r"\bhow (many|much|long|old|far|high|tall|big|large|often|fast|deep)\b|"
            r"\bwhat (percent|percentage|number|size|age|amount|distance)\b",
            re.I,
        ),
        re.compile(
            r"\d|\b(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|hundred|"
            r"thousand|million|billion|half|twice|dozen|several|many|once)\b",
            re.I,
        ),
    ),
    (
        re.compile(r"\b(who|whom|whose)\b", re.I),
        re.compile(r"(?<!^)(?<![.!?] )\b[A-Z][\w’'-]+"),
    ),
    (
        re.compile(r"\bwhere\b|\bwhat (city|country|state|place|location)\b", re.I),
        re.compile(r"(?<!^)(?<![.!?] )\b[A-Z][\w’'-]+|\b(in|at|on|near|to|from) the\b"),
    ),
    (
        re.compile(r"\bwhy\b|\bwhat (reason|cause|caused)\b", re.I),
        re.compile(
            r"\b(because|since|due to|as a result|so that|in order to|to avoid|reason|cause|led to|"
            r"therefore)\b",
            re.I,
        ),
    ),
    (
        re.compile(r"\bhow (do|can|to|should|does|did|is|are|was)\b", re.I),
        re.compile(r"\b(by|using|use|run|with|through|via|click|press|set|add|call|type)\b", re.I),
    ),
    (
        re.compile("何时|什么时候|哪一?年|哪天|几月|哪个世纪|何年|哪一天|年份|日期"),
        re.compile("[0-9〇零一二三四五六七八九十]+[年月日]|世纪|年代|时期"),
    ),
    (
        re.compile(
            "多少|几[个人位名种次年天条座家支岁级部]|多[长大高远久重深宽]|第几|人口|面积|比例"
        ),
        re.compile("[0-9]|[一二三四五六七八九十百千万亿两]+[个人位名种次年天条座家支岁级部米公里]"),
    ),
    (
        re.compile("谁|何人|哪[一]?[位个]人|什么人|作者|导演|创始人"),
        re.compile("·|[父母妻夫儿女兄弟]|人|者|家|[王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗]"),
    ),
    (
        re.compile("哪里|哪儿|何处|在哪|什么地方|哪[个一]?[个]?(国家|城市|省|县|地区|国)|位于"),
        re.compile("[省市县区国州岛港村镇山湖河海]|位于|地区"),
    ),
    (
        re.compile("为什么|为何|原因|缘故|为甚么"),
        re.compile("因为|由于|所以|因此|为了|原因|导致|以致|使得|因"),
    ),
    (
        re.compile("如何|怎么|怎样|怎麼|方法|步骤"),
        re.compile("可以|使用|通过|运行|执行|点击|选择|设置|添加|输入|调用|用"),
    ),
    (
        re.compile(
            r"^\W*what(['’]s| is| are| does) (the |an? )?[^?]{1,40}( for| used for| mean| do)?\W*$|"
            r"什么是|是什么|做什么|干什么|是啥|什么意思|指什么|的定义",
            re.I,
        ),
        re.compile(
            r"\b(is|are) (an?|the|used|designed|intended)\b|\b(means|refers to|allows|lets)\b|"
            r"是一|是指|指的是|用于|用来|意味着|允许|可以让|让我们",
            re.I,
        ),
    ),
)


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
    read = _read(prompt, short, resources)
    likely = read if resources.reranker else [words.sentence[i] for i in kept]
    answers = _answers(prompt, short, likely, resources)
    folded = simplified(prompt.question)
    kind = next((answer for asks, answer in _KINDS if asks.search(folded)), None)
    rows = []
    for i, candidate, cosine, *logits in zip(kept, short, cosines, read, answers, strict=True):
        p = candidate.passage
        fits = _fits(kind, candidate.text, prompt.question)
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
        cheap = [
            s + 0.5 * self.passage[c.passage] + 0.5 * self._scores[c.passage]
            for s, c in zip(self.sentence, self.found, strict=True)
        ]
        best = sorted(range(len(cheap)), key=lambda i: -cheap[i])[:size]
        return sorted(best)

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


def _fits(kind: re.Pattern[str] | None, sentence: str, question: str) -> bool:
    if kind is None:
        return False
    asked = question.lower()
    return any(match.group().lower() not in asked for match in kind.finditer(simplified(sentence)))


def _read(prompt: Prompt, found: Sequence[Candidate], resources: Resources) -> list[float]:
    """The reranker's logit of each sentence; zero where there is no reranker."""
    if resources.reranker is None:
        return [0.0] * len(found)
    chance = resources.reranker.rank(prompt.question, [c.text for c in found]).astype(np.float64)
    return [float(v) for v in np.log(chance / (1 - chance))]


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
