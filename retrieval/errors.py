"""Errors of the retrieval package.

RetrievalError
├── IngestError            a source or file could not be taken in
│   ├── ParseError         one file could not be read; carries path, reason and remedy
│   ├── SourceError        a page, feed or repository could not be read; carries the same
│   └── SourceNotFound     the path given does not exist
├── StoreError             the database cannot be used
│   ├── StoreBusy          another process holds the writer's lock
│   └── DiskFull           there is no room left for the database
├── IndexMismatch          embedder, dimension or chunker differ from what the store was built with
├── ModelError             a model could not be found, loaded or asked
│   ├── ModelNotFound      neither a folder nor in the local cache
│   ├── ModelUntrusted     a weight file is not the expected one, is pickled, or brings code
│   └── EndpointError      an embedding endpoint refused, failed or answered nonsense
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


class SourceError(IngestError):
    """A page, feed, repository or folder could not be read; fields as those of `ParseError`.

    `reason` is one of `retrieval.sources.base.REASONS`.
    """

    def __init__(self, source: str, reason: str, detail: str, remedy: str) -> None:
        super().__init__(f"{source}: {detail} ({reason}). {remedy}")
        self.source = source
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


class DiskFull(StoreError):
    """There is no room left where the database lies; what was committed before stays."""

    retryable = True


class IndexMismatch(RetrievalError):
    """The store was built with another embedder, dimension or chunker."""


class ModelError(RetrievalError):
    """A model could not be found, loaded or asked."""


class ModelNotFound(ModelError):
    """The name is no folder and not in the local cache, and fetching is off or failed."""


class ModelUntrusted(ModelError):
    """A weight file does not have the SHA-256 it must have, is pickled, or brings code."""


class EndpointError(ModelError):
    """An endpoint refused, failed or answered nonsense; `retryable` where that may pass."""

    def __init__(self, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable


class BackendMissing(RetrievalError):
    """A backend's name is unknown, or the library it needs is not installed."""
