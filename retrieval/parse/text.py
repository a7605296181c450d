"""Plain text: paragraphs between blank lines, hard wrapping undone; a log line by line."""

from __future__ import annotations

from pathlib import Path

from retrieval.config import ParseSettings
from retrieval.parse._decode import decode
from retrieval.parse._lines import starts_item, unwrap
from retrieval.parse.base import TextBuilder, scrub, tidy
from retrieval.schema import Parsed

SUFFIXES: tuple[str, ...] = (".txt", ".text", ".log")


def parse(path: Path, settings: ParseSettings) -> Parsed:
    """Read a text file; see `retrieval.parse.base` for the contract."""
    builder = TextBuilder(path, settings)
    text = scrub(decode(path, path.read_bytes(), notes=builder.notes))
    if path.suffix.lower() == ".log":
        for line in text.split("\n"):
            builder.line(line)
    else:
        append_paragraphs(builder, text)
    return builder.build()


def append_paragraphs(builder: TextBuilder, text: str) -> None:
    """Append `text`, cut at blank lines; lines that open with a bullet are list items."""
    group: list[str] = []
    for raw in [*text.split("\n"), ""]:
        line = tidy(raw)
        if line:
            group.append(line)
            continue
        for index, whole in enumerate(unwrap(group)):
            if starts_item(whole):
                builder.list_item(whole)
            elif index:
                builder.line(whole)
            else:
                builder.paragraph(whole)
        group = []
