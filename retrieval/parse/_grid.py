"""Tables with merged cells: where each cell stands, and what its column is called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from retrieval.parse.base import TextBuilder, one_line
from retrieval.parse.table import append_rows, is_header

#: What a cell may claim to span; more is a lie, or layout.
_WIDEST, _TALLEST = 200, 10_000
#: Columns beyond which nothing spans: what repeats there is an attack.
_MOST = 1_000


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell as written: how many columns and rows it spans, and whether it names others."""

    text: str
    columns: int = 1
    rows: int = 1
    header: bool = False


def append_grid(builder: TextBuilder, rows: Iterable[Sequence[Cell]]) -> None:
    """Append a table: the leading rows of names become the names of the columns.

    A cell over several rows is said in each of them; one over several columns once, under the
    name of the first. A row of one cell over all columns titles the rows below it.
    """
    placed = [row for row in _placed(rows) if any(cell.text for cell in row.values())]
    width = max((max(row) + 1 for row in placed), default=0)
    depth = 0
    while depth < len(placed) and _names(placed[depth]):
        depth += 1
    if depth == len(placed) > 1:  # everything is marked as a name: only the first row is one
        depth = 1
    if not depth and width > 2 and len(placed) > 2:
        depth = _guessed(placed, width)
    header = [_name(placed[:depth], column) for column in range(width)]
    group: list[list[str]] = []
    for row in placed[depth:]:
        cells = {id(cell): cell for cell in row.values()}
        if width > 1 and len(cells) == 1 and len(row) == width:
            append_rows(builder, header if group else (), group)
            append_rows(builder, (), [[cell.text for cell in cells.values()]])
            group = []
        else:
            group.append(_texts(row, width))
    append_rows(builder, header if group or depth == len(placed) else (), group)


def _guessed(rows: Sequence[dict[int, Cell]], width: int) -> int:
    """Return how many rows look like names of columns: one, or two that span one another."""
    first, second = (_texts(row, width) for row in rows[:2])
    spanning = any(1 < cell.columns < width for cell in rows[0].values())
    if spanning and is_header(second, _texts(rows[2], width)):
        return 2
    return int(is_header(first, second))


def _names(row: dict[int, Cell]) -> bool:
    """Whether a row holds only names; an empty corner does not count against it."""
    return any(c.header for c in row.values()) and all(c.header or not c.text for c in row.values())


def _name(rows: Sequence[dict[int, Cell]], column: int) -> str:
    """Return a column's name: those of all header rows above it, each once."""
    found = dict.fromkeys(row[column].text for row in rows if column in row and row[column].text)
    return " ".join(found)


def _texts(row: dict[int, Cell], width: int) -> list[str]:
    """Return a row's texts by column; what spans columns is said once."""
    texts, before = [], None
    for column in range(width):
        cell = row.get(column)
        texts.append("" if cell is None or cell is before else cell.text)
        before = cell
    return texts


def _placed(rows: Iterable[Sequence[Cell]]) -> Iterator[dict[int, Cell]]:
    """Yield each row's cells by column, cells from the rows above reaching down included."""
    hanging: dict[int, tuple[Cell, int]] = {}
    for row in rows:
        placed = {column: cell for column, (cell, _) in hanging.items()}
        hanging = {c: (cell, left - 1) for c, (cell, left) in hanging.items() if left > 1}
        column = 0
        for cell in row:
            cell = Cell(one_line(cell.text), cell.columns, cell.rows, cell.header)
            while column in placed:
                column += 1
            spanned = min(max(1, cell.columns), _WIDEST) if column < _MOST else 1
            for _ in range(spanned):
                if column in placed:
                    break
                placed[column] = cell
                if cell.rows > 1:
                    hanging[column] = (cell, min(cell.rows, _TALLEST) - 1)
                column += 1
        yield placed
