"""Between LangChain's documents and ours: passages out, loaded documents in, bounds of a search."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages.content import create_citation

from retrieval.schema import Passage, Scope
from retrieval.sources.memory import Given


def given(documents: Iterable[Document]) -> Iterator[Given]:
    """Documents of a loader as ingestion takes them.

    A document is named by its id, else by `metadata["source"]`; further ones of the same name (the
    pages of a file) get their page or their number behind it.
    """
    seen: set[str] = set()
    for number, document in enumerate(documents):
        metadata = document.metadata
        name = document.id or str(metadata.get("source") or f"document {number}")
        if metadata.get("page") is not None and not document.id:
            name = f"{name}#page={metadata['page']}"
        base, again = name, 1
        while name in seen:
            again += 1
            name = f"{base}#{again}"
        seen.add(name)
        yield Given(
            name,
            document.page_content,
            title=str(metadata.get("title") or ""),
            modified=seconds_of(metadata.get("modified") or metadata.get("last_modified")),
            readers=names_of(metadata.get("readers")),
        )


def as_document(passage: Passage) -> Document:
    """A passage as a LangChain document; times are ISO 8601, UTC.

    `metadata["citation"]` is a citation in LangChain's own form, of the whole passage.
    """
    chunk = passage.chunk
    cited = create_citation(
        id=f"chunk-{chunk.id}",
        url=passage.source,
        title=passage.title,
        cited_text=chunk.text,
        document_id=chunk.document_id,
        start=chunk.start,
        end=chunk.end,
        version=passage.version,
    )
    return Document(
        chunk.text,
        id=str(chunk.id),
        metadata={
            "source": passage.source,
            "title": passage.title,
            "headings": list(chunk.headings),
            "language": passage.lang,
            "version": passage.version,
            "modified": datetime.fromtimestamp(passage.modified, UTC).isoformat(),
            "indexed": datetime.fromtimestamp(passage.indexed, UTC).isoformat(),
            "score": passage.score,
            "start": chunk.start,
            "end": chunk.end,
            "found_by": [found.stage for found in passage.found_by],
            "also": list(passage.also),
            "document_id": chunk.document_id,
            "citation": dict(cited),
        },
    )


def narrowed(own: Scope, asked: Scope) -> Scope:
    """What both scopes allow."""
    readers = own.readers if asked.readers is None else asked.readers
    if own.readers is not None and asked.readers is not None:
        readers = own.readers & asked.readers
    since = [s.since for s in (own, asked) if s.since is not None]
    until = [s.until for s in (own, asked) if s.until is not None]
    return replace(
        own, readers=readers, since=max(since, default=None), until=min(until, default=None)
    )


def scope_of(bounds: dict[str, Any]) -> Scope:
    """The bounds of a filter or a call; a name stands for a list of one."""
    readers = bounds.get("readers")
    return Scope(
        None if readers is None else frozenset(names_of(readers)),
        seconds_of(bounds.get("since")),
        seconds_of(bounds.get("until")),
    )


def names_of(value: Any) -> tuple[str, ...]:
    """Names of readers; one name is a list of one."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(str(name) for name in value)


def seconds_of(value: Any) -> float | None:
    """A date in seconds since the epoch; without a time zone it is UTC.

    Raises:
        ValueError: neither a number nor ISO 8601.
    """
    if value is None or value == "":
        return None
    if isinstance(value, int | float):
        return float(value)
    date = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def as_json(values: dict[str, Any]) -> dict[str, Any]:
    """The metadata, as it will be read back.

    Raises:
        ValueError: it holds what JSON cannot.
    """
    try:
        read: dict[str, Any] = json.loads(json.dumps(values, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"metadata {sorted(values)} cannot be kept as JSON ({error}); keep strings, numbers, "
            "lists and dictionaries"
        ) from error
    return read
