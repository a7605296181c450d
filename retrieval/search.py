"""A question in, passages out: two first stages, fused, settled, and read again by a reranker.

Dense (encoder + vector index) and lexical (BM25) candidates are joined by min-max with fitted
weights per language of the question. A candidate that only the lexical side found gets its true
cosine from its stored vector; one that only the dense side found must be near enough. Where the
encoder does not read the question's script, the lexical side decides alone: a vector of unknown
tokens ranks by chance. Duplicates and older versions are then set aside, and a reranker, where one
is configured, reads the best of what is left together with the question.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from retrieval import lexical, store_near
from retrieval.config import SearchSettings
from retrieval.evidence import settle
from retrieval.fuse import Weights, blend, fitted, fuse, minmax
from retrieval.index.base import Mask
from retrieval.rerank.base import Reranker, presented
from retrieval.schema import Found, IndexStatus, Mode, Passage, Scope
from retrieval.serving import Serving
from retrieval.text import is_hollow, language, query_terms
from retrieval.view import View

#: Candidates asked for beyond k, because some are set aside as duplicates or older versions.
OVERFETCH = 16
#: Factor on the score of a passage that is not in the question's language.
OTHER_LANGUAGE = 0.6
#: Questions whose terms are searched at a time, beside their vectors.
THREADS = 8
#: Terms searched of a question that has nothing but function words: each is in half of all texts.
HOLLOW_TERMS = 3


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the first stages found for one question.

    `dense` (id -> cosine) covers the lexical side's candidates too, as far as they have vectors;
    `lexical` is id -> BM25. `near` are the ids that the dense side found itself.
    """

    dense: dict[int, float]
    lexical: dict[int, float]
    near: frozenset[int]


class Retriever:
    """Searches one store. Safe for several threads; sees every commit made before the call."""

    def __init__(
        self,
        serving: Serving,
        settings: SearchSettings,
        reranker: Reranker | None = None,
        depth: int = 20,
    ) -> None:
        """Search what `serving` serves.

        Args:
            serving: the index, kept up with the store.
            settings: how the stages are joined.
            reranker: None: the fused order stays.
            depth: how many of the best fused passages it reads.
        """
        self._serving = serving
        self._store = serving.store
        self._settings = settings
        self._reranker = reranker
        self._depth = depth
        self._beside = ThreadPoolExecutor(THREADS, "lexical")

    def refresh(self) -> int:
        """Replay what was committed since the last call; returns the sequence now served."""
        return self._serving.refresh()

    def search(
        self,
        query: str,
        k: int,
        *,
        mode: Mode = "reranked",
        exclude: frozenset[int] = frozenset(),
        scope: Scope | None = None,
    ) -> list[Passage]:
        """Return up to `k` passages, best first.

        Args:
            query: the question, standalone. Empty or without any term: no passages.
            mode: "reranked" is all there is, and the same as "fused" where no reranker is
                configured. "fused", "dense" and "lexical" leave later stages or a side out, for
                measuring.
            exclude: chunk ids not to return.
            scope: which documents may be seen; None: all.
        """
        view = self._serving.view(scope)
        reader = self._reranker if mode == "reranked" else None
        depth = max(k, self._depth) if reader else k
        found = self._candidates(view, query, depth + len(exclude), mode, scope)
        weights = self._weights(view, query, mode)
        joined = _joined(found, weights, exclude)[: depth + OVERFETCH]
        stages = _stages(found)
        ranked = [(key, score, tuple(stages[key])) for key, score in joined]
        passages = self._store.passages(ranked, scope)
        if mode in ("reranked", "fused"):
            passages = _own_language_first(passages, language(query), found, weights)
            passages = settle(passages, query, depth)
        passages = _placed(passages, "fused")
        if reader and passages:
            passages = self._reread(reader, query, passages, weights)
        return passages[:k]

    def candidates(
        self, query: str, k: int, *, mode: Mode = "fused", scope: Scope | None = None
    ) -> Candidates:
        """What the first stages find, before they are joined; at least `k` from each side."""
        return self._candidates(self._serving.view(scope), query, k, mode, scope)

    def _candidates(
        self, view: View, query: str, k: int, mode: Mode, scope: Scope | None
    ) -> Candidates:
        allowed = view.allowed(scope)
        wanted = max(k, self._settings.candidates) + OVERFETCH
        embedder = view.embedder
        if mode == "lexical" or embedder is None or not query.strip() or not embedder.reads(query):
            words = {} if mode == "dense" else self._lexical(view, query, wanted, allowed)
            return Candidates({}, words, frozenset())
        # both sides spend their time outside Python, so they share it
        asked = None
        if mode != "dense":
            asked = self._beside.submit(self._lexical, view, query, wanted, allowed)
        vector = embedder.embed([query], "query")
        near = view.search(vector, wanted, allowed)
        words = asked.result() if asked else {}
        missing = view.cosines(vector, words.keys() - near)
        return Candidates({**missing, **near}, words, frozenset(near))

    def around(self, passage: Passage) -> tuple[Passage | None, Passage | None]:
        """The passages before and after this one in its document, where there are such."""
        with self._store.read() as connection:
            sides = store_near.beside(connection, passage)
        found_by = (Found("beside", passage.found_by[0].rank, passage.score),)
        ranked = [(key, passage.score, found_by) for key in sides if key is not None]
        found = {p.chunk.id: p for p in self._store.passages(ranked)}
        before, after = (found.get(key) if key is not None else None for key in sides)
        return before, after

    def rarity(self, terms: Sequence[str]) -> list[float]:
        """Inverse document frequency of each term over the whole store."""
        return self._rarity(self._serving.view(), terms)

    def status(self) -> IndexStatus:
        """What is indexed, and whether the served view lags behind the store."""
        return self._serving.status()

    def _rarity(self, view: View, terms: Sequence[str]) -> list[float]:
        with self._store.read() as connection:
            return lexical.rarity(connection, terms, view.chunks)

    def _lexical(self, view: View, query: str, k: int, allowed: Mask | None) -> dict[int, float]:
        most = HOLLOW_TERMS if is_hollow(query) else self._settings.max_terms
        terms = query_terms(query, 4 * self._settings.max_terms)
        if len(terms) > most:
            # the rarest say most about the topic, and cost least; a term of no text says nothing
            unseen, *values = self._rarity(view, ["", *terms])
            known = [(-value, place) for place, value in enumerate(values) if value < unseen]
            terms = [terms[place] for _, place in sorted(known)[:most]]
        with self._store.read() as connection:
            return lexical.search(connection, terms, k, allowed)

    def _weights(self, view: View, query: str, mode: Mode) -> Weights:
        if mode == "dense":
            return Weights(dense=1.0)
        embedder = view.embedder
        if mode == "lexical" or embedder is None or not embedder.reads(query):
            return Weights(dense=0.0)
        tongue = language(query)
        weights = fitted(embedder.id, self._reranker.id if self._reranker else "", tongue)
        settings = self._settings
        chosen = settings.dense_weight_zh if tongue == "zh" else settings.dense_weight
        weights = weights if chosen < 0 else replace(weights, dense=chosen)
        return (
            weights
            if settings.rerank_weight < 0
            else replace(weights, rerank=settings.rerank_weight)
        )

    def _reread(
        self, reader: Reranker, query: str, passages: list[Passage], weights: Weights
    ) -> list[Passage]:
        """Order by the reranker's score joined with the fused one."""
        texts = [presented(p.title, p.chunk.headings, p.chunk.text) for p in passages]
        tongue = language(query)
        scores = reader.rank(query, texts)
        factors = [_factor(p, tongue) for p in passages]
        ranked = [float(s) * f for s, f in zip(scores, factors, strict=True)]
        joined = blend([p.score for p in passages], ranked, weights.rerank)
        return _placed(
            [replace(p, score=s) for p, s in zip(passages, joined, strict=True)], "reranked"
        )


