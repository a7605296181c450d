"""A page of a PDF: its lines with their boxes in reading order, and its ruled tables.

Coordinates are points, y upwards. A page gives its text in the order in which it was drawn, which
is mostly the reading order; columns drawn line by line across the page are put in order again.
"""

from __future__ import annotations

import bisect
import ctypes
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pypdfium2.raw as raw

from retrieval.parse._grid import Cell

#: Share of the page's height, above and below, where running titles and numbers stand.
_MARGIN = 0.09
#: A rule is thinner than this; what is shorter than `_SHORT` is an ornament.
_THIN, _SHORT = 2.5, 8.0
_MEETING = 3.0
#: Edges on a page beyond which they are a drawing.
_EDGES = 3_000
#: Lines on each side that make two columns, and characters in a usual one.
_COLUMN_LINES, _COLUMN_CHARACTERS = 4, 12
#: A gap this many times the type's size parts what is drawn on one line.
_GAP = 1.6
_FIXED = re.compile(rb"Courier|Mono(?!type)|Consol|Typewriter|CMTT|Menlo", re.I)
#: A word broken by a hyphen at the end of a line, as pdfium marks it.
_HYPHENS = (0x02, 0xFFFE)
_BLANK = " \t\r\n\u00a0\x02\ufffe"
_BROKEN = re.compile("[\x02\ufffe]\\s*")
_LIGATURES = re.compile("[\ufb00-\ufb06\u2e80-\u2fd5]")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text: its box, its type size in points, whether it is at an edge of the page.

    `fixed` says that all its letters are equally wide, as in program code.
    """

    text: str
    left: float
    right: float
    bottom: float
    top: float
    size: float
    edge: bool
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A ruled table: its rows from the top, and its box."""

    rows: tuple[tuple[Cell, ...], ...]
    left: float
    right: float
    bottom: float
    top: float

    def holds(self, line: Line) -> bool:
        """Whether a line's middle lies inside."""
        x, y = (line.left + line.right) / 2, (line.bottom + line.top) / 2
        return self.left <= x <= self.right and self.bottom <= y <= self.top


@dataclass(frozen=True, slots=True)
class _Rule:
    """A straight rule: at `at`, from `start` to `end`."""

    at: float
    start: float
    end: float


def read_page(page: Any) -> list[Line | Table]:
    """Return what a page holds in reading order; [] where it has no text layer."""
    text = page.get_textpage()
    try:
        tables = _tables(page, text) if text.count_chars() > 0 else []
        segments = list(_segments(text, page.get_height()))
    finally:
        text.close()
    free = [s for s in segments if not any(table.holds(s) for table in tables)]
    lines = in_columns(free)
    return _placed(lines, tables)


def _placed(lines: Sequence[Line], tables: Sequence[Table]) -> list[Line | Table]:
    """Set each table before the first line that stands below it."""
    result: list[Line | Table] = list(lines)
    for table in tables:
        index = next(
            (
                i
                for i, item in enumerate(result)
                if not (isinstance(item, Line) and item.edge)
                and item.top <= table.bottom + _MEETING
                and item.left < table.right
                and item.right > table.left
            ),
            len(result),
        )
        result.insert(index, table)
    return result


def _segments(page: Any, height: float) -> Iterator[Line]:
    """Yield stretches of text without a wide gap, in the order in which they are drawn."""
    start, count = 0, page.count_chars()
    for index in range(count + 1):
        code = raw.FPDFText_GetUnicode(page, index) if index < count else 10
        if code not in (10, 13, *_HYPHENS):
            continue
        # pdfium draws the two halves of a broken word into one line, with a mark between
        end = index + (code in _HYPHENS)
        if end > start and page.get_text_range(start, end - start).strip():
            for a, b in _cut(page, start, end):
                text = page.get_text_range(a, b - a)
                if text.strip(_BLANK):
                    yield _line(page, text, a, b, height)
        start = index + 1


