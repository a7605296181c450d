"""A row that the guard's heads learn from: a text, a label a head, with unknown ones left out.

A source says something about some heads only: a tweet of a hate set is no evidence on privacy.
Heads that a source cannot have are 0 (a question of a shop's chat is no threat), heads it may
have but did not look at are unknown. `unsafe` says that a text should not be answered or said, for
sources without categories; `reply` belongs to answers behind their questions alone.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assistant.errors import ConfigError
from safety._language import language_of
from safety.moderator.classifier import HEADS, plain

UNKNOWN, NO, YES = -1, 0, 1


@dataclass(frozen=True, slots=True)
class Row:
    """One text. `labels` follows `HEADS`: 1, 0, or -1 where unknown."""

    text: str
    lang: str
    labels: tuple[int, ...]
    source: str
    group: str

    @property
    def plain(self) -> str:
        """The text as the models read it."""
        return plain(self.text)

    @property
    def held_out(self) -> bool:
        """Whether the row is for calibration, with all rows of its group."""
        digest = hashlib.sha256(self.group.encode()).hexdigest()
        return int(digest[:8], 16) / 2**32 < 0.12


def labels(yes: Iterable[str] = (), unknown: Iterable[str] = ()) -> tuple[int, ...]:
    """Labels of a text that has `yes`, may have `unknown`, and has nothing else."""
    yes, unknown = set(yes), {"reply", *unknown}
    return tuple(YES if h in yes else UNKNOWN if h in unknown else NO for h in HEADS)


def in_context(unsafe: bool) -> tuple[int, ...]:
    """Labels of an answer behind its question: whether it is one that should not be given."""
    return tuple((YES if unsafe else NO) if h == "reply" else UNKNOWN for h in HEADS)


def row_of(text: str, found: tuple[int, ...], source: str, group: str) -> Row:
    """A row in the language that the guard would take it for."""
    text = text.strip()
    return Row(text, language_of(text), found, source, str(group))


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a gzipped JSON-lines file.

    Raises:
        ConfigError: the file is missing or malformed.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
    except (OSError, EOFError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}; name the data folder") from error
