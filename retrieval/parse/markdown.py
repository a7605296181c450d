"""Markdown with tables; what site generators add around it is taken off first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from retrieval.config import ParseSettings
from retrieval.parse._decode import decode
from retrieval.parse._footnotes import references, take_footnotes
from retrieval.parse._lines import join_lines
from retrieval.parse._markdown_source import clean, front_matter, is_mdx
from retrieval.parse.base import TextBuilder, scrub, tidy
from retrieval.parse.table import append_rows
from retrieval.parse.web import append_fragment
from retrieval.schema import BlockKind, Parsed

SUFFIXES: tuple[str, ...] = (".md", ".markdown", ".mdown", ".mkd", ".mdx", ".qmd")

_SOFT = "\x1e"
_BREAK_TAG = re.compile(r"<br\s*/?>", re.I)
_ANCHOR = re.compile(r"\s*\{\s*#[^{}]*\}\s*$")
_FOOTNOTE = re.compile(r"\[\^[^\]\s]+\]:?")
_TRAILING_STARS = re.compile(r"\s\*{1,2}$")
#: Stars left over: Markdown's word boundaries miss emphasis between Chinese characters.
_STARS = "\x1f"
_WIDE = "[\u3000-\u9fff\uff00-\uffef]"
_STRONG = re.compile(f"(?P<before>.?){_STARS}(?P<inner>[^{_STARS}]*){_STARS}(?P<after>.?)")
_WIDE_EDGE = re.compile(f"{_WIDE}$|^{_WIDE}")
_CELL_BREAK = re.compile(r"(?<!\\)\|")
_RULE = re.compile(r"^[\s|:-]*-[\s|:-]*$")
_PIPED = re.compile(r"^\s*\|.*\|\s*$")
_LEADING_MARK = re.compile(r"^\s*(?:\[[ xX]\]\s+|\[!\w+\][+-]?)")


def parse(path: Path, settings: ParseSettings) -> Parsed:
    """Read a Markdown file; see `retrieval.parse.base` for the contract."""
    builder = TextBuilder(path, settings)
    title, source = front_matter(scrub(decode(path, path.read_bytes(), notes=builder.notes)))
    append_markdown(builder, source)
    return builder.build(title)


def append_markdown(builder: TextBuilder, source: str) -> None:
    """Append Markdown that has no front matter."""
    source = scrub(source)
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    if is_mdx(source):
        reader.disable("code")
    text, notes = take_footnotes(clean(source))
    footnotes = {label: reader.parse(note) for label, note in notes.items()}
    _Walker(builder, footnotes).run(reader.parse(text))


def _inline(tokens: Sequence[Token]) -> str:
    """Return the text of inline tokens; soft breaks and stray ** are marks for `_settle`."""
    pieces: list[str] = []
    for token in tokens:
        if token.type == "text":
            pieces.append(_FOOTNOTE.sub("", token.content).replace("**", _STARS))
        elif token.type == "code_inline":
            pieces.append(token.content.replace("&#124;", "|"))
        elif token.type == "softbreak":
            pieces.append(_SOFT)
        elif token.type == "hardbreak" or (
            token.type == "html_inline" and _BREAK_TAG.match(token.content)
        ):
            pieces.append("\n")
        elif token.type == "image":
            pieces.append(_inline(token.children or ()))
    return "".join(pieces)


def _cells(line: str) -> list[str]:
    """Return the cells of a table's row that Markdown did not read as one."""
    return [_settle(cell) for cell in _CELL_BREAK.split(line.strip().strip("|"))]


def _strong(found: re.Match[str]) -> str:
    """Drop a pair of stars that has a Chinese character at one of its edges."""
    before, inner, after = found.group("before", "inner", "after")
    if _WIDE_EDGE.search(before + inner) or _WIDE_EDGE.search(inner + after):
        return before + inner + after
    return found.group()


def _settle(text: str) -> str:
    text = _STRONG.sub(_strong, text).replace(_STARS, "**")
    lines = text.split("\n")
    return "\n".join(join_lines(tidy(part) for part in line.split(_SOFT)) for line in lines)


