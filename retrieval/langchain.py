"""Retrieval for LangChain: a retriever, a vector store, and any loader as a source.

    PlumblineRetriever(knowledge=knowledge, k=8)       what is known, as a BaseRetriever
    PlumblineVectorStore(knowledge)                    the same, as a VectorStore to write into
    hand_over(knowledge, loader, "manuals")            what a loader loads, into what is known

Nothing is pickled: texts, vectors and metadata lie in the knowledge base's database.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from pydantic import ConfigDict

from retrieval import direct, menu
from retrieval._langchain import (
    as_document,
    as_json,
    given,
    names_of,
    narrowed,
    scope_of,
    seconds_of,
)
from retrieval.config import RetrievalSettings
from retrieval.embed.langchain import LangChainEmbedder
from retrieval.intake import Events
from retrieval.knowledge import KnowledgeBase
from retrieval.schema import Mode, Passage, Scope
from retrieval.store_metadata import Beside
from retrieval.store_sources import SourceRecord, SourceTable

__all__ = ["PlumblineRetriever", "PlumblineVectorStore", "as_document", "given", "hand_over"]

#: Keys of a filter that bound the search itself; any other key is compared with the metadata.
BOUNDS = ("readers", "since", "until")
#: How far down passages in the wanted languages are looked for, in multiples of `k`.
WIDEST = 64


class PlumblineRetriever(BaseRetriever):
    """Passages of a knowledge base, each with where it comes from and how old it is.

    `readers`, `since` and `until` (seconds since the epoch, UTC) bound what is seen, inside the
    search; `languages` ("en", "zh", as the metadata has them) among the best `WIDEST` times `k`.
    All but `knowledge` and `mode` may also be given with a call; a call narrows what the retriever
    may see and never widens it. Safe for several threads; `ainvoke` runs in one.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    knowledge: KnowledgeBase
    k: int = 8
    mode: Mode = "reranked"
    readers: frozenset[str] | None = None
    since: float | None = None
    until: float | None = None
    languages: frozenset[str] | None = None

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        readers: Iterable[str] | None = None,
        since: float | None = None,
        until: float | None = None,
        languages: Iterable[str] | None = None,
    ) -> list[Document]:
        own = Scope(self.readers, self.since, self.until)
        scope = narrowed(own, scope_of({"readers": readers, "since": since, "until": until}))
        most = self.k if k is None else k
        spoken = self.languages
        if languages is not None:
            wanted = frozenset(names_of(languages))
            spoken = wanted if spoken is None else spoken & wanted
        if spoken is None:
            found = self.knowledge.search(query, most, mode=self.mode, scope=scope)
        else:
            found = self._spoken(query, most, scope, spoken)
        return [as_document(passage) for passage in found]

    def _spoken(self, query: str, k: int, scope: Scope, languages: frozenset[str]) -> list[Passage]:
        """The best `k` in these languages, looked for further down until there are as many."""
        wanted = k
        while True:
            found = self.knowledge.search(query, wanted, mode=self.mode, scope=scope)
            kept = [passage for passage in found if passage.lang in languages]
            if len(kept) >= k or len(found) < wanted or wanted >= WIDEST * k:
                return kept[:k]
            wanted *= 4


