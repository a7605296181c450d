"""The types retrieval produces. All frozen; offsets are code points into `Document.text`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BlockKind = Literal["paragraph", "list_item", "table_row", "code", "quote"]
Mode = Literal["reranked", "fused", "dense", "lexical"]


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
    `notes` say what could not be read, or was read by a guess, and what its owner can do.
    """

    text: str
    title: str
    headings: tuple[Heading, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """One version of one document, as stored.

    `version` is the SHA-256 of the source's bytes; `modified` its time in seconds since the epoch
    (UTC); `indexed` when this version became searchable. `date` is what a search in time goes by:
    the document's own date where its source tells one, else `modified`. `acl` names who may read
    it; () is everybody.
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
    date: float = 0.0
    acl: tuple[str, ...] = ()


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
    """How one stage saw a passage: `stage` is dense, lexical, fused or reranked."""

    stage: str
    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Older:
    """What an earlier version of a passage's document says in its place.

    `version` and `modified` as in `Document`; `text` is the earlier passage.
    """

    source: str
    title: str
    version: str
    modified: float
    text: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk as evidence: where it comes from, how old it is, and how it was found.

    `score` in [0, 1] (higher is better) is of the last stage, comparable within one query only.
    `also` names other sources of the same text, `older` earlier versions that were set aside.
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
    also: tuple[str, ...] = ()
    older: tuple[Older, ...] = ()


@dataclass(frozen=True, slots=True)
class Scope:
    """Which documents a search may see; applied inside the search, never after it.

    `readers` are the names (a user and their groups) of the one who asks: a document with an
    access list is seen by those on it, one without a list by everybody. None: no access filter.
    `since` and `until` bound the document's own date, in seconds since the epoch (UTC),
    half-open: since <= date < until. A document without a date (0) lies before every `since`,
    unless `undated` lets it pass.
    """

    readers: frozenset[str] | None = None
    since: float | None = None
    until: float | None = None
    undated: bool = False


@dataclass(frozen=True, slots=True)
class FileReport:
    """What ingestion did with one file.

    `outcome` is added, updated, unchanged, removed or failed; `reason` and `detail` are filled
    for failures (reason from `retrieval.parse.base.REASONS` or `retrieval.sources.base.REASONS`),
    `remedy` says what to do. A `detail` without a reason is a remark, such as on a date.
    `quarantined` counts the passages that a check of the new text would not let through.
    """

    source: str
    outcome: Literal["added", "updated", "unchanged", "removed", "failed"]
    chunks: int = 0
    embedded: int = 0
    reason: str = ""
    detail: str = ""
    remedy: str = ""
    quarantined: int = 0


@dataclass(frozen=True, slots=True)
class IngestProgress:
    """A tick of a running ingestion: `done` of `total` files, chunks embedded, one report.

    In the phase `check`, after the files, `done` and `total` are passages that are looked at.
    """

    done: int
    total: int
    chunks: int
    embedded: int
    seconds: float
    report: FileReport | None
    phase: Literal["files", "check"] = "files"


@dataclass(frozen=True, slots=True)
class IngestSummary:
    """What a whole run did; `failures` name each file that could not be read.

    `ignored` counts files of formats nobody reads, by suffix, found in folders. `remarks` are on
    documents that were taken in though something about them was odd.
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
    remarks: tuple[FileReport, ...] = ()


@dataclass(frozen=True, slots=True)
class RootStatus:
    """One source: how much is in it, when it was last synchronised, and whether that is enough.

    `kind` is a file of retrieval/sources/. `checked` is the end of the last run that reached it,
    `changed` of the last that changed something (seconds since the epoch); `every_minutes` is its
    interval, 0 = only by hand; `lag` the seconds since a check was due; `pending` changes seen but
    not taken in yet; `error` why the last run did not reach it; `quarantined` passages that a check
    found and that no policy is shown.
    """

    root: str
    documents: int
    chunks: int
    synced: float
    newest: float
    failures: tuple[FileReport, ...]
    kind: str = "files"
    readers: tuple[str, ...] = ()
    every_minutes: float = 0.0
    checked: float = 0.0
    changed: float = 0.0
    lag: float = 0.0
    pending: int = 0
    error: FileReport | None = None
    quarantined: int = 0


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """What is indexed: `sequence` is the last change in the store, `served` the last one searched.

    Lag is `sequence - served`; zero means that every committed change can be found. `embedder` is
    the encoder whose vectors are searched.

    Attributes:
        index: how the vectors are searched, in FAISS's notation, and how many lie in the index.
        delta: vectors that came after the index was made; searched one by one.
        tombstones: vectors in the index that were removed since.
        snapshot_age: seconds since the newest snapshot was made; None: there is none.
        health: "" when all is well, else one sentence: what is wrong and what is done about it.
        switching: the encoder whose vectors are being made to replace `embedder`'s, or "".
        switched: share of the chunks it has seen, 0 to 1.
    """

    documents: int
    chunks: int
    sequence: int
    served: int
    embedder: str
    roots: tuple[RootStatus, ...]
    index: str = ""
    delta: int = 0
    tombstones: int = 0
    snapshot_age: float | None = None
    health: str = ""
    switching: str = ""
    switched: float = 1.0