def _joined(
    found: Candidates, weights: Weights, exclude: frozenset[int]
) -> list[tuple[int, float]]:
    """(id, fused score), best first. A side without weight brings no passages of its own either."""
    counted: set[int] = set(found.lexical) if weights.dense < 1 else set()
    if weights.dense > 0:
        # where words were found, a text that is merely the least unlike of all is none of them
        floor = weights.floor if found.lexical else -1.0
        counted |= {key for key in found.near if found.dense[key] >= floor}
    return [
        (key, score)
        for key, score in fuse(found.dense, found.lexical, weights.dense)
        if key in counted and key not in exclude
    ]


def _own_language_first(
    passages: list[Passage], tongue: str, found: Candidates, weights: Weights
) -> list[Passage]:
    """Lower the other language's scores: an answer should be readable as it is.

    Words of one language hardly stand in texts of another, so those go by their vectors alone.
    """
    cosines = minmax(found.dense) if weights.dense > 0 else {}
    weighed = []
    for passage in passages:
        score = passage.score
        if passage.lang != tongue:
            score = max(score, cosines.get(passage.chunk.id, 0.0)) * OTHER_LANGUAGE
        weighed.append(replace(passage, score=score))
    return sorted(weighed, key=lambda p: -p.score)


def _factor(passage: Passage, tongue: str) -> float:
    return 1.0 if passage.lang == tongue else OTHER_LANGUAGE


def _placed(passages: Sequence[Passage], stage: str) -> list[Passage]:
    """Order by score, and note rank and score of `stage` in front of the stages before it."""
    ordered = sorted(passages, key=lambda p: -p.score)
    return [
        replace(
            p, found_by=(Found(stage, rank, p.score), *(f for f in p.found_by if f.stage != stage))
        )
        for rank, p in enumerate(ordered, start=1)
    ]


def _stages(found: Candidates) -> dict[int, list[Found]]:
    """The stages that found each candidate, with its rank and score there; fused goes by later."""
    stages: dict[int, list[Found]] = defaultdict(list)
    dense: Mapping[int, float] = {near: found.dense[near] for near in found.near}
    for name, scores in (("dense", dense), ("lexical", found.lexical)):
        ordered = sorted(scores.values())
        for key, score in scores.items():
            place = 1 + len(ordered) - bisect_right(ordered, score)
            stages[key].append(Found(name, place, score))
    return stages
