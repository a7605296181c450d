"""What is known of the sources, for which no encoder is needed: status and forgetting."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from retrieval.config import RetrievalSettings, SyncSettings
from retrieval.schema import IndexStatus, RootStatus
from retrieval.sources.base import belongs
from retrieval.store import Store
from retrieval.store_sources import NO_ENCODER, SourceRecord, SourceTable, open_as_noted, readers_of

FILES = "files"
UPLOADS = "upload"


class Ledger:
    """The sources of one store, by name."""

    def __init__(self, home: Path, store: Store, settings: SyncSettings) -> None:
        self.sources = SourceTable(store)
        self._home = home
        self._store = store
        self._settings = settings

    @property
    def store(self) -> Store:
        """The database."""
        return self._store

    def minutes(self) -> dict[str, float]:
        """How often each kind of source is synchronised by itself; 0 = never."""
        every = self._settings.every_minutes
        return {
            FILES: every.files,
            "web": every.web,
            "sitemap": every.sitemap,
            "feed": every.feed,
            "git": every.git,
        }

    def roots(self, pending: Mapping[str, int] = {}) -> tuple[RootStatus, ...]:
        """Every source with its counts and its lag; `pending` are changes seen, by root."""
        return self.sources.status(self.minutes(), dict(pending))

    def status(self) -> IndexStatus:
        """What is indexed; where nothing is served, nothing lags."""
        documents, chunks = self._store.counts()
        last = self._store.sequence()
        serving, filling, share = self._store.progress()
        return IndexStatus(
            documents,
            chunks,
            last,
            last,
            serving.name if serving and serving.name != NO_ENCODER else "",
            self.roots(),
            switching=filling.name if filling else "",
            switched=share,
        )

    def limit(self, record: SourceRecord) -> None:
        """Let the readers of this record, and nobody else, see what is stored of its source.

        What lies in a folder inside that has readers of its own stays theirs.
        """
        self.sources.save(record)
        limits = [r for r in self.sources.all() if r.readers]
        groups: dict[tuple[str, ...], list[str]] = {}
        for source in self.sources.names(record.root, record.kind):
            readers = readers_of(source, limits) if record.kind == FILES else record.readers
            groups.setdefault(readers, []).append(source)
        for readers, names in groups.items():
            self.sources.grant(names, readers)

    def forget(self, name: str) -> int:
        """Remove a source and all below it, or one document; returns how many there were."""
        records = {record.root: record for record in self.sources.all()}
        name = self._known_as(name, set(records))
        gone: dict[str, None] = {}
        for root, record in records.items():
            if belongs(root, name):
                gone.update(dict.fromkeys(self.sources.names(root, record.kind)))
        gone.update(dict.fromkeys(self.sources.names(name, FILES)))
        versions = {known.version[:32] for known in self.sources.known_of(gone).values()}
        removed = self._store.remove(list(gone))
        for root in records:
            if belongs(root, name):
                self.sources.drop(root)
        if name == UPLOADS:
            shutil.rmtree(self._home / "uploads", ignore_errors=True)
        elif belongs(name, UPLOADS):
            self.sweep(versions)
        return removed

    def sweep(self, versions: Iterable[str]) -> None:
        """Delete the copies of these uploads (first 32 digits) that no document is made of."""
        used = {k.version[:32] for k in self.sources.known(UPLOADS, UPLOADS).values()}
        for version in set(versions) - used:
            for copy in (self._home / "uploads").glob(f"{version}*"):
                copy.unlink(missing_ok=True)

    def _known_as(self, name: str, roots: set[str]) -> str:
        """The name in the store of what a user may write in several ways."""
        path = str(Path(name).resolve()) if name else name
        ways = [name, f"git+{name}", f"git+{path}", name.rstrip("/"), name + "/", path]
        return next((way for way in ways if way in roots or self._stored(way)), path)

    def _stored(self, name: str) -> bool:
        return bool(name) and bool(self.sources.known_of([name]))


@contextmanager
def open_ledger(home: Path, settings: RetrievalSettings) -> Iterator[Ledger]:
    """The sources of the knowledge base in `home`, without its encoder; nothing is created.

    Raises:
        StoreError: what lies there is not a knowledge base.
    """
    path = home / "knowledge.db"
    with ExitStack() as stack:
        if not path.exists():
            path = Path(stack.enter_context(TemporaryDirectory(prefix="plumbline-"))) / path.name
        store = open_as_noted(path)
        stack.callback(store.close)
        yield Ledger(home, store, settings.sync)
