"""Writes the preferences that may be used for training as JSON lines."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from assistant.config import Settings
from rlhf import exports
from rlhf.commands.base import preferences
from rlhf.preferences_people import SPLITS

HELP = "write the preferences that may be used for training"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What is written, and where."""
    parser.add_argument("what", choices=["preferences"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--format", default="preference", choices=exports.FORMATS)
    parser.add_argument("--plain", action="store_true", help="transcripts in place of messages")
    parser.add_argument("--split", choices=SPLITS, help="only the rows of one split")
    parser.add_argument(
        "--with",
        dest="datasets",
        action="append",
        default=[],
        metavar="DATASET",
        help="an imported data set beside users' own rows, repeatable",
    )


def run(options: argparse.Namespace, settings: Settings, out: Console) -> int:
    """Write the file, all or nothing; what is not users' own is said."""
    log = preferences(settings)
    try:
        lines = exports.export(
            log, options.format, options.split, plain=options.plain, datasets=options.datasets
        )
        written = exports.write(lines, options.file)
        known = log.datasets()
    finally:
        log.close()
    out.print(f"{written} lines written to {escape(str(options.file))}.", soft_wrap=True)
    for name in options.datasets:
        note = f"Not all of them are users' own: {name} is among them ({known[name][0]})."
        out.print(escape(note), soft_wrap=True)
    return 0
