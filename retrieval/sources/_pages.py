"""What web pages have in common: which types are documents, and the gate of one page."""

from __future__ import annotations

import codecs
import json
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from retrieval.sources._fetch import Fetcher, Page
from retrieval.sources.base import Fetched

#: Media type to the suffix that picks the parser.
SUFFIXES = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "text/plain": ".txt",
    "text/markdown": ".md",
    "text/x-rst": ".rst",
    "text/csv": ".csv",
    "application/json": ".json",
    "application/pdf": ".pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": ".pptx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
}
DOCUMENTS = frozenset(SUFFIXES)
XML = frozenset(
    {
        "application/xml",
        "text/xml",
        "application/rss+xml",
        "application/atom+xml",
        "application/rdf+xml",
        "application/gzip",
        "application/x-gzip",
        "application/octet-stream",
        "text/plain",
        "text/html",  # many servers send feeds as this
    }
)
#: A page whose list says "unchanged" is asked itself after this time all the same, seconds.
TRUSTED = 24 * 3600.0


def page(fetcher: Fetcher, url: str, before: str, listed: str = "") -> Fetched:
    """Fetch a page unless it is as it was.

    Args:
        fetcher: the way out.
        url: the page.
        before: the stamp of the stored version, "" for none.
        listed: what the list that names the page says of its age, "" for nothing; a page that
            is listed as before is not asked, for a day.
    """
    old = _read(before)
    now = time.time()
    checked = float(old.get("checked") or 0.0)
    if listed and old.get("listed") == listed and 0 <= now - checked < TRUSTED:
        return Fetched(None, "", before)
    answer = fetcher.get(url, DOCUMENTS, etag=old.get("etag", ""), modified=old.get("modified", ""))
    fresh = answer.status == 200
    kept = {
        "etag": answer.etag or ("" if fresh else old.get("etag", "")),
        "modified": answer.modified or ("" if fresh else old.get("modified", "")),
        "listed": listed,
        # the time alone must not make a new stamp of a page that no list speaks of
        "checked": str(int(now)) if listed else "",
    }
    stamp = json.dumps(kept, sort_keys=True)
    date = http_date(kept["modified"])
    if not fresh:
        return Fetched(None, "", stamp, date)
    return Fetched(utf8(answer), SUFFIXES[answer.media], stamp, date)


def utf8(answer: Page) -> bytes:
    """The body, in UTF-8 where the server names another encoding of a text."""
    if not answer.media.startswith("text/") or answer.charset in ("", "utf-8", "utf8"):
        return answer.body
    try:
        name = codecs.lookup(answer.charset).name
    except LookupError:
        return answer.body  # the parser finds out by itself
    return answer.body.decode(name, "replace").encode("utf-8-sig")


def http_date(text: str) -> float | None:
    """Seconds since the epoch of an HTTP date; None of anything else."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def iso_date(text: str) -> float | None:
    """Seconds since the epoch of a W3C date, UTC where it names no zone; None of anything else."""
    try:
        date = datetime.fromisoformat(text.strip())
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _read(stamp: str) -> dict[str, str]:
    try:
        found = json.loads(stamp)
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}
