"""Writes the preferences that may be used for training as JSON lines."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from assistant.config import Settings
from rlhf import exports
from rlhf.commands.base import preferences

HELP = "write the preferences that may be used for training"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What is written, and where."""
    parser.add_argument("what", choices=["preferences"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--format", default="preference", choices=exports.FORMATS)


def run(options: argparse.Namespace, settings: Settings, out: Console) -> int:
    """Write the file, all or nothing."""
    log = preferences(settings)
    try:
        written = exports.write(exports.export(log, options.format), options.file)
    finally:
        log.close()
    out.print(f"{written} lines written to {escape(str(options.file))}.")
    return 0
