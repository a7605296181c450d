"""Documents that a program hands over, for example those of a loader."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from retrieval.sources import _pages
from retrieval.sources.base import Entry, Fetched, storable


@dataclass(frozen=True, slots=True)
class Given:
    """One document in memory.

    `name` is stable: the next document of that name under the same root takes its place. `media`
    is a media type or a suffix such as ".md". `stamp`, where the program knows one, spares the
    hash; `modified` is in seconds since the epoch (UTC); `readers` may see it, () is everybody.
    """

    name: str
    content: str | bytes
    media: str = "text/plain"
    title: str = ""
    stamp: str = ""
    modified: float | None = None
    readers: tuple[str, ...] = ()


def items(root: str, given: Iterable[Given]) -> Iterator[Entry]:
    """Each document, as an entry under `root`."""
    for one in given:
        text = one.content
        data = storable(text).encode() if isinstance(text, str) else text
        own = repr((one.title, one.modified, one.readers)).encode()
        stamp = one.stamp or hashlib.sha256(own + data).hexdigest()
        suffix = one.media if one.media.startswith(".") else _pages.SUFFIXES.get(one.media, "")
        suffix = suffix or Path(one.name).suffix.lower() or ".txt"
        found = Fetched(data, suffix, stamp, one.modified, storable(one.title), one.readers)
        name = storable(one.name)
        yield Entry(f"{root}:{name}", partial(_given, found), stamp, name)


def _given(found: Fetched, _before: str) -> Fetched:
    return found
