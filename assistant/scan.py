"""New passages are judged while they are taken in, so that no question waits for it.

Verdicts go to the guard's file of verdicts, where questions find them. What cannot be judged now is
judged when a question finds it: a scan stops nothing and loses nothing. Passages of before, and all
of them once the guard is another one, are judged bit by bit in the background.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from assistant.quarantine import claimed, innocent, planted, seen
from retrieval.errors import RetrievalError
from retrieval.knowledge import KnowledgeBase
from retrieval.schema import FileReport, IndexStatus, IngestProgress, IngestSummary
from retrieval.sources.base import belongs
from retrieval.store import Store
from retrieval.store_follow import Followed
from safety import Context, Guard, Verdict
from safety.schema import Side
from safety.verdicts import Verdicts

logger = logging.getLogger(__name__)

#: The file of verdicts, in the folder of the data.
VERDICTS = "verdicts.db"
#: Passages judged at once: few enough for one deadline of the guard.
BATCH = 16
#: Batches between two notes of how far the scan is: each waits for the disk.
NOTED = 8
#: Seconds between two looks at what is new, and after a failure.
LOOK, AGAIN = 1.0, 60.0
#: In the background: seconds of rest per second of work, because somebody may be asking.
REST = 1.0
#: What is said of a document with quarantined passages.
MEANING = (
    "{n} of its passages are quarantined: they are kept, but what the safety check stops in them "
    "is not shown to the policy"
)

Events = Iterator[IngestProgress | IngestSummary]


class _Ahead:
    """A guard whose verdicts nobody asked for yet: nothing is recorded."""

    def __init__(self, guard: Guard) -> None:
        self.kept = guard.kept
        self._guard = guard

    def screen_many(
        self, texts: Sequence[str], side: Side, context: Context = Context()
    ) -> list[Verdict]:
        """Judge passages."""
        return self._guard.ahead(texts)


class Scan:
    """Judges the passages of one store. Safe for several threads; a `Follower`."""

    def __init__(self, store: Store, guard: Guard, kept: Verdicts, *, cut: bool = True) -> None:
        """Begin with nothing; see `along`, `keep` and `rest`.

        Args:
            store: whose passages are judged.
            guard: what judges.
            kept: the guard's file of verdicts.
            cut: whether sentences of a stopped passage are judged too, as a question would.
        """
        self._followed = Followed(store)
        self._ahead = _Ahead(guard)
        self._kept = kept
        self._cut = cut
        self._swept: int | None = None
        self._batches = 0
        self._stop = threading.Event()
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None

    def along(self, events: Events) -> Events:
        """Play an ingestion on, judge what is new meanwhile, and the rest of it afterwards."""
        summary: IngestSummary | None = None
        touched: set[str] = set()
        try:
            start = self._newest()
            at: int | None = start
            for event in events:
                if isinstance(event, IngestSummary):
                    summary = event
                    break
                yield event
                report = event.report
                if report is not None and report.outcome in ("added", "updated"):
                    touched.add(report.source)
                    at = None if at is None else self._full(at, start)
        finally:
            if isinstance(events, Generator):
                events.close()
        if summary is None:
            return
        self.removed()
        if touched:
            if at is not None:  # a guard that fails is not asked again, for it may be slow to fail
                yield from self._until_newest(at, start)
            summary = replace(summary, remarks=(*summary.remarks, *self._found(touched)))
        yield summary

    def rest(self) -> Iterator[IngestProgress]:
        """Judge whatever was not judged yet."""
        self.removed()
        reached = self._kept.reached()
        yield from self._until_newest(reached, reached)

    def removed(self) -> None:
        """Forget the verdicts of documents that are gone."""
        try:
            sequence = self._followed.sequence()
            gone = None if self._swept is None else self._followed.removed(self._swept)
            if gone is None:
                gone = self._followed.gone(self._kept.documents())
            self._kept.release(gone)
            self._swept = sequence
        except RetrievalError as error:
            _failed(error)

    def keep(self) -> None:
        """Judge in the background from now on, until closed."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="scan", daemon=True)
            self._thread.start()

    def noted(self, status: IndexStatus) -> IndexStatus:
        """The status with the number of quarantined passages of each source."""
        try:
            return noted(status, self._followed, self._kept)
        except RetrievalError as error:
            _failed(error)
            return status

    def close(self) -> None:
        """Stop after the batch in hand."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _newest(self) -> int:
        try:
            return self._followed.newest()
        except RetrievalError as error:
            _failed(error)
            return 0

    def _full(self, at: int, start: int) -> int | None:
        """Judge one batch after `at`, where there is a whole one.

        Returns the last chunk seen, None where nothing judges or nothing can be read.
        """
        try:
            until = self._followed.newest()
            return at if until - at < BATCH else self._batch(at, until, start)
        except RetrievalError as error:
            _failed(error)
            return None

    def _until_newest(self, at: int, start: int) -> Iterator[IngestProgress]:
        began = time.monotonic()
        try:
            until = self._followed.newest()
            total, done = self._followed.count(at, until), 0
            while at < until:
                reached = self._batch(at, until, start)
                if reached is None:
                    return
                done = min(total, done + BATCH)
                at = reached
                seconds = time.monotonic() - began
                yield IngestProgress(done, total, 0, 0, seconds, None, "check")
        except RetrievalError as error:
            _failed(error)

    def _batch(self, at: int, until: int, start: int) -> int | None:
        """Judge the next passages; returns the last chunk seen, None where nothing judges.

        `start` is where the run began: all from there up to `at` were seen.
        """
        with self._turn:
            passages, last = self._followed.passages(at, until, BATCH)
            texts = [seen(p) for p in passages]
            claimed(self._kept, passages, texts)
            verdicts = self._ahead.screen_many(texts, "passage")
            if verdicts and all(v.category == "fault" for v in verdicts):
                logger.warning("scan_stopped: no passage can be judged; questions will try again")
                return None
            for passage, verdict in zip(passages, verdicts, strict=True):
                if self._cut and planted(verdict):
                    innocent(passage, verdict, self._ahead)
            # a document that went meanwhile was swept before its passages were claimed here
            self._kept.release(self._followed.gone({p.chunk.document_id for p in passages}))
            self._batches += 1
            if last == until or self._batches % NOTED == 0:
                self._kept.reach(start, last)
            return last

    def _found(self, touched: set[str]) -> list[FileReport]:
        """A remark on each of these documents that has quarantined passages."""
        try:
            counts = self._kept.stopped()
            places = self._followed.places(counts.keys())
        except RetrievalError as error:
            _failed(error)
            return []
        found = sorted((source, counts[key]) for key, (source, _) in places.items())
        return [
            FileReport(source, "added", detail=MEANING.format(n=n), quarantined=n)
            for source, n in found
            if source in touched
        ]

    def _work(self) -> None:
        at, sequence = self._kept.reached(), -1
        while not self._stop.is_set():
            wait = LOOK
            try:
                now = self._followed.sequence()
                if now != sequence:
                    self.removed()
                    sequence = now
                until = self._followed.newest()
                at = start = max(at, self._kept.reached())
                while at < until and not self._stop.is_set():
                    began = time.monotonic()
                    reached = self._batch(at, until, start)
                    if reached is None:
                        wait = AGAIN
                        break
                    at = reached
                    self._stop.wait(REST * (time.monotonic() - began))
            except RetrievalError as error:
                _failed(error)
                wait = AGAIN
            self._stop.wait(wait)


def follow(knowledge: KnowledgeBase, guard: Guard, *, cut: bool) -> Scan | None:
    """Have the guard judge what the knowledge base takes in; None where no verdicts are kept."""
    if guard.kept is None:
        return None
    guard.kept.use()
    scan = Scan(knowledge.store, guard, guard.kept, cut=cut)
    knowledge.follow(scan)
    return scan


def noted(status: IndexStatus, followed: Followed, kept: Verdicts) -> IndexStatus:
    """The status with the number of quarantined passages of each source.

    Raises:
        StoreError: the database cannot be read.
    """
    counts = kept.stopped()
    if not counts:
        return status
    places = followed.places(counts.keys())
    sums: Counter[str] = Counter()
    for document, (source, name) in places.items():
        for root in status.roots:
            if belongs(source, root.root) if root.kind == "files" else name == root.root:
                sums[root.root] += counts[document]
    roots = tuple(replace(root, quarantined=sums[root.root]) for root in status.roots)
    return replace(status, roots=roots)


def noted_at(home: Path, store: Store, status: IndexStatus) -> IndexStatus:
    """The same for a knowledge base whose guard is not loaded: as the one used last judged."""
    return noted(status, Followed(store), Verdicts(home / VERDICTS))


def swept_at(home: Path, store: Store) -> None:
    """Forget the verdicts of documents that are gone, where no guard is loaded."""
    kept = Verdicts(home / VERDICTS)
    kept.release(Followed(store).gone(kept.documents()))


def _failed(error: RetrievalError) -> None:
    logger.warning("scan_failed error=%s: %s", type(error).__name__, error)
