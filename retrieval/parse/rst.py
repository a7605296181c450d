"""reStructuredText, with everything off that reads files or passes raw text through.

Sphinx is where most of it is written, so Sphinx's roles and directives are read as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.core import publish_doctree
from docutils.parsers.rst import Directive, directives
from docutils.parsers.rst.languages import en

from retrieval.config import ParseSettings
from retrieval.parse._decode import decode
from retrieval.parse._grid import Cell, append_grid
from retrieval.parse._lines import join_lines
from retrieval.parse.base import TextBuilder, scrub
from retrieval.parse.table import record
from retrieval.schema import BlockKind, Parsed

SUFFIXES: tuple[str, ...] = (".rst", ".rest")

_SETTINGS = {
    "file_insertion_enabled": False,
    "raw_enabled": False,
    "_disable_config": True,
    "report_level": 5,
    "halt_level": 5,
    "warning_stream": False,
    "input_encoding": "unicode",
    "line_length_limit": 2**31,
    "syntax_highlight": "none",
    "smart_quotes": False,
    "doctitle_xform": False,
    "docinfo_xform": False,
}
_OWN_ROLES = frozenset(
    ["emphasis", "strong", "code", "literal", "math", "subscript", "superscript", "sub", "sup"]
)
_ROLE = re.compile(r":(?P<role>[A-Za-z][\w:+.-]*):`(?P<text>[^`]+)`")
_TITLE_TARGET = re.compile(r"^(?P<title>.+?)\s*<[^<>]+>$", re.S)
_DIRECTIVE = re.compile(r"^\s*\.\.\s+(?:\|[^|]+\|\s+)?(?P<name>[A-Za-z][\w:+.-]*)::", re.M)
_SILENT = re.compile(
    r"toctree|index|highlight|(?:py:)?(?:current)?module|auto\w+|literalinclude|include|raw|"
    r"contents|meta|tabularcolumns|sectionauthor|codeauthor|graphviz|digraph|graph|"
    r"default-domain|role|title|inheritance-diagram|bibliography|plot|sectnum|target-notes"
)
#: Read as they stand; docutils' own versions refuse the options that Sphinx adds.
_CODE = re.compile(
    r"code(?:-block)?|sourcecode|math|(?:test|ipython|prompt|doctest|console|terminal|shell)[\w-]*"
)
#: The argument is a condition or a layout, not text.
_UNNAMED = re.compile(r"only|ifconfig|tabs|tab-set|grid[\w-]*|hlist|rst-class|cssclass|cond")
_OPTION = re.compile(r"^\s*:[\w-]+:")
_SKIPPED = (
    nodes.comment,
    nodes.target,
    nodes.substitution_definition,
    nodes.system_message,
    nodes.pending,
    nodes.raw,
    nodes.label,
    nodes.footnote_reference,
    nodes.citation_reference,
    nodes.meta,
    nodes.docinfo,
)


class _Transparent(Directive):
    """A directive that is not docutils' own: its argument and its content are text."""

    optional_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec: ClassVar[Any] = None

    def run(self) -> list[Any]:
        """Give the argument as a paragraph, then the content, parsed."""
        if _SILENT.fullmatch(self.name):
            return []
        options = 0
        while options < len(self.content) and _OPTION.match(self.content[options]):
            options += 1
        body = self.content[options:]
        if _CODE.fullmatch(self.name):
            formula = self.arguments if self.name == "math" else []
            return [nodes.literal_block("", "\n".join([*formula, *body]))]
        holder = nodes.container()
        if self.arguments and not _UNNAMED.fullmatch(self.name):
            lines = [line for line in self.arguments[0].split("\n") if not _OPTION.match(line)]
            holder += nodes.paragraph("", "\n".join(lines))
        if body:
            self.state.nested_parse(body, self.content_offset + options, holder)
        return [holder]


def parse(path: Path, settings: ParseSettings) -> Parsed:
    """Read a reStructuredText file; see `retrieval.parse.base` for the contract."""
    builder = TextBuilder(path, settings)
    source = scrub(decode(path, path.read_bytes(), notes=builder.notes))
    for found in _DIRECTIVE.finditer(source):
        name = found.group("name").lower()
        if name not in en.directives or _SILENT.fullmatch(name) or _CODE.fullmatch(name):
            directives.register_directive(name, _Transparent)
    tree = publish_doctree(_ROLE.sub(_plain, source), settings_overrides=_SETTINGS)
    _Walker(builder).children(tree)
    return builder.build()


def _plain(found: re.Match[str]) -> str:
    """Return the text of a role: its title without the target, a name without its package."""
    if found.group("role") in _OWN_ROLES:
        return found.group()
    text = found.group("text")
    if titled := _TITLE_TARGET.match(text):
        return titled.group("title")
    if text.startswith("~"):
        text = text.rsplit(".", 1)[-1]
    # Escaped, because the text of a role is not markup again.
    return re.sub(r"([*`|_\\])", r"\\\1", text.lstrip("~!"))


