"""The ways into the knowledge base and out of it: ingest, upload, hand over, sync, forget.

A run works in a thread of its own, one run after the other, so that a caller who stops listening
holds nothing up. What is fetched has its own turn, because a large site takes hours, and changes
that a watcher sees wait for none.
"""

from __future__ import annotations

import hashlib
import os
import queue
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from retrieval import menu
from retrieval.config import RetrievalSettings
from retrieval.errors import RetrievalError, SourceError, SourceNotFound
from retrieval.ingest import Ingester
from retrieval.ledger import FILES, UPLOADS, Ledger
from retrieval.schema import IngestProgress, IngestSummary
from retrieval.sources import files, memory
from retrieval.sources._fetch import Fetcher
from retrieval.sources.base import Context, Entry, Item, belongs, storable
from retrieval.sources.memory import Given
from retrieval.store_sources import SourceRecord
from retrieval.tally import total

Events = Iterator[IngestProgress | IngestSummary]

#: The kinds of source that are named by an address, and so can be synchronised by name.
KINDS = ("feed", "git", "sitemap", "web")


class Intake:
    """Takes sources into one store. Safe for several threads."""

    def __init__(
        self,
        home: Path,
        settings: RetrievalSettings,
        ledger: Ledger,
        ingester: Ingester,
        fetcher: Fetcher | None = None,
    ) -> None:
        self.ledger = ledger
        self._home = home
        self._settings = settings
        self._ingester = ingester
        self._fetcher = fetcher or Fetcher(settings.sources)
        self._turns = ThreadPoolExecutor(1, thread_name_prefix="ingest")
        self._far_turns = ThreadPoolExecutor(1, thread_name_prefix="fetch")
        self._running: dict[threading.Event, tuple[Future[None], list[str]]] = {}
        #: Held while a run begins, an edit is taken in, or a source is forgotten: what began before
        #: has ended by then, and what begins later finds that the source is not there.
        self._lock = threading.Lock()

    def ingest(
        self,
        addresses: Sequence[Path | str],
        *,
        kind: str = "",
        readers: Sequence[str] | None = None,
        every: float | None = None,
    ) -> Events:
        """Take in sources; progress, and a summary last that covers all of them.

        Args:
            addresses: files, folders and URLs.
            kind: how URLs are read, one of `KINDS`; "" guesses from each address.
            readers: who may see what is in them; None keeps what was said before, () is everybody.
            every: minutes between two checks; None keeps what was said before.

        Raises:
            SourceNotFound: a path does not exist; nothing was read.
            SourceError: an address is not valid; nothing was read.
        """
        records, limited = [], []
        for address in addresses:
            root, found = self._name(address, kind)
            record = self.ledger.sources.get(root) or SourceRecord(root)
            record = replace(record, kind=found)
            if readers is not None:
                record = replace(record, readers=tuple(sorted(set(readers))))
                limited.append(record)
            if every is not None:
                record = replace(record, every=every)
            records.append(record)
        for record in limited:  # before anything else: nobody may see what he may not
            self.ledger.limit(record)
        yield from self._play_all(records)

    def sync(self, root: str) -> Events:
        """Bring one source up to date.

        Raises:
            SourceNotFound: it was never ingested.
        """
        record = self._known(root)
        if record is None:
            known = ", ".join(r.root for r in self.ledger.sources.all()) or "none"
            raise SourceNotFound(f"{root}: no such source; there are: {known}")
        yield from self._play_all([record], again=True)

    def hand_over(self, root: str, given: Iterable[Given], *, complete: bool = False) -> Events:
        """Take in documents from memory under the name `root`.

        Args:
            root: the name they stand under, such as the loader's.
            given: the documents.
            complete: whether these are all; then the others under `root` are removed.
        """
        record = self.ledger.sources.get(root) or SourceRecord(root)
        record = replace(record, kind="memory")

        def run() -> Events:
            return self._ingester.run(
                root, memory.items(root, given), prune=complete, record=record
            )

        yield from self._play([root], run)

    def upload(self, uploads: Sequence[tuple[str, Path]]) -> Events:
        """Copy files (display name, path) into the knowledge base's own folder and take them in.

        On disk a file is named by its content's hash; the display name is only a name in the
        store, and a new upload of the same name replaces the old one, on disk too.
        """
        yield from self._play([UPLOADS], lambda: self._upload(uploads))

    def _upload(self, uploads: Sequence[tuple[str, Path]]) -> Events:
        folder = self._home / "uploads"
        folder.mkdir(parents=True, exist_ok=True)
        items = []
        for name, path in uploads:
            name = storable(Path(name).name)
            items.append(Item(f"{UPLOADS}:{name}", _keep(folder, name, path), True, name))
        before = self.ledger.sources.known_of(i.source for i in items)
        record = self.ledger.sources.get(UPLOADS) or SourceRecord(UPLOADS, UPLOADS)
        yield from self._ingester.run(UPLOADS, items, prune=False, record=record)
        kept = {i.path.stem for i in items if i.path.parent == folder}
        self.ledger.sweep({known.version[:32] for known in before.values()} | kept)

    def update(self, root: str, paths: Iterable[str]) -> IngestSummary | None:
        """Take in changes at these paths below an ingested folder, at once; None: not one."""
        with self._lock:
            record = self._known(root)
            if record is None or record.kind != FILES:
                return None
            items, gone = files.touched(Path(root), paths)
            if not items and not gone:
                return None
            *_, last = self._ingester.update(record, items, gone)
        assert isinstance(last, IngestSummary)
        return last

    def forget(self, name: str) -> int:
        """Remove a source, everything below it, or one document; returns how many there were."""
        with self._lock:
            for stop, (future, roots) in list(self._running.items()):
                if any(belongs(root, name) or belongs(name, root) for root in roots):
                    stop.set()
                    wait([future])
            return self.ledger.forget(name)

    def close(self) -> None:
        """Stop what runs, after the documents in flight."""
        for stop in list(self._running):
            stop.set()
        for turns in (self._turns, self._far_turns):
            turns.shutdown(wait=True, cancel_futures=True)

    def _known(self, root: str) -> SourceRecord | None:
        return next((r for r in self.ledger.sources.all() if r.root == root), None)

    def _name(self, address: Path | str, kind: str) -> tuple[str, str]:
        """The root's name and its kind."""
        text = str(address)
        if kind and kind not in KINDS:
            raise SourceError(text, "refused", f"no kind {kind!r}", f"Use {', '.join(KINDS)}.")
        if isinstance(address, str) and ("://" in text or kind):
            kind = kind or guess(text)
            return menu.load("retrieval.sources", kind).root(text, self._context("")), kind
        return files.root(Path(address)), FILES

    def _context(self, root: str) -> Context:
        record = self.ledger.sources.get(root) if root else None
        state = dict(record.state) if record else {}
        return Context(self._settings.sources, self._home / "sources", self._fetcher, state)

    def _sync_all(self, records: Sequence[SourceRecord], again: bool) -> Events:
        parts: list[IngestSummary] = []
        for record in records:
            if again and self._known(record.root) is None:  # forgotten while it waited
                continue
            for event in self._sync(record):
                if isinstance(event, IngestSummary):
                    parts.append(event)
                else:
                    yield event
        yield total(parts)

    def _sync(self, record: SourceRecord) -> Events:
        root = record.root
        if record.kind == FILES:
            if not os.path.exists(root):
                items: Iterable[Item | Entry] = _vanished(root)
            else:
                items = files.walk(Path(root))
            yield from self._ingester.run(root, items, record=record)
        elif record.kind in KINDS:
            source = menu.load("retrieval.sources", record.kind)
            context = self._context(root)
            yield from self._ingester.run(
                root,
                source.items(root, context),
                prune=source.COMPLETE,
                record=replace(record, state=context.state),
            )

    def _play_all(self, records: Sequence[SourceRecord], *, again: bool = False) -> Events:
        far = any(record.kind in KINDS for record in records)
        roots = [record.root for record in records]
        return self._play(roots, lambda: self._sync_all(records, again), far=far)

    def _play(self, roots: list[str], make: Callable[[], Events], *, far: bool = False) -> Events:
        """Run in the thread of runs; the caller hears of it here, and stops it by leaving."""
        heard: queue.SimpleQueue[IngestProgress | IngestSummary | None] = queue.SimpleQueue()
        stop = threading.Event()

        def work() -> None:
            run = make()
            while not stop.is_set() and (event := next(run, None)) is not None:
                heard.put(event)

        with self._lock:
            future = (self._far_turns if far else self._turns).submit(work)
            self._running[stop] = (future, roots)
        future.add_done_callback(lambda _: heard.put(None))  # also where it never began
        try:
            while (event := heard.get()) is not None:
                yield event
            if future.cancelled():
                raise RetrievalError("the knowledge base was closed first; open it and run again")
            future.result()
        finally:
            stop.set()
            if not future.cancel():
                wait([future])
            del self._running[stop]


def guess(address: str) -> str:
    """The kind of a URL, by its looks."""
    path = urlsplit(address).path.lower().rstrip("/")
    last = path.rsplit("/", 1)[-1]
    if path.endswith(".git"):
        return "git"
    if "sitemap" in last and last.endswith((".xml", ".xml.gz")):
        return "sitemap"
    if last.endswith((".rss", ".atom")) or last in ("feed", "rss", "atom", "feed.xml", "rss.xml"):
        return "feed"
    if last in ("atom.xml", "index.xml"):
        return "feed"
    return "web"


def _vanished(root: str) -> Iterator[Item]:
    remedy = "Bring it back, or forget it; until then its documents stay as they were."
    raise SourceError(root, "vanished", "the folder or file is not there any more", remedy)
    yield  # a generator: the error belongs to the run, not to its preparation


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
