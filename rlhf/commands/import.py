"""Takes preference data of other tools and of the field into the log, or an imported set out."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from assistant.build import network_of
from assistant.config import Settings
from rlhf import imports
from rlhf._attacks import attacks
from rlhf.commands.base import preferences
from rlhf.preferences_people import SPLITS
from safety import build_guard

HELP = "take in preference data of other tools"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What is taken in, as what, and under which licence."""
    parser.add_argument("file", type=Path, help="JSON lines or a JSON array, plain or gzip")
    parser.add_argument("--format", required=True, choices=imports.FORMATS)
    parser.add_argument("--dataset", required=True, metavar="NAME", help="what to call the rows")
    parser.add_argument("--licence", required=True, metavar="NOTE", help="how they may be used")
    parser.add_argument("--split", choices=SPLITS, help="where the rows go; else by a hash")
    parser.add_argument(
        "--unchecked", action="store_true", help="do not look for attack text (much faster)"
    )


def run(options: argparse.Namespace, settings: Settings, out: Console) -> int:
    """Take the file in; 1 where a row was bad or held back."""
    guard = None if options.unchecked else build_guard(settings.safety, None, network_of(settings))
    log = preferences(settings)

    def tell(problem: imports.Problem) -> None:
        out.print(f"{problem.kind}: {problem}", markup=False, highlight=False, soft_wrap=True)

    try:
        found = imports.take_in(
            log,
            options.file,
            options.format,
            dataset=options.dataset,
            licence=options.licence,
            split=options.split,
            screen=None if guard is None else partial(attacks, guard),
            tell=tell,
        )
    finally:
        log.close()
    for line in imports.lines(found):
        out.print(escape(line), highlight=False, soft_wrap=True)
    return 1 if found.problems["bad"] or found.problems["held back"] else 0
