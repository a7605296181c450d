"""The lexical index: FTS5 in the same database, so a chunk and its terms commit together.

Text is cut into terms by `retrieval.text` (jieba words and bigrams for Chinese, stems for English)
before FTS5 sees it; FTS5 only splits at white space (its "ascii" tokenizer takes every character
beyond ASCII as part of a word, and we name the marks our terms may hold). Ranking is Okapi BM25
(k1 1.2, b 0.75, as FTS5 computes it), headings weighted above the body.

FTS5 scores every match, about a microsecond each, so in a large store a question of common words
would take seconds. Beyond `MATCHES` chunks the rarest terms are searched, as many as match that
often together; the common ones say little beside them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, text

from retrieval.index.base import Mask
from retrieval.text import terms

HEADING_WEIGHT = 1.6
#: Matches scored per question, about.
MATCHES = 15_000
#: A scope that sees less than this share is searched with more terms, and in all of the store.
SHARE = 0.2
#: Frequencies kept per store, and how much it may grow before they are counted anew.
TERMS, GROWTH = 50_000, 1.1


@dataclass(slots=True)
class _Counted:
    """In how many chunks terms occur, as of a time when `newest` was the last chunk."""

    newest: int
    chunks: dict[str, int] = field(default_factory=dict)


_COUNTED: WeakKeyDictionary[Engine, _Counted] = WeakKeyDictionary()

CREATE = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS lexical USING fts5("
    "head, body, tokenize=\"ascii tokenchars '+#.-'''\")",
    "CREATE VIRTUAL TABLE IF NOT EXISTS lexical_terms USING fts5vocab(lexical, row)",
)


def add(connection: Connection, rows: Iterable[tuple[int, str, str]]) -> None:
    """Index (chunk id, heading path, text) rows."""
    values = [
        {"id": key, "head": " ".join(terms(head)), "body": " ".join(terms(body))}
        for key, head, body in rows
    ]
    if values:
        connection.execute(
            text("INSERT INTO lexical(rowid, head, body) VALUES (:id, :head, :body)"), values
        )


def remove(connection: Connection, ids: Sequence[int]) -> None:
    """Forget these chunks."""
    if ids:
        connection.execute(
            text("DELETE FROM lexical WHERE rowid = :id"), [{"id": key} for key in ids]
        )


def search(
    connection: Connection, query: Sequence[str], k: int, allowed: Mask | None = None
) -> dict[int, float]:
    """Return chunk id -> BM25 (higher is better) of the best `k` chunks that hold any term.

    With `allowed` (a row per chunk id), other chunks are passed over before they are scored.
    """
    if not query:
        return {}
    seen = 1.0 if allowed is None else float(allowed.mean()) if len(allowed) else 0.0
    chosen, first = _affordable(connection, query, seen)
    plain = (term.replace('"', "").replace("\0", "") for term in chosen)
    match = " OR ".join(f'"{term}"' for term in plain)
    condition = f"AND rowid >= {first} " if first else ""
    if allowed is not None:
        _let_see(connection, allowed)
        condition += "AND may_see(rowid) "
    found = connection.execute(
        text(
            f"SELECT rowid, bm25(lexical, {HEADING_WEIGHT}, 1.0) AS score FROM lexical "
            f"WHERE lexical MATCH :match {condition}ORDER BY score, rowid LIMIT :k"
        ),
        {"match": match, "k": k},
    )
    return {int(key): -float(score) for key, score in found}


def _let_see(connection: Connection, allowed: Mask) -> None:
    """Give this connection the SQL function `may_see(id)`; a lookup costs 0.2 µs."""
    rows, end = allowed.tobytes(), len(allowed)
    driver = connection.connection.driver_connection
    assert driver is not None
    driver.create_function("may_see", 1, lambda key: key < end and rows[key])


def _affordable(
    connection: Connection, query: Sequence[str], seen: float
) -> tuple[Sequence[str], int]:
    """The terms to search and the first chunk id to look at (0: all), `seen` = share visible.

    A question of nothing but common words is answered from the newest chunks that hold the rarest.
    """
    newest = _newest(connection)
    if newest <= MATCHES:
        return query, 0
    counts = _frequencies(connection, query, newest)
    budget = MATCHES / max(seen, SHARE)
    ranked = sorted(dict.fromkeys(query), key=lambda term: counts[term])
    total = 0
    chosen: list[str] = []
    for term in ranked:
        total += counts[term]
        if chosen and total > budget:
            break
        chosen.append(term)
    rarest = counts[chosen[0]]
    if rarest <= budget or seen < SHARE:
        return chosen, 0
    return chosen[:1], int(newest * (1 - budget / rarest))


def _newest(connection: Connection) -> int:
    return int(connection.execute(text("SELECT max(id) FROM lexical_docsize")).scalar() or 0)


def _frequencies(connection: Connection, query: Sequence[str], newest: int) -> dict[str, int]:
    """In how many chunks each term occurs; in a large store as counted a while ago.

    FTS5 counts by walking all of them: 40 ns a chunk.
    """
    counted = _COUNTED.get(connection.engine)
    stale = counted is None or newest > counted.newest * GROWTH or len(counted.chunks) > TERMS
    if counted is None or stale or newest <= MATCHES:
        counted = _Counted(newest)
    if newest > MATCHES:
        _COUNTED[connection.engine] = counted
    for term in query:
        if term not in counted.chunks:
            found = connection.execute(
                text("SELECT doc FROM lexical_terms WHERE term = :term"), {"term": term}
            ).scalar()
            counted.chunks[term] = int(found or 0)
    return {term: counted.chunks[term] for term in query}


def rarity(connection: Connection, query: Sequence[str], total: int) -> list[float]:
    """Inverse document frequency of each term: log((N + 1) / (df + 0.5)), N = `total` chunks."""
    counts = _frequencies(connection, query, _newest(connection))
    # a count of a while ago may exceed what there is now
    return [math.log((total + 1) / (min(counts[term], total) + 0.5)) for term in query]
