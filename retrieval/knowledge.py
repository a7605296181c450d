"""The knowledge base: store, encoder, index, parsers and ingestion under one roof.

`open_knowledge(home, settings)` is the only place where retrieval's concrete parts meet.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from retrieval import menu, store_read
from retrieval.config import EmbedSettings, RetrievalSettings
from retrieval.embed.base import Embedder
from retrieval.errors import RetrievalError
from retrieval.ingest import Ingester
from retrieval.intake import Events, Intake
from retrieval.ledger import UPLOADS, Ledger
from retrieval.parse.worker import ParserPool
from retrieval.presence import deleted, forgotten
from retrieval.rerank.base import Reranker
from retrieval.schema import Document, IndexStatus, Mode, Passage, Scope
from retrieval.search import Retriever
from retrieval.serving import Serving
from retrieval.snapshot import Snapshots
from retrieval.sources._fetch import Fetcher
from retrieval.sources.memory import Given
from retrieval.store import Store
from retrieval.store_log import Model
from retrieval.tally import total
from retrieval.upkeep import Upkeep
from retrieval.watch import Keeper, OnSummary

logger = logging.getLogger(__name__)

__all__ = ["UPLOADS", "Follower", "KnowledgeBase", "open_knowledge", "total"]


class Follower(Protocol):
    """What goes along with everything that is taken in or removed, such as a check of it."""

    def along(self, events: Events) -> Events:
        """Play a run on, with ticks and remarks of one's own; the last item is the summary."""

    def removed(self) -> None:
        """Something was forgotten."""

    def keep(self) -> None:
        """Begin to follow changes that nobody waits for, until closed."""

    def noted(self, status: IndexStatus) -> IndexStatus:
        """The status with what there is to say about the sources."""

    def close(self) -> None:
        """Stop."""


