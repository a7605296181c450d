"""Takes in files, folders and URLs."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from assistant import terminal
from assistant.commands.base import err, keep, opened
from assistant.config import Settings
from retrieval.intake import KINDS

HELP = "take in files, folders and URLs, or bring them up to date"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What is taken in, for whom, and how often it is looked at again."""
    parser.add_argument("addresses", nargs="+", metavar="PATH|URL")
    parser.add_argument("--watch", action="store_true", help="go on taking in every change")
    said = "how a URL is read (by its looks)"
    parser.add_argument("--kind", default="", choices=KINDS, help=said)
    parser.add_argument("--readers", metavar="A,B", help="who may see it; empty = everybody")
    parser.add_argument("--every", type=float, metavar="MINUTES", help="check it this often")


def run(options: argparse.Namespace, settings: Settings, out: Console) -> int:
    """Take in sources with a progress bar; 1 where any document failed, empty ones aside."""
    given = options.addresses
    addresses = [a if "://" in a or options.kind else Path(a) for a in given]
    readers = None if options.readers is None else [r for r in options.readers.split(",") if r]
    with opened(settings, watch=options.watch) as (knowledge, _):
        events = knowledge.ingest(
            addresses, kind=options.kind, readers=readers, every=options.every
        )
        code = terminal.conclude(terminal.show(events, err), out, err)
        return keep(knowledge, out) if options.watch else code
