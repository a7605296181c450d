"""How fast a folder is taken in, twice: `python -m bench.ingest PATH…`.

The knowledge base is new; the encoder is loaded before the clock starts. `chunks_per_s` counts all
chunks of the first run; the second run must embed nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from assistant import load
from bench.common import report, scratch
from retrieval.knowledge import KnowledgeBase, open_knowledge
from retrieval.schema import IngestSummary


def main(arguments: Sequence[str] | None = None) -> None:
    """Ingest twice and report."""
    parser = argparse.ArgumentParser(description="ingestion speed")
    parser.add_argument("paths", nargs="+", type=Path)
    options = parser.parse_args(arguments)
    with scratch() as folder:
        settings = load(overrides={"home": str(folder), "docs": "false"})
        knowledge = open_knowledge(settings.home, settings.retrieval)
        knowledge.embedder.embed(["warm-up"], "passage")
        first = run(knowledge, options.paths)
        again = run(knowledge, options.paths)
        status = knowledge.status()
        knowledge.close()
    speed = first.chunks / first.seconds
    rows = [
        ("documents", str(first.documents), f"{len(first.failures)} failed"),
        ("chunks", str(status.chunks), f"{first.embedded} embedded (the rest: lexical only)"),
        ("first run", f"{first.seconds:.1f} s", f"{speed:.1f} chunks/s"),
        ("second run", f"{again.seconds:.2f} s", f"{again.embedded} embedded"),
    ]
    rows += [("failed", f.source, f"{f.reason}: {f.detail}") for f in first.failures[:10]]
    values = {
        "documents": first.documents,
        "chunks": status.chunks,
        "embedded": first.embedded,
        "chunks_per_s": round(speed, 1),
        "seconds": round(first.seconds, 2),
        "embedded_again": again.embedded,
        "seconds_again": round(again.seconds, 3),
    }
    report("ingest", rows, values)


def run(knowledge: KnowledgeBase, paths: Sequence[Path]) -> IngestSummary:
    """One whole run."""
    *_, summary = knowledge.ingest(paths)
    assert isinstance(summary, IngestSummary)
    return summary


if __name__ == "__main__":
    main()
