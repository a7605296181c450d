"""Documents that came in over the API: whose they are, and how far each has come.

A document is known by its tenant and its name; a new one of that name is its next version. Its
readers are names of the tenant, which the search looks at. Files are taken in one after the other
by a thread of its own. A file lies on the disk before its upload is acknowledged and until it was
taken in, and a deletion is noted before it begins: what a killed server had under way, the next one
finishes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import sqlalchemy as sa

from assistant.server.errors import ApiError
from assistant.server.principal import Principal
from retrieval import sqlite, versions
from retrieval.errors import RetrievalError
from retrieval.knowledge import KnowledgeBase
from retrieval.schema import IngestSummary
from retrieval.sources.memory import Given

FILE = "documents.db"
#: The folder of files that were acknowledged and not yet taken in, beside the database.
UPLOADS = "uploads"
#: What the names of tenants' roots in the knowledge base begin with.
ROOT = "api."
#: The status of a document that is being deleted; nobody sees it any more.
GOING = "deleting"
#: Seconds after which a file that belongs to nothing is deleted.
OLD = 3600.0
#: Seconds until a file is taken in again that could not be.
AGAIN = (0.2, 1.0, 5.0)
#: Files that may wait to be taken in, of all tenants, and versions that are remembered.
WAITING, VERSIONS = 64, 50
logger = logging.getLogger(__name__)
_metadata = sa.MetaData()
DOCUMENT = sa.Table(
    "document",
    _metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("tenant", sa.String, nullable=False, index=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("readers", sa.String, nullable=False),
    sa.Column("status", sa.String, nullable=False),
    sa.Column("error", sa.String, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("versions", sa.Text, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("updated", sa.Float, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Kept:
    """A document.

    `versions` are (SHA-256, time), the newest last; `status` is processing, ready or failed.
    """

    id: str
    tenant: str
    name: str
    readers: tuple[str, ...]
    status: str
    error: str
    size: int
    versions: tuple[tuple[str, float], ...]
    created: float
    updated: float

    @property
    def source(self) -> str:
        """Its name in the knowledge base."""
        return f"{root_of(self.tenant)}:{self.name}"

    def open_to(self, who: Principal) -> bool:
        """Whether this principal may read it."""
        return who.readers is None or (
            who.tenant == self.tenant and bool(who.readers & {*self.readers})
        )


def root_of(tenant: str) -> str:
    """The source under which a tenant's documents stand in the knowledge base."""
    return f"{ROOT}{tenant}"


def uploaded(source: str) -> tuple[str, str] | None:
    """Tenant and name of a document that came in over the API; None for every other one."""
    root, colon, name = source.partition(":")
    return (root.removeprefix(ROOT), name) if colon and root.startswith(ROOT) else None


def id_of(tenant: str, name: str) -> str:
    """The id of a tenant's document of this name."""
    return "doc-" + hashlib.sha256(json.dumps([tenant, name]).encode()).hexdigest()[:32]


