"""Jupyter notebooks: prose as Markdown, code as code, and what the code printed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retrieval.config import ParseSettings
from retrieval.parse._decode import decode
from retrieval.parse.base import TextBuilder, refuse
from retrieval.parse.markdown import append_markdown
from retrieval.schema import Parsed

SUFFIXES: tuple[str, ...] = (".ipynb",)

#: Characters of one output that are kept; training logs go on for pages.
_OUTPUT = 4_000


def parse(path: Path, settings: ParseSettings) -> Parsed:
    """Read a notebook (nbformat 3 and later); see `retrieval.parse.base` for the contract."""
    builder = TextBuilder(path, settings)
    try:
        book = json.loads(decode(path, path.read_bytes(), notes=builder.notes))
    except (ValueError, RecursionError) as error:
        raise refuse(path, "broken", f"it is not a notebook: {error}") from error
    cells = list(_cells(book))
    if not cells and not (isinstance(book, dict) and "cells" in book):
        raise refuse(path, "broken", "it is not a notebook: it has no cells")
    for cell in cells:
        kind, source = cell.get("cell_type"), _text(cell.get("source", cell.get("input", "")))
        if kind == "markdown":
            append_markdown(builder, source)
        elif kind == "heading":
            level = cell.get("level", 1)
            builder.heading(level if isinstance(level, int) else 1, source)
        elif kind == "code":
            builder.code(source)
            for output in _outputs(cell):
                builder.code(output)
        else:
            builder.paragraph(source)
    return builder.build()


def _cells(book: Any) -> Iterator[dict[str, Any]]:
    """Yield the cells; before nbformat 4 they stood in worksheets."""
    sheets = [book, *_list(book, "worksheets")]
    for sheet in sheets:
        yield from (cell for cell in _list(sheet, "cells") if isinstance(cell, dict))


def _list(holder: Any, name: str) -> list[Any]:
    value = holder.get(name) if isinstance(holder, dict) else None
    return value if isinstance(value, list) else []


def _outputs(cell: dict[str, Any]) -> Iterator[str]:
    """Yield what a cell printed or returned as text; pictures and tracebacks are left out."""
    for output in _list(cell, "outputs"):
        if isinstance(output, dict) and output.get("output_type") not in ("error", "pyerr"):
            data = output.get("data", output)
            plain = data.get("text/plain", data.get("text")) if isinstance(data, dict) else None
            yield _text(plain)[:_OUTPUT]


def _text(value: Any) -> str:
    """Return a multi-line string, which the format writes as a list of lines."""
    if isinstance(value, list):
        return "".join(part for part in value if isinstance(part, str))
    return value if isinstance(value, str) else ""
