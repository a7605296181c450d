"""The lexical index: FTS5 in the same database, so a chunk and its terms commit together.

Text is cut into terms by `retrieval.text` (jieba words and bigrams for Chinese, stems for English)
before FTS5 sees it; FTS5 only splits at white space (its "ascii" tokenizer takes every character
beyond ASCII as part of a word, and we name the marks our terms may hold). Ranking is Okapi BM25
(k1 1.2, b 0.75, as FTS5 computes it), headings weighted above the body.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, text

from retrieval.index.base import Mask
from retrieval.text import terms

HEADING_WEIGHT = 1.6

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
    plain = (term.replace('"', "").replace("\0", "") for term in query)
    match = " OR ".join(f'"{term}"' for term in plain)
    condition = ""
    if allowed is not None:
        _let_see(connection, allowed)
        condition = "AND may_see(rowid) "
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


def rarity(connection: Connection, query: Sequence[str], total: int) -> list[float]:
    """Inverse document frequency of each term: log((N + 1) / (df + 0.5)), N = `total` chunks."""
    values = []
    for term in query:
        df = connection.execute(
            text("SELECT doc FROM lexical_terms WHERE term = :term"), {"term": term}
        ).scalar()
        values.append(math.log((total + 1) / (int(df or 0) + 0.5)))
    return values
