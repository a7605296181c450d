"""Errors of the retrieval package.

RetrievalError
├── IngestError            a source or file could not be taken in
│   ├── ParseError         one file could not be read; carries path, reason and remedy
│   └── SourceNotFound     the path given does not exist
├── StoreError             the database cannot be used
│   └── StoreBusy          another process holds the writer's lock
├── IndexMismatch          embedder, dimension or chunker differ from what the store was built with
├── ModelUntrusted         a weight file does not have the expected SHA-256
└── BackendMissing         a backend's name is unknown or its library is not installed
"""

from __future__ import annotations


class RetrievalError(Exception):
    """Anything retrieval could not do; the message says what, the value and the remedy."""

    retryable = False


class IngestError(RetrievalError):
    """A source or file could not be taken in."""


class ParseError(IngestError):
    """One file could not be read.

    `reason` is one of a closed set (see `retrieval.parse.base.REASONS`), so that a report can be
    counted and translated; `remedy` says what its owner can do.
    """

    def __init__(self, path: str, reason: str, detail: str, remedy: str) -> None:
        super().__init__(f"{path}: {detail} ({reason}). {remedy}")
        self.path = path
        self.reason = reason
        self.detail = detail
        self.remedy = remedy


class SourceNotFound(IngestError):
    """The path given to `ingest` does not exist."""


class StoreError(RetrievalError):
    """The database cannot be used."""


class StoreBusy(StoreError):
    """Another process is writing; try again when it has finished."""

    retryable = True


class IndexMismatch(RetrievalError):
    """The store was built with another embedder, dimension or chunker."""


class ModelUntrusted(RetrievalError):
    """A weight file does not have the SHA-256 it must have."""


class BackendMissing(RetrievalError):
    """A backend's name is unknown, or the library it needs is not installed."""
