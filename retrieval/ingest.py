"""From a source to the store: idempotent, incremental, interruptible.

Order of work for each document: stamp gate -> content hash gate -> parse (limited worker) -> chunk
-> embed what is new -> look again whether it is still as it was read -> one transaction. A chunk
whose embedded text did not change keeps its vector; one that the encoder cannot read gets none (a
vector of unknown tokens ranks by chance), and is found by its terms. What is gone from a source is
removed once the whole source has been read. What cannot be read is reported and keeps the version
it had; the rest goes on. Stopping at any point loses at most the documents in flight; the next run
goes on from there.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from retrieval.chunk import CHUNKER_VERSION, chunk
from retrieval.config import RetrievalSettings
from retrieval.embed.base import Embedder, Vectors, embedded_text
from retrieval.errors import SourceError
from retrieval.parse.worker import ParserPool, supported_suffixes
from retrieval.reading import Read, Reader, Unread, current, failed
from retrieval.schema import FileReport, IngestProgress, IngestSummary
from retrieval.sources.base import Entry, Item, belongs
from retrieval.store import NewVersion, Store
from retrieval.store_sources import Known, SourceRecord, SourceTable, readers_of
from retrieval.tally import Tally
from retrieval.text import TERMS_VERSION, language

PARSER_VERSION = "parse-3"
#: Chunks waiting to be stored at most: enough to fill batches, few enough to lose on a stop.
BATCH_CHUNKS = 128
#: Rows touched or removed in one transaction.
BATCH_ROWS = 200
#: How often a document that changes while it is read is read again.
TRIES = 3


@dataclass(frozen=True, slots=True)
class _Ready:
    """A parsed and cut document, waiting for its vectors; `missing` are rows to embed."""

    item: Item | Entry
    version: NewVersion
    texts: tuple[str, ...]
    missing: tuple[int, ...]
    existed: bool
    remark: str


@dataclass(slots=True)
class _Run:
    """One run over one source."""

    record: SourceRecord
    known: Mapping[str, Known]
    limits: Sequence[SourceRecord]
    tally: Tally = field(default_factory=Tally)
    total: int = 0
    done: int = 0
    touched: list[tuple[int, str, float]] = field(default_factory=list)
    tries: dict[str, int] = field(default_factory=dict)

    @property
    def root(self) -> str:
        """The source's name."""
        return self.record.root

    def readers(self, source: str) -> tuple[str, ...]:
        """Who may see a document that names nobody itself; () is everybody."""
        if self.record.kind == "files":
            return readers_of(source, self.limits)
        return self.record.readers

    def tick(self, report: FileReport) -> IngestProgress:
        """Count a report."""
        self.done = min(self.done + 1, self.total)
        return self.tally.tick(report, self.done, self.total)


