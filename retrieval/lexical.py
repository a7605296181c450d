"""The lexical index: FTS5 in the same database, so a chunk and its terms commit together.

Text is cut into terms by `retrieval.text` (jieba words and bigrams for Chinese, stems for English)
before FTS5 sees it; FTS5 only splits at white space (its "ascii" tokenizer takes every character
beyond ASCII as part of a word, and we name the marks our terms may hold). Ranking is Okapi BM25
(k1 1.2, b 0.75, as FTS5 computes it), headings weighted above the body.

FTS5 scores every match, about a microsecond each, so in a large store a question of common words
would take seconds. Beyond `LARGE` chunks the rarest terms bring the candidates, as many terms as
match that often together; the best candidates are then scored by all terms.
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
#: Matches scored per question, about, and candidates scored again by all terms.
MATCHES, AGAIN = 6_000, 150
#: In a store of up to so many chunks every match is scored.
LARGE = 20_000
#: Okapi BM25 as FTS5 computes it.
K1, B = 1.2, 0.75
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
    left = [term for term in dict.fromkeys(query) if term not in set(chosen)]
    found = connection.execute(
        text(
            f"SELECT rowid, bm25(lexical, {HEADING_WEIGHT}, 1.0) AS score FROM lexical "
            f"WHERE lexical MATCH :match {condition}ORDER BY score, rowid LIMIT :k"
        ),
        {"match": match, "k": max(k, AGAIN) if left else k},
    )
    scores = {int(key): -float(score) for key, score in found}
    if left and scores:
        scores = _with(connection, left, scores)
        best = sorted(scores, key=lambda key: (-scores[key], key))[:k]
        scores = {key: scores[key] for key in best}
    return scores


def _with(
    connection: Connection, more: Sequence[str], scores: dict[int, float]
) -> dict[int, float]:
    """The BM25 scores with what further terms add to each, as FTS5 would give it."""
    rows, total = _totals(connection)
    counts = _frequencies(connection, more, _newest(connection))
    rarities = [
        (
            f" {term} ",
            max(math.log((rows - df + 0.5) / (df + 0.5)) if df < rows else 0.0, 1e-6) * (K1 + 1),
        )
        for term, df in counts.items()
    ]
    keys = ",".join(map(str, scores))
    stored = connection.exec_driver_sql(
        f"SELECT rowid, head, body FROM lexical WHERE rowid IN ({keys})"
    )
    summed = {}
    for key, head, body in stored:
        # doubled spaces, because a term may follow upon itself
        above, below = f" {head} ".replace(" ", "  "), f" {body} ".replace(" ", "  ")
        tokens = sum(len(t) and t.count(" ") + 1 for t in (head, body))
        length = K1 * (1 - B + B * tokens * rows / max(total, 1))
        score = scores[key]
        for term, worth in rarities:
            often = HEADING_WEIGHT * above.count(term) + below.count(term)
            if often:
                score += worth * often / (often + length)
        summed[int(key)] = score
    return summed


def _totals(connection: Connection) -> tuple[int, int]:
    """(rows, tokens) of the index, from the record that FTS5 keeps for its own ranking."""
    block = connection.execute(text("SELECT block FROM lexical_data WHERE id = 1")).scalar()
    numbers, value = [], 0
    for byte in block or b"":  # SQLite's varints: seven bits a byte, the last below 128
        value = value << 7 | byte & 127
        if byte < 128:
            numbers.append(value)
            value = 0
    return (numbers[0], sum(numbers[1:])) if numbers else (0, 0)


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
    if newest <= LARGE:
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
    if counted is None or stale or newest <= LARGE:
        counted = _Counted(newest)
    if newest > LARGE:
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
