"""Footnotes of Markdown: taken out of the source, so that each can be read where it is cited."""

from __future__ import annotations

import re
from collections.abc import Iterator

_FENCE = re.compile(r"^[ \t>]*(?:(?:[-*+]|\d+[.)])\s+)*(?P<marks>`{3,}|~{3,})")
_DEFINITION = re.compile(r"^ {0,3}\[\^(?P<label>[^\]\s]+)\]:[ \t]*(?P<body>.*)$")
_DEFINITION_START = re.compile(r"^ {0,3}\[\^[^\]\s]+\]:", re.M)
_REFERENCE = re.compile(r"\[\^(?P<label>[^\]\s]+)\]")


def take_footnotes(source: str) -> tuple[str, dict[str, str]]:
    """Return `source` without the footnotes that are cited in it, and those by their label.

    A footnote that nothing cites stays where it stands.
    """
    cited = set(references(_DEFINITION_START.sub("", source)))
    kept: list[str] = []
    notes: dict[str, list[str]] = {}
    fence, note = "", None
    for line in source.split("\n"):
        mark = _FENCE.match(line)
        found = None if fence else _DEFINITION.match(line)
        if mark and note is None:
            marks = mark.group("marks")
            fence = "" if fence and marks.startswith(fence) else fence or marks
        if found and found.group("label") in cited:
            note = notes.setdefault(found.group("label"), [])
            note.append(found.group("body"))
        elif note is not None and (line.startswith(("    ", "\t")) or _goes_on(line, note)):
            note.append(line.removeprefix("\t").removeprefix("    "))
        else:
            note = None
            kept.append(line)
    return "\n".join(kept), {label: "\n".join(body).strip() for label, body in notes.items()}


def _goes_on(line: str, note: list[str]) -> bool:
    """Whether an unindented line belongs to the note: a blank one, or a wrapped sentence."""
    if not line.strip():
        return True
    return bool(note[-1].strip()) and not re.match(r"[#>|`~\[-]|\d+[.)]\s|[*+]\s", line)


def references(text: str) -> Iterator[str]:
    """Yield the labels that `text` cites, in order."""
    for found in _REFERENCE.finditer(text):
        yield found.group("label")
