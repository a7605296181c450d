"""JSON lines, or one JSON array, read row by row in bounded memory; plain or gzip.

A row that cannot be read is named and the next one follows. In an array the rows are found by
their braces, so that a row with a slip inside costs no other.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

from rlhf.errors import ImportRefused

#: A row longer than this is no preference, bytes.
MAX_ROW = 16 * 2**20
_CHUNK = 2**16
_SIGNS = re.compile(rb'["\\{}\[\]\n]')


@dataclass(frozen=True, slots=True)
class Problem:
    """A row that is not taken in: where it is, why, and what can be done about it.

    "bad": it cannot be read as the format says. "left out": it says nothing that can be trained
    on. "held back": its text is an attack.
    """

    kind: Literal["bad", "left out", "held back"]
    file: str
    line: int
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}; {self.remedy}"


class Malformed(Exception):
    """A row that is not what its format says."""

    kind: Literal["bad", "left out"] = "bad"

    def __init__(self, reason: str, remedy: str = "correct the row or leave it out") -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


class LeftOut(Malformed):
    """A row that is sound, but says nothing that can be trained on."""

    kind = "left out"


def rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | Malformed]]:
    """Each row with the line it begins on: an object, or why it is none.

    Raises:
        ImportRefused: the file cannot be opened.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            # gzip's reader is a binary file in all but name
            unpacked = cast(io.RawIOBase, gzip.GzipFile(fileobj=raw))
            yield from _parsed(io.BufferedReader(unpacked) if packed else raw)
    except OSError as error:
        raise ImportRefused(f"cannot read {path}: {error.strerror or error}") from error


def _parsed(file: io.BufferedReader) -> Iterator[tuple[int, dict[str, Any] | Malformed]]:
    line = 1
    try:
        if file.peek(3)[:3] == b"\xef\xbb\xbf":  # a byte-order mark
            file.read(3)
        found = _elements if file.peek(_CHUNK).lstrip()[:1] == b"[" else _lines
        for line, text in found(file):
            yield line, text if isinstance(text, Malformed) else _object(text)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield line, Malformed(f"the file breaks off after this row ({error})", "fetch it again")


def _lines(file: io.BufferedReader) -> Iterator[tuple[int, bytes | Malformed]]:
    line = 0
    while text := file.readline(MAX_ROW):
        line += 1
        rest = text
        while len(rest) == MAX_ROW and not rest.endswith(b"\n"):
            rest = file.readline(MAX_ROW)
        if rest is not text:
            yield line, _too_long()
        elif text.strip():
            yield line, text


class _Scan:
    """Finds the signs of JSON that stand outside its strings, over chunk after chunk."""

    def __init__(self) -> None:
        self.line = 1
        self._quoted = False
        self._skip = -1  # the place in the chunk of an escaped sign

    def signs(self, chunk: bytes) -> Iterator[tuple[bytes, int]]:
        """Yield braces, brackets and opening quotes with their places; lines are counted."""
        for sign in _SIGNS.finditer(chunk):
            char, place = sign[0], sign.start()
            self.line += char == b"\n"
            if place == self._skip or char == b"\n":
                continue
            if char == b"\\":
                self._skip = place + 1
            elif char == b'"':
                self._quoted = not self._quoted
                if self._quoted:
                    yield char, place
            elif not self._quoted:
                yield char, place
        self._skip -= len(chunk)


def _elements(file: io.BufferedReader) -> Iterator[tuple[int, bytes | Malformed]]:
    """Cut the objects out of an array by their braces; strings are stepped over."""
    held, kept, depth, start, scan = bytearray(), True, 0, 1, _Scan()
    while chunk := file.read1(_CHUNK):
        begin = 0
        for char, place in scan.signs(chunk):
            if char == b'"':
                if depth == 1:
                    yield scan.line, Malformed("the row is a text", "write one JSON object a row")
                continue
            depth += 1 if char in b"{[" else -1
            if depth == 2 and char in b"{[":
                held.clear()
                kept, begin, start = True, place, scan.line
            elif depth == 1 and char in b"}]":
                held += chunk[begin : place + 1]
                yield start, bytes(held) if kept else _too_long()
            elif depth == 0:
                return
        if depth > 1:
            held += chunk[begin:]
            if len(held) > MAX_ROW:
                kept = False
                held.clear()
    yield start, Malformed("the array breaks off inside or after this row", "fetch the file again")


def _too_long() -> Malformed:
    return Malformed(f"a row of more than {MAX_ROW} bytes", "leave it out")


def _object(text: bytes) -> dict[str, Any] | Malformed:
    try:
        value = json.loads(text.decode("utf-8-sig"), parse_constant=_no_constant)
    except UnicodeDecodeError:
        return Malformed("the row is not UTF-8", "convert the file to UTF-8")
    except RecursionError:
        return Malformed("the row nests too deep", "leave it out")
    except ValueError as error:
        return Malformed(f"the row is not JSON ({error})", "write one JSON object a line")
    if not isinstance(value, dict):
        return Malformed("the row is no JSON object", "write one JSON object a line")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
