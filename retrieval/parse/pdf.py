"""PDF: lines back into paragraphs by where they stand on the page.

A PDF holds glyphs at places. A line continues the one above when the type has the same size, the
gap is a line's, and the next word would not have fitted: the typesetter's own test, backwards.
Larger type is a heading; a line repeated at the edge of many pages is furniture and goes. Pages
that are pictures are read by OCR where it is installed, and else named.
"""

from __future__ import annotations

import re
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pypdfium2
import pypdfium2.raw

from retrieval.config import ParseSettings
from retrieval.parse._grid import append_grid
from retrieval.parse._lines import columns, join_lines, starts_item
from retrieval.parse._ocr import available, read_scan
from retrieval.parse._pdf_page import Line, Table, in_columns, read_page
from retrieval.parse.base import TextBuilder, refuse, tidy
from retrieval.schema import Parsed

SUFFIXES: tuple[str, ...] = (".pdf",)

#: pdfium marks a hyphen that only breaks a word with one of these.
_BREAKING = re.compile("[\u0002\ufffe]\\s*$")
_HYPHEN = re.compile(r"(?<=[a-z]{2})-$")
_WORDS = re.compile(r"[A-Za-z]+(?:-[A-Za-z]+)*(?![\w-])")
_LAST_WORD, _FIRST_WORD = re.compile(r"[A-Za-z]+$"), re.compile(r"[A-Za-z]+")
#: First parts of compounds that a line end does not make one word.
_PREFIXES = frozenset(
    "well self high low long short real user open cross multi non full half all part on off up "
    "state end time data first second third two three four six ten".split()
)
_BLANKS = re.compile(r"[ \t\r\n\u00a0]+")
_DIGITS = re.compile(r"\d+")
_PAGE_NUMBER = re.compile(
    r"(?:page\s+|第\s*)?[-–—\s]*\d{1,5}[-–—\s]*(?:页|(?:/|of|共)\s*\d+\s*页?)?|[ivxlc]{1,6}", re.I
)
#: An entry of a table of contents: dots that lead to a page number.
_LEADER = re.compile(r"(?:\s?[.·…]){4,}\s*(?:\d{1,4}|[ivxlc]{1,6})\s*$")
_ENDED = re.compile(r"[.!?。！？:：;；…][\"'”’)）】》]*$")
_HEADING_LENGTH = 160
_LARGER = 1.12


#: Share of a file's time that reading scanned pages may take.
_OCR_SHARE = 0.7

Page = list[Line | Table]


def parse(path: Path, settings: ParseSettings) -> Parsed:
    """Read a PDF; see `retrieval.parse.base` for the contract."""
    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
            raise refuse(path, "encrypted", "the PDF asks for a password") from error
        raise refuse(path, "broken", "the PDF cannot be opened") from error
    try:
        pages, notes = _pages(path, document, settings)
        title = document.get_metadata_value("Title")
    finally:
        document.close()
    builder = TextBuilder(path, settings)
    builder.notes += notes
    _append(builder, _without_furniture(pages))
    # Word processors leave file names as titles; the largest heading is the better one.
    useful = bool(title) and not re.search(
        r"\.\w{2,4}$|^Microsoft|^untitled|^\(?anonymous", title, re.I
    )
    return builder.build(title if useful else "")


def _pages(
    path: Path, document: Any, settings: ParseSettings
) -> tuple[list[Page], tuple[str, ...]]:
    """Return every page's lines and tables, and what could not be read, by its page numbers."""
    pages: list[Page] = []
    total, scans, damaged = 0, [], []
    began = time.monotonic()
    for index in range(len(document)):
        try:
            page = document[index]
        except pypdfium2.PdfiumError:
            pages.append([])
            damaged.append(index + 1)
            continue
        lines = read_page(page)
        if not lines and _is_picture(page):
            if available() and time.monotonic() - began < _OCR_SHARE * settings.seconds:
                lines = list(in_columns(read_scan(page)))
            else:
                scans.append(index + 1)
        page.close()
        pages.append(lines)
        total += sum(len(line.text) for line in lines if isinstance(line, Line))
        if total > settings.max_characters:
            raise refuse(path, "output", f"more than {settings.max_characters} characters of text")
    if not any(pages):
        if len(damaged) == len(pages):
            raise refuse(path, "broken", "none of its pages can be read")
        detail = f"{len(pages)} pages of images and no text layer"
        read = "" if not available() else "The recognition of text found no words in the pictures."
        raise refuse(path, "no_text", detail, read)
    notes = []
    if scans:
        why = "raise retrieval.parse.seconds" if available() else "install plumbline[ocr]"
        notes.append(f"{_numbers(scans)} of {len(pages)}: pictures without text; {why}")
    if damaged:
        notes.append(f"{_numbers(damaged)} of {len(pages)}: damaged and left out")
    return pages, tuple(notes)


def _is_picture(page: Any) -> bool:
    """Whether a page shows an image; an empty page is no scan."""
    kinds = [pypdfium2.raw.FPDF_PAGEOBJ_IMAGE]
    return next(iter(page.get_objects(filter=kinds, max_depth=3)), None) is not None


def _numbers(pages: Sequence[int]) -> str:
    """Write page numbers with their runs: "pages 1-3, 7"."""
    runs: list[list[int]] = []
    for page in pages:
        if runs and page == runs[-1][-1] + 1:
            runs[-1][1:] = [page]
        else:
            runs.append([page])
    return "pages " + ", ".join("-".join(map(str, run)) for run in runs)


