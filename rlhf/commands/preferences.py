"""Says what the preference log holds for training, and whether it is enough."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.markup import escape

from assistant.config import Settings
from rlhf.commands.base import preferences
from rlhf.survey import lines, survey

HELP = "say what was collected, and whether it is enough"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing is asked."""


def run(options: argparse.Namespace, settings: Settings, out: Console) -> int:
    """Print a sentence a line."""
    log = preferences(settings)
    try:
        found = survey(log)
    finally:
        log.close()
    for line in lines(found):
        out.print(escape(line), highlight=False, soft_wrap=True)
    return 0
