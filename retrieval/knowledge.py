"""The knowledge base: store, encoder, index, parsers and ingestion under one roof.

`open_knowledge(home, settings)` is the only place where retrieval's concrete parts meet.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from retrieval import menu
from retrieval.config import RetrievalSettings
from retrieval.embed.base import Embedder
from retrieval.ingest import Ingester, sources_of
from retrieval.parse.worker import ParserPool
from retrieval.schema import Document, IndexStatus, IngestProgress, IngestSummary, Mode, Passage
from retrieval.search import Retriever
from retrieval.sources import files
from retrieval.sources.base import Item, belongs, storable
from retrieval.store import Store

UPLOADS = "upload"


class KnowledgeBase:
    """Everything known, and the ways in and out of it. Safe for several threads."""

    def __init__(self, home: Path, settings: RetrievalSettings, embedder: Embedder) -> None:
        self.embedder = embedder
        self._home = home
        self._store = Store(home / "knowledge.db", embedder.id, embedder.dim)
        index = menu.load("retrieval.index", settings.search.index)
        self._retriever = Retriever(self._store, embedder, index, settings.search)
        self._pool = ParserPool(settings.parse)
        self._ingester = Ingester(self._store, embedder, settings, self._pool)
        # two runs over one root would each prune what the other has not walked yet
        self._ingesting = threading.Lock()

    def ingest(self, paths: Sequence[Path]) -> Iterator[IngestProgress | IngestSummary]:
        """Take in files and folders; progress, and a summary last that covers all paths.

        Raises:
            SourceNotFound: a path does not exist; nothing was read.
        """
        roots = [(files.root(path), path) for path in paths]
        with self._ingesting:
            parts: list[IngestSummary] = []
            for root, path in roots:
                for event in self._ingester.run(root, files.walk(path)):
                    if isinstance(event, IngestSummary):
                        parts.append(event)
                    else:
                        yield event
            yield total(parts)

    def upload(
        self, uploads: Sequence[tuple[str, Path]]
    ) -> Iterator[IngestProgress | IngestSummary]:
        """Copy files (display name, path) into the knowledge base's own folder and take them in.

        On disk a file is named by its content's hash; the display name is only a name in the
        store, and a new upload of the same name replaces the old one.
        """
        folder = self._home / "uploads"
        folder.mkdir(parents=True, exist_ok=True)
        with self._ingesting:
            named = [(storable(Path(name).name), path) for name, path in uploads]
            items = [
                Item(f"{UPLOADS}:{name}", _keep(folder, name, path), True, name)
                for name, path in named
            ]
            yield from self._ingester.run(UPLOADS, items, prune=False)

    def forget(self, root: str) -> int:
        """Remove a root and everything below it; returns how many documents there were."""
        name = root if root == UPLOADS else str(Path(root).resolve())
        known = {status.root for status in self._store.roots()}
        name = root if root in known else name
        removed = self._store.remove(sources_of(self._store, name))
        for below in known | {name}:
            if belongs(below, name):
                self._store.drop_root(below)
        if name == UPLOADS:
            shutil.rmtree(self._home / "uploads", ignore_errors=True)
        self._retriever.refresh()
        return removed

    def search(
        self,
        query: str,
        k: int,
        *,
        mode: Mode = "fused",
        exclude: frozenset[int] = frozenset(),
    ) -> list[Passage]:
        """See `Retriever.search`."""
        return self._retriever.search(query, k, mode=mode, exclude=exclude)

    def rarity(self, terms: Sequence[str]) -> list[float]:
        """See `Retriever.rarity`."""
        return self._retriever.rarity(terms)

    def document(self, document_id: int) -> Document | None:
        """A stored version, or None once it was replaced or removed."""
        return self._store.document(document_id)

    def headings(self) -> set[str]:
        """Every heading of every document, for suggestions and for measuring."""
        return self._store.headings()

    def status(self) -> IndexStatus:
        """What is indexed and how fresh it is."""
        return self._retriever.status()

    def close(self) -> None:
        """Stop the workers and close the database."""
        self._pool.close()
        self._store.close()


def open_knowledge(home: Path, settings: RetrievalSettings) -> KnowledgeBase:
    """Open (or create) the knowledge base in the folder `home`."""
    backend = menu.load("retrieval.embed", settings.embed.backend)
    return KnowledgeBase(home, settings, backend.build(settings.embed))


def total(parts: Sequence[IngestSummary]) -> IngestSummary:
    """Add summaries up."""
    whole = IngestSummary(0, 0, 0, 0, 0, 0, 0, 0.0, ())
    ignored: Counter[str] = Counter()
    for part in parts:
        whole = replace(
            whole,
            documents=whole.documents + part.documents,
            added=whole.added + part.added,
            updated=whole.updated + part.updated,
            unchanged=whole.unchanged + part.unchanged,
            removed=whole.removed + part.removed,
            chunks=whole.chunks + part.chunks,
            embedded=whole.embedded + part.embedded,
            seconds=whole.seconds + part.seconds,
            failures=whole.failures + part.failures,
        )
        ignored.update(dict(part.ignored))
    return replace(whole, ignored=tuple(sorted(ignored.items())))


def _keep(folder: Path, name: str, path: Path) -> Path:
    """Copy under the hash of the content; the suffix stays because it picks the parser.

    What cannot be copied stays where it is, for ingestion to read or to report by its name.
    """
    if not path.is_file():
        return path
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        suffix = Path(name).suffix.lower()
        target = folder / f"{digest[:32]}{suffix if suffix[1:].isalnum() else ''}"
        if not target.exists():
            part = target.with_suffix(".part")
            shutil.copyfile(path, part)
            os.replace(part, target)
    except OSError:
        return path
    return target
