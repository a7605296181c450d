"""What a source hands to ingestion, and what a source is.

A source is a file of this folder; `files` and `memory` are called by name, the others by

    COMPLETE: bool                                        whether `items` are all there is now
    root(address: str, context: Context) -> str           the name of what is ingested
    items(root: str, context: Context) -> Iterator[Entry] raises SourceError

What a complete source no longer hands over is removed from the store.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.config import SourceSettings

if TYPE_CHECKING:
    from retrieval.sources._fetch import Fetcher

#: Why a source or a part of it could not be read, beside the reasons of parsers.
REASONS = (
    "network_off",
    "refused",
    "unreachable",
    "redirects",
    "http_status",
    "gone",
    "content_type",
    "robots",
    "slow",
    "oversize",
    "changing",
    "vanished",
    "feed",
    "sitemap",
    "git",
)


@dataclass(frozen=True, slots=True)
class Item:
    """One file to take in.

    `source` is its stable name in the store (the same file gets the same name next time), `path`
    where its bytes lie now, `named` whether the user gave this very file (then a format nobody
    reads is a failure; found in a folder it is only counted), `name` what people call it.
    """

    source: str
    path: Path
    named: bool = False
    name: str = ""

    @property
    def stem(self) -> str:
        """A title for a document that has none: its file name without the suffix."""
        return storable(Path(self.name or self.path.name).stem)


@dataclass(frozen=True, slots=True)
class Fetched:
    """One document as it is now.

    `data` is None where the source's own gate says that nothing changed; `suffix` picks the
    parser; `stamp` is handed back next time; `modified` is the date the source claims (seconds
    since the epoch, UTC), None where it claims none; `readers` are who may see it, () for all.
    """

    data: bytes | None
    suffix: str
    stamp: str
    modified: float | None = None
    title: str = ""
    readers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One document that is fetched rather than opened.

    `fetch` takes the stamp stored with the version before ("" for none) and raises SourceError.
    `stamp`, where it is known beforehand, spares the call: the same stamp is the same document.
    `closed` marks a part of the source that cannot be listed: it is reported, and nothing of the
    source is removed.
    """

    source: str
    fetch: Callable[[str], Fetched]
    stamp: str = ""
    name: str = ""
    closed: bool = False

    @property
    def stem(self) -> str:
        """A title for a document that has none."""
        last = (self.name or self.source).rstrip("/").rsplit("/", 1)[-1]
        return storable(Path(last).stem or last or self.source)


@dataclass(frozen=True, slots=True)
class Context:
    """What a source may use: settings, a folder of its own, the fetcher, and what it kept.

    `state` holds what the source remembers between runs; it is stored when a run has succeeded.
    """

    settings: SourceSettings
    cache: Path
    fetcher: Fetcher
    state: dict[str, str] = field(default_factory=dict)


def belongs(source: str, root: str) -> bool:
    """Whether `source` is `root` or lies below it (paths, and names like `upload:NAME`)."""
    return source == root or source.startswith(below(root))


def below(root: str) -> str:
    """What the names of everything below `root` begin with."""
    return root.rstrip(os.sep) + os.sep if os.path.isabs(root) else root + ":"


def storable(name: str) -> str:
    """`name` as the database can hold it: bytes of a file name that are not UTF-8 as escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
