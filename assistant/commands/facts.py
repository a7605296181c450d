"""Shows, changes and deletes what users said about themselves."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.markup import escape

from assistant.config import Settings
from assistant.errors import ConfigError
from assistant.memory import Memory

HELP = "show, change or delete what a user said about themselves"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, for whom, and with which fact."""
    parser.add_argument("what", choices=["list", "change", "delete", "clear"])
    parser.add_argument("fact", nargs="?", default="", help="id of the fact")
    parser.add_argument("text", nargs="*", help="its new wording")
    parser.add_argument("--user", default="local", help="whose; the user of the chat")


def run(options: argparse.Namespace, settings: Settings, out: Console) -> int:
    """Carry it out; a fact is on a line, its id first."""
    text = " ".join(options.text)
    if options.what in ("change", "delete") and not options.fact:
        raise ConfigError(f"say which fact: facts {options.what} ID; facts list shows them")
    if options.what == "change" and not text.strip():
        raise ConfigError(f"say how it is worded now: facts change {options.fact} WORDS")
    memory = Memory(settings.home / "conversations.db")
    try:
        if options.what == "list":
            for fact in memory.facts.list(options.user):
                out.print(f"{fact.id}  {escape(fact.text)}", highlight=False, soft_wrap=True)
            if not settings.memory.user_facts:
                out.print("memory.user_facts is off: nothing new is remembered, nothing is used.")
        elif options.what == "change":
            memory.facts.change(options.fact, text, options.user)
        elif options.what == "delete":
            memory.facts.delete(options.fact, options.user)
        else:
            out.print(f"{memory.facts.clear(options.user)} facts deleted.")
    finally:
        memory.close()
    return 0
