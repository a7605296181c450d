"""What one query searches: an immutable view of the store at one point of its change log.

A view is a base index (a mapped snapshot, or all vectors in memory), the vectors that came since,
and the ids that went since. A newer view replaces it by one assignment; a query keeps the one it
began with, so no writer and no other query can change what it sees half-way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from retrieval.catalog import Catalog
from retrieval.embed.base import Embedder, Vectors
from retrieval.index.base import Ids, Index, Mask, best
from retrieval.index.exact import Exact
from retrieval.schema import Scope

#: Scopes whose masks are kept per view: one bit of memory per chunk id and scope, times eight.
MASKS = 32


@dataclass(frozen=True, slots=True)
class View:
    """A state of the index.

    Attributes:
        embedder: what turns a question into a vector of this view; None: dense search is not
            possible now, the lexical side serves alone.
        base: vectors up to `since`.
        delta: vectors added later, newest last; each part at least twice as large as the next.
        gone: ids in base or delta that were removed later, ascending.
        live: row per id, False for those in `gone`; None where nothing is gone.
        catalog: None until a scope was asked for.
        sequence: number of the last change seen.
        chunks: how many chunks the store held then.
        created: when the base's snapshot was made, seconds since the epoch; 0: it lies in memory.
        lease: keeps the snapshot's files from being deleted while the view is used.
        masks: masks of the scopes asked for so far.
    """

    embedder: Embedder | None
    base: Index
    delta: tuple[Exact, ...]
    gone: Ids
    live: Mask | None
    catalog: Catalog | None
    since: int
    sequence: int
    chunks: int
    created: float = 0.0
    lease: object = None
    masks: dict[Scope, Mask] = field(default_factory=dict)

    @property
    def pending(self) -> int:
        """How many vectors came after the base."""
        return sum(part.size for part in self.delta)

    def allowed(self, scope: Scope | None) -> Mask | None:
        """A row per chunk id: whether `scope` may see it. None: it sees everything."""
        if scope is None or scope == Scope():
            return None
        assert self.catalog is not None, "asked for a view without saying that a scope is needed"
        mask = self.masks.get(scope)
        if mask is None:
            mask = self.catalog.allowed(scope)
            if len(self.masks) >= MASKS:
                self.masks.clear()
            self.masks[scope] = mask
        return mask

    def search(self, vector: Vectors, k: int, allowed: Mask | None) -> dict[int, float]:
        """The `k` nearest chunks of one question: id -> cosine. `vector` is (1, dim)."""
        mask = self.live if allowed is None else allowed
        if mask is not None and self.live is not None and mask is not self.live:
            mask = mask.copy()
            mask[self.gone[self.gone < len(mask)]] = False
        parts = [index.search(vector, k, mask) for index in (self.base, *self.delta)]
        scores, ids = best(
            np.concatenate([scores for scores, _ in parts], axis=1),
            np.concatenate([ids for _, ids in parts], axis=1),
            k,
        )
        pairs = zip(ids[0], scores[0], strict=True)
        return {int(key): float(score) for key, score in pairs if key >= 0}

    def cosines(self, vector: Vectors, ids: Iterable[int]) -> dict[int, float]:
        """Cosines of the question, (1, dim), to those of `ids` that have vectors here."""
        wanted: Ids = np.fromiter(ids, dtype=np.int64)
        found: dict[int, float] = {}
        for part in (self.base, *self.delta):
            keys, vectors = part.stored(wanted)
            scores = np.clip(vectors @ vector[0], -1, 1)
            found |= zip(keys.tolist(), scores.tolist(), strict=True)
        return found

    def after(self, ids: Ids, vectors: Vectors, removed: Ids) -> View:
        """With these vectors added and these ids gone; the counts are the caller's to set."""
        known = (self.base.ids, *(part.ids for part in self.delta))
        top = max((int(mine.max()) for mine in known if len(mine)), default=-1)
        fresh = ids > top  # ids grow; one is told twice only where its vector came later
        if not fresh.all():
            fresh |= ~np.isin(ids, np.concatenate(known))
        delta = _with(self.delta, ids[fresh], vectors[fresh])
        gone = np.union1d(self.gone, removed).astype(np.int64) if len(removed) else self.gone
        live = None
        if len(gone):
            live = np.ones(max(top, int(ids.max(initial=-1)), int(gone[-1])) + 1, dtype=bool)
            live[gone] = False
        return replace(self, delta=delta, gone=gone, live=live, masks={})


def _with(delta: tuple[Exact, ...], ids: Ids, vectors: Vectors) -> tuple[Exact, ...]:
    """Add a part; parts are joined so that there are few and each vector is copied few times."""
    if not len(ids):
        return delta
    part = Exact(vectors.shape[1])
    part.add(ids, vectors)
    parts = [*delta, part]
    while len(parts) > 1 and parts[-2].size < 2 * parts[-1].size:
        last, before = parts.pop(), parts.pop()
        joined = Exact(vectors.shape[1])
        for piece in (before, last):
            joined.add(piece.ids, piece.vectors)
        parts.append(joined)
    return tuple(parts)
