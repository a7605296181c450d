"""Bytes to text, without luck: strict decoders in order of proof, guesses only at the end."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from charset_normalizer import from_bytes

from retrieval.parse.base import refuse

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
#: Guessed at only after the Chinese encodings, which are recognised by their common characters.
_OTHERS = ["shift_jis", "euc_jp", "euc_kr", "cp1252", "cp1251", "cp1253"]
_SAMPLE = 64 * 1024
#: Share of a text's two-byte characters that must be everyday ones.
_EVERYDAY = 0.7

_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_ORDINARY = re.compile(
    "[\\s\u0020-\u007e\u00a0-\u024f\u0370-\u04ff\u2010-\u2027\u2030-\u205e\u20a0-\u22ff"
    "\u2500-\u25ff\u3000-\u30ff\u4e00-\u9fff\uac00-\ud7a3\uff01-\uff65]"
)


def decode(path: Path, data: bytes, declared: str = "") -> str:
    """Return the text of `data`; `declared` (what the file says of itself) is tried after UTF-8.

    Raises:
        ParseError: `disguised` for binary data, `encoding` when nothing fits.

    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            text = _strict(data, encoding)
            if text is None:
                raise refuse(path, "encoding", f"damaged {encoding} text")
            return text
    if b"\0" in data:
        return _without_mark(path, data)
    for encoding in ("utf-8", declared):
        text = _strict(data, encoding) if encoding else None
        if text is not None:
            return text
    sample = data[:_SAMPLE]
    if len(_CONTROLS.findall(sample)) > max(2, len(sample) // 200):
        raise refuse(path, "disguised", "binary data under the suffix of a text file")
    text = _truncated_utf8(data) or _legacy(data)
    if text is None:
        raise refuse(path, "encoding", "the text is in no encoding that could be recognised")
    return text


def _strict(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeError, LookupError):
        return None


def _truncated_utf8(data: bytes) -> str | None:
    """UTF-8 with a few damaged bytes (a cut download), the damage shown as U+FFFD."""
    text = data.decode("utf-8", errors="replace")
    wide = sum(1 for char in text if char > "\x7f")
    damaged = text.count("\ufffd")
    return text if damaged <= 3 and wide >= 50 * damaged else None


def _without_mark(path: Path, data: bytes) -> str:
    """UTF-16 that does not say so; anything else with NUL bytes is no text."""
    for encoding in ("utf-16-le", "utf-16-be"):
        text = _strict(data, encoding)
        if text is not None and _looks_written(text):
            return text
    raise refuse(path, "disguised", "binary data under the suffix of a text file")


def _looks_written(text: str) -> bool:
    sample = text[:_SAMPLE]
    return len(_ORDINARY.findall(sample)) >= 0.95 * len(sample) and "\0" not in text


def _legacy(data: bytes) -> str | None:
    """GB 18030 or Big5 by the share of everyday characters; then the rest of the world."""
    sample = data[:_SAMPLE]
    scored = [(_share(sample, "gb18030"), "gb18030"), (_share(sample, "big5"), "big5")]
    for share, encoding in sorted(scored, reverse=True):
        if share >= _EVERYDAY:
            text = _strict(data, encoding if encoding != "big5" else "big5hkscs")
            if text is not None:
                return text
    best = from_bytes(data[:_SAMPLE], cp_isolation=_OTHERS).best()
    return _strict(data, best.encoding) if best is not None else None


def _share(sample: bytes, encoding: str) -> float:
    """Share of two-byte characters in the encoding's everyday rows (level one, punctuation)."""
    everyday = total = position = 0
    while position < len(sample) - 1:
        lead = sample[position]
        if lead < 0x80:
            position += 1
            continue
        trail = sample[position + 1]
        total += 1
        position += 2
        if encoding == "gb18030":
            everyday += trail >= 0xA1 and (0xB0 <= lead <= 0xD7 or lead in (0xA1, 0xA3))
        else:
            legal = 0x40 <= trail <= 0x7E or trail >= 0xA1
            everyday += legal and (0xA4 <= lead <= 0xC6 or lead == 0xA1)
    return everyday / total if total else 0.0
