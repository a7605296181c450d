"""JSON and JSON Lines as text: one line a record, every value beside its name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from retrieval.config import ParseSettings
from retrieval.parse._decode import decode
from retrieval.parse.base import TextBuilder, one_line, refuse
from retrieval.parse.table import record
from retrieval.parse.text import append_paragraphs
from retrieval.schema import Parsed

SUFFIXES: tuple[str, ...] = (".json", ".jsonl", ".ndjson")

#: Deeper than this a value is written as it stands in the file.
_DEPTH = 12
#: Objects down to this depth get a heading of their own.
_HEADED = 3
#: A value longer than this, or of several lines, is prose and becomes paragraphs.
_PROSE = 240


def parse(path: Path, settings: ParseSettings) -> Parsed:
    """Read a JSON or JSON Lines file; see `retrieval.parse.base` for the contract."""
    builder = TextBuilder(path, settings)
    text = decode(path, path.read_bytes(), notes=builder.notes)
    title = path.stem
    if path.suffix.lower() == ".json":
        value = _load(path, text, "it")
        _append(builder, value, 1)
        title = _title(value) or title
    else:
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                _append_item(builder, _load(path, line, f"line {number}"))
    return builder.build(title)


def _title(value: Any) -> str:
    """Return what a document calls itself, "" when it does not."""
    named = value.get("title") if isinstance(value, dict) else None
    return named if isinstance(named, str) and len(named) <= _PROSE else ""


def _load(path: Path, text: str, where: str) -> Any:
    """Read one JSON value, numbers kept as they are written."""
    try:
        return json.loads(text, parse_int=str, parse_float=str)
    except RecursionError as error:
        raise refuse(path, "broken", f"{where} is nested too deeply") from error
    except ValueError as error:
        raise refuse(path, "broken", f"{where} is not JSON: {error}") from error


def _append(builder: TextBuilder, value: Any, level: int) -> None:
    """Append a value; an object's plain values come first, then a section for each of the rest."""
    if isinstance(value, list):
        for item in value:
            _append_item(builder, item)
    elif isinstance(value, dict) and level <= _HEADED:
        plain = {key: item for key, item in value.items() if not isinstance(item, dict | list)}
        for key, item in plain.items():
            _append_pairs(builder, [(key, _scalar(item))])
        for key, item in value.items():
            if key not in plain and item:
                builder.heading(level, key)
                _append(builder, item, level + 1)
    else:
        _append_item(builder, value)


def _append_item(builder: TextBuilder, item: Any) -> None:
    """Append one record of a list, or one plain value."""
    if isinstance(item, dict | list):
        _append_pairs(builder, list(_flat(item, "", 0)))
    else:
        builder.list_item(_scalar(item))


def _append_pairs(builder: TextBuilder, pairs: list[tuple[str, str]]) -> None:
    short = [(name, one_line(value)) for name, value in pairs if not _is_prose(value)]
    builder.row([record(short)])
    for _, value in pairs:
        if _is_prose(value):
            append_paragraphs(builder, value)


def _is_prose(value: str) -> bool:
    return len(value) > _PROSE or "\n" in value.strip()


def _flat(value: Any, name: str, depth: int) -> Iterator[tuple[str, str]]:
    """Yield every plain value below `value` with its path."""
    if depth >= _DEPTH and isinstance(value, dict | list):
        yield name, json.dumps(value, ensure_ascii=False)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else key, depth + 1)
    elif isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        yield name, ", ".join(filter(None, map(_scalar, value)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _flat(item, f"{name}[{index}]", depth + 1)
    else:
        yield name, _scalar(value)


def _scalar(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
