"""Brings every source up to date."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.markup import escape

from assistant import terminal
from assistant.commands.base import err, keep, opened
from assistant.config import Settings
from retrieval.intake import KINDS

HELP = "bring every source up to date"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Once, or from now on."""
    parser.add_argument("--every", action="store_true", help="go on, each at its interval")


def run(options: argparse.Namespace, settings: Settings, out: Console) -> int:
    """Bring every source up to date once, or go on doing so; 1 where anything failed."""
    code = 0
    with opened(settings, watch=options.every) as (knowledge, scan):
        for root in knowledge.status().roots:
            if root.kind in (*KINDS, "files"):
                err.print(escape(root.root), soft_wrap=True, highlight=False)
                events = knowledge.sync(root.root)
                code |= terminal.conclude(terminal.show(events, err), out, err)
        if scan is not None:  # what was taken in before there were verdicts, or by another guard
            terminal.checking(scan.rest(), err)
        return keep(knowledge, out) if options.every else code
