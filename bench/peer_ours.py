"""Our side of `bench.peers`: the same requests, answered by a knowledge base on disk."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from assistant import load
from bench import ir
from bench.peer_child import Texts, serve
from retrieval import menu
from retrieval.knowledge import KnowledgeBase
from retrieval.store import Store
from retrieval.text import language


class Plumbline:
    """Chunks, vectors and terms into the database, committed document by document."""

    package, kind = "plumbline", "hybrid"

    def __init__(self, overrides: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="plumbline-bench-")
        self._home = Path(self._folder.name)
        asked = {"home": str(self._home), **json.loads(overrides)}
        self._settings = load(overrides=asked).retrieval
        backend = menu.load("retrieval.embed", self._settings.embed.backend)
        self._embedder = backend.build(self._settings.embed)
        menu.load("retrieval.index", self._settings.search.index)

    def ingest(self, texts: Texts) -> None:
        """Store and index, ready to be searched."""
        store = Store(self._home / "knowledge.db", self._embedder.id, self._embedder.dim)
        docs = [ir.Doc(key, "", text, language(text)) for key, text in texts]
        ir.fill(store, self._embedder, docs, self._settings.chunk)
        store.close()
        self._knowledge = KnowledgeBase(self._home, self._settings, self._embedder)

    def search(self, query: str, k: int) -> list[str]:
        """The fused search, reranked where a reranker is set."""
        found = self._knowledge.search(query, k)
        return [passage.source.removeprefix(f"{ir.ROOT}:") for passage in found]


if __name__ == "__main__":
    serve(Plumbline, sys.argv[1])
