"""Reading one document behind the two gates: its stamp, then the hash of its content."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from retrieval.config import ParseSettings
from retrieval.errors import ParseError, SourceError
from retrieval.parse.base import REMEDIES
from retrieval.parse.worker import ParserPool, supported_suffixes
from retrieval.schema import FileReport, Parsed
from retrieval.sources.base import Entry, Fetched, Item
from retrieval.store_sources import Known

#: A date further ahead than this is a lie; less is a clock or a time zone, seconds.
AHEAD = 86_400.0


@dataclass(frozen=True, slots=True)
class Read:
    """A document that is new or changed, parsed."""

    parsed: Parsed
    version: str
    stamp: str
    modified: float
    readers: tuple[str, ...] = ()
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Unread:
    """A document whose content is as it was; stamp, date and readers may be new.

    `readers` is None where the source did not say.
    """

    stamp: str
    modified: float
    readers: tuple[str, ...] | None = None


class Reader:
    """Reads documents for one version of parser and chunker."""

    def __init__(self, pool: ParserPool, settings: ParseSettings, made_by: str) -> None:
        self._pool = pool
        self._settings = settings
        self._made_by = made_by

    def read(self, item: Item | Entry, known: Known | None) -> Read | Unread | FileReport:
        """Read one document unless it is as it was; a failure is a report."""
        old = known if known is not None and known.made_by == self._made_by else None
        try:
            if isinstance(item, Item):
                return self._file(item, old)
            return self._entry(item, known, old)
        except ParseError as error:
            return failed(item.source, error.reason, error.detail, error.remedy)
        except SourceError as error:
            if error.reason == "gone" and known is not None:
                return FileReport(item.source, "removed")
            return failed(item.source, error.reason, error.detail, error.remedy)
        except OSError as error:
            detail = error.strerror or "cannot be opened"
            return failed(item.source, "unreadable", detail, REMEDIES["unreadable"])

    def _file(self, item: Item, old: Known | None) -> Read | Unread | FileReport:
        state = item.path.stat()
        if not stat.S_ISREG(state.st_mode):  # a pipe would never end
            what = "a folder" if stat.S_ISDIR(state.st_mode) else "not a regular file"
            remedy = REMEDIES["unreadable"]
            return failed(item.source, "unreadable", f"{what} that cannot be read", remedy)
        stamp = stamped(state)
        if old is not None and old.stamp == stamp:
            return Unread(stamp, old.modified)
        if state.st_size == 0 and item.path.suffix.lower() in supported_suffixes():
            # not worth a round through the parser: there may be thousands
            return failed(item.source, "empty", "the file has no bytes", REMEDIES["empty"])
        if state.st_size > self._settings.max_bytes:
            detail = f"{state.st_size} bytes, the limit is {self._settings.max_bytes}"
            return failed(item.source, "too_large", detail, REMEDIES["too_large"])
        version = _sha256(item.path, self._settings.max_bytes)
        if old is not None and old.version == version:
            return Unread(stamp, state.st_mtime)
        parsed = self._pool.parse(item.path)
        # a parser falls back on the name on disk, which for an upload is a hash
        untitled = parsed.title in ("", item.path.stem)
        parsed = replace(parsed, title=item.stem if untitled else parsed.title)
        return Read(parsed, version, stamp, state.st_mtime)

    def _entry(
        self, item: Entry, known: Known | None, old: Known | None
    ) -> Read | Unread | FileReport:
        if old is not None and item.stamp and item.stamp == old.stamp:
            return Unread(old.stamp, old.modified)
        found = item.fetch(old.stamp if old is not None else "")
        if found.data is None:
            assert old is not None, "nothing can be unchanged that was not there"
            return Unread(found.stamp, old.modified)
        version = hashlib.sha256(found.data).hexdigest()
        same = known is not None and known.version == version
        modified, remark = _dated(found.modified, known, same)
        if same and old is not None:
            return Unread(found.stamp, modified, found.readers)
        parsed = self._spooled(item, found)
        return Read(parsed, version, found.stamp, modified, found.readers, remark)

    def _spooled(self, item: Entry, found: Fetched) -> Parsed:
        """Parse bytes: parsers read files, in processes of their own."""
        assert found.data is not None
        if len(found.data) > self._settings.max_bytes:
            detail = f"{len(found.data)} bytes, the limit is {self._settings.max_bytes}"
            raise ParseError(item.source, "too_large", detail, REMEDIES["too_large"])
        with tempfile.TemporaryDirectory(prefix="plumbline-") as folder:
            path = Path(folder) / f"document{found.suffix}"
            path.write_bytes(found.data)
            parsed = self._pool.parse(path)
        own = "" if parsed.title == path.stem else parsed.title
        return replace(parsed, title=found.title or own or item.stem)


def failed(source: str, reason: str, detail: str, remedy: str) -> FileReport:
    """The report on a document that could not be read."""
    return FileReport(source, "failed", reason=reason, detail=detail, remedy=remedy)


def current(item: Item, stamp: str) -> bool:
    """Whether the file is still what it was when it had this stamp."""
    try:
        return stamped(item.path.stat()) == stamp
    except OSError:
        return False


def stamped(state: os.stat_result) -> str:
    """Changes with every write, also one that keeps size and time stamp (copied or renamed)."""
    return f"{state.st_mtime_ns}:{state.st_size}:{state.st_ctime_ns}:{state.st_ino}"


def _dated(claimed: float | None, known: Known | None, same: bool) -> tuple[float, str]:
    """The date of a document whose source may be wrong about it, and a remark where it is."""
    now = time.time()
    if claimed is None:
        return (known.modified if known is not None and same else now), ""
    if claimed > now + AHEAD:
        return now, f"dated {_day(claimed)}, which is to come; taken as today"
    if known is not None and not same and claimed < known.modified - AHEAD:
        back = f"changed, yet dated back from {_day(known.modified)} to {_day(claimed)}"
        return known.modified, f"{back}; the later date is kept"
    return max(claimed, 0.0), ""


def _day(moment: float) -> str:
    try:
        return datetime.fromtimestamp(moment, UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{moment:.0f} s after 1970"


def _sha256(path: Path, limit: int) -> str:
    """Hash of the first `limit` + 1 bytes: a longer file is refused by the parser anyway."""
    digest, left = hashlib.sha256(), limit + 1
    with path.open("rb") as file:
        while left > 0 and (part := file.read(min(left, 1 << 20))):
            digest.update(part)
            left -= len(part)
    return digest.hexdigest()