class Shelf:
    """The documents of every tenant. Safe for several threads."""

    def __init__(
        self, path: Path, knowledge: KnowledgeBase, again: Sequence[float] = AGAIN
    ) -> None:
        self._again = again
        path.parent.mkdir(parents=True, exist_ok=True)
        self._engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 60})
        sqlite.prepare(self._engine)
        self._writer = self._engine.execution_options(begin="IMMEDIATE")
        versions.bring_up(self._writer, path, _metadata)
        self._knowledge = knowledge
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shelf")
        self._waiting = threading.BoundedSemaphore(WAITING)
        self._uploads = path.parent / UPLOADS
        self._uploads.mkdir(exist_ok=True)
        self._resume()

    def put(self, who: Principal, name: str, content: bytes, readers: Sequence[str]) -> Kept:
        """Take a file in; returns at once, with the status processing.

        The same content for the same readers again, as of a request that is retried, is no version.

        Raises:
            ApiError: the name is that of a document that is closed to the caller, or too many wait.
        """
        key, now = id_of(who.tenant, name), time.time()
        if not self._waiting.acquire(blocking=False):
            raise ApiError(503, "Too many files wait to be taken in.", wait=10.0, again=True)
        try:
            version = (hashlib.sha256(content).hexdigest(), now)
            self._keep(self._upload(key, now), content)
            with self._writer.begin() as connection:
                query = sa.select(DOCUMENT).where(DOCUMENT.c.id == key)
                row = connection.execute(query).one_or_none()
                before = None if row is None else _kept(row)
                made = _next(before, who, key, name, version, readers, len(content))
                if before is None:
                    connection.execute(sa.insert(DOCUMENT).values(**_row(made)))
                elif made is not before:
                    update = sa.update(DOCUMENT).where(DOCUMENT.c.id == key)
                    connection.execute(update.values(**_row(made)))
            if made is not before:
                self._pool.submit(self._take, made)
                return made
        except BaseException:
            self._given_up(key, now)
            raise
        self._given_up(key, now)
        return made

    def get(self, who: Principal, document_id: str) -> Kept | None:
        """A document that this principal may read."""
        found = self._get(document_id)
        if found is None or found.status == GOING or not found.open_to(who):
            return None
        return found

    def all(
        self, who: Principal, after: Kept | None = None, limit: int | None = None
    ) -> list[Kept]:
        """The documents that this principal may read, by name; so many of those after one."""
        c = DOCUMENT.c
        query = sa.select(DOCUMENT).where(c.status != GOING).order_by(c.name, c.id)
        if who.readers is not None:
            query = query.where(c.tenant == who.tenant)
        if after is not None:
            query = query.where(sa.tuple_(c.name, c.id) > (after.name, after.id))
        with self._engine.connect() as connection:
            kept = map(_kept, connection.execute(query))
            return [*islice((k for k in kept if k.open_to(who)), limit)]

    def delete(self, who: Principal, document_id: str) -> Kept | None:
        """Remove a document that this principal may read; it is found no more.

        Raises:
            ApiError: it is just being taken in.
        """
        found = self.get(who, document_id)
        if found is None:
            return None
        if found.status == "processing":
            raise ApiError(409, "The document is being taken in; try again.", wait=1.0, again=True)
        self._mark(found, GOING)
        try:
            self._forget(found)
        except BaseException:
            self._mark(found, found.status, found.error)
            raise
        return found

    def close(self) -> None:
        """Stop taking in, and close every connection."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._engine.dispose()

    def _get(self, document_id: str) -> Kept | None:
        query = sa.select(DOCUMENT).where(DOCUMENT.c.id == document_id)
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _kept(row)

    def _resume(self) -> None:
        """Finish what the last server had under way; files that belong to nothing are deleted."""
        waits = sa.select(DOCUMENT).where(DOCUMENT.c.status.in_(("processing", GOING)))
        with self._engine.connect() as connection:
            found = [_kept(row) for row in connection.execute(waits.order_by(DOCUMENT.c.updated))]
        left = {path.name for path in self._uploads.iterdir()}
        for kept in found:
            upload = self._upload(kept.id, kept.updated)
            if kept.status == GOING:  # before anybody searches
                self._forget(kept)
            elif upload.name in left and self._waiting.acquire(blocking=False):
                left.remove(upload.name)
                self._pool.submit(self._take, kept)
            else:
                self._mark(kept, "failed", "The server ended meanwhile; upload it again.")
        old = time.time() - OLD
        for path in (self._uploads / name for name in left):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < old:  # not one that another process just writes
                    path.unlink()

    def _given_up(self, document_id: str, updated: float) -> None:
        self._upload(document_id, updated).unlink(missing_ok=True)
        self._waiting.release()

    def _upload(self, document_id: str, updated: float) -> Path:
        return self._uploads / f"{document_id}-{int(updated * 1e6)}"

    def _keep(self, path: Path, content: bytes) -> None:
        """Write a file that a power cut does not lose."""
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _forget(self, kept: Kept) -> None:
        self._knowledge.forget(kept.source)
        with self._writer.begin() as connection:
            connection.execute(sa.delete(DOCUMENT).where(DOCUMENT.c.id == kept.id))

    def _mark(self, kept: Kept, status: str, error: str = "") -> None:
        """Set the status of a document, unless a newer version came meanwhile."""
        with self._writer.begin() as connection:
            connection.execute(
                sa.update(DOCUMENT)
                .where(DOCUMENT.c.id == kept.id, DOCUMENT.c.updated == kept.updated)
                .values(status=status, error=error)
            )

    def _take(self, kept: Kept) -> None:
        upload = self._upload(kept.id, kept.updated)
        status, error = "failed", "The document could not be taken in; try again."
        try:
            status, error = self._taken(kept, upload.read_bytes())
        finally:
            self._waiting.release()
            self._mark(kept, status, error)
            upload.unlink(missing_ok=True)

    def _taken(self, kept: Kept, content: bytes) -> tuple[str, str]:
        """Taken in, and again where something stood in the way: what is there already stays so.

        The deletion of a document stops a run that takes in another one of the tenant's.
        """
        suffix = Path(kept.name).suffix.lower() or ".txt"
        given = Given(kept.name, content, suffix, readers=kept.readers)
        for wait in (*self._again, None):
            try:
                events = [*self._knowledge.ingest_documents(root_of(kept.tenant), [given])]
            except (RetrievalError, sa.exc.SQLAlchemyError, OSError) as error:
                logger.error("document_failed id=%s error=%s", kept.id, type(error).__name__)
            else:
                if events and isinstance(last := events[-1], IngestSummary):
                    if not last.failures:
                        return "ready", ""
                    why = last.failures[0]
                    return "failed", f"{why.reason}. {why.remedy}".strip()[:500]
            if wait is not None:
                time.sleep(wait)
        return "failed", "The document could not be taken in; try again."


def _next(
    before: Kept | None,
    who: Principal,
    key: str,
    name: str,
    version: tuple[str, float],
    readers: Sequence[str],
    size: int,
) -> Kept:
    """What comes after `before`; that itself where nothing changes.

    Raises:
        ApiError: it is being deleted, or closed to the caller.
    """
    shared, versions, created = tuple(sorted(set(readers))), (version,), version[1]
    if before is not None:
        if before.status == GOING:
            raise ApiError(409, "The document is being deleted; try again.", again=True)
        if not before.open_to(who):
            raise ApiError(409, "A document of this name is there; choose another name.")
        same = before.versions[-1][0] == version[0]
        if same and before.readers == shared and before.status != "failed":
            return before
        versions, created = (*before.versions, *(() if same else versions)), before.created
    kept = versions[-VERSIONS:]
    return Kept(key, who.tenant, name, shared, "processing", "", size, kept, created, version[1])


def _row(kept: Kept) -> dict[str, object]:
    values = {name: getattr(kept, name) for name in Kept.__slots__}
    return {**values, "readers": ",".join(kept.readers), "versions": json.dumps(kept.versions)}


def _kept(row: sa.Row[tuple[object, ...]]) -> Kept:
    values = dict(row._mapping)
    values["readers"] = tuple(part for part in str(values["readers"]).split(",") if part)
    values["versions"] = tuple((v, float(at)) for v, at in json.loads(str(values["versions"])))
    return Kept(**values)
