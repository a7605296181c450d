"""PDF: lines back into paragraphs by where they stand on the page.

A PDF holds glyphs at places. A line continues the one above when the type has the same size, the
gap is a line's, and the next word would not have fitted: the typesetter's own test, backwards.
Larger type is a heading; a line repeated at the edge of most pages is furniture and goes.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pypdfium2
import pypdfium2.raw

from retrieval.config import ParseSettings
from retrieval.parse._lines import columns, join_lines, starts_item
from retrieval.parse.base import TextBuilder, refuse, tidy
from retrieval.schema import Parsed

SUFFIXES: tuple[str, ...] = (".pdf",)

#: pdfium marks a hyphen that only breaks a word with one of these.
_BREAKING = re.compile("[\u0002\ufffe]\\s*$")
_HYPHEN = re.compile(r"(?<=[a-z]{2})-$")
_DIGITS = re.compile(r"\d+")
_PAGE_NUMBER = re.compile(
    r"(?:page\s+|第\s*)?[-–—\s]*\d{1,5}[-–—\s]*(?:页|(?:/|of|共)\s*\d+\s*页?)?", re.I
)
_ENDED = re.compile(r"[.!?。！？:：;；…][\"'”’)）】》]*$")
_HEADING_LENGTH = 160
_LARGER = 1.12
#: Share of the page's height, above and below, where running titles and numbers stand.
_MARGIN = 0.09


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of text: its box in points (y upwards), its type size, whether it is at an edge."""

    text: str
    left: float
    right: float
    bottom: float
    top: float
    size: float
    edge: bool


def parse(path: Path, settings: ParseSettings) -> Parsed:
    """Read a PDF; see `retrieval.parse.base` for the contract."""
    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
            raise refuse(path, "encrypted", "the PDF asks for a password") from error
        raise refuse(path, "broken", "the PDF cannot be opened") from error
    try:
        pages = _pages(path, document, settings)
        title = document.get_metadata_value("Title")
    finally:
        document.close()
    if not any(pages):
        raise refuse(path, "no_text", f"{len(pages)} pages of images and no text layer")
    builder = TextBuilder(path, settings)
    _append(builder, _without_furniture(pages))
    # Word processors leave file names as titles; the largest heading is the better one.
    useful = bool(title) and not re.search(r"\.\w{2,4}$|^Microsoft|^untitled", title, re.I)
    return builder.build(title if useful else "")


def _pages(path: Path, document: Any, settings: ParseSettings) -> list[list[_Line]]:
    pages: list[list[_Line]] = []
    total = 0
    for index in range(len(document)):
        try:
            page = document[index]
        except pypdfium2.PdfiumError:
            pages.append([])
            continue
        text = page.get_textpage()
        lines = list(_lines(text, page.get_height()))
        text.close()
        page.close()
        pages.append(lines)
        total += sum(len(line.text) for line in lines)
        if total > settings.max_characters:
            raise refuse(path, "output", f"more than {settings.max_characters} characters of text")
    return pages


def _lines(page: Any, height: float) -> Iterator[_Line]:
    """Yield a page's lines with their boxes, in the order in which they are drawn."""
    start, count = 0, page.count_chars()
    raw = pypdfium2.raw
    for index in range(count + 1):
        ends = index == count or raw.FPDFText_GetUnicode(page, index) in (10, 13)
        if not ends:
            continue
        text = page.get_text_range(start, index - start) if index > start else ""
        if text.strip():
            yield _line(page, text, start, index, height)
        start = index + 1


