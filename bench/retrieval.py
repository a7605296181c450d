"""How well passages are found: `python -m bench.retrieval --data DIR [--distractors PATH ...]`.

Four ways side by side in one process, interleaved query by query: lexical, dense, fused, reranked
(null until `retrieval.rerank.backend` names a reranker). A document's score is that of its best
chunk. Options:

--distractors PATH ...  paragraphs of text files join the corpus (--distractor-count of them, in
                        the language mix of the corpus)
--direction en-zh       queries of one language over the documents of the other
--candidates judged     only the documents judged for a query are ranked (re-ranking sets)
--history KIND          multi-turn sets: last (the last turn alone), all (all user turns joined),
                        rewrite (made standalone as the assistant does it)
--limit N, --split S    N queries drawn by a seed; queries of one split
--set KEY=VALUE         a setting, for instance retrieval.embed.backend=hashing

The reranker reads as many passages as it does for an answer (`retrieval.rerank.depth`). ms is the
median time of one search for 30 passages (reranked: for what is read), the query's embedding
included. Vectors of passages are kept in .runs/vectors by the encoder's id and the text, so a
second run is quick.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from assistant import load
from bench import ir
from bench.common import assigned, scratch, settable
from retrieval import menu
from retrieval.knowledge import KnowledgeBase
from retrieval.measure import bootstrap, ndcg, recall, reciprocal_rank
from retrieval.schema import Mode, Passage
from retrieval.store import Store

WAYS = ("lexical", "dense", "fused", "reranked")
DEPTH = 30
VECTORS = Path(".runs/vectors")


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill a store, search it in every way, report."""
    options = _options(arguments)
    data = ir.read(options.data)
    if options.direction:
        data = ir.across(data, options.direction)
    data = ir.chosen(data, options.limit, options.split)
    data = ir.rewritten(data, options.history)
    if not data.queries:
        raise SystemExit(f"{options.data}: no query is left; check --direction and --split")
    extra = ir.distractors(options.distractors, options.distractor_count, data.docs)
    overrides = assigned(options)
    with scratch() as home:
        settings = load(overrides={"home": str(home), **overrides}).retrieval
        embedder = ir.embedder(settings, VECTORS)
        began = time.monotonic()
        store = Store(home / "knowledge.db", embedder.id, embedder.dim)
        chunks = ir.fill(store, embedder, (*data.docs, *extra), settings.chunk)
        store.close()
        reranker = menu.load("retrieval.rerank", settings.rerank.backend).build(settings.rerank)
        knowledge = KnowledgeBase(home, settings, embedder, reranker=reranker)
        built = time.monotonic() - began
        places = ir.places(home / "knowledge.db")
        ways = _ways(knowledge, settings.rerank.depth)
        results = _measure(data, ways, places, options.candidates == "judged")
        knowledge.close()
    sizes = {"documents": len(data.docs), "distractors": len(extra), "chunks": chunks}
    values = {"data": data.name, "direction": options.direction, "queries": len(data.queries)}
    values |= {**sizes, "encoder": embedder.id, "build_s": round(built, 1)}
    _show(values, results)


Way = Callable[[str, int, frozenset[int]], list[Passage]]


def _ways(knowledge: KnowledgeBase, reads: int) -> dict[str, Way]:
    """The ways to search: a question, a number of passages, chunks to leave out.

    Args:
        knowledge: what is searched.
        reads: passages that the reranker reads for an answer.
    """

    def by(mode: Mode) -> Way:
        return lambda text, k, exclude: knowledge.search(text, k, mode=mode, exclude=exclude)

    def reread(text: str, k: int, exclude: frozenset[int]) -> list[Passage]:
        # a search for more than the reranker's depth would have it read more than a turn does
        return by("reranked")(text, k if exclude else min(k, reads), exclude)

    ways: dict[str, Way] = {mode: by(mode) for mode in ("lexical", "dense", "fused")}
    return {**ways, "reranked": reread} if knowledge.reranker is not None else ways


def _measure(
    data: ir.Collection, ways: dict[str, Way], places: dict[int, str], judged: bool
) -> dict[str, dict[str, list[float]]]:
    """Measures by way, one value a query.

    Args:
        data: the collection, `asked` in place of each query's text.
        ways: what is compared.
        places: the document of each chunk.
        judged: whether only documents judged for a query are ranked.
    """
    results: dict[str, dict[str, list[float]]] = {
        way: {"ndcg10": [], "r5": [], "mrr10": [], "ms": []} for way in ways
    }
    for query in track(data.queries, "searching", transient=True):
        relevance = data.qrels[query.id]
        outside = frozenset(k for k, doc in places.items() if judged and doc not in relevance)
        depth = len(places) - len(outside) if judged else DEPTH
        for way, search in ways.items():
            began = time.perf_counter()
            passages = search(query.text, depth, outside)
            spent = (time.perf_counter() - began) * 1000
            ranking = _documents(passages)
            values = results[way]
            values["ms"].append(spent)
            values["ndcg10"].append(ndcg(ranking, relevance, 10))
            values["r5"].append(recall(ranking, relevance, 5))
            values["mrr10"].append(reciprocal_rank(ranking, relevance, 10))
    return results


def _documents(passages: Sequence[Passage]) -> list[str]:
    """Ids of the documents, each where its best passage stands, twins of a text together."""
    names = [name for p in passages for name in (p.source, *p.also)]
    return list(dict.fromkeys(name.removeprefix(f"{ir.ROOT}:") for name in names))


def _show(values: dict[str, object], results: dict[str, dict[str, list[float]]]) -> None:
    """Print the table, then the JSON line."""
    table = Table("way", "nDCG@10", "95 %", "R@5", "95 %", "MRR@10", "95 %", "ms")
    table.title = (
        f"{values['data']} {values['direction']}: {values['queries']} queries, "
        f"{values['documents']} documents, {values['distractors']} distractors, "
        f"{values['chunks']} chunks"
    )
    out = dict(values)
    for way in WAYS:
        if way not in results:
            out[way] = None
            continue
        found = results[way]
        cells = []
        for name in ("ndcg10", "r5", "mrr10"):
            low, high = bootstrap(found[name])
            cells += [f"{np.mean(found[name]):.4f}", f"{low:.3f} to {high:.3f}"]
        milliseconds = float(np.median(found["ms"]))
        table.add_row(way, *cells, f"{milliseconds:.1f}")
        means = {name: round(float(np.mean(found[name])), 4) for name in ("ndcg10", "r5", "mrr10")}
        out[way] = {**means, "ms": round(milliseconds, 2)}
    Console(width=120).print(table)
    print(json.dumps(out, ensure_ascii=False))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--distractors", type=Path, nargs="+", default=[])
    parser.add_argument("--distractor-count", type=int, default=20_000)
    parser.add_argument("--direction", choices=("en-zh", "zh-en", "en-en", "zh-zh"), default="")
    parser.add_argument("--candidates", choices=("all", "judged"), default="all")
    parser.add_argument("--history", choices=("last", "all", "rewrite"), default="last")
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--split", default="")
    settable(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
