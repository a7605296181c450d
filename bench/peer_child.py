"""One peer in a process of its own, asked over pipes by `bench.peers`; imports nothing of ours.

Each system is set up as its documentation recommends for question answering over short texts: its
own splitter, its own way to embed (from the weights it is given), hybrid search where it has one.
Requests and replies are lines of JSON; whatever a library prints goes to the error stream.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

#: (id, title and text)
Texts = Sequence[tuple[str, str]]


class System(Protocol):
    """What is asked of a system."""

    def ingest(self, texts: Texts) -> None:
        """Make the texts searchable."""

    def search(self, query: str, k: int) -> list[str]:
        """Ids of the documents of the best `k` pieces, best first; an id may come again."""


class LangChain:
    """FAISS.from_documents behind the recursive splitter of the tutorial (1000 characters)."""

    package, kind = "langchain-community", "dense"

    def __init__(self, weights: str) -> None:
        from langchain_community.vectorstores import FAISS
        from langchain_core.documents import Document
        from langchain_huggingface import HuggingFaceEmbeddings
        from langchain_text_splitters import RecursiveCharacterTextSplitter

        self._faiss, self._document = FAISS, Document
        self._embeddings = HuggingFaceEmbeddings(model_name=weights)
        self._splitter = RecursiveCharacterTextSplitter(chunk_size=1000, chunk_overlap=200)

    def ingest(self, texts: Texts) -> None:
        """See `System`."""
        documents = [
            self._document(page_content=text, metadata={"doc": key}) for key, text in texts
        ]
        pieces = self._splitter.split_documents(documents)
        self._store = self._faiss.from_documents(pieces, self._embeddings)

    def search(self, query: str, k: int) -> list[str]:
        """See `System`."""
        return [found.metadata["doc"] for found in self._store.similarity_search(query, k=k)]


class LlamaIndex:
    """SentenceSplitter, FAISS and BM25, joined by QueryFusionRetriever without query generation."""

    package, kind = "llama-index-core", "hybrid"

    def __init__(self, weights: str) -> None:
        import faiss
        from llama_index import core
        from llama_index.core.llms import MockLLM
        from llama_index.core.node_parser import SentenceSplitter
        from llama_index.core.retrievers import QueryFusionRetriever
        from llama_index.embeddings.huggingface import HuggingFaceEmbedding
        from llama_index.retrievers.bm25 import BM25Retriever
        from llama_index.vector_stores.faiss import FaissVectorStore

        self._core, self._fusion, self._bm25 = core, QueryFusionRetriever, BM25Retriever
        self._embedding = HuggingFaceEmbedding(model_name=weights)
        self._splitter = SentenceSplitter()
        self._llm = MockLLM()  # asked for by the constructor, never called
        index = faiss.IndexFlatIP(len(self._embedding.get_text_embedding("x")))
        self._vectors = FaissVectorStore(faiss_index=index)

    def ingest(self, texts: Texts) -> None:
        """See `System`."""
        documents = [self._core.Document(text=text, doc_id=key) for key, text in texts]
        self._nodes = self._splitter.get_nodes_from_documents(documents)
        context = self._core.StorageContext.from_defaults(vector_store=self._vectors)
        self._index = self._core.VectorStoreIndex(
            self._nodes, storage_context=context, embed_model=self._embedding
        )
        self._retriever: Any = None

    def search(self, query: str, k: int) -> list[str]:
        """See `System`."""
        if self._retriever is None:
            self._retriever = self._fusion(
                [
                    self._index.as_retriever(similarity_top_k=k),
                    self._bm25.from_defaults(nodes=self._nodes, similarity_top_k=k),
                ],
                similarity_top_k=k,
                num_queries=1,
                mode="reciprocal_rerank",
                use_async=False,
                llm=self._llm,
            )
        return [str(found.node.ref_doc_id) for found in self._retriever.retrieve(query)]


class Txtai:
    """Embeddings with hybrid=True."""

    package, kind = "txtai", "hybrid"

    def __init__(self, weights: str) -> None:
        from txtai import Embeddings

        self._embeddings = Embeddings(path=weights, hybrid=True)

    def ingest(self, texts: Texts) -> None:
        """See `System`."""
        self._embeddings.index([(key, text, None) for key, text in texts])

    def search(self, query: str, k: int) -> list[str]:
        """See `System`."""
        return [str(key) for key, _ in self._embeddings.search(query, k)]


class Haystack:
    """DocumentSplitter (200 words), in-memory BM25 and vectors, joined by reciprocal rank."""

    package, kind = "haystack-ai", "hybrid"

    def __init__(self, weights: str) -> None:
        from haystack import Document, Pipeline
        from haystack.components.joiners import DocumentJoiner
        from haystack.components.preprocessors import DocumentSplitter
        from haystack.components.retrievers import (
            InMemoryBM25Retriever,
            InMemoryEmbeddingRetriever,
        )
        from haystack.document_stores.in_memory import InMemoryDocumentStore
        from haystack_integrations.components.embedders.sentence_transformers import (
            SentenceTransformersDocumentEmbedder,
            SentenceTransformersTextEmbedder,
        )

        self._document = Document
        self._store = InMemoryDocumentStore(embedding_similarity_function="cosine")
        self._splitter = DocumentSplitter(split_by="word", split_length=200)
        self._embedder = SentenceTransformersDocumentEmbedder(model=weights, progress_bar=False)
        self._splitter.warm_up()
        self._embedder.warm_up()
        text = SentenceTransformersTextEmbedder(model=weights, progress_bar=False)
        self._pipeline = Pipeline()
        self._pipeline.add_component("text", text)
        self._pipeline.add_component("dense", InMemoryEmbeddingRetriever(self._store))
        self._pipeline.add_component("bm25", InMemoryBM25Retriever(self._store))
        joiner = DocumentJoiner(join_mode="reciprocal_rank_fusion")
        self._pipeline.add_component("join", joiner)
        self._pipeline.connect("text.embedding", "dense.query_embedding")
        self._pipeline.connect("dense", "join")
        self._pipeline.connect("bm25", "join")

    def ingest(self, texts: Texts) -> None:
        """See `System`."""
        documents = [self._document(content=text, meta={"doc": key}) for key, text in texts]
        pieces = self._splitter.run(documents=documents)["documents"]
        self._store.write_documents(self._embedder.run(documents=pieces)["documents"])

    def search(self, query: str, k: int) -> list[str]:
        """See `System`."""
        asked = {
            "text": {"text": query},
            "dense": {"top_k": k},
            "bm25": {"query": query, "top_k": k},
            "join": {"top_k": k},
        }
        return [found.meta["doc"] for found in self._pipeline.run(asked)["join"]["documents"]]


class Bm25s:
    """BM25 alone, with stop words and stemming: no vectors, so nothing is embedded."""

    package, kind = "bm25s", "lexical"

    def __init__(self, weights: str) -> None:
        import bm25s
        import Stemmer

        self._library, self._stemmer = bm25s, Stemmer.Stemmer("english")

    def _tokens(self, texts: Sequence[str]) -> Any:
        return self._library.tokenize(
            list(texts), stopwords="en", stemmer=self._stemmer, show_progress=False
        )

    def ingest(self, texts: Texts) -> None:
        """See `System`."""
        self._ids = [key for key, _ in texts]
        self._index = self._library.BM25()
        self._index.index(self._tokens([text for _, text in texts]), show_progress=False)

    def search(self, query: str, k: int) -> list[str]:
        """See `System`."""
        k = min(k, len(self._ids))
        rows, _ = self._index.retrieve(self._tokens([query]), k=k, show_progress=False)
        return [self._ids[row] for row in rows[0]]


PEERS: dict[str, Any] = {
    "langchain_faiss": LangChain,
    "llama_index": LlamaIndex,
    "txtai": Txtai,
    "haystack": Haystack,
    "bm25s": Bm25s,
}


def serve(make: Any, weights: str) -> None:
    """Answer requests until the pipe closes; the first reply says what the system is."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a library that prints must not break the protocol

    def reply(**values: object) -> None:
        print(json.dumps(values), file=replies, flush=True)

    try:
        system: System = make(weights)
    except ModuleNotFoundError as error:
        reply(error=f"needs {error.name!r}; install plumbline[peers]")
        return
    try:
        release = version(make.package)
    except PackageNotFoundError:
        release = ""
    reply(kind=make.kind, version=release)
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.perf_counter()
        if asked["op"] == "ingest":
            with open(asked["path"], encoding="utf-8") as file:
                texts = [(row["id"], row["text"]) for row in map(json.loads, file)]
            began = time.perf_counter()
            system.ingest(texts)
            reply(seconds=time.perf_counter() - began)
        elif asked["op"] == "search":
            found = system.search(asked["query"], asked["k"])
            reply(seconds=time.perf_counter() - began, ids=found)
        else:
            reply(rss_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    serve(PEERS[sys.argv[1]], sys.argv[2])
