"""Has a decision of the safety check scored again, and puts it before a reviewer."""

from __future__ import annotations

import argparse

from rich.console import Console

from assistant import docket
from assistant.build import AUDIT, network_of
from assistant.config import Settings
from safety import build_guard
from safety.appeal import Appeals

HELP = "have a safety decision scored again and reviewed"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Which decision, and the texts that were not kept."""
    parser.add_argument("decision", help="id of the decision, as the refusal shows it")
    parser.add_argument("--text", help="the text it is about, where it was not kept")
    parser.add_argument("--question", help="what the text answers, where an answer was stopped")


def run(options: argparse.Namespace, settings: Settings, out: Console) -> int:
    """Score the decision again with all moderators."""
    appeals = Appeals(settings.home / AUDIT, settings.safety)
    guard = build_guard(settings.safety, None, network_of(settings))
    docket.show(appeals.file(options.decision, guard, options.text, options.question), out)
    return 0
