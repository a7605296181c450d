"""Removes a source or a document from the knowledge base."""

from __future__ import annotations

import argparse

from rich.console import Console

from assistant.config import Settings
from assistant.scan import swept_at
from retrieval.ledger import open_ledger

HELP = "remove a source or a document from the knowledge base"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What is removed."""
    parser.add_argument("name", metavar="PATH|URL")


def run(options: argparse.Namespace, settings: Settings, out: Console) -> int:
    """Remove it; 1 where nothing was known under that name."""
    with open_ledger(settings.home, settings.retrieval) as ledger:
        removed = ledger.forget(options.name)
        swept_at(settings.home, ledger.store)
    out.print(f"{removed} documents removed.")
    return 0 if removed else 1
