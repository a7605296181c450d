"""Our side of `bench.peers`: the same requests, answered by a knowledge base on disk."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from assistant import load
from bench.ir import ROOT
from bench.peer_child import Texts, serve
from retrieval.knowledge import open_knowledge
from retrieval.schema import IngestSummary
from retrieval.sources.memory import Given


class Plumbline:
    """Documents handed over from memory: parsed, cut, embedded and committed one by one."""

    package, kind = "plumbline", "hybrid"

    def __init__(self, overrides: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="plumbline-bench-")
        home = Path(self._folder.name)
        settings = load(overrides={"home": str(home), **json.loads(overrides)}).retrieval
        self._knowledge = open_knowledge(home, settings)
        # the encoder is loaded, and the reader of documents started
        for _ in self._knowledge.ingest_documents("warm", [Given("warm", "Warm-up.")]):
            pass
        self._knowledge.forget("warm")

    def ingest(self, texts: Texts) -> None:
        """Store and index, ready to be searched."""
        given = [Given(key, text) for key, text in texts]
        *_, summary = self._knowledge.ingest_documents(ROOT, given, complete=True)
        assert isinstance(summary, IngestSummary)
        if summary.failures:
            raise SystemExit(f"{len(summary.failures)} failed, first {summary.failures[0]}")
        self._knowledge.search("warm", 1)

    def search(self, query: str, k: int) -> list[str]:
        """The whole search, reranked where a reranker is set."""
        found = self._knowledge.search(query, k)
        return [n.removeprefix(f"{ROOT}:") for p in found for n in (p.source, *p.also)]


if __name__ == "__main__":
    serve(Plumbline, sys.argv[1])