class _Walker:
    """Turns the flat token list into headings and blocks.

    A footnote is read right behind the block that cites it first; its number is not text, because
    in an answer it would look like a citation.
    """

    def __init__(self, builder: TextBuilder, footnotes: dict[str, list[Token]]) -> None:
        self._builder = builder
        self._footnotes = footnotes
        self._cited: list[str] = []
        self._level = 0
        self._quotes = 0
        self._lists: list[int | None] = []
        self._marker: str | None = None
        self._cells: list[str] | None = None
        self._table: list[list[str]] = []

    def run(self, tokens: Sequence[Token]) -> None:
        """Append all of `tokens`."""
        for token in tokens:
            if token.type == "inline":
                self._inline_block(token)
            elif token.type in ("fence", "code_block"):
                self._builder.code(token.content)
            elif token.type == "html_block":
                append_fragment(self._builder, token.content)
            elif token.type == "heading_open":
                self._level = int(token.tag[1])
            elif token.type == "heading_close":
                self._level = 0
            elif token.type.startswith(("table_", "tr_")):
                self._row(token)
            else:
                self._nest(token)
            if self._cited and token.type in ("inline", "table_close") and self._cells is None:
                self._notes()

    def _notes(self) -> None:
        """Append the notes cited by what was just appended; `pop`, because a note may cite."""
        cited, self._cited = self._cited, []
        for label in cited:
            self.run(self._footnotes.pop(label, ()))

    def _row(self, token: Token) -> None:
        if token.type == "tr_open":
            self._table.append([])
            self._cells = self._table[-1]
        elif token.type == "table_close":
            append_rows(self._builder, self._table[0], self._table[1:])
            self._table, self._cells = [], None

    def _inline_block(self, token: Token) -> None:
        children = token.children or ()
        if self._footnotes:
            self._cited += references(" ".join(c.content for c in children if c.type == "text"))
        raw = _inline(children)
        lines = raw.split(_SOFT)
        ruled = any("|" in line and _RULE.match(line) for line in lines)
        if self._cells is None and len(lines) > 1 and ruled:
            self._damaged_table(lines)
        elif self._cells is None and all(map(_PIPED.match, lines)):
            append_rows(self._builder, (), map(_cells, lines))
        else:
            self._text(_settle(raw))

    def _damaged_table(self, lines: list[str]) -> None:
        """Append a table whose rule does not fit its header, and the prose around it."""
        rules = (i for i, line in enumerate(lines) if "|" in line and _RULE.match(line))
        rule = next(rules)
        first = rule - 1 if rule and "|" in lines[rule - 1] else rule
        last = rule + 1
        while last < len(lines) and "|" in lines[last]:
            last += 1
        self._text(_settle(_SOFT.join(lines[:first])))
        rows = [_cells(line) for line in lines[rule + 1 : last] if not _RULE.match(line)]
        append_rows(self._builder, _cells(lines[first]) if first < rule else (), rows)
        self._text(_settle(_SOFT.join(lines[last:])))

    def _nest(self, token: Token) -> None:
        if token.type in ("blockquote_open", "blockquote_close"):
            self._quotes += token.nesting
        elif token.type == "bullet_list_open":
            self._lists.append(None)
        elif token.type == "ordered_list_open":
            self._lists.append(int(token.attrs.get("start", 1)))
        elif token.type in ("bullet_list_close", "ordered_list_close"):
            self._lists.pop()
        elif token.type == "list_item_open":
            number = self._lists[-1]
            self._marker = "" if number is None else f"{number}."
            if number is not None:
                self._lists[-1] = number + 1
        elif token.type == "list_item_close":
            self._marker = None

    def _text(self, text: str) -> None:
        if self._cells is not None:
            self._cells.append(text)
        elif not text:
            return
        elif self._level:
            self._builder.heading(self._level, _TRAILING_STARS.sub("", _ANCHOR.sub("", text)))
        elif self._marker is not None:
            self._builder.list_item(_LEADING_MARK.sub("", text), self._marker)
            self._marker = None
        else:
            kind: BlockKind = "quote" if self._quotes else "paragraph"
            self._builder.paragraph(_LEADING_MARK.sub("", text), kind)
