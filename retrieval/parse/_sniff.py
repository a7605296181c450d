"""What a file really is, by its first bytes, against what its suffix says."""

from __future__ import annotations

from pathlib import Path

from retrieval.parse.base import refuse

_HEAD = 4096
_OFFICE = {".docx": "word/", ".pptx": "ppt/", ".xlsx": "xl/"}
#: Suffix to the folder that every archive of this suffix has.
_ARCHIVES = {**_OFFICE, ".epub": "META-INF/"}

#: First bytes to what they mean and the suffixes they may stand under.
_MAGIC: tuple[tuple[bytes, str, frozenset[str]], ...] = (
    (b"%PDF-", "a PDF", frozenset([".pdf"])),
    (b"PK\x03\x04", "a zip archive", frozenset(_ARCHIVES)),
    (b"PK\x05\x06", "an empty zip archive", frozenset()),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old binary Office file", frozenset(_OFFICE)),
    (b"\x89PNG\r\n\x1a\n", "a PNG image", frozenset()),
    (b"\xff\xd8\xff", "a JPEG image", frozenset()),
    (b"GIF87a", "a GIF image", frozenset()),
    (b"GIF89a", "a GIF image", frozenset()),
    (b"\x7fELF", "a program", frozenset()),
    (b"MZ\x90\x00", "a Windows program", frozenset()),
    (b"\x1f\x8b\x08", "a gzip archive", frozenset()),
    (b"BZh91AY&SY", "a bzip2 archive", frozenset()),
    (b"\xfd7zXZ\x00", "an xz archive", frozenset()),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", frozenset()),
    (b"Rar!\x1a\x07", "a RAR archive", frozenset()),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", frozenset()),
    (b"SQLite format 3\x00", "a SQLite database", frozenset()),
    (b"{\\rtf", "an RTF document", frozenset()),
    (b"OggS\x00", "an Ogg recording", frozenset()),
    (b"ID3\x03", "an MP3 recording", frozenset()),
    (b"ID3\x04", "an MP3 recording", frozenset()),
    (b"\x00asm", "a WebAssembly program", frozenset()),
)
_WANTED = {".pdf": b"%PDF-", **dict.fromkeys(_ARCHIVES, b"PK\x03\x04")}


def check(path: Path, size: int) -> None:
    """Refuse a file that is empty or is not what its suffix says; `size` in bytes.

    Raises:
        ParseError: reason `empty`, `disguised` or `encrypted`.

    """
    if not size:
        raise refuse(path, "empty", "the file has no bytes")
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if size <= _HEAD and not head.strip():
        raise refuse(path, "empty", "the file holds only white space")
    for magic, name, suffixes in _MAGIC:
        if head.startswith(magic) and suffix not in suffixes:
            raise refuse(path, "disguised", f"{name} under the suffix {suffix}")
    if head.startswith(b"\xd0\xcf\x11\xe0") and suffix in _OFFICE:
        raise _old_office(path, suffix)
    wanted = _WANTED.get(suffix)
    if wanted == b"%PDF-" and wanted not in head[:1024]:
        raise _not_what_it_says(path, head)
    if suffix in _ARCHIVES and not head.startswith(b"PK\x03\x04"):
        raise _not_what_it_says(path, head)


def _old_office(path: Path, suffix: str) -> Exception:
    """Judge an OLE container under a new suffix: protected by a password, or renamed."""
    with path.open("rb") as file:
        data = file.read(2**20)
    if "EncryptedPackage".encode("utf-16-le") in data:
        return refuse(path, "encrypted", "the document is protected by a password")
    return refuse(
        path,
        "disguised",
        f"an old binary Office file under the suffix {suffix}",
        f"Open it in its program and save it as {suffix}.",
    )


def _not_what_it_says(path: Path, head: bytes) -> Exception:
    """Judge by the bytes: text under a binary suffix is disguised, other bytes are broken."""
    suffix = path.suffix.lower()
    if head.lstrip()[:1] == b"<":
        return refuse(path, "disguised", f"a markup file under the suffix {suffix}")
    if b"\0" not in head and all(byte >= 0x20 or byte in b"\t\n\r\f" for byte in head):
        return refuse(path, "disguised", f"plain text under the suffix {suffix}")
    return refuse(path, "broken", f"the file does not begin as a {suffix} file does")


def archive_folder(suffix: str) -> str:
    """Return the folder inside the archive that every file of this suffix has."""
    return _ARCHIVES[suffix]
