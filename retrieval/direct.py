"""Texts straight into a store: cut, embedded and committed as ingestion does, without a parser.

For programs that hold text already and need it back character for character.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval.chunk import CHUNKER_VERSION, Piece, chunk
from retrieval.config import ChunkSettings
from retrieval.embed.base import Embedder, embedded_text
from retrieval.schema import Block, Parsed
from retrieval.store import NewVersion, Store
from retrieval.text import TERMS_VERSION, language

MADE_BY = f"direct-1/{CHUNKER_VERSION}/{TERMS_VERSION}"
#: Texts embedded in one go.
BATCH = 256


@dataclass(frozen=True, slots=True)
class Plain:
    """One text, under `source` in the store (below `root`); the next of that name replaces it.

    `modified` is in seconds since the epoch (UTC), None for now; `readers` may see it, () is
    everybody.
    """

    source: str
    root: str
    text: str
    title: str = ""
    modified: float | None = None
    readers: tuple[str, ...] = ()


def put(store: Store, embedder: Embedder, texts: Sequence[Plain], sizes: ChunkSettings) -> int:
    """Write `texts`; returns how many chunks they gave. A text of white space gives none."""
    total = 0
    for first in range(0, len(texts), BATCH):
        cut = [(plain, _cut(plain, sizes)) for plain in texts[first : first + BATCH]]
        # by the body: a title may be in another language
        wanted = [
            embedded_text(plain.title, piece.headings, body)
            for plain, pieces in cut
            for piece, body in _bodies(plain, pieces)
            if embedder.reads(body)
        ]
        vectors = embedder.embed(wanted, "passage") if wanted else ()
        found = dict(zip(wanted, vectors, strict=True))
        for plain, pieces in cut:
            keys = [embedded_text(plain.title, p.headings, b) for p, b in _bodies(plain, pieces)]
            rows = np.zeros((len(keys), embedder.dim), dtype=np.float32)
            for row, key in enumerate(keys):
                if key in found:
                    rows[row] = found[key]
            store.put(
                NewVersion(
                    source=plain.source,
                    root=plain.root,
                    title=plain.title,
                    text=plain.text,
                    lang=language(plain.text),
                    version=hashlib.sha256(plain.text.encode("utf-8", "replace")).hexdigest(),
                    made_by=MADE_BY,
                    modified=time.time() if plain.modified is None else plain.modified,
                    stamp="",
                    pieces=pieces,
                    digests=tuple(hashlib.sha256(k.encode()).hexdigest() for k in keys),
                    vectors=rows,
                    acl=plain.readers,
                )
            )
            total += len(pieces)
    return total


def _cut(plain: Plain, sizes: ChunkSettings) -> tuple[Piece, ...]:
    blocks = (Block(0, len(plain.text), "paragraph"),) if plain.text.strip() else ()
    return tuple(chunk(Parsed(plain.text, plain.title, (), blocks), sizes))


def _bodies(plain: Plain, pieces: Sequence[Piece]) -> list[tuple[Piece, str]]:
    return [(piece, plain.text[piece.start : piece.end]) for piece in pieces]