def _inline(node: Any) -> Iterator[str]:
    """Yield the text of inline nodes; an image gives its description."""
    for child in node.children:
        if isinstance(child, nodes.Text):
            yield child.astext()
        elif isinstance(child, nodes.image):
            yield child.get("alt", "")
        elif not isinstance(child, _SKIPPED):
            yield from _inline(child)


def _text(node: Any) -> str:
    return join_lines(line.strip() for line in "".join(_inline(node)).split("\n"))


class _Walker:
    """Goes through the document tree in reading order."""

    def __init__(self, builder: TextBuilder) -> None:
        self._builder = builder
        self._level = 0
        self._marker: str | None = None
        self._kinds: list[BlockKind] = ["paragraph"]
        self._said: set[str] = set()

    def children(self, node: Any) -> None:
        """Append everything readable below `node`."""
        for child in node.children:
            if not isinstance(child, _SKIPPED):
                self._one(child)

    def _one(self, node: Any) -> None:
        if isinstance(node, nodes.section):
            self._level += 1
            self.children(node)
            self._level -= 1
        elif isinstance(node, nodes.title) and isinstance(node.parent, nodes.section):
            self._builder.heading(self._level, _text(node))
        elif isinstance(node, nodes.literal_block | nodes.doctest_block | nodes.math_block):
            self._builder.code(node.astext())
        elif isinstance(node, nodes.bullet_list | nodes.enumerated_list):
            self._list(node)
        elif isinstance(node, nodes.table):
            self._table(node)
        elif isinstance(node, nodes.definition_list_item):
            self._definition(node)
        elif not self._is_said(node):
            self._other(node)

    def _other(self, node: Any) -> None:
        if isinstance(node, nodes.field):
            name, body = (_text(child) for child in (node[0], node[1]))
            self._builder.list_item(f"{name}: {body or self._cell(node[1])}")
        elif isinstance(node, nodes.block_quote):
            self._kinds.append("quote")
            self.children(node)
            self._kinds.pop()
        elif isinstance(node, nodes.line_block):
            self._prose("\n".join(_text(line) for line in node.findall(nodes.line)))
        elif isinstance(node, nodes.TextElement):
            self._prose(_text(node))
            self._notes(node)
        elif isinstance(node, nodes.image):
            self._prose(node.get("alt", ""))
        else:
            self.children(node)

    def _table(self, node: Any) -> None:
        for title in node.findall(nodes.title):
            self._builder.paragraph(_text(title))
        append_grid(
            self._builder,
            (
                [
                    Cell(
                        self._cell(entry),
                        entry.get("morecols", 0) + 1,
                        entry.get("morerows", 0) + 1,
                        isinstance(row.parent, nodes.thead),
                    )
                    for entry in row.children
                ]
                for row in node.findall(nodes.row)
            ),
        )

    def _definition(self, node: Any) -> None:
        """Append a term with its definition, in one item where it is one paragraph."""
        terms = [_text(child) for child in node.children if not isinstance(child, nodes.definition)]
        bodies = [child for child in node.children if isinstance(child, nodes.definition)]
        blocks = [block for body in bodies for block in body.children]
        if len(blocks) == 1 and isinstance(blocks[0], nodes.paragraph):
            self._builder.list_item(record([(" : ".join(terms), _text(blocks[0]))]))
            self._notes(blocks[0])
        else:
            self._builder.paragraph(" : ".join(terms))
            for body in bodies:
                self.children(body)

    def _is_said(self, node: Any) -> bool:
        """Whether a footnote stood behind its sentence already."""
        note = isinstance(node, nodes.footnote | nodes.citation)
        return note and not self._said.isdisjoint(node["ids"])

    def _notes(self, node: Any) -> None:
        """Append the footnotes that `node` cites for the first time."""
        for kind in (nodes.footnote_reference, nodes.citation_reference):
            for reference in node.findall(kind):
                name = reference.get("refid", "")
                note = node.document.ids.get(name) if node.document is not None else None
                if isinstance(note, nodes.footnote | nodes.citation) and name not in self._said:
                    self._said.add(name)
                    self.children(note)

    def _prose(self, text: str) -> None:
        if text and self._marker is not None:
            self._builder.list_item(text, self._marker)
            self._marker = None
        else:
            self._builder.paragraph(text, self._kinds[-1])

    def _list(self, node: Any) -> None:
        ordered = isinstance(node, nodes.enumerated_list)
        for number, item in enumerate(node.children, start=node.get("start", 1)):
            self._marker = f"{number}." if ordered else ""
            self.children(item)
        self._marker = None

    def _cell(self, node: Any) -> str:
        """Return all text of a table cell or a field, its paragraphs as lines."""
        found = (_text(child) for child in node.findall(nodes.TextElement))
        return "\n".join(found)
