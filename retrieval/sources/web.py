"""One page of the web, or one document that lies there."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from retrieval.sources import _pages
from retrieval.sources._address import parse
from retrieval.sources.base import Context, Entry

COMPLETE = True


def root(address: str, context: Context) -> str:
    """The address in its one usual form."""
    return str(parse(address, context.settings.ports))


def items(root: str, context: Context) -> Iterator[Entry]:
    """The page itself."""
    yield Entry(root, partial(_pages.page, context.fetcher, root))
