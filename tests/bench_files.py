"""Small files for the tests of benchmarks, and the line that a benchmark ends with."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as .jsonl.gz; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return the object of the last line printed."""
    found: dict[str, Any] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    return found
