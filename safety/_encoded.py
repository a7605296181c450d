"""Encoded stretches of a text, decoded: base64, hex, percent, entities, escapes, tags, bits."""

from __future__ import annotations

import base64
import binascii
import html
import re
from collections.abc import Iterator

_BLOBS = 24
_BLOB_BYTES = 32768
_TOTAL = 131072
#: (how, a sign without which there is none, where).
_ENCODED: tuple[tuple[str, str, re.Pattern[str]], ...] = (
    (
        "base64",
        "",
        re.compile(
            r"(?<![A-Za-z0-9+/_-])(?:[A-Za-z0-9+/_-]{4}\s?){4,16000}[A-Za-z0-9+/_-]{0,3}={0,2}"
        ),
    ),
    (
        "hex",
        "",
        re.compile(r"(?<![0-9A-Za-z])(?:(?:0x|\\x)?[0-9A-Fa-f]{2}[\s:,]?){8,16000}(?![0-9A-Za-z])"),
    ),
    ("percent", "%", re.compile(r"[^\s%]{0,64}(?:%[0-9A-Fa-f]{2}[^\s%]{0,64}){3,8000}")),
    ("entity", "&#", re.compile(r"(?:[^\s&]{0,64}&#x?[0-9A-Fa-f]{1,6};){4,8000}")),
    ("escape", "\\u", re.compile(r"(?:\\u[0-9A-Fa-f]{4}){3,8000}")),
    ("tags", "", re.compile("[\U000e0020-\U000e007e]{4,16000}")),
    ("selectors", "", re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,16000}")),
    ("bits", "", re.compile(r"(?<![01])(?:[01]{8}\s?){6,8000}(?![01])")),
)
#: What decoded text may be without being language: one more code.
_INNER = re.compile(
    r"\s*(?:[0-9A-Fa-f\s:,x\\%]{16,}|(?=\S*\d)[A-Za-z0-9+/_-]{16,}={0,2}|[01\s]{48,})\s*"
)


def _bytes(kind: str, found: str) -> bytes:
    """The bytes behind an encoded stretch; raises ValueError where there are none."""
    if kind == "base64":
        packed = re.sub(r"\s", "", found).translate(str.maketrans("-_", "+/")).rstrip("=")
        if len(packed) % 4 == 1:
            packed = packed[:-1]
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    if kind == "hex":
        return binascii.unhexlify(re.sub(r"0x|\\x|[\s:,]", "", found))
    if kind == "percent":
        plain = found.encode("utf-8", "surrogatepass")
        return re.sub(rb"%([0-9A-Fa-f]{2})", lambda m: bytes([int(m.group(1), 16)]), plain)
    if kind == "entity":
        return html.unescape(found).encode("utf-8", "surrogatepass")
    if kind == "escape":
        codes = re.findall(r"\\u([0-9A-Fa-f]{4})", found)
        units = b"".join(int(c, 16).to_bytes(2, "little") for c in codes)
        return units.decode("utf-16-le").encode()
    if kind == "tags":
        return bytes(ord(c) - 0xE0000 for c in found)
    if kind == "selectors":
        return bytes(
            ord(c) - 0xFE00 if ord(c) < 0xFF00 else (ord(c) - 0xE0100 + 16) & 0xFF for c in found
        )
    bits = re.sub(r"\s", "", found)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits) - 7, 8))


def _readable(data: bytes) -> str:
    """The text in `data`, "" where it does not read like language."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    letters = sum(c.isalpha() or c.isspace() for c in text)
    whole = len(text) >= 4 and text.isprintable() | ("\n" in text)
    return text if whole and (letters >= 0.7 * len(text) or _INNER.fullmatch(text)) else ""


def decoded(text: str) -> Iterator[tuple[str, str, int, int]]:
    """(how, plain text, start, end) for every stretch of `text` that decodes to language.

    Also where it decodes to another code, which the caller may decode in turn.
    """
    count, left = 0, _TOTAL
    for kind, sign, pattern in _ENCODED:
        if sign not in text:
            continue
        for match in pattern.finditer(text):
            count += 1
            if count > _BLOBS or left <= 0:
                return
            left -= len(match.group())
            try:
                plain = _readable(_bytes(kind, match.group()[:_BLOB_BYTES]))
            except ValueError:
                continue
            if plain and plain != match.group():
                yield kind, plain, *match.span()


def is_code(text: str) -> bool:
    """Whether decoded text is itself code rather than something to judge."""
    return bool(_INNER.fullmatch(text))
