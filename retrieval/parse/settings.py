"""Configuration files: every value beside its full name and what the comments say of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from retrieval.config import ParseSettings
from retrieval.parse._decode import decode
from retrieval.parse.base import TextBuilder, one_line, scrub
from retrieval.parse.table import record
from retrieval.schema import Parsed

SUFFIXES: tuple[str, ...] = (".yaml", ".yml", ".toml", ".ini", ".cfg", ".properties")

#: Deeper than this, or with more values than this, a file is no configuration.
_DEPTH, _VALUES = 24, 100_000
_SECTION = re.compile(r"^\s*\[{1,2}\s*(?P<name>[^\[\]]+?)\s*\]{1,2}\s*(?:[#;].*)?$")
_PAIR = re.compile(r"^\s*(?P<name>[^\s=:#;\[][^=:]*?)\s*[=:]\s*(?P<value>.*)$")
_COMMENT = re.compile(r"^\s*[#;]+[ \t]?(?P<text>.*)$")
_TRAILING = re.compile(r"\s#\s?(?P<text>[^'\"]*)$")


def parse(path: Path, settings: ParseSettings) -> Parsed:
    """Read a configuration file; see `retrieval.parse.base` for the contract."""
    builder = TextBuilder(path, settings)
    text = scrub(decode(path, path.read_bytes(), notes=builder.notes))
    if path.suffix.lower() in (".yaml", ".yml"):
        try:
            for document in yaml.compose_all(text, Loader=yaml.SafeLoader):
                _Walker(builder, text.split("\n")).walk(document, "", 0)
        except (yaml.YAMLError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            where = f" at line {mark.line + 1}" if mark is not None else ""
            builder.notes.append(f"not YAML{where}; kept as plain lines")
            builder = _plain(path, settings, text, builder.notes)
    else:
        _append_lines(builder, text.split("\n"), path.suffix.lower() == ".toml")
    return builder.build()


def _plain(path: Path, settings: ParseSettings, text: str, notes: list[str]) -> TextBuilder:
    """Return a builder that holds the file as it stands: a template, most likely."""
    builder = TextBuilder(path, settings)
    builder.notes += notes
    builder.code(text)
    return builder


class _Walker:
    """Goes through a YAML document, looking up comments by line."""

    def __init__(self, builder: TextBuilder, lines: list[str]) -> None:
        self._builder = builder
        self._lines = lines
        self._left = _VALUES

    def walk(self, node: Any, name: str, depth: int) -> None:
        """Append all values below `node`, whose full name is `name`."""
        self._left -= 1
        if node is None or self._left < 0 or depth > _DEPTH:
            return
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):  # {{ a template }} reads as a mapping
                    raise yaml.MarkedYAMLError(problem_mark=key.start_mark)
                inner = one_line(key.value)
                if not depth and not isinstance(value, yaml.ScalarNode):
                    self._builder.heading(1, inner)
                    self._builder.paragraph(_above(self._lines, key.start_mark.line))
                self._pair(key, value, f"{name}.{inner}" if name else inner, depth)
        elif isinstance(node, yaml.SequenceNode):
            plain = [one.value for one in node.value if isinstance(one, yaml.ScalarNode)]
            if len(plain) == len(node.value):
                self._builder.row([record([(name, ", ".join(map(one_line, plain)))])])
                return
            for index, value in enumerate(node.value):
                self.walk(value, f"{name}[{index}]", depth + 1)
        else:
            self._builder.row([record([(name, one_line(node.value))])])

    def _pair(self, key: Any, value: Any, name: str, depth: int) -> None:
        if not isinstance(value, yaml.ScalarNode):
            self.walk(value, name, depth + 1)
        elif value.style in ("|", ">") and "\n" in value.value.strip():
            self._builder.paragraph(f"{name}:")
            self._builder.code(value.value)
        else:
            line = key.start_mark.line
            trailing = _TRAILING.search(self._lines[line]) if line < len(self._lines) else None
            said = [_above(self._lines, line), trailing.group("text") if trailing else ""]
            pairs = [(name, one_line(value.value) or '""'), ("", one_line("\n".join(said)))]
            self._builder.row([record(pairs)])


def _above(lines: list[str], line: int) -> str:
    """Return the comment that stands directly above a line."""
    found: list[str] = []
    while line and (comment := _COMMENT.match(lines[line - 1])):
        found.insert(0, comment.group("text"))
        line -= 1
    return "\n".join(found)


def _append_lines(builder: TextBuilder, lines: list[str], toml: bool) -> None:
    """Append TOML, INI and properties; a value over several lines is joined to its name."""
    section = ""
    comments: list[str] = []
    for line in _logical(lines, toml):
        if found := _COMMENT.match(line):
            comments.append(found.group("text"))
            continue
        if head := _SECTION.match(line):
            section = head.group("name")
            builder.heading(1, section)
            builder.paragraph("\n".join(comments))
        elif pair := _PAIR.match(line):
            value, said = pair.group("value"), one_line("\n".join(comments))
            if trailing := _TRAILING.search(value):
                value = value[: trailing.start()]
                said = f"{said} {trailing.group('text')}".strip()
            name = f"{section}.{pair.group('name')}" if section else pair.group("name")
            builder.row([record([(name, one_line(value) or '""'), ("", said)])])
        else:
            builder.paragraph("\n".join([*comments, line]))
        comments = []
    builder.paragraph("\n".join(comments))


def _logical(lines: list[str], toml: bool) -> Iterator[str]:
    """Yield lines with those that go on (open brackets, a backslash) joined."""
    held = ""
    for line in lines:
        if held:
            line = f"{held} {line.strip()}"
        elif _COMMENT.match(line) or _SECTION.match(line):
            yield line
            continue
        opened = toml and line.count("[") + line.count("{") > line.count("]") + line.count("}")
        quoted = toml and (line.count('"""') % 2 or line.count("'''") % 2)
        if (opened or quoted or line.endswith("\\")) and len(line) < 20_000:
            held = line.removesuffix("\\")
            continue
        held = ""
        if line.strip():
            yield line
    if held:
        yield held
