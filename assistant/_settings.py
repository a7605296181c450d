"""Settings as plain values: read from a file, laid over each other, set by a dotted key."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assistant.errors import ConfigError


def read(path: Path) -> dict[str, Any]:
    """The values of a TOML file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read settings from {path}: {error}") from error


def merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Lay values over others, table by table."""
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def put(values: dict[str, Any], dotted: str, value: str) -> None:
    """Set one value by its dotted key, as the command line writes it.

    Raises:
        ConfigError: there is no such key.
    """
    *path, last = dotted.split(".")
    for name in path:
        below = values.get(name)
        if not isinstance(below, dict):
            raise ConfigError(f"no setting {dotted!r}{nearest(name, values)}")
        values = below
    if last not in values:
        raise ConfigError(f"no setting {dotted!r}{nearest(last, values)}")
    listed = isinstance(values[last], tuple)  # written a,b or ["a", "b"]
    values[last] = re.findall(r"[^\s,\[\]\"']+", value) if listed else value


def nearest(name: str, known: Mapping[str, Any]) -> str:
    """What to say of a name that is not known: the nearest one, or all."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(known)}"
