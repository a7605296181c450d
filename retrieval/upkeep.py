"""What goes on in the background: snapshots, and the vectors of a new encoder.

One thread, which does little itself: snapshots are written by a child process
(`retrieval.compact`), vectors are made by the encoder, which leaves the interpreter free.

Change of encoder: the vectors of the one that is configured are made beside those that serve, chunk
by chunk; then their index is written, and then one transaction lets them serve and drops the old
set. Until then the old encoder answers, if it can be built; else the terms do. Killed at any point,
it goes on with the chunks not seen yet.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from retrieval import compact, store_models
from retrieval.config import SearchSettings
from retrieval.embed.base import Embedder, Vectors, embedded_text
from retrieval.errors import RetrievalError
from retrieval.serving import Serving
from retrieval.snapshot import Snapshots
from retrieval.store import Store
from retrieval.store_log import Model

_LOG = logging.getLogger(__name__)

#: Seconds between two looks at what there is to do, and after a failed snapshot.
LOOK, AGAIN = 1.0, 60.0
#: Fewer changes than this are replayed faster than a snapshot is written.
FEWEST = 1_000
#: Chunks embedded between two looks at the stop sign.
CHUNKS = 64
#: A large index is written anew once this share of it is new.
SHARE = 0.1


class Upkeep:
    """Keeps the index of one knowledge base in shape until it is closed."""

    def __init__(
        self,
        serving: Serving,
        snapshots: Snapshots,
        settings: SearchSettings,
        embedder: Embedder,
    ) -> None:
        """Begin at once.

        Args:
            serving: the views; told of new snapshots and of a new encoder.
            snapshots: where indexes are written.
            settings: when they are.
            embedder: the encoder of `serving.store.model`.
        """
        self._serving = serving
        self._store: Store = serving.store
        self._snapshots = snapshots
        self._settings = settings
        self._embedder = embedder
        self._model = self._store.model
        self._seen = 0
        self._seen_old = 0
        self._old: tuple[Model, Embedder] | None = None
        self._looked = -1
        self._next = time.monotonic()
        self._last = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="upkeep", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; a snapshot being written is given up, what was there stays."""
        self._stop.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._stop.is_set():
            try:
                self._look()
            except (RetrievalError, OSError) as error:
                self._serving.health = f"upkeep of the index failed: {error}"
                _LOG.warning("%s", self._serving.health)
                self._stop.wait(AGAIN)
            self._stop.wait(LOOK)

    def _look(self) -> None:
        """One look: fill up, switch, write a snapshot, as far as there is need."""
        serving, _, _ = self._store.progress()
        if serving is not None and serving.id != self._model.id:
            self._switch(serving)
        sequence = self._store.sequence()
        if serving is not None and sequence != self._looked:
            self._looked = sequence
            mine = serving.id == self._model.id
            self._seen, _ = self._fill(self._model, self._embedder, self._seen, tell=mine)
        if self._due(sequence):
            self._write(self._model)

    def _fill(
        self, model: Model, embedder: Embedder, after: int, *, tell: bool
    ) -> tuple[int, bool]:
        """Embed what `model` has not seen; returns the last id seen and whether all was."""
        with self._store.read() as connection:
            top = store_models.newest(connection)
        while not self._stop.is_set():
            with self._store.read() as connection:
                chunks = store_models.unread(connection, model, after, CHUNKS)
            if not chunks:
                return max(after, top), True
            vectors: Vectors = np.zeros((len(chunks), model.dim), dtype=np.float32)
            readable = [row for row, chunk in enumerate(chunks) if embedder.reads(chunk.body)]
            texts = [
                embedded_text(chunks[row].title, chunks[row].headings, chunks[row].body)
                for row in readable
            ]
            if texts:
                vectors[readable] = embedder.embed(texts, "passage")
            rows = [(chunk.id, vector) for chunk, vector in zip(chunks, vectors, strict=True)]
            with self._store.write() as connection:
                if not store_models.late(connection, model, rows, tell):
                    return after, False
            after = chunks[-1].id
            if model.id == self._model.id and self._old is not None:
                # what is ingested during a change of encoder is to be found by meaning, too
                old, answering = self._old
                self._seen_old, _ = self._fill(old, answering, self._seen_old, tell=True)
        return after, False

    def _switch(self, old: Model) -> None:
        """Fill the new set up, write its index, let it serve."""
        answering = self._serving.embedder
        self._old = (old, answering) if answering is not None else None
        self._snapshots.forget(self._model)  # of an earlier try: it may lack what came since
        self._seen, complete = self._fill(self._model, self._embedder, self._seen, tell=False)
        if not complete:
            return
        total = self._store.counts()[1]
        if total >= self._settings.snapshot_changes and not self._write(self._model):
            return
        while not self._switched():
            # seen after the index was written: entered in the log again, to be replayed
            _, complete = self._fill(self._model, self._embedder, 0, tell=True)
            if not complete:
                return
        _LOG.warning(
            "%s: searched with %s now, before with %s",
            self._store.path.name,
            self._model.name,
            old.name,
        )
        self._old = None
        self._serving.use(self._model, self._embedder)
        self._snapshots.forget(old)

    def _switched(self) -> bool:
        with self._store.write() as connection:
            return store_models.switch(connection, self._model)

    def _due(self, sequence: int) -> bool:
        """Whether enough has changed since the index was last written."""
        view = self._serving.view()
        if time.monotonic() < self._next:
            return False
        if view.embedder is None:
            return self._serving.waiting
        size = view.base.size
        changes = sequence - view.since if view.created else size + view.pending
        if changes >= max(self._settings.snapshot_changes, SHARE * size):
            return True
        waited = time.monotonic() - self._last >= self._settings.snapshot_minutes * 60
        return waited and changes >= FEWEST

    def _write(self, model: Model) -> bool:
        """Write a snapshot in a child; False where it was not written, and the reason in health."""
        command = [sys.executable, "-P", "-m", "retrieval.compact", str(self._store.path)]
        command += [str(self._snapshots.folder), model.name, str(model.dim), self._serving.index]
        child = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=_environment(), start_new_session=True
        )
        _wait(child, self._stop)
        reason = (child.stderr.read() if child.stderr else "").strip().splitlines()
        if child.returncode == 0:
            self._serving.health = ""
            self._last = time.monotonic()
            if self._serving.model.id == model.id:
                self._serving.reopen()
            return True
        self._next = time.monotonic() + AGAIN
        if child.returncode == compact.UNSYNCED:
            self._next = float("inf")  # what the disk kept cannot be known before a restart
        if not self._stop.is_set() and child.returncode != compact.BUSY:
            self._serving.health = (
                f"the index could not be written: {reason[-1] if reason else child.returncode}; "
                "searching goes on with what is in memory"
            )
            _LOG.warning("%s", self._serving.health)
        return False


def _wait(child: subprocess.Popen[str], stop: threading.Event) -> None:
    """Until the child has ended; it is ended when `stop` is set."""
    while child.poll() is None:
        if stop.wait(0.05):
            child.kill()
            child.wait()


def _environment() -> dict[str, str]:
    """Ours, with our own package found first."""
    home = str(Path(__file__).resolve().parent.parent)
    paths = [home, *filter(None, [os.environ.get("PYTHONPATH", "")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
