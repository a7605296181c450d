"""Word, PowerPoint and Excel files (the XML formats); macros and links are never followed.

The archive is checked first. Word goes through HTML and our reader of HTML, formulas as LaTeX;
slides and sheets are read directly, because their way through Markdown would lose line breaks,
mistake text for markup and write "NaN" into empty cells.
"""

from __future__ import annotations

import datetime
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mammoth
import openpyxl
import pptx

from retrieval.config import ParseSettings
from retrieval.parse._archive import check_archive
from retrieval.parse._grid import Cell, append_grid
from retrieval.parse.base import TextBuilder, refuse
from retrieval.parse.table import append_rows, append_table
from retrieval.parse.web import append_fragment
from retrieval.schema import Parsed

SUFFIXES: tuple[str, ...] = (".docx", ".pptx", ".xlsx")

#: Styles that mammoth does not know by itself; Chinese editors write Chinese names.
_STYLES = "\n".join(
    [
        "p[style-name='Title'] => h1:fresh",
        "p[style-name='标题'] => h1:fresh",
        *(f"p[style-name='标题 {level}'] => h{level}:fresh" for level in range(1, 7)),
        "u => ",
    ]
)
#: Shapes nearer than this stand on one level; in English Metric Units.
_LEVEL = 228_600
_UNSAVED = re.compile(rb"<f(?:\s[^>]*)?>[^<]*</f>\s*(?:<v\s*/>|<v></v>)?\s*</c>")
#: Sheets larger than this are not searched for such formulas; bytes.
_SCANNED = 64 * 2**20
_DAMAGED = (KeyError, ValueError, IndexError, AttributeError, zipfile.BadZipFile)


def parse(path: Path, settings: ParseSettings) -> Parsed:
    """Read an Office file; see `retrieval.parse.base` for the contract."""
    check_archive(path, settings)
    builder = TextBuilder(path, settings)
    readers = {".docx": _document, ".pptx": _slides, ".xlsx": _sheets}
    try:
        title = readers[path.suffix.lower()](path, builder)
    except _DAMAGED as error:
        raise refuse(path, "broken", f"a damaged document ({type(error).__name__})") from error
    return builder.build(title)


def _document(path: Path, builder: TextBuilder) -> str:
    """Append a Word document; gives its title, "" here as its headings say it better."""
    with path.open("rb") as file:
        source: Any = file
        with zipfile.ZipFile(path) as archive:
            formulas = b"<m:oMath" in archive.read("word/document.xml")
        if formulas:
            # Slow to import, and few documents need it.
            from markitdown.converter_utils.docx.pre_process import pre_process_docx

            source = pre_process_docx(file)
        html = mammoth.convert_to_html(
            source,
            style_map=_STYLES,
            include_embedded_style_map=False,
            convert_image=mammoth.images.img_element(lambda _: {}),
        ).value
    append_fragment(builder, html)
    return ""


def _slides(path: Path, builder: TextBuilder) -> str:
    """Append a presentation slide by slide, notes last; hidden slides are not shown to anybody."""
    deck = pptx.Presentation(str(path))
    for slide in deck.slides:
        if slide._element.get("show") == "0":
            continue
        title = slide.shapes.title
        if title is not None and title.has_text_frame:
            builder.heading(1, title.text_frame.text)
        for shape in _in_order(slide.shapes):
            if title is None or shape.shape_id != title.shape_id:
                _shape(shape, builder)
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            _frame(slide.notes_slide.notes_text_frame, builder)
    return ""


def _in_order(shapes: Any) -> Iterator[Any]:
    """Yield shapes from top to bottom, then left to right; groups are opened.

    Shapes set by hand are never quite level: what is within a quarter of an inch is.
    """
    for shape in sorted(shapes, key=lambda s: (round((s.top or 0) / _LEVEL), s.left or 0)):
        if hasattr(shape, "shapes"):
            yield from _in_order(shape.shapes)
        else:
            yield shape


def _shape(shape: Any, builder: TextBuilder) -> None:
    if getattr(shape, "has_table", False):
        named = bool(shape.table.first_row)
        append_grid(
            builder,
            (
                [
                    Cell(cell.text, cell.span_width, cell.span_height, named and not index)
                    for cell in row.cells
                    if not cell.is_spanned
                ]
                for index, row in enumerate(shape.table.rows)
            ),
        )
    elif getattr(shape, "has_chart", False):
        _chart(shape.chart, builder)
    elif shape.has_text_frame:
        _frame(shape.text_frame, builder)


def _frame(frame: Any, builder: TextBuilder) -> None:
    """Append a text frame: one paragraph is prose, several are points of a list."""
    texts = [text for p in frame.paragraphs if (text := p.text.strip())]
    for text in texts:
        if len(texts) > 1:
            builder.list_item(text)
        else:
            builder.paragraph(text)


def _chart(chart: Any, builder: TextBuilder) -> None:
    """Append a chart as the table it was drawn from."""
    if chart.has_title and chart.chart_title.has_text_frame:
        builder.paragraph(chart.chart_title.text_frame.text)
    series = list(chart.series)
    columns = [list(one.values) for one in series]
    plots = list(chart.plots)
    rows = []
    for index, label in enumerate(plots[0].categories if plots else ()):
        values = [column[index] if index < len(column) else None for column in columns]
        rows.append([str(label), *(_cell(value) for value in values)])
    append_rows(builder, ["", *(str(one.name) for one in series)], rows)


def _sheets(path: Path, builder: TextBuilder) -> str:
    """Append every visible sheet under its name; gives no title."""
    unsaved = _unsaved_formulas(path)
    if unsaved:
        builder.notes.append(
            f"{unsaved} formulas have no saved value; open the workbook in its program and save it"
        )
    book = openpyxl.load_workbook(path, read_only=True, data_only=True, keep_links=False)
    try:
        for sheet in book.worksheets:
            if sheet.sheet_state != "visible":
                continue
            # The size that a sheet declares can be a lie of seventeen billion cells.
            sheet.reset_dimensions()
            builder.heading(1, sheet.title)
            rows = ([_shown(cell) for cell in row] for row in sheet.iter_rows())
            append_table(builder, rows)
    finally:
        book.close()
    return ""


def _unsaved_formulas(path: Path) -> int:
    """Count the formulas whose value no program has worked out and saved."""
    found = 0
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            sheet = entry.filename.startswith("xl/worksheets/sheet")
            if sheet and entry.file_size <= _SCANNED:
                found += len(_UNSAVED.findall(archive.read(entry)))
    return found


def _shown(cell: Any) -> str:
    """Write a cell with the sign of percent that its format shows."""
    value, shape = cell.value, cell.number_format
    if isinstance(value, int | float) and not isinstance(value, bool) and shape and "%" in shape:
        return f"{value * 100:.12g}%"
    return _cell(value)


def _cell(value: Any) -> str:
    """Write a cell as its reader sees it, as far as the value alone says."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat(" ") if isinstance(value, datetime.datetime) else value.isoformat()
    return str(value)
