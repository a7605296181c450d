"""Fits how the stages of a search are joined: `python app.py train fusion --data FOLDER`.

Every training paragraph becomes a document; each question is searched, and the weights are those
with the best nDCG@10 for its paragraph: the dense side's against the lexical side's first, then the
reranker's against the fused score, among the candidates that it reads. Where several weights do
equally well, their middle is taken. The dense floor is the cosine that all but a few gold
paragraphs reach.

Data, train-allowed and unseen by encoder and reranker, whose scores would else be trusted too
much: English squadshifts/new_wiki (test split), Chinese drcd/test and
cmrc2018/trial (test split). Weights of other encoders and rerankers stay in the file.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from retrieval import menu
from retrieval.chunk import chunk
from retrieval.config import RetrievalSettings
from retrieval.embed.base import Embedder
from retrieval.errors import RetrievalError
from retrieval.fuse import Weights, blend, fuse
from retrieval.measure import ndcg
from retrieval.rerank.base import Reranker, presented
from retrieval.schema import Block, Parsed
from retrieval.search import Candidates, Retriever
from retrieval.serving import Serving
from retrieval.store import NewVersion, Store
from retrieval.text import language

FILES = {
    "en": ("squadshifts/new_wiki.jsonl.gz",),
    "zh": ("drcd/test.jsonl.gz", "cmrc2018/trial.jsonl.gz"),
}
SEED = 7
#: Questions of each language, where no other number is asked for.
QUESTIONS = 1200
STEPS = tuple(round(0.05 * n, 2) for n in range(21))
#: Weights whose nDCG@10 is so close to the best do equally well.
NEAR = 0.001
#: Share of gold paragraphs that may lie below the dense floor.
BELOW = 0.005


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the document that answers it."""

    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Example:
    """What the stages made of a question; `owner` is chunk id -> document.

    `read` holds the reranker's scores (id -> score) of the candidates it is given.
    """

    gold: str
    found: Candidates
    owner: Mapping[int, str]
    read: Mapping[int, float]


def run(data: Path, out: Path, limit: int | None, settings: RetrievalSettings) -> Iterator[str]:
    """Fit both languages and write weights.json and card.md to `out`; yields lines to show.

    Args:
        data: folder of the question files.
        out: folder of the weights; what it holds of other encoders is kept.
        limit: questions of each language; None: 1200.
        settings: name the encoder and the reranker.

    Raises:
        RetrievalError: a training file is missing or malformed.
        BackendMissing: encoder or reranker are not on the menu, or lack a library.
    """
    embedder = menu.load("retrieval.embed", settings.embed.backend).build(settings.embed)
    reranker = menu.load("retrieval.rerank", settings.rerank.backend).build(settings.rerank)
    languages: dict[str, dict[str, float]] = {}
    for tongue, names in FILES.items():
        rows = [row for name in names for row in read(data / name)]
        examples = list(_examples(rows, limit or QUESTIONS, settings, embedder, reranker))
        weights, scores = fit(examples, settings.rerank.depth if reranker else 0)
        languages[tongue] = {
            "dense": weights.dense,
            "floor": round(weights.floor, 4),
            "rerank": weights.rerank,
            "questions": len(examples),
            **{f"ndcg10_{name}": round(value, 4) for name, value in scores.items()},
        }
        yield f"{tongue}: {languages[tongue]}"
    revision = write(out, embedder.id, reranker.id if reranker else "", languages)
    yield f"written to {out}, revision {revision}"


