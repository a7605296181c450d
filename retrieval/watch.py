"""Ingested folders are watched, and every source is checked again at its interval.

Each folder has a thread that hears of changes from the system (watchfiles) and takes in the paths
that changed, no others. What a folder did while nobody watched, and what the system did not tell,
is found by walking it: when watching begins, when a folder comes back, and at its interval.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from watchfiles import watch

from retrieval.config import SyncSettings
from retrieval.errors import RetrievalError
from retrieval.intake import Intake
from retrieval.ledger import FILES
from retrieval.schema import IngestSummary
from retrieval.store_sources import SourceRecord

logger = logging.getLogger(__name__)

#: Seconds between two looks at what is to be watched and what is due.
LOOK = 1.0
#: A source that cannot be reached is tried again after its interval, doubled, at most this: a day.
LONGEST = 24 * 3600.0

OnSummary = Callable[[str, IngestSummary], None]


class Keeper:
    """Keeps the sources of one knowledge base up to date until it is closed."""

    def __init__(
        self, intake: Intake, settings: SyncSettings, on_summary: OnSummary = lambda *_: None
    ) -> None:
        """Begin at once.

        Args:
            intake: what takes changes in.
            settings: what is watched, and how often sources are checked.
            on_summary: called with a source's name and what a run or an edit came to.
        """
        self._intake = intake
        self._settings = settings
        self._on_summary = on_summary
        self._stop = threading.Event()
        self._folders: dict[str, _Folder] = {}
        self._tried: dict[str, float] = {}
        # a walk does not wait for a large site, nor does what is to be watched
        tasks = (self._watch, lambda: self._check(near=True), lambda: self._check(near=False))
        self._threads = [
            threading.Thread(target=self._repeat, args=(task,), name="keeper", daemon=True)
            for task in tasks
        ]
        for thread in self._threads:
            thread.start()

    def pending(self) -> dict[str, int]:
        """Changes seen but not taken in yet, by root."""
        return {root: len(folder.pending) for root, folder in list(self._folders.items())}

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for folder in self._folders.values():
            folder.close()

    def _repeat(self, task: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                task()
            except RetrievalError as error:
                logger.warning("sync_failed error=%s", type(error).__name__)
            self._stop.wait(LOOK)

    def _check(self, *, near: bool) -> None:
        """Synchronise what is due, one source at a time."""
        for record in self._intake.ledger.sources.all():
            if self._stop.is_set():
                return
            if (record.kind == FILES) == near and self._due(record):
                self._tried[record.root] = time.time()
                run_through(self._intake, record.root, self._on_summary, self._stop)

    def _watch(self) -> None:
        if not self._settings.watch:
            return
        records = self._intake.ledger.sources.all()
        roots = [record.root for record in records if record.kind == FILES]
        for root in set(self._folders) - set(roots):
            self._folders.pop(root).close()
        for root in roots:
            if root not in self._folders:
                self._folders[root] = _Folder(
                    root, self._intake, self._settings.debounce_ms, self._on_summary
                )

    def _due(self, record: SourceRecord) -> bool:
        minutes = self._intake.ledger.minutes().get(record.kind, 0.0)
        seconds = 60 * (minutes if record.every is None else record.every)
        if seconds <= 0:
            return False
        seconds = min(seconds * (1 << min(record.tries, 20)), max(LONGEST, seconds))
        # not all at the same moment: each source has its own fraction of up to a tenth more
        seconds *= 1 + (zlib.crc32(record.root.encode()) % 1000) / 10_000
        last = max(record.checked, self._tried.get(record.root, 0.0))
        return time.time() >= last + seconds or record.checked > time.time() + seconds


class _Folder:
    """One watched folder, or one watched file."""

    def __init__(self, root: str, intake: Intake, debounce_ms: int, on_summary: OnSummary) -> None:
        self.pending: set[str] = set()
        self._root = root
        self._intake = intake
        self._debounce_ms = debounce_ms
        self._on_summary = on_summary
        self._polling = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            if os.path.isdir(self._root):
                try:
                    self._listen()
                except OSError as error:  # the system's limit on watches, or no inotify at all
                    if os.path.isdir(self._root):
                        logger.warning("watch_polls folder=%s error=%s", self._root, error)
                        self._polling = True
            else:
                self._look()
            self._stop.wait(0.2)

    def _listen(self) -> None:
        """Take changes in until the folder is another one or gone."""
        identity = _identity(self._root)
        caught_up = False
        for changes in watch(
            self._root,
            watch_filter=None,
            debounce=self._debounce_ms,
            step=min(50, self._debounce_ms),
            stop_event=self._stop,
            rust_timeout=300,
            yield_on_timeout=True,
            raise_interrupt=False,
            force_polling=self._polling or None,
            ignore_permission_denied=True,
        ):
            self.pending |= {path for _, path in changes}
            self._take_in()
            if not caught_up and self.watched():
                caught_up = run_through(self._intake, self._root, self._on_summary, self._stop)
            if _identity(self._root) != identity:
                return

    def watched(self) -> bool:
        """Whether the folder is there."""
        return os.path.isdir(self._root)

    def _look(self) -> None:
        """Watch a file by looking at it: an editor replaces it, and a watch would be lost."""
        before: object = ()
        while not self._stop.wait(0.3):
            now = _identity(self._root)
            if os.path.isdir(self._root):
                return
            if now != before and (now is not None or before != ()):
                before = now
                if now is not None:
                    run_through(self._intake, self._root, self._on_summary, self._stop)

    def _take_in(self) -> None:
        if not self.pending:
            return
        paths = set(self.pending)
        try:
            summary = self._intake.update(self._root, paths)
        except RetrievalError as error:
            logger.warning("watch_failed error=%s", type(error).__name__)
            self._stop.wait(1.0)  # the paths stay pending
            return
        self.pending -= paths
        if summary is not None:
            self._on_summary(self._root, summary)


def run_through(intake: Intake, root: str, on_summary: OnSummary, stop: threading.Event) -> bool:
    """Bring one source up to date; False where it was not finished."""
    try:
        for event in intake.sync(root):
            if stop.is_set():
                return False
            if isinstance(event, IngestSummary):
                on_summary(root, event)
    except RetrievalError as error:
        logger.warning("sync_failed error=%s", type(error).__name__)
        return False
    return True


def _identity(path: str) -> tuple[int, ...] | None:
    """What tells a folder from another of its name, and a file from another version."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    if Path(path).is_dir():
        return state.st_dev, state.st_ino
    return state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size
