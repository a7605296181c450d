"""Tables as text: CSV and TSV, and what spreadsheets share with them.

A row must be found and quoted on its own, far from its header. So a table with a header becomes
one line a row, each value beside its column's name; a table without one keeps its cells.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from retrieval.config import ParseSettings
from retrieval.parse._decode import decode
from retrieval.parse.base import TextBuilder, one_line, refuse
from retrieval.schema import Parsed

SUFFIXES: tuple[str, ...] = (".csv", ".tsv")

_DELIMITERS = ",;\t|，；^~"
_NUMBER = re.compile(r"[-+(]?[$¥€£]?\s*\d[\d.,:/ %-]*[)%]?")
_CHINESE = re.compile("[\u4e00-\u9fff]")
#: Excel's own first line, which only names the delimiter.
_TOLD = re.compile(r"\ufeff?\"?sep=(?P<mark>[^\n\"])\"?\r?\n", re.I)
_SAMPLE = 50
#: Rows above a table that may be its title.
_TITLES = 5


def parse(path: Path, settings: ParseSettings) -> Parsed:
    """Read a delimited file; see `retrieval.parse.base` for the contract."""
    builder = TextBuilder(path, settings)
    text = decode(path, path.read_bytes(), notes=builder.notes)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ""
    if told := _TOLD.match(text):
        text, delimiter = text[told.end() :], told.group("mark")
    delimiter = delimiter or _delimiter(text)
    csv.field_size_limit(max(settings.max_characters, 1))
    try:
        append_table(builder, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise refuse(path, "broken", f"not a table: {error}") from error
    return builder.build()


def append_table(builder: TextBuilder, rows: Iterable[Sequence[str]]) -> None:
    """Append a table's rows; the first one is used as the header when it looks like one.

    Rows of one cell above it are the table's title.
    """
    cleaned = ([one_line(cell) for cell in row] for row in rows)
    filled = (row for row in cleaned if any(row))
    start = list(islice(filled, _TITLES + 2))
    titles = next((i for i, row in enumerate(start) if sum(map(bool, row)) > 1), 0)
    for row in start[:titles]:
        builder.paragraph("".join(row))
    start = start[titles:]
    if len(start) > 1 and is_header(start[0], start[1]):
        append_rows(builder, start[0], chain(start[1:], filled))
    else:
        append_rows(builder, (), chain(start, filled))


def append_rows(builder: TextBuilder, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Append rows, each value beside its column's name; without names, the cells as they are.

    A header without rows is a row itself.
    """
    names = [one_line(name) for name in header]
    alone = any(names)
    for row in rows:
        alone = False
        if any(names):
            builder.row([record(_named(names, [one_line(cell) for cell in row]))])
        else:
            builder.row(row)
    if alone:
        builder.row(names)


def record(pairs: Iterable[tuple[str, str]]) -> str:
    """Write named values as one line; Chinese names take Chinese punctuation."""
    kept = [(name, value) for name, value in pairs if value]
    chinese = any(_CHINESE.search(name) for name, _ in kept)
    colon, semicolon = ("：", "；") if chinese else (": ", "; ")
    return semicolon.join(f"{name}{colon}{value}" if name else value for name, value in kept)


def _named(header: Sequence[str], row: Sequence[str]) -> Iterator[tuple[str, str]]:
    for index, value in enumerate(row):
        yield header[index] if index < len(header) else "", value


def is_header(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether a row names columns: several different short words, no numbers, few gaps."""
    names = [name for name in first if name]
    if len(names) < 2 or len(set(names)) < len(names) or len(names) * 2 < len(second):
        return False
    return all(len(name) <= 60 and not _NUMBER.fullmatch(name) for name in names)


def _delimiter(text: str) -> str:
    """Find the delimiter that cuts the first lines into the same number of cells."""
    lines = [line for line in islice(io.StringIO(text), _SAMPLE) if line.strip()]
    best, most = ",", 0
    for delimiter in _DELIMITERS:
        counts = [len(row) for row in csv.reader(lines, delimiter=delimiter)]
        usual = max(set(counts), key=counts.count) if counts else 0
        agreeing = counts.count(usual) if usual > 1 else 0
        if agreeing > most:
            best, most = delimiter, agreeing
    return best
