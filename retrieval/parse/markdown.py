"""Markdown with tables; what site generators add around it is taken off first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from retrieval.config import ParseSettings
from retrieval.parse._decode import decode
from retrieval.parse._lines import join_lines
from retrieval.parse._markdown_source import clean, front_matter, is_mdx
from retrieval.parse.base import TextBuilder, scrub, tidy
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
_RULE = re.compile(r"^[\s|:-]*$")
_LEADING_MARK = re.compile(r"^\s*(?:\[[ xX]\]\s+|\[!\w+\][+-]?)")


def parse(path: Path, settings: ParseSettings) -> Parsed:
    """Read a Markdown file; see `retrieval.parse.base` for the contract."""
    title, source = front_matter(scrub(decode(path, path.read_bytes())))
    builder = TextBuilder(path, settings)
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    if is_mdx(source):
        reader.disable("code")
    _Walker(builder).run(reader.parse(clean(source)))
    return builder.build(title)


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
    """Turns the flat token list into headings and blocks."""

    def __init__(self, builder: TextBuilder) -> None:
        self._builder = builder
        self._level = 0
        self._quotes = 0
        self._lists: list[int | None] = []
        self._marker: str | None = None
        self._cells: list[str] | None = None

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
            else:
                self._nest(token)

    def _inline_block(self, token: Token) -> None:
        raw = _inline(token.children or ())
        lines = raw.split(_SOFT)
        if len(lines) > 1 and all(line.lstrip().startswith("|") for line in lines):
            for line in lines:  # a table whose rule is damaged
                if not _RULE.match(line):
                    self._builder.row(_CELL_BREAK.split(line.strip().strip("|")))
        else:
            self._text(_settle(raw))

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
        elif token.type == "tr_open":
            self._cells = []
        elif token.type == "tr_close":
            self._builder.row(self._cells or ())
            self._cells = None

    def _text(self, text: str) -> None:
        if self._cells is not None:
            self._cells.append(text)
        elif self._level:
            self._builder.heading(self._level, _TRAILING_STARS.sub("", _ANCHOR.sub("", text)))
        elif self._marker is not None:
            self._builder.list_item(_LEADING_MARK.sub("", text), self._marker)
            self._marker = None
        else:
            kind: BlockKind = "quote" if self._quotes else "paragraph"
            self._builder.paragraph(_LEADING_MARK.sub("", text), kind)
