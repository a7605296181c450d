"""What is remembered of each source, and the few questions ingestion asks of the store.

A table of its own beside those of the documents: how a source is read, who may see it, when it was
checked and when something changed, and what went wrong last. Questions are asked for one source or
for what is in hand, never for the whole store: an edit must cost the same in a store of any size.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import sqlalchemy as sa

from retrieval.errors import StoreError
from retrieval.schema import FileReport, RootStatus
from retrieval.sources.base import belongs, below
from retrieval.store import Store
from retrieval.store_log import Model, models
from retrieval.store_tables import ACCESS, CHANGE, CHUNK, DOCUMENT, META, METADATA, MODEL, ROOT

SOURCE = sa.Table(
    "source",
    METADATA,
    sa.Column("root", sa.String, primary_key=True),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("readers", sa.JSON, nullable=False),
    sa.Column("every", sa.Float),  # minutes; null = as the settings say
    sa.Column("checked", sa.Float, nullable=False),
    sa.Column("changed", sa.Float, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("error", sa.JSON),
    sa.Column("state", sa.JSON, nullable=False),
)
#: Stands for the encoder of a store that has none yet.
NO_ENCODER = "none"
#: Names per statement: SQLite binds a limited number of values.
_BATCH = 400


@dataclass(frozen=True, slots=True)
class Known:
    """What is stored about a document, to decide whether it changed."""

    id: int
    root: str
    version: str
    made_by: str
    stamp: str
    modified: float
    chunks: int


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """How a source is read and how its last run went.

    `checked` is the end of the last run that reached the source, `changed` of the last that
    changed something (seconds since the epoch, 0 = never); `tries` counts failed runs since.
    """

    root: str
    kind: str = "files"
    readers: tuple[str, ...] = ()
    every: float | None = None
    checked: float = 0.0
    changed: float = 0.0
    tries: int = 0
    error: FileReport | None = None
    state: dict[str, str] = field(default_factory=dict)


class SourceTable:
    """The sources of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        with store.read() as connection:
            there = sa.inspect(connection).has_table(SOURCE.name)
        if not there:  # a store of an earlier version
            with store.write() as connection:
                SOURCE.create(connection, checkfirst=True)

    def all(self) -> tuple[SourceRecord, ...]:
        """Every source, by name; one of an earlier version is a folder."""
        with self._store.read() as connection:
            rows = connection.execute(sa.select(SOURCE)).mappings().all()
            names = connection.execute(sa.select(ROOT.c.root, ROOT.c.synced)).all()
        found = {row["root"]: _record(row) for row in rows}
        for name, synced in names:
            found.setdefault(name, SourceRecord(name, checked=synced, changed=synced))
        return tuple(found[name] for name in sorted(found))

    def get(self, root: str) -> SourceRecord | None:
        """One source, None where it was never named."""
        with self._store.read() as connection:
            row = connection.execute(sa.select(SOURCE).where(SOURCE.c.root == root)).mappings()
            found = row.one_or_none()
        return _record(found) if found else None

    def save(self, record: SourceRecord) -> None:
        """Write what is remembered of a source."""
        values = asdict(record)
        values["readers"] = list(record.readers)
        with self._store.write() as connection:
            connection.execute(sa.delete(SOURCE).where(SOURCE.c.root == record.root))
            connection.execute(sa.insert(SOURCE).values(**values))

    def drop(self, root: str) -> None:
        """Forget a source (its documents are removed by `Store.remove`)."""
        with self._store.write() as connection:
            connection.execute(sa.delete(SOURCE).where(SOURCE.c.root == root))
            connection.execute(sa.delete(ROOT).where(ROOT.c.root == root))

    def failures(self, root: str) -> tuple[FileReport, ...]:
        """What could not be read at the last run."""
        with self._store.read() as connection:
            row = connection.execute(sa.select(ROOT.c.failures).where(ROOT.c.root == root))
            found = row.scalar_one_or_none()
        return tuple(FileReport(**each) for each in found or ())

    def known(self, root: str, kind: str) -> dict[str, Known]:
        """What is stored below a folder, or under the name of another source."""
        return self._known(_mine(root, kind))

    def known_of(self, names: Iterable[str]) -> dict[str, Known]:
        """What is stored under these names."""
        found: dict[str, Known] = {}
        rest = list(names)
        for start in range(0, len(rest), _BATCH):
            found |= self._known(DOCUMENT.c.source.in_(rest[start : start + _BATCH]))
        return found

    def _known(self, condition: sa.ColumnElement[bool]) -> dict[str, Known]:
        d = DOCUMENT.c
        count = sa.select(sa.func.count()).where(CHUNK.c.document_id == d.id).scalar_subquery()
        fields = (d.id, d.root, d.version, d.made_by, d.stamp, d.modified, count)
        with self._store.read() as connection:
            rows = connection.execute(sa.select(d.source, *fields).where(condition))
            return {row[0]: Known(*row[1:]) for row in rows}

    def names(self, root: str, kind: str) -> list[str]:
        """The documents of a source."""
        with self._store.read() as connection:
            rows = connection.execute(sa.select(DOCUMENT.c.source).where(_mine(root, kind)))
            return [str(row.source) for row in rows]

    def touch(self, rows: Sequence[tuple[int, str, float]]) -> None:
        """Note (document id, stamp, date) of content that did not change, in one transaction.

        As `Store.touch`, for many: a document dated by its file alone gets the new date.
        """
        if not rows:
            return
        d = DOCUMENT.c
        values = [{"key": key, "s": stamp, "m": date} for key, stamp, date in rows]
        new: sa.BindParameter[float] = sa.bindparam("m")
        statement = (
            sa.update(DOCUMENT)
            .where(d.id == sa.bindparam("key"))
            .values(
                stamp=sa.bindparam("s"),
                modified=new,
                date=sa.case((d.date == d.modified, new), else_=d.date),
            )
        )
        log = [{"op": "touch", "chunk_id": 0, "document_id": key} for key, _, _ in rows]
        with self._store.write() as connection:
            connection.execute(statement, values)
            connection.execute(sa.insert(CHANGE), log)

    def grant(self, names: Sequence[str], readers: Sequence[str]) -> None:
        """Let these readers see these documents and nobody else; () is everybody."""
        found = [known.id for known in self.known_of(names).values()]
        log = [{"op": "touch", "chunk_id": 0, "document_id": key} for key in found]
        rows = [{"document_id": key, "reader": name} for key in found for name in readers]
        with self._store.write() as connection:
            for start in range(0, len(found), _BATCH):
                some = ACCESS.c.document_id.in_(found[start : start + _BATCH])
                connection.execute(sa.delete(ACCESS).where(some))
            if rows:
                connection.execute(sa.insert(ACCESS), rows)
            if log:
                connection.execute(sa.insert(CHANGE), log)

    def status(self, minutes: dict[str, float], pending: dict[str, int]) -> tuple[RootStatus, ...]:
        """Every source with its counts and its lag.

        Args:
            minutes: how often each kind is synchronised; 0 = never.
            pending: changes seen but not taken in yet, by root.
        """
        found = []
        d, now = DOCUMENT.c, time.time()
        with self._store.read() as connection:
            rows = {row.root: row for row in connection.execute(sa.select(ROOT))}
        for record in self.all():
            mine = _mine(record.root, record.kind)
            with self._store.read() as connection:
                counts = sa.select(sa.func.count(), sa.func.max(d.indexed)).where(mine)
                documents, newest = connection.execute(counts).one()
                inside = sa.select(sa.func.count()).join_from(CHUNK, DOCUMENT).where(mine)
                chunks = connection.execute(inside).scalar_one()
            row = rows.get(record.root)
            every = minutes.get(record.kind, 0.0) if record.every is None else record.every
            due = record.checked + every * 60
            found.append(
                RootStatus(
                    record.root,
                    int(documents),
                    int(chunks),
                    row.synced if row else record.checked,
                    newest or 0.0,
                    tuple(FileReport(**f) for f in row.failures) if row else (),
                    kind=record.kind,
                    readers=record.readers,
                    every_minutes=every,
                    checked=record.checked,
                    changed=record.changed,
                    lag=max(0.0, now - due) if every else 0.0,
                    pending=pending.get(record.root, 0),
                    error=record.error,
                )
            )
        return tuple(found)


