"""Counts of a run of ingestion, and of several runs together."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from retrieval.schema import FileReport, IngestProgress, IngestSummary


class Tally:
    """What a run did so far."""

    def __init__(self) -> None:
        self.failures: list[FileReport] = []
        self.ignored: Counter[str] = Counter()
        self._began = time.monotonic()
        self._outcomes: Counter[str] = Counter()
        self._chunks = 0
        self._embedded = 0
        self._remarks: list[FileReport] = []

    @property
    def changes(self) -> int:
        """How many documents are not as they were before."""
        return sum(self._outcomes[name] for name in ("added", "updated", "removed"))

    def count(self, report: FileReport) -> None:
        """Add one report."""
        self._outcomes[report.outcome] += 1
        self._chunks += report.chunks
        self._embedded += report.embedded
        if report.outcome == "failed":
            self.failures.append(report)
        elif report.detail:
            self._remarks.append(report)

    def tick(self, report: FileReport, done: int, total: int) -> IngestProgress:
        """Add one report and say how far the run is."""
        self.count(report)
        seconds = time.monotonic() - self._began
        return IngestProgress(done, total, self._chunks, self._embedded, seconds, report)

    def summary(self, total: int) -> IngestSummary:
        """The whole run over `total` documents."""
        o = self._outcomes
        return IngestSummary(
            documents=max(0, total - o["failed"]),
            added=o["added"],
            updated=o["updated"],
            unchanged=o["unchanged"],
            removed=o["removed"],
            chunks=self._chunks,
            embedded=self._embedded,
            seconds=time.monotonic() - self._began,
            failures=tuple(self.failures),
            ignored=tuple(sorted(self.ignored.items())),
            remarks=tuple(self._remarks),
        )


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
            remarks=whole.remarks + part.remarks,
        )
        ignored.update(dict(part.ignored))
    return replace(whole, ignored=tuple(sorted(ignored.items())))
