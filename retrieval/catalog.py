"""Which chunk belongs to which document, how each is dated and who may read it: arrays for scopes.

A filter inside the search needs an answer for every chunk, at once: SQL would join a million rows
per question, these arrays take two milliseconds. Rows are ids, which are never used again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from retrieval.index.base import Ids, Mask
from retrieval.schema import Scope


@dataclass(frozen=True, slots=True)
class CatalogRows:
    """Rows read from the store.

    `chunks` and `owners` match row by row (chunk id, document id); so do `documents` and `dates`
    (seconds since the epoch; NaN where the document is gone). `access` holds (document id, reader).
    """

    chunks: Ids
    owners: Ids
    documents: Ids
    dates: NDArray[np.float64]
    access: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Catalog:
    """Immutable. `dates[document]` is NaN where there is no such document.

    `limited[document]` is True where an access list exists; `readable[name]` are the documents
    whose list has that name.
    """

    chunks: Ids
    owners: Ids
    dates: NDArray[np.float64]
    limited: Mask
    readable: dict[str, frozenset[int]]

    def allowed(self, scope: Scope) -> Mask:
        """A row per chunk id: whether `scope` may see it."""
        seen = ~np.isnan(self.dates)
        if scope.since is not None:
            seen &= (self.dates >= scope.since) | (scope.undated & (self.dates == 0))
        if scope.until is not None:
            seen &= self.dates < scope.until
        if scope.readers is not None:
            mine = ~self.limited
            for name in scope.readers:
                mine[list(self.readable.get(name, ()))] = True
            seen &= mine
        mask = np.zeros(int(self.chunks.max(initial=-1)) + 1, dtype=bool)
        mask[self.chunks] = seen[self.owners]
        return mask

    def updated(self, rows: CatalogRows) -> Catalog:
        """With what changed since: new chunks, and documents new, gone, dated or shared anew."""
        size = int(rows.documents.max(initial=len(self.dates) - 1)) + 1
        dates = np.full(size, np.nan)
        dates[: len(self.dates)] = self.dates
        dates[rows.documents] = rows.dates
        limited = np.zeros(size, dtype=bool)
        limited[: len(self.limited)] = self.limited
        limited[rows.documents] = False
        limited[[document for document, _ in rows.access]] = True
        changed = frozenset(rows.documents.tolist())
        readable = {name: found - changed for name, found in self.readable.items()}
        for document, name in rows.access:
            readable[name] = readable.get(name, frozenset()) | {document}
        fresh = ~np.isin(rows.chunks, self.chunks)
        return replace(
            self,
            chunks=np.concatenate([self.chunks, rows.chunks[fresh]]),
            owners=np.concatenate([self.owners, rows.owners[fresh]]),
            dates=dates,
            limited=limited,
            readable={name: found for name, found in readable.items() if found},
        )


def catalog(rows: CatalogRows) -> Catalog:
    """The arrays of a whole store."""
    readable: dict[str, set[int]] = {}
    for document, name in rows.access:
        readable.setdefault(name, set()).add(document)
    size = int(rows.documents.max(initial=-1)) + 1
    dates = np.full(size, np.nan)
    dates[rows.documents] = rows.dates
    limited = np.zeros(size, dtype=bool)
    limited[[document for document, _ in rows.access]] = True
    frozen = {name: frozenset(found) for name, found in readable.items()}
    return Catalog(rows.chunks, rows.owners, dates, limited, frozen)
