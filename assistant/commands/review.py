"""Lists the open appeals, and decides them."""

from __future__ import annotations

import argparse
import getpass

from rich.console import Console

from assistant import docket
from assistant.build import AUDIT
from assistant.config import Settings
from safety.appeal import Appeals

HELP = "list appeals, uphold or overturn one"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Which appeal, what becomes of it, who says so and why."""
    parser.add_argument("what", choices=["list", "uphold", "overturn"])
    parser.add_argument("decision", nargs="?", default="", help="id of the appeal's decision")
    parser.add_argument("--note", default="", help="why")
    parser.add_argument("--reviewer", default="", help="who decides; the name of this account")


def run(options: argparse.Namespace, settings: Settings, out: Console) -> int:
    """List the open appeals, show one, or decide one."""
    appeals = Appeals(settings.home / AUDIT, settings.safety)
    if options.what == "list":
        if options.decision:
            docket.show(appeals.get(options.decision), out)
        else:
            docket.listing(appeals.cases(), out)
        return 0
    reviewer = options.reviewer or getpass.getuser()
    state = docket.STATES[options.what]
    done = appeals.review(options.decision, state, reviewer, options.note)
    docket.reviewed(done, appeals.queue, out)
    return 0