def _without_furniture(pages: list[Page]) -> list[Page]:
    """Drop page numbers, lines at the edge of many pages at the same height, and contents."""
    repeated = Counter(
        _pattern(line)
        for page in pages
        for line in {_pattern(one): one for one in page if isinstance(one, Line)}.values()
        if line.edge
    )
    often = max(2, min(3, len(pages)), len(pages) // 6)

    def kept(line: Line | Table) -> bool:
        if isinstance(line, Line) and _LEADER.search(line.text):
            return False
        if not isinstance(line, Line) or not line.edge:
            return True
        return repeated[_pattern(line)] < often and not _PAGE_NUMBER.fullmatch(line.text.strip())

    return [[line for line in page if kept(line)] for page in pages]


def _pattern(line: Line) -> tuple[str, int]:
    return _DIGITS.sub("#", line.text.strip()), round(line.bottom / 4)


def _append(builder: TextBuilder, pages: Sequence[Page]) -> None:
    lines = [line for page in pages for line in page if isinstance(line, Line)]
    weights: Counter[float] = Counter()
    for line in lines:
        weights[line.size] += len(line.text)
    body = weights.most_common(1)[0][0] if weights else 0.0
    sizes = sorted({s for s in weights if s > body * _LARGER}, reverse=True)
    levels = {size: min(rank, 4) for rank, size in enumerate(sizes, start=1)}
    joined = _Joiner(lines)
    pending = ""
    for page in pages:
        for part in _parts(page):
            if isinstance(part, Table) or _is_code(part):
                _finish(builder, pending)
                pending = ""
                if isinstance(part, Table):
                    append_grid(builder, part.rows)
                else:
                    builder.code(_code(part))
                continue
            for text, size in _paragraphs(part, joined):
                if pending and size == body and _continues(pending, text):
                    pending = joined([pending, text])
                    continue
                _finish(builder, pending)
                pending = ""
                if size in levels and len(text) <= _HEADING_LENGTH:
                    builder.heading(levels[size], text)
                else:
                    pending = text
    _finish(builder, pending)


def _parts(page: Page) -> Iterator[list[Line] | Table]:
    """Yield a page's tables, its code, and the runs of prose between them.

    A single line of fixed width is a word in a sentence.
    """
    prose: list[Line] = []
    for fixed, group in groupby(page, key=lambda item: isinstance(item, Line) and item.fixed):
        items = list(group)
        lines = [item for item in items if isinstance(item, Line)]
        if fixed and len(lines) > 1:
            yield prose
            yield lines
            prose = []
            continue
        for item in items:
            if isinstance(item, Line):
                prose.append(item)
            else:
                yield prose
                yield item
                prose = []
    yield prose


def _is_code(part: Sequence[Line] | Table) -> bool:
    """Whether two lines or more, all of fixed width, stand below each other."""
    if isinstance(part, Table) or len(part) < 2:
        return False
    return all(line.fixed for line in part)


def _code(lines: Sequence[Line]) -> str:
    """Return lines of code, indented as they stand."""
    left = min(line.left for line in lines)
    result = []
    for line in lines:
        text = line.text.strip()
        letter = max(1.0, (line.right - line.left) / max(1, len(text)))
        result.append(" " * min(80, round((line.left - left) / letter)) + text)
    return "\n".join(result)


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


def _paragraphs(page: Sequence[Line], joined: _Joiner) -> Iterator[tuple[str, float]]:
    """Yield a page's paragraphs, each with its type size."""
    group: list[Line] = []
    for index, line in enumerate(page):
        if group and not _wraps(page, index):
            yield joined([item.text for item in group]), group[0].size
            group = []
        group.append(line)
    if group:
        yield joined([item.text for item in group]), group[0].size


def _wraps(page: Sequence[Line], index: int) -> bool:
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


def _usual_gap(page: Sequence[Line], index: int) -> float:
    """Return the usual distance between lines of this size on the page."""
    size = page[index].size
    gaps = [
        upper.bottom - lower.bottom
        for upper, lower in pairwise(page)
        if upper.size == lower.size == size and 0 < upper.bottom - lower.bottom < 3 * size
    ]
    return statistics.median_low(gaps) if gaps else 1.5 * size


class _Joiner:
    """Joins lines; a word broken by a hyphen becomes whole again, a compound keeps its own.

    Which of the two it is, the rest of the document says: "re-" + "cord" is one word where
    "record" is written elsewhere, and "well-" + "known" two where "well-known" is.
    """

    def __init__(self, lines: Sequence[Line]) -> None:
        self._words: Counter[str] = Counter()
        for line in lines:
            self._words.update(word.lower() for word in _WORDS.findall(line.text.strip()))

    def __call__(self, texts: Sequence[str]) -> str:
        """Return one line."""
        result = ""
        for text in map(tidy_line, texts):
            if _BREAKING.search(result):
                result = self._mended(_BREAKING.sub("", result), text)
            elif _HYPHEN.search(result) and text[:1].islower():
                result = self._mended(result[:-1], text)
            else:
                result = join_lines([result, text])
        return tidy(_BREAKING.sub("-", result))

    def _mended(self, before: str, after: str) -> str:
        first, second = _LAST_WORD.search(before), _FIRST_WORD.match(after)
        if first is None or second is None:
            return before + after
        head, tail = first.group().lower(), second.group().lower()
        whole, compound = self._words[head + tail], self._words[f"{head}-{tail}"]
        keeps = compound > whole or (not whole and not compound and head in _PREFIXES)
        return f"{before}-{after}" if keeps else before + after


def tidy_line(text: str) -> str:
    """`text` with single blanks; the mark of a breaking hyphen stays."""
    return _BLANKS.sub(" ", text).strip()
