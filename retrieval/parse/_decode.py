"""Bytes to text, without luck: strict decoders in order of proof, guesses only at the end."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from retrieval.parse._legacy import read_legacy
from retrieval.parse.base import refuse

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
#: Names that files give to encodings which their writers in truth extend.
_WIDER = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "shift_jis": "cp932",
    "euc-kr": "cp949",
    "ks_c_5601-1987": "cp949",
    "iso-8859-1": "cp1252",
    "latin1": "cp1252",
    "us-ascii": "cp1252",
}
_SAMPLE = 64 * 1024

_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_ORDINARY = re.compile(
    "[\\s\u0020-\u007e\u00a0-\u024f\u0370-\u04ff\u2010-\u2027\u2030-\u205e\u20a0-\u22ff"
    "\u2500-\u25ff\u3000-\u30ff\u4e00-\u9fff\uac00-\ud7a3\uff01-\uff65]"
)


def decode(path: Path, data: bytes, declared: str = "", notes: list[str] | None = None) -> str:
    """Return the text of `data`; `declared` (what the file says of itself) is tried after UTF-8.

    What was guessed or damaged is appended to `notes`.

    Raises:
        ParseError: `disguised` for binary data, `encoding` when nothing fits.

    """
    notes = [] if notes is None else notes
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            text = _strict(data, encoding) or _cut_short(data, encoding, notes)
            if text is None:
                raise refuse(path, "encoding", f"damaged {encoding} text")
            return text
    if b"\0" in data:
        return _without_mark(path, data)
    declared = _WIDER.get(declared.lower(), declared)
    for encoding in ("utf-8", declared):
        text = _strict(data, encoding) if encoding else None
        if text is not None:
            return text
    sample = data[:_SAMPLE]
    if len(_CONTROLS.findall(sample)) > max(2, len(sample) // 200):
        raise refuse(path, "disguised", "binary data under the suffix of a text file")
    text = _truncated_utf8(data, notes) or _mixed(data, notes)
    if text is not None:
        return text
    reading = read_legacy(data)
    if reading is None:
        raise refuse(path, "encoding", "the text is in no encoding that could be recognised")
    if not reading.sure:
        notes.append(f"read as {reading.encoding} by a guess; if it looks wrong, save it as UTF-8")
    return reading.text


def _cut_short(data: bytes, encoding: str, notes: list[str]) -> str | None:
    """Marked text whose last character is cut; anything worse is not read."""
    text = data.decode(encoding, errors="replace")
    damaged = text.count("\ufffd")
    if damaged > 3 or len(text) < 20 * damaged:
        return None
    notes.append(f"damaged bytes in {encoding} text are shown as \ufffd")
    return text


def _mixed(data: bytes, notes: list[str]) -> str | None:
    """Lines of UTF-8 among lines of an older encoding, each read as what it is."""
    lines = data.split(b"\n")
    read = [_strict(line, "utf-8") for line in lines]
    good = sum(text is not None and not text.isascii() for text in read)
    odd = b"\n".join(line for line, text in zip(lines, read, strict=True) if text is None)
    if not good or good < odd.count(b"\n") + 1:
        return None
    older = read_legacy(odd)
    if older is None or older.text.count("\n") != odd.count(b"\n"):
        return None
    notes.append(f"UTF-8 with some lines in {older.encoding}; save it as UTF-8 throughout")
    rest = iter(older.text.split("\n"))
    return "\n".join(next(rest) if text is None else text for text in read)


def _strict(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except (UnicodeError, LookupError):
        return None


def _truncated_utf8(data: bytes, notes: list[str]) -> str | None:
    """UTF-8 with a few damaged bytes (a cut download), the damage shown as U+FFFD."""
    text = data.decode("utf-8", errors="replace")
    wide = sum(1 for char in text if char > "\x7f")
    damaged = text.count("\ufffd")
    if damaged > 3 or wide < 50 * damaged:
        return None
    notes.append("damaged bytes in UTF-8 text are shown as \ufffd")
    return text


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