class KnowledgeBase:
    """Everything known, and the ways in and out of it. Safe for several threads."""

    def __init__(
        self,
        home: Path,
        settings: RetrievalSettings,
        embedder: Embedder,
        fetcher: Fetcher | None = None,
        reranker: Reranker | None = None,
    ) -> None:
        self.embedder = embedder
        self.reranker = reranker
        self.settings = settings
        self._home = home
        noted = settings.embed.model_dump_json()
        self._store = Store(home / "knowledge.db", embedder.id, embedder.dim, noted)
        snapshots = Snapshots(home / "index")
        index = settings.search.index
        self._serving = serve(self._store, embedder, index, snapshots)
        self._retriever = Retriever(self._serving, settings.search, reranker, settings.rerank.depth)
        self._pool = ParserPool(settings.parse)
        self._ingester = Ingester(self._store, embedder, settings, self._pool)
        ledger = Ledger(home, self._store, settings.sync)
        self._intake = Intake(home, settings, ledger, self._ingester, fetcher)
        self._sync = settings.sync
        self._keeper: Keeper | None = None
        self._follower: Follower | None = None
        self._upkeep = Upkeep(self._serving, snapshots, settings.search, embedder)

    @property
    def store(self) -> Store:
        """The database, for adapters that write into it themselves."""
        return self._store

    def follow(self, follower: Follower) -> None:
        """Let `follower` go along from now on; it is closed with the knowledge base."""
        self._follower = follower

    def _along(self, events: Events) -> Events:
        return events if self._follower is None else self._follower.along(events)

    def ingest(
        self,
        addresses: Sequence[Path | str],
        *,
        kind: str = "",
        readers: Sequence[str] | None = None,
        every: float | None = None,
    ) -> Events:
        """See `Intake.ingest`."""
        return self._along(self._intake.ingest(addresses, kind=kind, readers=readers, every=every))

    def ingest_documents(
        self, root: str, given: Iterable[Given], *, complete: bool = False
    ) -> Events:
        """See `Intake.hand_over`."""
        return self._along(self._intake.hand_over(root, given, complete=complete))

    def upload(self, uploads: Sequence[tuple[str, Path]]) -> Events:
        """See `Intake.upload`."""
        return self._along(self._intake.upload(uploads))

    def sync(self, root: str) -> Events:
        """See `Intake.sync`."""
        return self._along(self._intake.sync(root))

    def keep_fresh(self, on_summary: OnSummary = lambda *_: None) -> None:
        """Watch folders and check sources at their intervals until `close`."""
        if self._keeper is None:
            self._keeper = Keeper(self._intake, self._sync, on_summary)
            if self._follower is not None:
                self._follower.keep()

    def forget(self, name: str) -> int:
        """See `Intake.forget`."""
        removed = self._intake.forget(name)
        self._retriever.refresh()
        if self._follower is not None:
            self._follower.removed()
        return removed

    def search(
        self,
        query: str,
        k: int,
        *,
        mode: Mode = "reranked",
        exclude: frozenset[int] = frozenset(),
        scope: Scope | None = None,
    ) -> list[Passage]:
        """See `Retriever.search`; what was deleted from a folder since it was read is left out."""
        for _ in range(3):
            found = self._retriever.search(query, k, mode=mode, exclude=exclude, scope=scope)
            gone = deleted(found, self._intake.ledger)
            if not gone:
                break
            exclude |= gone
        kept = [passage for passage in found if passage.chunk.id not in gone]
        return forgotten(kept, self._intake.ledger)

    def around(self, passage: Passage) -> tuple[Passage | None, Passage | None]:
        """See `Retriever.around`."""
        return self._retriever.around(passage)

    def rarity(self, terms: Sequence[str]) -> list[float]:
        """See `Retriever.rarity`."""
        return self._retriever.rarity(terms)

    def document(self, document_id: int) -> Document | None:
        """A stored version, or None once it was replaced or removed."""
        return self._store.document(document_id)

    def there(self, documents: Iterable[int]) -> frozenset[int]:
        """Those of the document versions that are still stored."""
        with self._store.read() as connection:
            return store_read.there(connection, sorted(documents))

    def headings(self) -> set[str]:
        """Every heading of every document, for suggestions and for measuring."""
        return self._store.headings()

    def behind(self) -> int:
        """How many changes are committed and not yet in what is searched."""
        return self._serving.behind()

    def refresh(self) -> int:
        """Take up what was committed, as the next search would; returns the last change in it."""
        return self._serving.refresh()

    def status(self) -> IndexStatus:
        """What is indexed and how fresh it is."""
        pending = self._keeper.pending() if self._keeper is not None else {}
        found = replace(self._retriever.status(), roots=self._intake.ledger.roots(pending))
        return found if self._follower is None else self._follower.noted(found)

    def close(self) -> None:
        """Stop the workers and close the database."""
        if self._keeper is not None:
            self._keeper.close()
        self._intake.close()
        if self._follower is not None:
            self._follower.close()
        self._upkeep.close()
        self._pool.close()
        self._store.close()


def open_knowledge(home: Path, settings: RetrievalSettings) -> KnowledgeBase:
    """Open (or create) the knowledge base in the folder `home`."""
    backend = menu.load("retrieval.embed", settings.embed.backend)
    return KnowledgeBase(
        home, settings, backend.build(settings.embed), reranker=build_reranker(settings)
    )


def build_reranker(settings: RetrievalSettings) -> Reranker | None:
    """Load the reranker that the settings name; None where they name none."""
    made: Reranker | None = menu.load("retrieval.rerank", settings.rerank.backend).build(
        settings.rerank
    )
    return made


def serve(store: Store, embedder: Embedder, index: str, snapshots: Snapshots) -> Serving:
    """The views: with `embedder`, or with the one it is about to replace."""
    old, _, _ = store.progress()
    if old is None or old.id == store.model.id:
        return Serving(store, embedder, index, snapshots)
    return Serving(store, _again(old), index, snapshots, old)


def _again(model: Model) -> Embedder | None:
    """The encoder that made the stored vectors; None where it cannot be had any more."""
    try:
        settings = EmbedSettings.model_validate_json(model.settings)
        backend = menu.load("retrieval.embed", settings.backend)
        embedder: Embedder = backend.build(settings)
    except (ValidationError, RetrievalError, OSError) as error:
        logger.warning("%s cannot be built any more: %s", model.name, error)
        return None
    return embedder if (embedder.id, embedder.dim) == (model.name, model.dim) else None