class PlumblineVectorStore(VectorStore):
    """A knowledge base to write LangChain documents into and search them.

    A document comes back whole and as it was added, found by its best chunk; files that were
    ingested into the same knowledge base are found too, as passages. Scores lie in [0, 1], higher
    is better, and can be compared within one query only. `metadata["modified"]` (seconds or ISO
    8601) and `metadata["readers"]` (a list of names) set the date and the readers of a document.

    A filter holds bounds (`readers`, `since`, `until`) and values that the metadata must have;
    both hold inside the search, so that `k` documents are found where there are `k`. Comparing
    metadata takes time in proportion to the size of the store.

    Args:
        knowledge: where everything is kept; the caller closes it.
        collection: the name these documents stand under.
        mode: which stages search; "dense" is by vectors alone.
    """

    def __init__(
        self, knowledge: KnowledgeBase, collection: str = "langchain", mode: Mode = "reranked"
    ) -> None:
        self._knowledge = knowledge
        self._collection = collection
        self._mode: Mode = mode
        self._beside = Beside(knowledge.store, collection)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        sources = SourceTable(knowledge.store)
        if sources.get(collection) is None:
            sources.save(SourceRecord(collection, "memory"))
            knowledge.store.set_root(collection, ())

    @property
    def embeddings(self) -> Embeddings | None:
        """The LangChain model behind the knowledge base, None where it has another encoder."""
        embedder = self._knowledge.embedder
        return embedder.embeddings if isinstance(embedder, LangChainEmbedder) else None

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        folder: Path | str | None = None,
        name: str = "",
        settings: RetrievalSettings | None = None,
        **kwargs: Any,
    ) -> Self:
        """Open a store with this model and add texts; `close` it at the end.

        Args:
            texts: the documents.
            embedding: the model.
            metadatas: one a text.
            ids: one a text; made where absent.
            folder: where it is kept; None is a folder that goes with the object.
            name: the model's identity; by default its class and its own `model` or `model_name`.
            settings: of retrieval; those about the encoder are not used.
            kwargs: `collection` and `mode`, see the class.
        """
        own = tempfile.TemporaryDirectory(prefix="plumbline-") if folder is None else None
        home = Path(own.name if own else str(folder))
        model = getattr(embedding, "model", None) or getattr(embedding, "model_name", "")
        embedder = LangChainEmbedder(embedding, name or f"{type(embedding).__name__}:{model}")
        settings = settings or RetrievalSettings()
        reranker = menu.load("retrieval.rerank", settings.rerank.backend).build(settings.rerank)
        knowledge = KnowledgeBase(home, settings, embedder, reranker=reranker)
        store = cls(knowledge, **kwargs)
        store._folder = own
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def close(self) -> None:
        """Close the knowledge base, and remove its folder where `from_texts` made it."""
        self._knowledge.close()
        if self._folder is not None:
            self._folder.cleanup()

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add or, for ids that are there, replace; returns the ids.

        Raises:
            ValueError: lengths differ, or metadata cannot be written as JSON.
        """
        every = list(texts)
        metadata = metadatas if metadatas is not None else [{} for _ in every]
        given = ids if ids is not None else [""] * len(every)
        if not len(every) == len(metadata) == len(given):
            counts = f"{len(every)} texts, {len(metadata)} metadatas and {len(given)} ids"
            raise ValueError(f"{counts}; give as many of each")
        keys = [key or str(uuid.uuid4()) for key in given]
        # the last of an id counts, as if they had been added one by one
        rows = {
            self._source(key): (text, as_json(values))
            for key, text, values in zip(keys, every, metadata, strict=True)
        }
        self._beside.write({source: values for source, (_, values) in rows.items()})
        plain = [
            direct.Plain(
                source,
                self._collection,
                text,
                str(values.get("title") or ""),
                seconds_of(values.get("modified")),
                names_of(values.get("readers")),
            )
            for source, (text, values) in rows.items()
        ]
        knowledge = self._knowledge
        direct.put(knowledge.store, knowledge.embedder, plain, knowledge.settings.chunk)
        return keys

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete by id, or everything in the collection; ids that are not there are ignored."""
        sources = self._beside.sources() if ids is None else [self._source(key) for key in ids]
        self._beside.remove(sources)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents of these ids that are there, in that order."""
        found = self._beside.read([self._source(key) for key in ids])
        return [
            Document(found[source][0], metadata=found[source][1], id=key)
            for key in dict.fromkeys(ids)
            if (source := self._source(key)) in found
        ]

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The best `k` documents; `filter` as in the class."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, *, filter: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The best `k` documents with their scores."""
        asked = dict(filter or {})
        scope = scope_of({key: asked.pop(key) for key in BOUNDS if key in asked})
        outside = self._beside.others(asked) if asked else frozenset()
        wanted = k
        while True:
            passages = self._knowledge.search(
                query, wanted, mode=self._mode, exclude=outside, scope=scope
            )
            found = self._documents(passages)
            # several chunks of one document leave room for others
            if len(found) >= k or len(passages) < wanted:
                return found[:k]
            wanted *= 2

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **kwargs: Any,
    ) -> list[Document]:
        """`k` of the best `fetch_k` that differ from each other (Carbonell & Goldstein 1998)."""
        found = self.similarity_search(query, fetch_k, **kwargs)
        if not found:
            return []
        embedder = self._knowledge.embedder
        vectors = embedder.embed([document.page_content for document in found], "passage")
        asked = embedder.embed([query], "query")[0]
        rows = [np.asarray(row).tolist() for row in vectors]
        return [found[i] for i in maximal_marginal_relevance(asked, rows, lambda_mult, k)]

    def _select_relevance_score_fn(self) -> Any:
        return lambda score: score

    def _source(self, key: str) -> str:
        return f"{self._collection}:{key}"

    def _documents(self, passages: Sequence[Passage]) -> list[tuple[Document, float]]:
        """Each document once, where its best passage stands, with what stands behind it there.

        Twins of a text, and earlier versions that a search sets aside, were added on purpose.
        """
        ours = f"{self._collection}:"
        names = [name for passage in passages for name in _behind(passage)]
        kept = self._beside.read([n for n in dict.fromkeys(names) if n.startswith(ours)])
        found: dict[str, tuple[Document, float]] = {}
        for passage in passages:
            for name in _behind(passage):
                if name in kept and name not in found:
                    text, metadata = kept[name]
                    key = name.removeprefix(ours)
                    found[name] = Document(text, metadata=metadata, id=key), passage.score
            if not passage.source.startswith(ours):
                found[f"chunk {passage.chunk.id}"] = as_document(passage), passage.score
        return list(found.values())


def hand_over(
    knowledge: KnowledgeBase, loader: BaseLoader, root: str, *, complete: bool = True
) -> Events:
    """Take in what a loader loads, under the name `root`; progress, and a summary last.

    With `complete`, what the loader no longer loads is removed. What did not change is not
    embedded again.
    """
    return knowledge.ingest_documents(root, given(loader.lazy_load()), complete=complete)


def _behind(passage: Passage) -> tuple[str, ...]:
    return (passage.source, *passage.also, *(older.source for older in passage.older))
