"""Makes a home of a backup."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from assistant.backup import check, restore
from assistant.config import Settings

HELP = "make a home of a backup, or only check it"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Where from."""
    parser.add_argument("source", type=Path, metavar="SRC", help="the folder that backup wrote")
    parser.add_argument("--check", action="store_true", help="only see that it is whole")


def run(options: argparse.Namespace, settings: Settings, out: Console) -> int:
    """Restore into the home, which must hold nothing yet."""
    if options.check:
        made, done = check(options.source), "whole"
    else:
        made, done = restore(options.source, settings.home), f"restored to {settings.home}"
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(made.created))
    said = f"The backup of {day} ({len(made.files)} files) is {done}."
    out.print(escape(said), soft_wrap=True, highlight=False)
    return 0