class Ingester:
    """Takes items into one store."""

    def __init__(
        self, store: Store, embedder: Embedder, settings: RetrievalSettings, pool: ParserPool
    ) -> None:
        self._store = store
        self._sources = SourceTable(store)
        self._embedder = embedder
        self._settings = settings
        sizes = settings.chunk
        self._made_by = "/".join(
            (
                PARSER_VERSION,
                f"{CHUNKER_VERSION}:{sizes.target_tokens}:{sizes.max_tokens}",
                TERMS_VERSION,
            )
        )
        #: Looking whether a file is still as it was read, and committing it, are one step.
        self._commit = threading.Lock()
        self._reader = Reader(pool, settings.parse, self._made_by)

    def run(
        self,
        root: str,
        items: Iterable[Item | Entry],
        *,
        prune: bool = True,
        record: SourceRecord | None = None,
    ) -> Iterator[IngestProgress | IngestSummary]:
        """Take in `items` under the name `root`; yields progress, then the summary, last.

        With `prune`, documents of the store that belong to `root` and are not among the items are
        removed: the items must be all of it. `record` is what is remembered of the source.

        Raises:
            StoreError: the store cannot be written; what was committed before stays.
        """
        record = record or self._sources.get(root) or SourceRecord(root)
        if self._sources.get(root) is None:
            self._sources.save(record)
        limits = self._limits(record)
        run = _Run(record, self._sources.known(root, record.kind), limits)
        todo, broken = self._list(run, items)
        yield from self._take(run, todo)
        closed = broken is not None or any(isinstance(i, Entry) and i.closed for i in todo)
        if prune and not closed:
            # a file that vanished during the run is gone, not unreadable
            seen = {i.source for i in todo if isinstance(i, Entry) or os.path.lexists(i.path)}
            for report in self._prune(run, seen):
                yield run.tick(report)
        if self._sources.get(root) is None:  # forgotten meanwhile, by another process
            self._store.remove(self._sources.names(root, record.kind))
        else:
            self._store.set_root(root, run.tally.failures)
            self._finish(run, broken)
        yield run.tally.summary(len(todo))

    def update(
        self, record: SourceRecord, items: Sequence[Item], gone: Sequence[str]
    ) -> Iterator[IngestProgress | IngestSummary]:
        """Take in some items of a folder and remove some; nothing else is looked at.

        Costs the same in a store of any size. `gone` are sources, folders included.
        """
        names = {item.source for item in items}
        run = _Run(record, self._sources.known_of(names), self._limits(record))
        todo, _ = self._list(run, items)
        yield from self._take(run, todo)
        lost = [name for place in gone for name in self._sources.names(place, "files")]
        lost = [n for n in lost if n not in names and not os.path.lexists(n)]
        yield from map(run.tick, self._remove(lost))
        looked = names | set(lost) | set(gone)
        before = self._sources.failures(record.root)
        kept = [f for f in before if not any(belongs(f.source, name) for name in looked)]
        failures = [*kept, *run.tally.failures]
        if tuple(failures) != before:
            self._store.set_root(record.root, failures)
        news = run.tally.changes or record.error  # it is there, whatever was said before
        if news and self._sources.get(record.root) is not None:
            changed = time.time() if run.tally.changes else record.changed
            self._sources.save(replace(record, changed=changed, error=None, tries=0))
        yield run.tally.summary(len(todo))

    def _limits(self, record: SourceRecord) -> list[SourceRecord]:
        """The sources that not everybody may read, this one as it is now."""
        others = [r for r in self._sources.all() if r.root != record.root]
        return [r for r in [*others, record] if r.readers]

    def _list(
        self, run: _Run, items: Iterable[Item | Entry]
    ) -> tuple[list[Item | Entry], FileReport | None]:
        """What is to be read, and why the list ends early where it does."""
        suffixes = supported_suffixes()
        todo: list[Item | Entry] = []
        broken: FileReport | None = None
        try:
            for item in items:
                if isinstance(item, Entry) or item.named or item.path.suffix.lower() in suffixes:
                    todo.append(item)
                else:
                    run.tally.ignored[item.path.suffix.lower() or "(no suffix)"] += 1
        except SourceError as error:
            broken = failed(error.source, error.reason, error.detail, error.remedy)
            run.tally.count(broken)
        strangers = [i.source for i in todo if i.source not in run.known]
        if run.record.kind != "files":  # the same page may stand under another source
            run.known = {**self._sources.known_of(strangers), **run.known}
        run.total = len(todo)
        return todo, broken

    def _take(self, run: _Run, todo: Sequence[Item | Entry]) -> Iterator[IngestProgress]:
        waiting: list[_Ready] = []
        ahead = list(reversed(todo))
        while ahead or waiting:
            again: list[Item | Entry] = []
            if ahead:
                item = ahead.pop()
                outcome = self._prepare(run, item)
                if not isinstance(outcome, _Ready):
                    yield run.tick(outcome)
                    if len(run.touched) >= BATCH_ROWS:
                        self._touch(run)
                    continue
                waiting.append(outcome)
            if not ahead or sum(max(1, len(r.texts)) for r in waiting) >= BATCH_CHUNKS:
                for report in self._flush(run, waiting, again):
                    yield run.tick(report)
                ahead.extend(again)
        self._touch(run)

    def _touch(self, run: _Run) -> None:
        self._sources.touch(run.touched)
        run.touched.clear()

    def _prepare(self, run: _Run, item: Item | Entry) -> _Ready | FileReport:
        known = run.known.get(item.source)
        found = self._reader.read(item, known)
        if isinstance(found, FileReport):
            if found.outcome == "removed":  # the source says that this document is gone
                self._store.remove([item.source])
            return found
        if isinstance(found, Unread):
            assert known is not None
            if (found.stamp, found.modified) != (known.stamp, known.modified):
                run.touched.append((known.id, found.stamp, found.modified))
            if found.readers is not None and run.record.kind == "memory":
                self._sources.grant([item.source], found.readers or run.readers(item.source))
            return FileReport(item.source, "unchanged", known.chunks)
        return self._cut(run, item, found, known)

    def _cut(self, run: _Run, item: Item | Entry, found: Read, known: Known | None) -> _Ready:
        parsed = found.parsed
        pieces = tuple(chunk(parsed, self._settings.chunk))
        texts = tuple(
            embedded_text(parsed.title, p.headings, parsed.text[p.start : p.end]) for p in pieces
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
            root=run.root,
            title=parsed.title,
            text=parsed.text,
            lang=language(parsed.text),
            version=found.version,
            made_by=self._made_by,
            modified=found.modified,
            stamp=found.stamp,
            pieces=pieces,
            digests=digests,
            vectors=vectors,
            acl=found.readers or run.readers(item.source),
        )
        remark = "; ".join(filter(None, (found.remark, *parsed.notes)))
        return _Ready(item, new, texts, tuple(missing), known is not None, remark)

    def _flush(
        self, run: _Run, waiting: list[_Ready], again: list[Item | Entry]
    ) -> Iterator[FileReport]:
        """Embed what waits in one go, then commit it in one transaction; empties `waiting`.

        What is no longer as it was read goes to `again`, or is reported after a few times: neither
        an old version nor a deleted file may come back.
        """
        texts = [r.texts[row] for r in waiting for row in r.missing]
        found = iter(self._embedder.embed(texts, "passage") if texts else ())
        for ready in waiting:
            vectors: Vectors = ready.version.vectors
            for row in ready.missing:
                vectors[row] = next(found)
        changed = self._put(waiting)
        for ready in waiting:
            source = ready.version.source
            if source not in changed:
                yield FileReport(
                    source,
                    "updated" if ready.existed else "added",
                    len(ready.texts),
                    len(ready.missing),
                    detail=ready.remark,
                )
                continue
            run.tries[source] = run.tries.get(source, 0) + 1
            if run.tries[source] < TRIES:
                again.append(ready.item)
            else:
                yield failed(
                    source,
                    "changing",
                    f"changed {TRIES} times while it was read",
                    "Ingest it again once the program that writes it has finished.",
                )
        waiting.clear()

    def _put(self, waiting: Sequence[_Ready]) -> set[str]:
        """Commit what is still as it was read, at once; returns the sources that are not."""
        with self._commit:
            changed = {
                r.version.source
                for r in waiting
                if isinstance(r.item, Item) and not current(r.item, r.version.stamp)
            }
            self._store.put(*(r.version for r in waiting if r.version.source not in changed))
        return changed

    def _prune(self, run: _Run, seen: set[str]) -> Iterator[FileReport]:
        """Remove what is gone.

        Kept: what lies in a folder that could not be listed, and what was named as a root of its
        own below this one (it may be hidden from here).
        """
        root = run.root
        closed = {failure.source for failure in run.tally.failures}
        named = {s.root for s in self._sources.all() if s.root != root and belongs(s.root, root)}
        lost = []
        for source, known in run.known.items():
            if source in seen or (run.record.kind != "files" and known.root != root):
                continue
            if any(belongs(source, folder) for folder in closed if folder != source):
                continue
            if any(belongs(source, other) for other in named) and os.path.lexists(source):
                continue
            lost.append(source)
        yield from self._remove(lost, run.known)

    def _remove(
        self, names: Sequence[str], known: Mapping[str, Known] | None = None
    ) -> Iterator[FileReport]:
        """Remove documents, unless they came back as others in the meantime."""
        for start in range(0, len(names), BATCH_ROWS):
            batch = list(names[start : start + BATCH_ROWS])
            if known is not None:
                now = self._sources.known_of(batch)
                batch = [n for n in batch if n in now and now[n].id == known[n].id]
            with self._commit:
                self._store.remove(batch)
            yield from (FileReport(name, "removed") for name in batch)

    def _finish(self, run: _Run, broken: FileReport | None) -> None:
        """Remember how the run went; one that reached nothing counts as broken too."""
        tally, record, now = run.tally, run.record, time.time()
        failures = tally.failures
        if broken is None and record.kind != "files" and failures and len(failures) == run.total:
            broken = failures[0]
        self._sources.save(
            replace(
                record,
                checked=record.checked if broken else now,
                changed=now if tally.changes else record.changed,
                tries=record.tries + 1 if broken else 0,
                error=broken,
            )
        )


def sources_of(store: Store, root: str) -> Sequence[str]:
    """Sources in the store that belong to `root`."""
    return SourceTable(store).names(root, "files")
