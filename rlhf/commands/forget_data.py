"""Takes an imported data set out of the preference log."""

from __future__ import annotations

import argparse

from rich.console import Console

from assistant.config import Settings
from rlhf.commands.base import preferences

HELP = "remove an imported data set from the preference log"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Which one."""
    parser.add_argument("dataset", metavar="NAME")


def run(options: argparse.Namespace, settings: Settings, out: Console) -> int:
    """Remove it; 1 where none was known under that name."""
    log = preferences(settings)
    try:
        removed = log.forget_dataset(options.dataset)
    finally:
        log.close()
    out.print(f"{removed} imported rows removed.")
    return 0 if removed else 1
