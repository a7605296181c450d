"""The types retrieval produces. All frozen; offsets are code points into `Document.text`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BlockKind = Literal["paragraph", "list_item", "table_row", "code", "quote"]
Mode = Literal["fused", "dense", "lexical"]


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading: `level` 1 is the topmost; `text` stands at `start` in the document's text."""

    level: int
    text: str
    start: int


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch [start, end) of text that a chunk prefers not to split, and its kind."""

    start: int
    end: int
    kind: BlockKind


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a parser makes of one file: plain text plus its structure.

    `text` holds no markup: what a reader would read. Headings are lines of `text` too. `blocks`
    are sorted, do not overlap, and together with the headings cover all text but white space.
    """

    text: str
    title: str
    headings: tuple[Heading, ...]
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """One version of one document, as stored.

    `version` is the SHA-256 of the source's bytes; `modified` its time in seconds since the epoch
    (UTC); `indexed` when this version became searchable.
    """

    id: int
    source: str
    root: str
    title: str
    text: str
    lang: str
    version: str
    modified: float
    indexed: float


@dataclass(frozen=True, slots=True)
class Chunk:
    """A searchable stretch of a document: `document.text[start:end] == text`.

    `code` holds the stretches [a, b) of `text` that are program code, in order.
    """

    id: int
    document_id: int
    text: str
    start: int
    end: int
    headings: tuple[str, ...]
    ordinal: int
    code: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """How one stage saw a passage: `stage` is dense, lexical or fused."""

    stage: str
    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk as evidence: where it comes from, how old it is, and how it was found.

    `score` is the fused score in [0, 1] (higher is better), comparable within one query only.
    """

    chunk: Chunk
    source: str
    title: str
    lang: str
    version: str
    modified: float
    indexed: float
    score: float
    found_by: tuple[Found, ...]


@dataclass(frozen=True, slots=True)
class Scope:
    """Which documents a search may see; applied inside the search, never after it.

    `readers` are the names (a user and their groups) of the one who asks: a document with an
    access list is seen by those on it, one without a list by everybody. None: no access filter.
    `since` and `until` bound the document's own date, in seconds since the epoch (UTC),
    half-open: since <= date < until.
    """

    readers: frozenset[str] | None = None
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class FileReport:
    """What ingestion did with one file.

    `outcome` is added, updated, unchanged, removed or failed; `reason` and `detail` are filled
    for failures (reason from `retrieval.parse.base.REASONS`), `remedy` says what to do.
    """

    source: str
    outcome: Literal["added", "updated", "unchanged", "removed", "failed"]
    chunks: int = 0
    embedded: int = 0
    reason: str = ""
    detail: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """A tick of a running ingestion: `done` of `total` files, chunks embedded, one report."""

    done: int
    total: int
    chunks: int
    embedded: int
    seconds: float
    report: FileReport | None


@dataclass(frozen=True, slots=True)
class IngestSummary:
    """What a whole run did; `failures` name each file that could not be read.

    `ignored` counts files of formats nobody reads, by suffix, found in folders.
    """

    documents: int
    added: int
    updated: int
    unchanged: int
    removed: int
    chunks: int
    embedded: int
    seconds: float
    failures: tuple[FileReport, ...]
    ignored: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class RootStatus:
    """One ingested folder or file: how much is in it and when it was last synchronised."""

    root: str
    documents: int
    chunks: int
    synced: float
    newest: float
    failures: tuple[FileReport, ...]


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """What is indexed: `sequence` is the last change in the store, `served` the last one searched.

    Lag is `sequence - served`; zero means that every committed change can be found.
    """

    documents: int
    chunks: int
    sequence: int
    served: int
    embedder: str
    roots: tuple[RootStatus, ...]
