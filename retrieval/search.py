"""A question in, passages out: two first stages, fused.

Dense (encoder + vector index) and lexical (BM25) candidates are joined by min-max with a weight
per language of the question. Where the encoder does not read the question's script, the lexical
side decides alone: a vector of unknown tokens ranks by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from retrieval import lexical
from retrieval.config import SearchSettings
from retrieval.fuse import fuse
from retrieval.index.base import Mask
from retrieval.schema import Found, IndexStatus, Mode, Passage, Scope
from retrieval.serving import Serving
from retrieval.text import language, query_terms
from retrieval.view import View

#: Candidates asked for beyond k, because some may have been deleted since the index was read.
OVERFETCH = 16
#: Factor on the score of a passage that is not in the question's language.
OTHER_LANGUAGE = 0.6


class Retriever:
    """Searches one store. Safe for several threads; sees every commit made before the call."""

    def __init__(self, serving: Serving, settings: SearchSettings) -> None:
        self._serving = serving
        self._store = serving.store
        self._settings = settings

    def refresh(self) -> int:
        """Replay what was committed since the last call; returns the sequence now served."""
        return self._serving.refresh()

    def search(
        self,
        query: str,
        k: int,
        *,
        mode: Mode = "fused",
        exclude: frozenset[int] = frozenset(),
        scope: Scope | None = None,
    ) -> list[Passage]:
        """Return up to `k` passages, best first.

        Args:
            query: the question, standalone. Empty or without any term: no passages.
            mode: "dense" and "lexical" leave the other side out, for measuring.
            exclude: chunk ids not to return.
            scope: which documents may be seen; None: all.
        """
        view = self._serving.view(scope)
        allowed = view.allowed(scope)
        wanted = max(k, self._settings.candidates) + OVERFETCH + len(exclude)
        dense = self._dense(view, query, wanted, allowed) if mode != "lexical" else {}
        found = self._lexical(query, wanted, allowed) if mode != "dense" else {}
        weight = {"dense": 1.0, "lexical": 0.0}.get(mode, self._weight(view, query))
        # a side without weight decides nothing, so it does not bring passages of its own either
        counted = (dense.keys() if weight > 0 else set()) | (found.keys() if weight < 1 else set())
        joined = [
            (key, score)
            for key, score in fuse(dense, found, weight)
            if key in counted and key not in exclude
        ]
        ranked = [
            (key, score, _stages(key, score, rank, dense, found))
            for rank, (key, score) in enumerate(joined[: max(4 * k, k + OVERFETCH)], start=1)
        ]
        passages = self._store.passages(ranked, scope)
        if mode == "fused":
            passages = _own_language_first(passages, language(query))
        return passages[:k]

    def rarity(self, terms: Sequence[str]) -> list[float]:
        """Inverse document frequency of each term over the whole store."""
        chunks = self._serving.view().chunks
        with self._store.read() as connection:
            return lexical.rarity(connection, terms, chunks)

    def status(self) -> IndexStatus:
        """What is indexed, and whether the served view lags behind the store."""
        return self._serving.status()

    def _dense(self, view: View, query: str, k: int, allowed: Mask | None) -> dict[int, float]:
        embedder = view.embedder
        if embedder is None or not embedder.reads(query) or not query.strip():
            return {}
        return view.search(embedder.embed([query], "query"), k, allowed)

    def _lexical(self, query: str, k: int, allowed: Mask | None) -> dict[int, float]:
        terms = query_terms(query, self._settings.max_terms)
        with self._store.read() as connection:
            return lexical.search(connection, terms, k, allowed)

    def _weight(self, view: View, query: str) -> float:
        if view.embedder is None or not view.embedder.reads(query):
            return 0.0
        settings = self._settings
        return settings.dense_weight_zh if language(query) == "zh" else settings.dense_weight


def _own_language_first(passages: list[Passage], tongue: str) -> list[Passage]:
    """Reorder with the other language's scores lowered: an answer should be readable as it is."""
    weighed = [
        p if p.lang == tongue else replace(p, score=p.score * OTHER_LANGUAGE) for p in passages
    ]
    return sorted(weighed, key=lambda p: -p.score)


def _stages(
    key: int, score: float, rank: int, dense: dict[int, float], found: dict[int, float]
) -> tuple[Found, ...]:
    stages = [Found("fused", rank, score)]
    for name, scores in (("dense", dense), ("lexical", found)):
        if key in scores:
            place = 1 + sum(1 for other in scores.values() if other > scores[key])
            stages.append(Found(name, place, scores[key]))
    return tuple(stages)