def _line(page: Any, text: str, start: int, end: int, height: float) -> _Line:
    boxes = [page.get_charbox(i, loose=True) for i in (start, end - 1)]
    size = pypdfium2.raw.FPDFText_GetFontSize(page, (start + end) // 2)
    bottom, top = min(box[1] for box in boxes), max(box[3] for box in boxes)
    left, right = min(box[0] for box in boxes), max(box[2] for box in boxes)
    edge = bottom > (1 - _MARGIN) * height or top < _MARGIN * height
    size = round(size if size > 1.5 else top - bottom, 1)
    return _Line(text, left, right, bottom, top, size, edge)


def _without_furniture(pages: list[list[_Line]]) -> list[list[_Line]]:
    """Drop page numbers, and lines that stand at the edge of most pages."""
    repeated = Counter(_pattern(line) for page in pages for line in page if line.edge)
    often = max(3, len(pages) // 2)

    def kept(line: _Line) -> bool:
        if not line.edge:
            return True
        return repeated[_pattern(line)] < often and not _PAGE_NUMBER.fullmatch(line.text.strip())

    return [[line for line in page if kept(line)] for page in pages]


def _pattern(line: _Line) -> str:
    return _DIGITS.sub("#", line.text.strip())


def _append(builder: TextBuilder, pages: Sequence[Sequence[_Line]]) -> None:
    weights: Counter[float] = Counter()
    for page in pages:
        for line in page:
            weights[line.size] += len(line.text)
    if not weights:
        return
    body = weights.most_common(1)[0][0]
    sizes = sorted({s for s in weights if s > body * _LARGER}, reverse=True)
    levels = {size: min(rank, 4) for rank, size in enumerate(sizes, start=1)}
    pending = ""
    for page in pages:
        for text, size in _paragraphs(page):
            if pending and size == body and _continues(pending, text):
                pending = _joined([pending, text])
                continue
            _finish(builder, pending)
            pending = ""
            if size in levels and len(text) <= _HEADING_LENGTH:
                builder.heading(levels[size], text)
            else:
                pending = text
    _finish(builder, pending)


def _finish(builder: TextBuilder, text: str) -> None:
    if starts_item(text):
        builder.list_item(text.lstrip("•·▪●○◦ "))
    else:
        builder.paragraph(text)


def _continues(before: str, after: str) -> bool:
    """Whether a paragraph goes on, over the end of a column or a page."""
    if _ENDED.search(before) or starts_item(after) or columns(before) < 40:
        return False
    return after[0].islower() or "\u4e00" <= after[0] <= "\u9fff"


def _paragraphs(page: Sequence[_Line]) -> Iterator[tuple[str, float]]:
    """Yield a page's paragraphs, each with its type size."""
    group: list[_Line] = []
    for index, line in enumerate(page):
        if group and not _wraps(page, index):
            yield _joined([item.text for item in group]), group[0].size
            group = []
        group.append(line)
    if group:
        yield _joined([item.text for item in group]), group[0].size


def _wraps(page: Sequence[_Line], index: int) -> bool:
    """Whether the line at `index` is the line before it going on."""
    above, line = page[index - 1], page[index]
    height = max(above.size, 1.0)
    if abs(above.size - line.size) > 0.5 or starts_item(tidy(line.text)):
        return False
    gap = above.bottom - line.bottom
    if not 0.3 * height < gap < 2.2 * height or gap > 1.35 * _usual_gap(page, index):
        return False
    near = page[max(0, index - 12) : index + 12]
    column = max(item.right for item in near if item.left < above.right and item.right > above.left)
    width = (line.right - line.left) / max(1, len(line.text))
    first = line.text.strip().split(" ", 1)[0]
    needed = width * (1 if first and first[0] > "\u2e7f" else len(first))
    return above.right + needed > column - 0.5 * height


def _usual_gap(page: Sequence[_Line], index: int) -> float:
    """Return the usual distance between lines of this size on the page."""
    size = page[index].size
    gaps = [
        upper.bottom - lower.bottom
        for upper, lower in pairwise(page)
        if upper.size == lower.size == size and 0 < upper.bottom - lower.bottom < 3 * size
    ]
    return statistics.median_low(gaps) if gaps else 1.5 * size


def _joined(texts: Sequence[str]) -> str:
    """Join lines; a word broken by a hyphen becomes whole again."""
    result = ""
    for text in texts:
        if _BREAKING.search(result):
            result = _BREAKING.sub("", result) + tidy(text)
        elif _HYPHEN.search(result.rstrip()) and tidy(text)[:1].islower():
            result = result.rstrip()[:-1] + tidy(text)
        else:
            result = join_lines([result, text.strip()])
        result = re.sub(r"[ \t\u00a0]+", " ", result)
    return result
