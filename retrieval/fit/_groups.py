"""What the reranker learns from: a question, a text that answers it, and texts that seem to.

The wrong ones are what our own first stage brings for the question and what holds no gold answer.
Candidates are passages in one group and sentences in another, in both languages. Where a question
was translated, its groups come again with the question in the other language.
"""

from __future__ import annotations

import gzip
import json
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from retrieval import menu
from retrieval.config import RetrievalSettings
from retrieval.fit._pairs import Pair
from retrieval.fit.fusion import fill
from retrieval.fuse import fuse
from retrieval.rerank.base import presented
from retrieval.search import Retriever
from retrieval.serving import Serving
from retrieval.store import Store
from retrieval.text import sentences, simplified

#: Wrong texts in a group, and how many candidates they are drawn from.
WRONG, AMONG = 5, 30


@dataclass(frozen=True, slots=True)
class Row:
    """A question with the text that answers it and the spans that say so (maybe none)."""

    question: str
    context: str
    title: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A question and its texts, the right one first."""

    question: str
    texts: tuple[str, ...]


def rows(data: Path) -> dict[str, list[Row]]:
    """Training rows by pool; only texts of one pool are candidates of each other."""
    qa = data / "qa"
    return {
        "wiki": list(_questions(qa / "squadshifts" / "new_wiki.jsonl.gz")),
        "medicine": [*_questions(qa / "pubmedqa" / "pqal.jsonl.gz"), *_covid(qa / "covidqa")],
        "forum": [
            *_answers(data / "sft" / "lfrqa" / "answers.jsonl.gz", 2000),
            *_claps(qa / "clapnq" / "train_answers_no_passage.jsonl.gz"),
        ],
        "chinese": [
            *_questions(qa / "drcd" / "dev.jsonl.gz"),
            *_questions(qa / "cmrc2018" / "trial.jsonl.gz"),
        ],
    }


def groups(
    pools: dict[str, list[Row]],
    pairs: Sequence[Pair],
    translated: Mapping[str, str],
    settings: RetrievalSettings,
    seed: int,
) -> Iterator[Group]:
    """All groups, pool by pool; a question that is in `translated` comes in both languages."""
    for name, found in pools.items():
        dice = random.Random(f"{seed}{name}")
        for group in _pool(found, settings, dice):
            yield _written(group, dice) if name == "chinese" else group
            if group.question in translated:
                yield replace(group, question=translated[group.question])
    yield from _crossed(pairs, random.Random(seed))


def _pool(
    found: Sequence[Row], settings: RetrievalSettings, dice: random.Random
) -> Iterator[Group]:
    embedder = menu.load("retrieval.embed", settings.embed.backend).build(settings.embed)
    contexts = {row.context: row.title for row in found}
    names = {context: str(n) for n, context in enumerate(contexts)}
    folder = Path(tempfile.mkdtemp(prefix="plumbline-fit-"))
    store = Store(folder / "knowledge.db", embedder.id, embedder.dim)
    try:
        documents = [(names[c], title, c) for c, title in contexts.items()]
        fill(store, embedder, settings, documents)
        retriever = Retriever(Serving(store, embedder), settings.search)
        for row in found:
            first = retriever.candidates(row.question, AMONG)
            order = fuse(first.dense, first.lexical, 0.5)[:AMONG]
            passages = store.passages([(key, score, ()) for key, score in order])
            texts = {
                presented(p.title, p.chunk.headings, p.chunk.text): p.chunk.text
                for p in passages
                if p.source != names[row.context] and not _holds(p.chunk.text, row.answers)
            }
            right = [
                p
                for p in passages
                if p.source == names[row.context] and _holds(p.chunk.text, row.answers)
            ]
            text = right[0].chunk.text if right else row.context
            group = Group(
                row.question,
                (presented(row.title, (), text), *dice.sample([*texts], min(WRONG, len(texts)))),
            )
            if len(group.texts) == 1 + WRONG:
                yield group
            by_sentence = _by_sentence(row, list(texts.values()), dice)
            if by_sentence is not None:
                yield by_sentence
    finally:
        store.close()
        shutil.rmtree(folder, ignore_errors=True)


def _by_sentence(row: Row, others: Sequence[str], dice: random.Random) -> Group | None:
    """The sentence with the answer against its neighbours and sentences of other passages."""
    own = [row.context[a:b].strip() for a, b in sentences(row.context)]
    right = [s for s in own if row.answers and any(answer in s for answer in row.answers)]
    if not right or len(own) < 2:
        return None
    near = [s for s in own if s not in right]
    far = [t[a:b].strip() for t in others[:8] for a, b in sentences(t)]
    far = [s for s in far if len(s) > 8]
    wrong = dice.sample(near, min(3, len(near)))
    wrong += dice.sample(far, min(WRONG - len(wrong), len(far)))
    if len(wrong) < WRONG:
        return None
    return Group(row.question, (right[0], *wrong))


def _crossed(pairs: Sequence[Pair], dice: random.Random) -> Iterator[Group]:
    """A sentence of one language against its translation among the same document's others."""
    by_source: dict[str, list[Pair]] = {}
    for pair in pairs:
        if 25 <= len(pair.en) <= 400:
            by_source.setdefault(pair.source, []).append(pair)
    for source in sorted(by_source):
        found = by_source[source]
        if len(found) < 4 * WRONG:
            continue
        for _ in range(min(6, len(found) // 20)):
            right, *wrong = dice.sample(found, 1 + WRONG)
            if len({p.en for p in (right, *wrong)}) < 1 + WRONG:
                continue
            if dice.random() < 0.5:
                yield Group(right.en, tuple(p.zh for p in (right, *wrong)))
            else:
                yield Group(right.zh, tuple(p.en for p in (right, *wrong)))


def _written(group: Group, dice: random.Random) -> Group:
    """Half of the Chinese groups in simplified characters: questions come in either."""
    if dice.random() < 0.5:
        return group
    return Group(simplified(group.question), tuple(simplified(t) for t in group.texts))


def _holds(text: str, answers: Sequence[str]) -> bool:
    return bool(answers) and any(answer in text for answer in answers)


def _questions(path: Path) -> Iterator[Row]:
    for row in _lines(path):
        if row.get("split") != "test" and not row.get("is_impossible"):
            answers = tuple(str(a["text"]) for a in row.get("answers") or ())
            title = str(row.get("title") or "").replace("_", " ")
            yield Row(str(row["question"]), str(row["context"]), title, answers)


def _covid(folder: Path) -> Iterator[Row]:
    """Questions on long articles: the paragraph around the answer is the text."""
    articles = {
        str(row.get("doc_id") or row["id"]): row for row in _lines(folder / "docs.jsonl.gz")
    }
    for row in _lines(folder / "qa.jsonl.gz"):
        article = articles.get(str(row["doc_id"]))
        if article is None or not row["answers"]:
            continue
        text = str(article.get("text") or article.get("context"))
        answer = str(row["answers"][0]["text"])
        at = int(row["answers"][0]["start"])
        spans = [(a, b) for a, b in sentences(text) if b > at - 350 and a < at + len(answer) + 350]
        if spans:
            around = text[spans[0][0] : spans[-1][1]]
            yield Row(
                str(row["question"]), around, str(article.get("title") or ""), (answer.strip(),)
            )


def _answers(path: Path, most: int) -> Iterator[Row]:
    found = [r for r in _lines(path) if len(str(r["response"])) > 80]
    for row in random.Random(len(found)).sample(found, min(most, len(found))):
        yield Row(str(row["prompt"]), str(row["response"])[:900], "", ())


def _claps(path: Path) -> Iterator[Row]:
    for row in _lines(path):
        answers = row.get("answers") or ()
        if answers and len(str(answers[0]["text"])) > 80:
            yield Row(str(row["question"]), str(answers[0]["text"])[:900], "", ())


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
