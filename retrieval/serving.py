"""The view that queries use, kept up with the store.

A newer view is made by replaying the change log, and swapped in by one assignment. Where the log
no longer reaches back (a snapshot allowed it to be trimmed), or another encoder serves now, the
view is opened anew.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace

import numpy as np

from retrieval import menu, store_log
from retrieval.catalog import catalog
from retrieval.embed.base import Embedder
from retrieval.index.base import Ids, Index
from retrieval.schema import IndexStatus, Scope
from retrieval.snapshot import Snapshots
from retrieval.store import Store
from retrieval.store_log import Model
from retrieval.view import View

_LOG = logging.getLogger(__name__)

#: Up to so many vectors `auto` compares every one; beyond, it looks into the nearest lists. Every
#: one of 100,000 costs 12 ms and the lists 2, at a recall of .997 (bench.scale).
EXACT_LIMIT = 20_000
#: Up to so many are loaded into memory where there is no index on disk; beyond, it is made first.
IN_MEMORY = 200_000
NOTHING: Ids = np.zeros(0, dtype=np.int64)


def backend_name(index: str, vectors: int) -> str:
    """The file of `retrieval/index/` that `index` means for so many vectors."""
    if index != "auto":
        return index
    return "flat" if vectors <= EXACT_LIMIT else "ivf"


class Serving:
    """Holds the current view. Safe for several threads; a view sees every earlier commit."""

    in_memory = IN_MEMORY

    def __init__(
        self,
        store: Store,
        embedder: Embedder | None,
        index: str = "auto",
        snapshots: Snapshots | None = None,
        model: Model | None = None,
    ) -> None:
        """Open the newest view.

        Args:
            store: the truth.
            embedder: the encoder of `model`; None: lexical search only.
            index: "auto" or a file of `retrieval/index/`.
            snapshots: where indexes are kept; None keeps all vectors in memory.
            model: whose vectors are searched; None: `store.model`.
        """
        self.store = store
        self.snapshots = snapshots
        self.index = index
        self.health = ""
        #: Whether there are too many vectors to search them without an index, which is not there.
        self.waiting = False
        self.model = model or store.model
        self.embedder = embedder
        self._lock = threading.Lock()
        menu.load("retrieval.index", backend_name(index, 0))
        self._view = self._opened()

    def view(self, scope: Scope | None = None) -> View:
        """The newest view; with a scope, one that can tell what the scope may see."""
        view = self._refreshed()
        if scope is not None and scope != Scope() and view.catalog is None:
            with self._lock:
                if self._view.catalog is None:
                    made = catalog(self.store.catalog())
                    self._view = replace(self._view, catalog=made, masks={})
                view = self._view
        return view

    def behind(self) -> int:
        """How many changes are committed and not yet in what is searched."""
        return max(0, self.store.sequence() - self._view.sequence)

    def refresh(self) -> int:
        """Replay what was committed since the last call; returns the sequence now served."""
        return self._refreshed().sequence

    def use(self, model: Model, embedder: Embedder) -> None:
        """Serve the vectors of `model`, which `embedder` makes."""
        with self._lock:
            self.model, self.embedder = model, embedder
            self._view = self._opened()

    def reopen(self) -> None:
        """Take up the newest snapshot. Searches go on with the old view meanwhile."""
        view = self._opened()
        with self._lock:
            if view.sequence < self._view.sequence:
                view = self._replayed(view) or self._view
            self._view = replace(view, catalog=self._view.catalog, masks={})

    def status(self) -> IndexStatus:
        """What is indexed, how it is searched, and whether the view lags behind the store."""
        view = self._view
        documents, chunks = self.store.counts()
        serving, filling, share = self.store.progress()
        inside = np.isin(view.gone, view.base.ids) if len(view.gone) else view.gone
        health = self.health
        if view.embedder is None and not health:
            health = "meaning is not searched now, terms are: the vectors are being made anew"
        return IndexStatus(
            documents,
            chunks,
            self.store.sequence(),
            view.sequence,
            serving.name if serving else self.model.name,
            (),  # the sources are the ledger's
            index=f"{view.base.factory} {view.base.size}",
            delta=view.pending,
            tombstones=int(np.count_nonzero(inside)),
            snapshot_age=time.time() - view.created if view.created else None,
            health=health,
            switching=filling.name if filling else "",
            switched=share,
        )

    def _refreshed(self) -> View:
        view = self._view
        if self.store.sequence() > view.sequence:
            with self._lock:
                newer = self._replayed(self._view)
                self._view = newer or self._opened()
                view = self._view
        return view

    def _replayed(self, view: View) -> View | None:
        """The view after what was committed since; None where it must be opened anew."""
        changes = self.store.changes(view.sequence, self.model)
        served = changes.model is not None and changes.model.id == self.model.id
        served = served and not self.waiting
        if view.sequence < changes.floor or served != (view.embedder is not None):
            return None
        newer = view
        if served:
            newer = view.after(changes.ids, changes.vectors, changes.removed)
        known = view.catalog.updated(changes.catalog) if view.catalog else None
        return replace(
            newer, catalog=known, sequence=changes.sequence, chunks=changes.chunks, masks={}
        )

    def _opened(self) -> View:
        """A view from the newest sound snapshot, or from all stored vectors."""
        model, dim = self.model, self.model.dim
        self.waiting = False
        snapshot = None
        if self.snapshots is not None:
            snapshot, self.health = self.snapshots.open(model)
            if self.health:
                _LOG.warning("%s", self.health)
        serving, _, _ = self.store.progress()
        if self.embedder is None or serving is None or serving.id != model.id:
            return self._without(model)
        if snapshot is not None:
            first = self._view_of(snapshot.index, snapshot.sequence, 0, self.embedder)
            first = replace(first, created=snapshot.created, since=snapshot.sequence)
            view = self._replayed(replace(first, lease=snapshot))
            if view is not None:
                return view
        if self.snapshots is not None and self.index != "exact":
            with self.store.read() as connection:
                self.waiting = store_log.count(connection, model) > self.in_memory
        if self.waiting:
            return self._without(model)
        loaded = self.store.vectors(model)
        base: Index = menu.load(
            "retrieval.index", "flat" if self.index == "auto" else self.index
        ).build(dim)
        base.add(loaded.ids, loaded.vectors)
        return self._view_of(base, loaded.sequence, loaded.chunks, self.embedder)

    def _without(self, model: Model) -> View:
        """A view that searches no vectors."""
        empty: Index = menu.load("retrieval.index", "exact").build(model.dim)
        at = self.store.changes(self.store.sequence(), model)
        return self._view_of(empty, at.sequence, at.chunks, None)

    def _view_of(self, base: Index, sequence: int, chunks: int, embedder: Embedder | None) -> View:
        return View(embedder, base, (), NOTHING, None, None, sequence, sequence, chunks)
