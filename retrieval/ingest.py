"""From a source to the store: idempotent, incremental, interruptible.

Order of work for each file: time stamp gate -> content hash gate -> parse (limited worker) ->
chunk -> embed what is new -> one transaction. A chunk whose embedded text did not change keeps its
vector; one that the encoder cannot read gets none (a vector of unknown tokens ranks by chance), and
is found by its terms. Files gone from a folder are removed once the whole folder has been walked. A
file that cannot be read is reported and keeps the version it had; the rest goes on. Stopping at any
point loses at most the files in flight; the next run goes on from there.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from retrieval.chunk import CHUNKER_VERSION, chunk
from retrieval.config import RetrievalSettings
from retrieval.embed.base import Embedder, Vectors
from retrieval.errors import ParseError
from retrieval.parse.worker import ParserPool, supported_suffixes
from retrieval.schema import FileReport, IngestProgress, IngestSummary, Parsed
from retrieval.sources.base import Item, belongs
from retrieval.store import Known, NewVersion, Store
from retrieval.text import TERMS_VERSION, language

PARSER_VERSION = "parse-2"
#: Chunks waiting to be stored at most: enough to fill batches, few enough to lose on a stop.
BATCH_CHUNKS = 128


@dataclass(slots=True)
class _Tally:
    """Counts of a run, and when it began."""

    began: float
    outcomes: Counter[str] = field(default_factory=Counter)
    chunks: int = 0
    embedded: int = 0
    failures: list[FileReport] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)

    def count(self, report: FileReport) -> None:
        self.outcomes[report.outcome] += 1
        self.chunks += report.chunks
        self.embedded += report.embedded
        if report.outcome == "failed":
            self.failures.append(report)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A parsed and cut file, waiting for its vectors; `missing` are rows to embed."""

    version: NewVersion
    texts: tuple[str, ...]
    missing: tuple[int, ...]
    existed: bool


