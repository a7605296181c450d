"""The entries of an RSS or Atom feed (feedparser).

A feed may say of its dates what it likes: whether an entry changed is decided by its content. What
has scrolled off a feed stays known, because a feed shows only its newest entries.
"""

from __future__ import annotations

import calendar
import hashlib
from collections.abc import Iterator, Mapping
from functools import partial
from html import escape
from typing import Any

import feedparser

from retrieval.errors import SourceError
from retrieval.sources import _pages
from retrieval.sources._address import parse
from retrieval.sources.base import Context, Entry, Fetched, storable

COMPLETE = False


def root(address: str, context: Context) -> str:
    """The feed's address in its one usual form."""
    return str(parse(address, context.settings.ports))


def items(root: str, context: Context) -> Iterator[Entry]:
    """Every entry, newest first as the feed gives them; none where the feed is as it was.

    Raises:
        SourceError: the feed cannot be fetched, or is none.
    """
    state = context.state
    answer = context.fetcher.get(
        root, _pages.XML, etag=state.get("etag", ""), modified=state.get("modified", "")
    )
    if answer.status == 304:
        return
    found = (
        feedparser.parse(
            answer.body,
            response_headers={"content-type": f"{answer.media}; charset={answer.charset}"},
        )
        if answer.charset
        else feedparser.parse(answer.body)
    )
    if not found.version and not found.entries:
        detail = f"not a feed ({found.get('bozo_exception', 'no entries')})"
        remedy = "Give the address of an RSS or Atom feed, or use --kind web for a page."
        raise SourceError(root, "feed", detail, remedy)
    for entry in found.entries[: context.settings.max_items]:
        yield _entry(root, entry, context)
    state.update(etag=answer.etag, modified=answer.modified)


def _entry(root: str, entry: Mapping[str, Any], context: Context) -> Entry:
    title = storable(str(entry.get("title") or ""))
    bodies = [str(part.get("value") or "") for part in entry.get("content") or ()]
    body = max([*bodies, str(entry.get("summary") or "")], key=len)
    page = (
        f'<!doctype html><html><head><meta charset="utf-8"><title>{escape(title)}</title></head>'
        f"<body><h1>{escape(title)}</h1>{body}</body></html>"
    )
    data = storable(page).encode()
    plain = dict(entry)  # feedparser's own lookup gives one date for another
    when = plain.get("updated_parsed") or plain.get("published_parsed")
    stamp = hashlib.sha256(data + repr(when).encode()).hexdigest()
    found = Fetched(data, ".html", stamp, _seconds(when), title)
    return Entry(_name(root, entry, stamp, context), partial(_given, found), stamp, title)


def _name(root: str, entry: Mapping[str, Any], stamp: str, context: Context) -> str:
    """The entry's own page where it names one, else its id within the feed."""
    link = str(entry.get("link") or "")
    try:
        return str(parse(link, context.settings.ports))
    except SourceError:
        return f"{root}:{storable(str(entry.get('id') or stamp[:16]))}"


def _seconds(when: Any) -> float | None:
    try:
        return float(calendar.timegm(when)) if when else None
    except (ValueError, TypeError, OverflowError):
        return None


def _given(found: Fetched, _before: str) -> Fetched:
    return found
