"""An assistant small enough to be embedded in a test, with a policy that the test scripts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from assistant.config import load
from assistant.dialogue import Assistant
from assistant.memory import Memory
from assistant.policy.base import Policy
from assistant.policy.echo import EchoPolicy
from assistant.schema import Delta, PolicyCard, Prompt, Sampling
from retrieval.knowledge import open_knowledge
from safety import Guard
from safety.moderator.rules import build as build_rules

WIDGET = "# Widget\n\nThe widget costs 40 euros. It was made in Lyon.\n"
TOWER = "# 北京塔\n\n北京塔高三百米。它的门票四十元。\n"


class Scripted:
    """A policy that says what it is told to, and keeps what it was asked."""

    card = PolicyCard("scripted", "double", "1")

    def __init__(self, script: Callable[[Prompt], Iterable[Delta]]) -> None:
        self.script = script
        self.prompts: list[Prompt] = []
        self.running = 0

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Delta]:
        """Follow the script; `running` says whether a stream is open."""
        self.prompts.append(prompt)
        self.running += 1
        try:
            yield from self.script(prompt)
        finally:
            self.running -= 1

    def count_tokens(self, text: str) -> int:
        """Count characters."""
        return len(text)

    def close(self) -> None:
        """Hold nothing."""


class Endless:
    """Pieces without an end of a sentence; `begun` is set by the first."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.said = 0

    def __call__(self, prompt: Prompt) -> Iterator[Delta]:
        """Say "and" a hundred times a second, for a minute at most."""
        pause = threading.Event()
        for _ in range(6000):
            self.said += 1
            self.begun.set()
            yield Delta(" and")
            pause.wait(0.01)


def small(folder: Path, policy: Policy | None = None, **settings: str) -> Assistant:
    """Open an assistant that knows of a widget and a tower; the caller closes it.

    A dot in a setting's name is written as two underscores.
    """
    documents = folder / "documents"
    documents.mkdir(parents=True, exist_ok=True)
    (documents / "widget.md").write_text(WIDGET, encoding="utf-8")
    (documents / "tower.md").write_text(TOWER, encoding="utf-8")
    values = {
        "home": str(folder / "home"),
        "docs": "false",
        "retrieval.embed.backend": "hashing",
        "retrieval.rerank.backend": "none",
        "safety.audit": "false",
        **{name.replace("__", "."): value for name, value in settings.items()},
    }
    chosen = load(overrides=values)
    assistant = Assistant(
        chosen,
        open_knowledge(chosen.home, chosen.retrieval),
        Guard([build_rules(chosen.safety)], chosen.safety),
        policy or EchoPolicy(),
        Memory(chosen.home / "conversations.db"),
    )
    for _ in assistant.ingest([documents]):
        pass
    return assistant