def fit(examples: Sequence[Example], depth: int) -> tuple[Weights, dict[str, float]]:
    """The best weights for these questions, and nDCG@10 of each stage with them.

    Args:
        examples: searched questions.
        depth: candidates that the reranker read; 0 = there is none.
    """
    reads = any(e.found.near for e in examples)
    dense = 0.0
    if reads:
        dense = best(lambda w: _mean(examples, lambda e: _fused(e, w)))
    gold = [max((c for k, c in e.found.dense.items() if e.owner[k] == e.gold), default=-1.0)
            for e in examples]  # fmt: skip
    seen = [cosine for cosine in gold if cosine > -1]
    floor = float(np.quantile(seen, BELOW)) if seen else -1.0
    scores = {"lexical": _mean(examples, lambda e: _fused(e, 0.0))}
    if reads:
        scores["dense"] = _mean(examples, lambda e: _fused(e, 1.0))
        scores["fused"] = _mean(examples, lambda e: _fused(e, dense))
    weights = Weights(dense, floor)
    if depth:
        rerank = best(lambda w: _mean(examples, lambda e: _reread(e, dense, w, depth)))
        scores["reranked"] = _mean(examples, lambda e: _reread(e, dense, rerank, depth))
        weights = Weights(dense, floor, rerank)
    return weights, scores


def best(measure: Callable[[float], float]) -> float:
    """The middle of the weights in STEPS that do best."""
    values = [measure(weight) for weight in STEPS]
    top = max(values)
    return round(
        float(np.median([w for w, v in zip(STEPS, values, strict=True) if v >= top - NEAR])), 3
    )


def read(path: Path) -> list[dict[str, Any]]:
    """Answerable rows of a question file, those of a train split left out.

    Raises:
        RetrievalError: the file is missing, or a line is not such a row (named by its number).
    """
    rows: list[dict[str, Any]] = []
    number = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                number += 1
                row = json.loads(line)
                texts = (str(row["question"]), str(row["context"]), str(row.get("title") or ""))
                if row.get("answers") and row.get("split") != "train":
                    rows.append(dict(zip(("question", "context", "title"), texts, strict=True)))
    except (OSError, EOFError) as error:
        raise RetrievalError(
            f"cannot read {path}: {error}; give a .jsonl.gz of questions"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RetrievalError(f"{path}, line {number}: not a question row ({error!r})") from error
    return rows


def write(
    out: Path, embedder: str, reranker: str, languages: Mapping[str, Mapping[str, float]]
) -> str:
    """Put a fit in place of the one for the same encoder and reranker; returns the revision."""
    path = out / "weights.json"
    fits = json.loads(path.read_text(encoding="utf-8"))["fits"] if path.is_file() else []
    fits = [f for f in fits if (f["embedder"], f["reranker"]) != (embedder, reranker)]
    fits.append({"embedder": embedder, "reranker": reranker, "languages": languages})
    fits.sort(key=lambda f: (f["embedder"], f["reranker"]))
    revision = hashlib.sha256(json.dumps(fits, sort_keys=True).encode()).hexdigest()[:12]
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"revision": revision, "fits": fits}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")
    (out / "card.md").write_text(_card(revision, fits), encoding="utf-8")
    return revision


def _examples(
    rows: Sequence[Mapping[str, str]],
    limit: int,
    settings: RetrievalSettings,
    embedder: Embedder,
    reranker: Reranker | None,
) -> Iterator[Example]:
    sources = {
        context: str(n) for n, context in enumerate(dict.fromkeys(r["context"] for r in rows))
    }
    titles = {row["context"]: row["title"].replace("_", " ") for row in rows}
    asked = random.Random(SEED).sample(rows, min(limit, len(rows)))
    folder = Path(tempfile.mkdtemp(prefix="plumbline-fit-"))
    store = Store(folder / "knowledge.db", embedder.id, embedder.dim)
    try:
        fill(store, embedder, settings, [(sources[c], titles[c], c) for c in sources])
        retriever = Retriever(Serving(store, embedder), settings.search)
        for row in asked:
            found = retriever.candidates(row["question"], settings.search.candidates)
            yield _example(
                row["question"], sources[row["context"]], found, store, reranker, settings
            )
    finally:
        store.close()
        shutil.rmtree(folder, ignore_errors=True)


