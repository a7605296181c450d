"""What the commands of this folder share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

from assistant import terminal
from assistant.build import build_knowledge
from assistant.config import Settings
from assistant.scan import Scan
from retrieval.knowledge import KnowledgeBase
from retrieval.schema import IngestSummary

#: Standard error: what is said beside a command's own output.
err = Console(stderr=True)


@contextmanager
def opened(settings: Settings, *, watch: bool) -> Iterator[tuple[KnowledgeBase, Scan | None]]:
    """The knowledge base and what checks passages; `watch` has folders watched, whatever is set."""
    chosen = settings.retrieval
    if watch:
        on = chosen.sync.model_copy(update={"watch": True})
        chosen = chosen.model_copy(update={"sync": on})
        settings = settings.model_copy(update={"retrieval": chosen})
    knowledge, scan = build_knowledge(settings)
    try:
        yield knowledge, scan
    finally:
        knowledge.close()


def keep(knowledge: KnowledgeBase, out: Console) -> int:
    """Keep the sources fresh until interrupted."""

    def heard(root: str, summary: IngestSummary) -> None:
        terminal.failures(summary.failures, err)
        if summary.added or summary.updated or summary.removed:
            out.print(f"{escape(root)}: {terminal.line(summary)}", soft_wrap=True)

    knowledge.keep_fresh(heard)
    err.print("Watching. Ctrl-C ends it.")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        err.print("\nStopped. Everything taken in so far is kept.")
    return 0
