"""The pages that a sitemap lists (sitemaps.org 0.9), index files included.

`lastmod` is a gate, not the truth: a page whose date did not change is asked all the same once a
day, and a date in the future says nothing.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from functools import partial
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from retrieval.errors import SourceError
from retrieval.sources import _pages
from retrieval.sources._address import parse
from retrieval.sources._fetch import inflate
from retrieval.sources.base import Context, Entry, Fetched

COMPLETE = True
#: How deep index files may name index files.
DEPTH = 3


def root(address: str, context: Context) -> str:
    """The sitemap's address in its one usual form."""
    return str(parse(address, context.settings.ports))


def items(root: str, context: Context) -> Iterator[Entry]:
    """Every page listed, once; a sitemap below that cannot be read is an entry marked closed.

    Raises:
        SourceError: the sitemap itself cannot be read.
    """
    seen: set[str] = set()
    for entry in _listed(root, context, DEPTH):
        if entry.source in seen:
            continue
        if len(seen) >= context.settings.max_items:
            problem = SourceError(
                root,
                "oversize",
                f"more than {context.settings.max_items} pages",
                "Raise retrieval.sources.max_items.",
            )
            yield Entry(root, partial(_raise, problem), closed=True)
            return
        seen.add(entry.source)
        yield entry


def _listed(address: str, context: Context, depth: int) -> Iterator[Entry]:
    tree = _tree(address, context)
    host = parse(address, context.settings.ports).host
    for child in tree:
        url, lastmod = _field(child, "loc"), _field(child, "lastmod")
        if not url:
            continue
        try:
            place = parse(url, context.settings.ports)
            if place.host != host:  # as the protocol demands
                raise SourceError(
                    url, "refused", f"not on {host}, whose sitemap lists it", "Ingest it by itself."
                )
            if _name(tree) == "sitemapindex":
                if depth == 0:
                    raise SourceError(url, "sitemap", "index files lie too deep", "")
                yield from _listed(str(place), context, depth - 1)
                continue
        except SourceError as error:
            yield Entry(url, partial(_raise, error), closed=_name(tree) == "sitemapindex")
            continue
        date = _pages.iso_date(lastmod)
        listed = lastmod if date is not None and date <= time.time() + 86_400 else ""
        yield Entry(str(place), partial(_page, context, str(place), listed))


def _page(context: Context, url: str, listed: str, before: str) -> Fetched:
    found = _pages.page(context.fetcher, url, before, listed)
    if found.modified is None and listed:
        date = _pages.iso_date(listed)
        return Fetched(found.data, found.suffix, found.stamp, date)
    return found


def _tree(address: str, context: Context) -> Element:
    body = context.fetcher.get(address, _pages.XML).body
    limit = context.settings.max_bytes
    try:
        if body[:2] == b"\x1f\x8b":
            body = inflate(body, limit)
        if len(body) > limit:
            remedy = "Raise retrieval.sources.max_bytes."
            raise SourceError(address, "oversize", f"more than {limit} bytes", remedy)
        tree: Element = fromstring(body)
    except (ParseError, DefusedXmlException, zlib.error, ValueError) as error:
        raise SourceError(
            address,
            "sitemap",
            f"not a sitemap ({error})",
            "Give the address of a sitemap, or use --kind web for a page.",
        ) from error
    if _name(tree) not in ("urlset", "sitemapindex"):
        detail = f"its outermost element is {_name(tree)!r}, not urlset or sitemapindex"
        raise SourceError(address, "sitemap", detail, "Give the address of a sitemap.")
    return tree


def _name(element: Element) -> str:
    return str(element.tag).rsplit("}", 1)[-1]


def _field(element: Element, name: str) -> str:
    return next((str(c.text or "").strip() for c in element if _name(c) == name), "")


def _raise(error: SourceError, _before: str) -> Fetched:
    raise error
