"""What a zip archive claims to hold, checked before anything is unpacked."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from retrieval.config import ParseSettings
from retrieval.parse._sniff import archive_folder
from retrieval.parse.base import refuse

_ENTRIES = 20_000
#: Below this an entry's ratio says nothing: a page of blanks packs very well.
_SMALL = 2**20
_HEAD = 8192
#: Formats whose markup never declares a document type; a book's pages do.
_UNDECLARED = (".docx", ".pptx", ".xlsx")
_MARKUP = (".xml", ".rels")


def check_archive(path: Path, settings: ParseSettings) -> None:
    """Refuse an Office archive or a book that unpacks to too much, is locked, or declares entities.

    The sizes checked are those the archive declares; a reader never unpacks an entry beyond its
    declared size, so an archive that lies is cut off and then fails its checksum.

    Raises:
        ParseError: `archive_bomb`, `encrypted`, `disguised` or `broken`.

    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_sizes(path, entries, settings)
            folder = archive_folder(path.suffix.lower())
            if not any(entry.filename.startswith(folder) for entry in entries):
                raise refuse(path, "disguised", f"a zip archive under the suffix {path.suffix}")
            for entry in entries:
                if path.suffix.lower() in _UNDECLARED and entry.filename.lower().endswith(_MARKUP):
                    with archive.open(entry) as part:
                        _check_markup(path, part.read(_HEAD))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise refuse(path, "broken", f"damaged archive: {error}") from error


def _check_sizes(path: Path, entries: list[zipfile.ZipInfo], settings: ParseSettings) -> None:
    if len(entries) > _ENTRIES:
        raise refuse(path, "archive_bomb", f"{len(entries)} entries, the limit is {_ENTRIES}")
    total = 0
    for entry in entries:
        if entry.flag_bits & 0x1:
            raise refuse(path, "encrypted", "an entry of the archive has a password")
        total += entry.file_size
        ratio = entry.file_size / max(1, entry.compress_size)
        if entry.file_size > _SMALL and ratio > settings.max_archive_ratio:
            detail = f"an entry unpacks to {ratio:.0f} times its size"
            raise refuse(path, "archive_bomb", detail)
    if total > settings.max_archive_bytes:
        detail = f"it unpacks to {total} bytes, the limit is {settings.max_archive_bytes}"
        raise refuse(path, "archive_bomb", detail)


def _check_markup(path: Path, head: bytes) -> None:
    """Office files never declare a document type; one that does means harm."""
    plain = head.replace(b"\0", b"").upper()
    if b"<!DOCTYPE" in plain or b"<!ENTITY" in plain:
        raise refuse(path, "broken", "a part of the document declares entities")