def readers_of(source: str, limits: Iterable[SourceRecord]) -> tuple[str, ...]:
    """Who may see a document: as said of the innermost folder that it lies in; () is everybody."""
    around = [r for r in limits if belongs(source, r.root)]
    return max(around, key=lambda r: len(r.root)).readers if around else ()


def open_as_noted(path: Path) -> Store:
    """Open a store for its rows alone, leaving its encoders, and what is built of them, as is."""
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)))
    try:
        with engine.connect() as connection:
            if sa.inspect(connection).has_table(MODEL.name):
                found = [(m.name, m.dim) for m in sorted(models(connection), key=_serving)]
            elif sa.inspect(connection).has_table(META.name):  # of an earlier version
                query = sa.select(META.c.value).where(META.c.key == "embedder")
                length = "SELECT length(vector) / 2 FROM embedding LIMIT 1"
                dim = connection.exec_driver_sql(length).scalar() or 0
                found = [(str(row.value), int(dim)) for row in connection.execute(query)]
            else:
                found = []
    except sa.exc.DatabaseError as error:
        raise StoreError(
            f"{path} is not a usable database ({error.orig}); move it away and ingest again"
        ) from error
    finally:
        engine.dispose()
    return Store(path, *(found[0] if found else (NO_ENCODER, 0)))


def _serving(model: Model) -> bool:
    # the one that is filling up first: a store opened for the other would drop it
    return model.serving


def _mine(root: str, kind: str) -> sa.ColumnElement[bool]:
    """The documents of a source: by place for folders and uploads, by their root for others."""
    if kind != "files":
        return DOCUMENT.c.root == root
    first = below(root)
    after = first[:-1] + chr(ord(first[-1]) + 1)
    return sa.or_(
        DOCUMENT.c.source == root,
        sa.and_(DOCUMENT.c.source >= first, DOCUMENT.c.source < after),
    )


def _record(row: sa.RowMapping) -> SourceRecord:
    values = dict(row)
    error = values.pop("error")
    record = SourceRecord(**{**values, "readers": tuple(values["readers"])})
    return replace(record, error=FileReport(**error)) if error else record
