"""Copies everything of a home while it is in use."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from assistant.backup import back_up
from assistant.config import Settings

HELP = "copy all data into a new folder, also while a server runs"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Where to."""
    parser.add_argument("dest", type=Path, metavar="DEST", help="a folder that is not there yet")


def run(options: argparse.Namespace, settings: Settings, out: Console) -> int:
    """Make the copy, whole or not at all."""
    made = back_up(settings.home, options.dest)
    said = f"{len(made.files)} files, {made.size / 2**20:.1f} MiB, copied to {made.folder}."
    out.print(escape(said), soft_wrap=True, highlight=False)
    return 0