class Ingester:
    """Takes items into one store."""

    def __init__(
        self, store: Store, embedder: Embedder, settings: RetrievalSettings, pool: ParserPool
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._settings = settings
        self._pool = pool
        sizes = settings.chunk
        self._made_by = "/".join(
            (
                PARSER_VERSION,
                f"{CHUNKER_VERSION}:{sizes.target_tokens}:{sizes.max_tokens}",
                TERMS_VERSION,
            )
        )

    def run(
        self, root: str, items: Iterable[Item], *, prune: bool = True
    ) -> Iterator[IngestProgress | IngestSummary]:
        """Take in `items` under the name `root`; yields progress, then the summary, last.

        With `prune`, documents of the store that belong to `root` and are not among the items are
        removed: the items must be all of it.
        """
        tally = _Tally(time.monotonic())
        known = self._store.known()
        todo = list(self._readable(items, tally))
        waiting: list[_Ready] = []
        done = 0
        for item in todo:
            outcome = self._prepare(root, item, known.get(item.source))
            if isinstance(outcome, _Ready):
                waiting.append(outcome)
                if sum(max(1, len(r.texts)) for r in waiting) < BATCH_CHUNKS:
                    continue
                reports: Iterable[FileReport] = self._flush(waiting)
            else:
                reports = [outcome]
            for report in reports:
                done += 1
                yield self._progress(tally, report, done, len(todo))
        for report in self._flush(waiting):
            done += 1
            yield self._progress(tally, report, done, len(todo))
        if prune:
            # a file that vanished during the run is gone, not unreadable
            seen = {i.source for i in todo if os.path.lexists(i.path)}
            for report in self._prune(root, seen, known, tally.failures):
                yield self._progress(tally, report, done, len(todo))
        self._store.set_root(root, tally.failures)
        yield _summary(tally, len(todo))

    def _readable(self, items: Iterable[Item], tally: _Tally) -> Iterator[Item]:
        suffixes = supported_suffixes()
        for item in items:
            if item.named or item.path.suffix.lower() in suffixes:
                yield item
            else:
                tally.ignored[item.path.suffix.lower() or "(no suffix)"] += 1

    def _progress(self, tally: _Tally, report: FileReport, done: int, total: int) -> IngestProgress:
        tally.count(report)
        seconds = time.monotonic() - tally.began
        return IngestProgress(done, total, tally.chunks, tally.embedded, seconds, report)

    def _prepare(self, root: str, item: Item, known: Known | None) -> _Ready | FileReport:
        try:
            state = item.path.stat()
            if not stat.S_ISREG(state.st_mode):  # a pipe would never end
                what = "a folder" if stat.S_ISDIR(state.st_mode) else "not a regular file"
                return _unreadable(item, f"{what} that cannot be read")
            stamp = _stamp(state)
            fresh = known is not None and known.made_by == self._made_by
            if known and fresh and known.stamp == stamp:
                return FileReport(item.source, "unchanged", known.chunks)
            version = _sha256(item.path, self._settings.parse.max_bytes)
            if known and fresh and known.version == version:
                self._store.touch(known.id, stamp, state.st_mtime)
                return FileReport(item.source, "unchanged", known.chunks)
            parsed = self._pool.parse(item.path)
        except ParseError as error:
            return FileReport(
                item.source,
                "failed",
                reason=error.reason,
                detail=error.detail,
                remedy=error.remedy,
            )
        except OSError as error:
            return _unreadable(item, error.strerror or "cannot be opened")
        # a parser falls back on the name on disk, which for an upload is a hash
        untitled = parsed.title in ("", item.path.stem)
        parsed = replace(parsed, title=item.stem if untitled else parsed.title)
        return self._cut(root, item, parsed, version, state, known)

    def _cut(
        self,
        root: str,
        item: Item,
        parsed: Parsed,
        version: str,
        state: os.stat_result,
        known: Known | None,
    ) -> _Ready:
        pieces = tuple(chunk(parsed, self._settings.chunk))
        texts = tuple(
            " › ".join((parsed.title, *p.headings)) + "\n" + parsed.text[p.start : p.end]
            for p in pieces
        )
        digests = tuple(hashlib.sha256(t.encode()).hexdigest() for t in texts)
        old = self._store.vectors_by_digest(known.id) if known else {}
        vectors = np.zeros((len(texts), self._embedder.dim), dtype=np.float32)
        missing = []
        for row, digest in enumerate(digests):
            if digest in old:
                vectors[row] = old[digest]
            elif self._embedder.reads(parsed.text[pieces[row].start : pieces[row].end]):
                missing.append(row)
        new = NewVersion(
            source=item.source,
            root=root,
            title=parsed.title,
            text=parsed.text,
            lang=language(parsed.text),
            version=version,
            made_by=self._made_by,
            modified=state.st_mtime,
            stamp=_stamp(state),
            pieces=pieces,
            digests=digests,
            vectors=vectors,
        )
        return _Ready(new, texts, tuple(missing), known is not None)

    def _flush(self, waiting: list[_Ready]) -> Iterator[FileReport]:
        """Embed what waits in one go, then commit file by file; empties `waiting`."""
        texts = [r.texts[row] for r in waiting for row in r.missing]
        found = iter(self._embedder.embed(texts, "passage") if texts else ())
        for ready in waiting:
            vectors: Vectors = ready.version.vectors
            for row in ready.missing:
                vectors[row] = next(found)
            self._store.put(ready.version)
            yield FileReport(
                ready.version.source,
                "updated" if ready.existed else "added",
                len(ready.texts),
                len(ready.missing),
            )
        waiting.clear()

    def _prune(
        self, root: str, seen: set[str], known: dict[str, Known], failures: Sequence[FileReport]
    ) -> Iterator[FileReport]:
        """Remove what is gone.

        Kept: what lies in a folder that could not be listed, and what was named as a root of its
        own below this one (it may be hidden from here).
        """
        closed = {failure.source for failure in failures}
        named = {s.root for s in self._store.roots() if s.root != root and belongs(s.root, root)}
        for source in known:
            if not belongs(source, root) or source in seen:
                continue
            if any(belongs(source, folder) for folder in closed if folder != source):
                continue
            if any(belongs(source, other) for other in named) and os.path.lexists(source):
                continue
            self._store.remove([source])
            yield FileReport(source, "removed")


def sources_of(store: Store, root: str) -> Sequence[str]:
    """Sources in the store that belong to `root`."""
    return [s for s in store.known() if belongs(s, root)]


def _unreadable(item: Item, detail: str) -> FileReport:
    return FileReport(
        item.source,
        "failed",
        reason="unreadable",
        detail=detail,
        remedy="Check the path and its permissions.",
    )


def _stamp(state: os.stat_result) -> str:
    """Changes with every write, also one that keeps size and time stamp (copied or renamed)."""
    return f"{state.st_mtime_ns}:{state.st_size}:{state.st_ctime_ns}:{state.st_ino}"


def _sha256(path: Path, limit: int) -> str:
    """Hash of the first `limit` + 1 bytes: a longer file is refused by the parser anyway."""
    digest, left = hashlib.sha256(), limit + 1
    with path.open("rb") as file:
        while left > 0 and (part := file.read(min(left, 1 << 20))):
            digest.update(part)
            left -= len(part)
    return digest.hexdigest()


def _summary(tally: _Tally, total: int) -> IngestSummary:
    o = tally.outcomes
    return IngestSummary(
        documents=total - o["failed"],
        added=o["added"],
        updated=o["updated"],
        unchanged=o["unchanged"],
        removed=o["removed"],
        chunks=tally.chunks,
        embedded=tally.embedded,
        seconds=time.monotonic() - tally.began,
        failures=tuple(tally.failures),
        ignored=tuple(sorted(tally.ignored.items())),
    )