def _cut(page: Any, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut a drawn line where the gap between two characters is wider than a space can be."""
    before, first = None, start
    for index in range(start, end):
        if raw.FPDFText_GetUnicode(page, index) in (32, 160, *_HYPHENS):
            continue
        left, bottom, right, top = page.get_charbox(index, loose=True)
        if before is not None and left - before > _GAP * max(1.0, top - bottom):
            yield first, index
            first = index
        before = right
    yield first, end


def _line(page: Any, text: str, start: int, end: int, height: float) -> Line:
    blank = (32, 160, *_HYPHENS)
    seen = [i for i in range(start, end) if raw.FPDFText_GetUnicode(page, i) not in blank]
    boxes = [page.get_charbox(i, loose=True) for i in (seen[0], seen[-1])]
    size = raw.FPDFText_GetFontSize(page, seen[len(seen) // 2])
    bottom, top = min(box[1] for box in boxes), max(box[3] for box in boxes)
    left, right = min(box[0] for box in boxes), max(box[2] for box in boxes)
    edge = bottom > (1 - _MARGIN) * height or top < _MARGIN * height
    size = round(size if size > 1.5 else top - bottom, 1)
    fixed = all(_is_fixed(page, i) for i in (seen[0], seen[len(seen) // 2], seen[-1]))
    return Line(plain(text), left, right, bottom, top, size, edge, fixed)


def _is_fixed(page: Any, index: int) -> bool:
    """Whether a character's font has one width for all, by its flag or its name."""
    name, flags = ctypes.create_string_buffer(64), ctypes.c_int()
    raw.FPDFText_GetFontInfo(page, index, name, len(name), ctypes.byref(flags))
    return bool(flags.value & 1) or _FIXED.search(name.value) is not None


def plain(text: str) -> str:
    """Return text with ligatures and Kangxi radicals as the letters that they stand for."""
    return _LIGATURES.sub(lambda found: unicodedata.normalize("NFKC", found.group()), text)


def _same_line(first: Line, second: Line) -> bool:
    """Whether two stretches stand on one baseline, the second to the right."""
    overlap = min(first.top, second.top) - max(first.bottom, second.bottom)
    low = min(first.top - first.bottom, second.top - second.bottom)
    return overlap > 0.5 * low and second.left >= first.right - 1


def in_columns(segments: Sequence[Line]) -> list[Line]:
    """Put the stretches of a page of two columns in order; else make whole lines of them."""
    gutter = _gutter(segments)
    if gutter is None:
        return _whole(segments)
    ordered: list[Line] = []
    left: list[Line] = []
    right: list[Line] = []
    for line in sorted(_whole(segments, gutter), key=lambda s: (-s.top, s.left)):
        if line.left < gutter < line.right:  # over both columns: what is above is finished
            ordered += [*left, *right, line]
            left, right = [], []
        else:
            (left if line.right <= gutter else right).append(line)
    return [*ordered, *left, *right]


def _whole(segments: Sequence[Line], gutter: float | None = None) -> list[Line]:
    """Join stretches drawn one after another on one line, but not over the gutter."""
    lines: list[Line] = []
    for one in segments:
        last = lines[-1] if lines else None
        apart = last is not None and gutter is not None and last.right <= gutter <= one.left
        if last is None or apart or not _same_line(last, one):
            lines.append(one)
            continue
        lines[-1] = Line(
            f"{last.text.rstrip()} {one.text.lstrip()}",
            last.left,
            one.right,
            min(last.bottom, one.bottom),
            max(last.top, one.top),
            last.size,
            last.edge and one.edge,
            last.fixed and one.fixed,
        )
    return lines


def _gutter(segments: Sequence[Line]) -> float | None:
    """Find the empty stripe between two columns of prose; None on a page of one.

    Both sides must have lines of prose that end near the stripe or begin at it, and few lines may
    cross it: a table's cells are short, and the columns of a list of names are no columns to read.
    """
    body = [s for s in segments if not s.edge and s.text.strip()]
    if len(body) < 2 * _COLUMN_LINES:
        return None
    low, high = min(s.left for s in body), max(s.right for s in body)
    starts = sorted({s.left for s in body if low + 0.3 * (high - low) < s.left < high})
    best: tuple[int, float] | None = None
    for start in starts:
        at = start - 1.0
        left = [s for s in body if s.right <= at]
        right = [s for s in body if s.left >= at]
        crossing = len(body) - len(left) - len(right)
        if crossing * 4 > len(body) or not (_is_column(left) and _is_column(right)):
            continue
        width = max(s.right for s in left) - low
        reaching = sum(s.right > low + 0.75 * width for s in left)
        if 2 * reaching >= len(left) and (best is None or crossing < best[0]):
            best = (crossing, at)
    return best[1] if best else None


def _is_column(lines: Sequence[Line]) -> bool:
    if len(lines) < _COLUMN_LINES:
        return False
    lengths = sorted(len(line.text.strip()) for line in lines)
    return lengths[len(lengths) // 2] >= _COLUMN_CHARACTERS


def _tables(page: Any, text: Any) -> list[Table]:
    """Return the page's ruled tables, from the top."""
    across, down = _rules(page)
    found = []
    for rows, columns in _components(across, down):
        ys, xs = _levels(r.at for r in rows), _levels(r.at for r in columns)
        if len(ys) > 2 and len(xs) > 2:
            cells = _cells(text, ys[::-1], xs, rows, columns)
            if sum(bool(cell.text.strip()) for row in cells for cell in row) > 2:
                found.append(Table(cells, xs[0], xs[-1], ys[0], ys[-1]))
    return sorted(found, key=lambda table: -table.top)


def _rules(page: Any) -> tuple[list[_Rule], list[_Rule]]:
    """Return the page's straight rules, horizontal and vertical; edges of boxes count."""
    across: list[_Rule] = []
    down: list[_Rule] = []
    edges = 0
    for item in page.get_objects(filter=[raw.FPDF_PAGEOBJ_PATH], max_depth=3):
        for (x, y), (u, v) in _edges(item):
            edges += 1
            if edges > _EDGES:
                return [], []
            if abs(y - v) <= _THIN and abs(x - u) >= _SHORT:
                across.append(_Rule((y + v) / 2, min(x, u), max(x, u)))
            elif abs(x - u) <= _THIN and abs(y - v) >= _SHORT:
                down.append(_Rule((x + u) / 2, min(y, v), max(y, v)))
    return across, down


def _edges(path: Any) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    """Yield the straight edges of a path, each from point to point on the page."""
    matrix = path.get_matrix()
    x, y = ctypes.c_float(), ctypes.c_float()
    here = first = (0.0, 0.0)
    for index in range(raw.FPDFPath_CountSegments(path)):
        segment = raw.FPDFPath_GetPathSegment(path, index)
        raw.FPDFPathSegment_GetPoint(segment, ctypes.byref(x), ctypes.byref(y))
        point = matrix.on_point(x.value, y.value)
        kind = raw.FPDFPathSegment_GetType(segment)
        if kind == raw.FPDF_SEGMENT_MOVETO:
            first = point
        elif kind == raw.FPDF_SEGMENT_LINETO:
            yield here, point
        here = point
        if raw.FPDFPathSegment_GetClose(segment):
            yield here, first


def _meet(row: _Rule, column: _Rule) -> bool:
    return (
        row.start - _MEETING <= column.at <= row.end + _MEETING
        and column.start - _MEETING <= row.at <= column.end + _MEETING
    )


def _components(
    across: Sequence[_Rule], down: Sequence[_Rule]
) -> Iterator[tuple[list[_Rule], list[_Rule]]]:
    """Yield the groups of rules that touch each other."""
    rows, columns = set(across), set(down)
    while rows:
        group_rows, group_columns = {rows.pop()}, set[_Rule]()
        fresh = set(group_rows)
        while fresh:
            met = {c for c in columns if any(_meet(r, c) for r in fresh)}
            columns -= met
            group_columns |= met
            fresh = {r for r in rows if any(_meet(r, c) for c in met)}
            rows -= fresh
            group_rows |= fresh
        yield list(group_rows), list(group_columns)


def _levels(places: Iterator[float]) -> list[float]:
    """Return places in order, those that are one rule drawn twice made one."""
    levels: list[float] = []
    for place in sorted(places):
        if not levels or place - levels[-1] > _MEETING:
            levels.append(place)
    return levels


def _cells(
    text: Any, ys: list[float], xs: list[float], rows: list[_Rule], columns: list[_Rule]
) -> tuple[tuple[Cell, ...], ...]:
    """Read a grid from the top (`ys` falling); cells with no rule between them are one."""

    def ruled(rules: list[_Rule], at: float, middle: float) -> bool:
        return any(abs(r.at - at) <= _MEETING and r.start <= middle <= r.end for r in rules)

    texts = _cell_texts(text, ys, xs)
    taken: set[tuple[int, int]] = set()
    grid: list[tuple[Cell, ...]] = []
    for i in range(len(ys) - 1):
        row: list[Cell] = []
        for j in range(len(xs) - 1):
            if (i, j) in taken:
                continue
            wide, high = 1, 1
            middle = (ys[i] + ys[i + 1]) / 2
            while j + wide < len(xs) - 1 and not ruled(columns, xs[j + wide], middle):
                wide += 1
            centre = (xs[j] + xs[j + 1]) / 2
            while i + high < len(ys) - 1 and not ruled(rows, ys[i + high], centre):
                high += 1
            merged = [(i + a, j + b) for a in range(high) for b in range(wide)]
            taken.update(merged)
            row.append(Cell(_read(texts, merged), wide, high))
        grid.append(tuple(row))
    return tuple(grid)


def _cell_texts(
    text: Any, ys: Sequence[float], xs: Sequence[float]
) -> dict[tuple[int, int], list[tuple[int, str]]]:
    """Sort the page's characters into the cells that their middles lie in, with their places."""
    found: dict[tuple[int, int], list[tuple[int, str]]] = {}
    falling = [-y for y in ys]
    last: tuple[int, int] | None = None
    for index in range(text.count_chars()):
        code = raw.FPDFText_GetUnicode(text, index)
        if code <= 32 or code == 160:
            if last is not None:
                found[last].append((index, "\n" if code in (10, 13) else " "))
            continue
        left, bottom, right, top = text.get_charbox(index, loose=True)
        x, y = (left + right) / 2, (bottom + top) / 2
        last = None
        if xs[0] < x < xs[-1] and ys[-1] < y < ys[0]:
            last = (bisect.bisect(falling, -y) - 1, bisect.bisect(xs, x) - 1)
            found.setdefault(last, []).append((index, chr(code)))
    return found


def _read(
    texts: dict[tuple[int, int], list[tuple[int, str]]], cells: Sequence[tuple[int, int]]
) -> str:
    """Return the text of a cell that may be several merged ones, in drawing order."""
    drawn = sorted(part for cell in cells for part in texts.get(cell, ()))
    joined = "".join(char for _, char in drawn)
    return plain(_BROKEN.sub("", joined))
