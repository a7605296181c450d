"""Prints which hazards the safety check looks for."""

from __future__ import annotations

import argparse
import os

from rich.console import Console

from assistant import terminal
from assistant.config import Settings

HELP = "which hazards are looked for, and by what"


def arguments(_parser: argparse.ArgumentParser) -> None:
    """Nothing can be chosen."""


def run(_options: argparse.Namespace, settings: Settings, out: Console) -> int:
    """Print the hazards as the check is set up; no model is loaded."""
    language = terminal.language_of(settings.serve.language, os.environ)
    terminal.hazards(settings.safety, language, out)
    return 0
