"""What a parser is, why a file is refused, and the builder that keeps text and structure in step.

A parser is a file of this folder with two names:

    SUFFIXES: tuple[str, ...]                                 lower case, with the dot; a literal
    parse(path: Path, settings: ParseSettings) -> Parsed      raises ParseError

`SUFFIXES` is read from the source without importing the file, so that knowing which suffixes are
supported loads no library. Files whose name starts with an underscore help the parsers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from retrieval.config import ParseSettings
from retrieval.errors import ParseError
from retrieval.parse._lines import join_lines
from retrieval.schema import Block, BlockKind, Heading, Parsed

#: Why a file was refused, and what its owner can do. The keys are stable: reports count by them.
REMEDIES = {
    "empty": "Nothing to do, unless the file should hold text.",
    "broken": "Open the file in its own program and save it again.",
    "encrypted": "Remove the password and try again.",
    "too_large": "Split the file, or raise retrieval.parse.max_bytes.",
    "disguised": "Rename the file to what it is, or save it in the format its suffix names.",
    "unsupported": "Convert the file to a supported format.",
    "timeout": "Split the file, or raise retrieval.parse.seconds.",
    "memory": "Split the file, or raise retrieval.parse.memory_mb.",
    "output": "Split the file, or raise retrieval.parse.max_characters.",
    "archive_bomb": "If it is yours, raise the retrieval.parse.max_archive limits.",
    "unreadable": "Check the path and its permissions.",
    "encoding": "Save the file as UTF-8.",
    "no_text": "Install plumbline[ocr] and add the file again, or run OCR on it first.",
}
REASONS: tuple[str, ...] = tuple(REMEDIES)

_NOISE = re.compile("[\u0000-\u0008\u000e-\u001f\u007f-\u009f\u00ad\u200b\u2060\ufeff\ufffe\uffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SPACES = re.compile(r"[^\S\n]+")
_TIGHT: tuple[BlockKind, ...] = ("list_item", "table_row")


def refuse(path: Path, reason: str, detail: str, remedy: str = "") -> ParseError:
    """Return the error for one file; `remedy` defaults to the reason's own."""
    return ParseError(str(path), reason, detail, remedy or REMEDIES[reason])


def scrub(text: str) -> str:
    """`text` without characters nobody reads: controls, zero-width marks, soft hyphens."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n")
    text = text.replace("\u0085", "\n").replace("\u2029", "\n").replace("\v", "\n")
    return _SURROGATE.sub("\ufffd", _NOISE.sub("", text.replace("\f", "\n")))


def tidy(text: str) -> str:
    """`text` scrubbed, every run of blanks one space, every line stripped, empty lines gone."""
    lines = (_SPACES.sub(" ", line).strip() for line in scrub(text).split("\n"))
    return "\n".join(line for line in lines if line)


def one_line(text: str) -> str:
    """`text` tidied and its lines joined, Chinese without a space."""
    return join_lines(tidy(text).split("\n"))


class TextBuilder:
    """Collects headings and blocks in reading order and gives a `Parsed`.

    Whatever is appended is cleaned first and skipped when nothing is left, so that the promises
    of `Parsed` hold by construction: blocks sorted, disjoint and not empty; a heading's text
    stands at its start; headings and blocks cover all text but white space. `notes` is for what
    the owner of the file should know.

    Raises (from every appending method):
        ParseError: reason `output`, once the text is longer than `settings.max_characters`.
    """

    def __init__(self, path: Path, settings: ParseSettings) -> None:
        self._path = path
        self._limit = settings.max_characters
        self._parts: list[str] = []
        self._length = 0
        self._last: BlockKind | None = None
        self._headings: list[Heading] = []
        self._blocks: list[Block] = []
        self.notes: list[str] = []

    def heading(self, level: int, text: str) -> None:
        """Append a heading; `level` is clamped to 1 to 6."""
        text = one_line(text)
        if text:
            start = self._append(text, "\n\n")
            self._headings.append(Heading(min(6, max(1, level)), text, start))
            self._last = None

    def paragraph(self, text: str, kind: BlockKind = "paragraph") -> None:
        """Append a block of prose; line breaks in `text` are kept as they are meant."""
        self._block(tidy(text), kind)

    def line(self, text: str) -> None:
        """Append a line that is a block of its own, close to a line before it (a log entry)."""
        tight = self._last == "paragraph"
        self._block(one_line(text), "paragraph", "\n" if tight else "\n\n")

    def list_item(self, text: str, marker: str = "") -> None:
        """Append a list item; `marker` is an ordinal such as "3." (bullets are not text)."""
        text = tidy(text)
        self._block(f"{marker} {text}".strip() if text else "", "list_item")

    def row(self, cells: Sequence[str]) -> None:
        """Append a table row as one line, cells joined by " | "; trailing empty cells go."""
        texts = [one_line(cell) for cell in cells]
        while texts and not texts[-1]:
            texts.pop()
        self._block(" | ".join(texts), "table_row")

    def code(self, text: str) -> None:
        """Append code: indentation and blank lines inside are kept."""
        lines = [line.rstrip() for line in scrub(text).split("\n")]
        self._block("\n".join(lines).strip("\n"), "code")

    def build(self, title: str = "") -> Parsed:
        """Return what was collected; without a `title`, the first top heading or the file's name.

        Raises:
            ParseError: reason `empty`, when nothing was appended.

        """
        if not self._parts:
            raise refuse(self._path, "empty", "the file has no readable text")
        top = min((h.level for h in self._headings), default=0)
        first = next((h.text for h in self._headings if h.level == top), self._path.stem)
        return Parsed(
            text="".join(self._parts),
            title=one_line(title) or first,
            headings=tuple(self._headings),
            blocks=tuple(self._blocks),
            notes=tuple(self.notes),
        )

    def _block(self, text: str, kind: BlockKind, separator: str = "") -> None:
        if not text:
            return
        tight = kind in _TIGHT and kind == self._last
        start = self._append(text, separator or ("\n" if tight else "\n\n"))
        self._blocks.append(Block(start, start + len(text), kind))
        self._last = kind

    def _append(self, text: str, separator: str) -> int:
        if self._parts:
            self._parts.append(separator)
            self._length += len(separator)
        start = self._length
        self._parts.append(text)
        self._length += len(text)
        if self._length > self._limit:
            raise refuse(self._path, "output", f"more than {self._limit} characters of text")
        return start