def _example(
    question: str,
    gold: str,
    found: Candidates,
    store: Store,
    reranker: Reranker | None,
    settings: RetrievalSettings,
) -> Example:
    order = fuse(found.dense, found.lexical, 0.5 if found.near else 0.0)
    passages = store.passages([(key, score, ()) for key, score in order])
    scores: dict[int, float] = {}
    if reranker is not None:
        # whatever the weight, what is read then is among the first of twice as many now
        head = passages[: 2 * settings.rerank.depth]
        texts = [presented(p.title, p.chunk.headings, p.chunk.text) for p in head]
        values = reranker.rank(question, texts)
        scores = {p.chunk.id: float(v) for p, v in zip(head, values, strict=True)}
    return Example(gold, found, {p.chunk.id: p.source for p in passages}, scores)


def fill(
    store: Store,
    embedder: Embedder,
    settings: RetrievalSettings,
    documents: Sequence[tuple[str, str, str]],
) -> None:
    """Store (source, title, text) as ingestion would, a paragraph a line."""
    cut = []
    for _, title, text in documents:
        blocks, at = [], 0
        for line in text.splitlines(keepends=True):
            if line.strip():
                blocks.append(Block(at, at + len(line.rstrip()), "paragraph"))
            at += len(line)
        cut.append(chunk(Parsed(text, title, (), tuple(blocks)), settings.chunk))
    texts = [
        presented(title, p.headings, text[p.start : p.end])
        for (_, title, text), pieces in zip(documents, cut, strict=True)
        for p in pieces
    ]
    readable = [n for n, text in enumerate(texts) if embedder.reads(text)]
    vectors = np.zeros((len(texts), embedder.dim), dtype=np.float32)
    if readable:
        vectors[readable] = embedder.embed([texts[n] for n in readable], "passage")
    first = 0
    for (source, title, text), pieces in zip(documents, cut, strict=True):
        mine = vectors[first : first + len(pieces)]
        first += len(pieces)
        digests = tuple(f"{source}:{n}" for n in range(len(pieces)))
        store.put(
            NewVersion(source, "fit", title, text, language(text), "1", "fit", 0.0, "",
                       tuple(pieces), digests, mine)
        )  # fmt: skip


def _mean(examples: Sequence[Example], rank: Callable[[Example], Sequence[int]]) -> float:
    """nDCG@10 over questions; a document stands where its first chunk does."""
    values = []
    for example in examples:
        documents = list(dict.fromkeys(example.owner[key] for key in rank(example)))
        values.append(ndcg(documents, {example.gold: 1.0}, 10))
    return float(np.mean(values)) if values else 0.0


def _fused(example: Example, dense: float) -> list[int]:
    return [key for key, _ in fuse(example.found.dense, example.found.lexical, dense)]


def _reread(example: Example, dense: float, weight: float, depth: int) -> list[int]:
    order = fuse(example.found.dense, example.found.lexical, dense)
    head = order[:depth]
    scores = blend([s for _, s in head], [example.read.get(k, 0.0) for k, _ in head], weight)
    ranked = sorted(zip(scores, head, strict=True), key=lambda row: -row[0])
    return [key for _, (key, _) in ranked] + [key for key, _ in order[depth:]]


def _card(revision: str, fits: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "# fusion: weights of the stages of a search",
        "",
        f"Revision {revision}. Made by `python app.py train fusion --data FOLDER` (seed {SEED}).",
        "",
        "Data: squadshifts/new_wiki, test split (CC BY 4.0; text Wikipedia, CC BY-SA), DRCD test "
        "(CC BY-SA 3.0), CMRC 2018 trial, test split (CC BY-SA 4.0): rows that encoder and "
        "reranker have not seen. The weights are a few numbers; no text is in them. "
        "Scores are in sample: they chose the weights.",
        "",
        "| encoder | reranker | language | dense | floor | rerank | questions | nDCG@10 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in fits:
        for tongue, values in one["languages"].items():
            scores = ", ".join(
                f"{name.removeprefix('ndcg10_')} {value:.3f}"
                for name, value in values.items()
                if name.startswith("ndcg10_")
            )
            lines.append(
                f"| {one['embedder']} | {one['reranker'] or 'none'} | {tongue} | "
                f"{values['dense']} | {values['floor']} | {values['rerank']} | "
                f"{values['questions']} | {scores} |"
            )
    return "\n".join((*lines, ""))
