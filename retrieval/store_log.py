"""Reading the store in bulk: the change log, the vectors, and what scopes need.

Every function reads in the transaction it is handed, so that its parts fit together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from retrieval.catalog import CatalogRows
from retrieval.embed.base import Vectors
from retrieval.index.base import Ids

#: Rows of vectors read at a time.
BATCH = 20_000


@dataclass(frozen=True, slots=True)
class Model:
    """An encoder whose vectors are stored; `settings` is JSON to build it again, or ""."""

    id: int
    name: str
    dim: int
    settings: str
    serving: bool


@dataclass(frozen=True, slots=True)
class Changes:
    """What was committed after some sequence number, as it stands now.

    `ids` and `vectors` match row by row and hold only chunks that still exist. `catalog` covers
    the same changes; `floor` is the oldest number the log can be replayed from.
    """

    sequence: int
    floor: int
    ids: Ids
    vectors: Vectors
    removed: Ids
    catalog: CatalogRows
    chunks: int
    model: Model | None


@dataclass(frozen=True, slots=True)
class Loaded:
    """All vectors of one encoder; `vectors` is (len(ids), dim), float16, ids ascending."""

    sequence: int
    chunks: int
    ids: Ids
    vectors: NDArray[np.float16]


def sequence(connection: sa.Connection) -> int:
    """Number of the last committed change; 0 in an empty store."""
    return int(connection.exec_driver_sql("SELECT max(seq) FROM change").scalar() or 0)


def floor(connection: sa.Connection) -> int:
    """The oldest number the log can be replayed from."""
    value = connection.exec_driver_sql("SELECT value FROM meta WHERE key = 'floor'").scalar()
    return int(value or 0)


def models(connection: sa.Connection) -> tuple[Model, ...]:
    """Every encoder known, oldest first."""
    rows = connection.exec_driver_sql("SELECT id, name, dim, settings, serving FROM model")
    return tuple(Model(r.id, r.name, r.dim, r.settings, bool(r.serving)) for r in rows)


def serving(connection: sa.Connection) -> Model | None:
    """The encoder whose vectors are searched."""
    return next((model for model in models(connection) if model.serving), None)


def changes(connection: sa.Connection, after: int, model: Model) -> Changes:
    """What was committed after `after`, with the vectors of `model`."""
    values = (after,)
    rows = _rows(
        connection,
        "SELECT chunk_id, vector FROM embedding WHERE model_id = ? AND length(vector) > 0 "
        "AND chunk_id IN (SELECT chunk_id FROM change WHERE seq > ? AND op = 'add') "
        "ORDER BY chunk_id",
        (model.id, after),
    )
    gone = _rows(connection, "SELECT chunk_id FROM change WHERE seq > ? AND op = 'remove'", values)
    return Changes(
        sequence(connection),
        floor(connection),
        np.array([key for key, _ in rows], dtype=np.int64),
        decode([vector for _, vector in rows], model.dim),
        np.array([key for (key,) in gone], dtype=np.int64),
        _catalog_after(connection, after),
        chunks(connection),
        serving(connection),
    )


def count(connection: sa.Connection, model: Model) -> int:
    """How many chunks have a vector of `model`."""
    query = "SELECT count(*) FROM embedding WHERE model_id = ? AND length(vector) > 0"
    return int(connection.exec_driver_sql(query, (model.id,)).scalar() or 0)


def loaded(connection: sa.Connection, model: Model) -> Loaded:
    """All vectors of `model` in memory."""
    parts = list(vectors(connection, model))
    none = np.zeros((0, model.dim), dtype=np.float16)
    return Loaded(
        sequence(connection),
        chunks(connection),
        np.concatenate([np.zeros(0, dtype=np.int64), *(ids for ids, _ in parts)]),
        np.concatenate([none, *(halves for _, halves in parts)]),
    )


def chunks(connection: sa.Connection) -> int:
    """How many chunks there are."""
    return int(connection.exec_driver_sql("SELECT count(*) FROM chunk").scalar() or 0)


def batch(
    connection: sa.Connection, model: Model, after: int
) -> tuple[int, Ids, NDArray[np.float16]]:
    """The next vectors by chunk id: (last id seen, ids, vectors as they are stored).

    The last id is `after` where there are no more.
    """
    rows = _rows(
        connection,
        "SELECT chunk_id, vector FROM embedding WHERE model_id = ? AND chunk_id > ? "
        "ORDER BY chunk_id LIMIT ?",
        (model.id, after, BATCH),
    )
    full = [(key, vector) for key, vector in rows if vector]
    halves = np.frombuffer(b"".join([vector for _, vector in full]), dtype="<f2")
    ids = np.array([key for key, _ in full], dtype=np.int64)
    return rows[-1][0] if rows else after, ids, halves.reshape(len(full), model.dim)


def vectors(connection: sa.Connection, model: Model) -> Iterator[tuple[Ids, NDArray[np.float16]]]:
    """All vectors of `model` by chunk id, ascending, in batches."""
    last = -1
    while True:
        at, ids, halves = batch(connection, model, last)
        if at == last:
            return
        last = at
        yield ids, halves


def catalog_rows(connection: sa.Connection) -> CatalogRows:
    """Everything scopes need, of the whole store."""
    return _catalog(
        _rows(connection, "SELECT id, document_id FROM chunk ORDER BY id"),
        _rows(connection, "SELECT id, date FROM document"),
        _rows(connection, "SELECT document_id, reader FROM access"),
    )


def _catalog_after(connection: sa.Connection, after: int) -> CatalogRows:
    """The same of the documents that changed; a document that is gone has the date NaN."""
    changed = "(SELECT document_id FROM change WHERE seq > ?)"
    values = (after,)
    return _catalog(
        _rows(
            connection,
            "SELECT DISTINCT chunk_id, document_id FROM change WHERE seq > ? AND op = 'add'",
            values,
        ),
        _rows(
            connection,
            "SELECT DISTINCT c.document_id, d.date FROM change c "
            "LEFT JOIN document d ON d.id = c.document_id WHERE c.seq > ?",
            values,
        ),
        _rows(
            connection,
            f"SELECT document_id, reader FROM access WHERE document_id IN {changed}",
            values,
        ),
    )


def _catalog(
    chunks: Sequence[tuple[int, int]],
    documents: Sequence[tuple[int, float | None]],
    access: Sequence[tuple[int, str]],
) -> CatalogRows:
    pairs = np.array(chunks, dtype=np.int64).reshape(-1, 2)
    return CatalogRows(
        np.ascontiguousarray(pairs[:, 0]),
        np.ascontiguousarray(pairs[:, 1]),
        np.array([key for key, _ in documents], dtype=np.int64),
        np.array([np.nan if d is None else d for _, d in documents], dtype=np.float64),
        tuple(access),
    )


def _rows(connection: sa.Connection, query: str, values: tuple[object, ...] = ()) -> list[tuple]:  # type: ignore[type-arg]
    """Plain tuples from the driver: a million of them in a second."""
    driver = connection.connection.driver_connection
    assert driver is not None
    found: list[tuple] = driver.execute(query, values).fetchall()  # type: ignore[type-arg]
    return found


def encode(vector: Vectors) -> bytes:
    """A vector as stored: float16, or nothing for a row of zeros."""
    return vector.astype("<f2").tobytes() if vector.any() else b""


def decode(stored: Sequence[bytes], dim: int) -> Vectors:
    """Stored vectors as a matrix (n, dim)."""
    halves = np.frombuffer(b"".join(stored), dtype="<f2")
    return halves.astype(np.float32).reshape(len(stored), dim)
