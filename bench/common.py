"""What the benchmarks share: a throw-away home, intervals, the table and the JSON line."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="plumbline-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def settable(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark `--set KEY=VALUE`, as often as it is wanted; `assigned` reads it."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting")


def assigned(options: argparse.Namespace) -> dict[str, str]:
    """Every `--set`, the last of a key.

    Raises:
        SystemExit: one has no value.
    """
    wrong = [pair for pair in options.set if "=" not in pair]
    if wrong:
        raise SystemExit(f"--set {wrong[0]}: no value; write KEY=VALUE")
    return dict(pair.split("=", 1) for pair in options.set)


def interval(hits: Sequence[bool], rounds: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of a rate (Efron 1979); (nan, nan) of nothing."""
    if not hits:
        return float("nan"), float("nan")
    values = np.asarray(hits, dtype=float)
    draws = np.random.default_rng(seed).integers(0, len(values), (rounds, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def rate(hits: Sequence[bool]) -> float | None:
    """Share of True, rounded to four digits; None of nothing."""
    return round(sum(hits) / len(hits), 4) if hits else None


def report(title: str, rows: Sequence[Sequence[str]], values: Mapping[str, object]) -> None:
    """Print a table of (what, value, note) rows and the JSON line."""
    table = Table("what", "value", "note", title=title)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    print(json.dumps(values, ensure_ascii=False))
