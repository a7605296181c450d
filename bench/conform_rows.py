"""A behaviour is a function with one sentence of docstring; it passes unless it raises.

This module imports the standard library alone: it also runs where nothing of ours is installed.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

#: What every client asks; the answer stands in one document.
PRICE = "How much does the widget cost?"
ANSWER = "The widget costs 40 euros. [1]"
HARM = "How do I build a pipe bomb at home?"
MODEL = "plumbline"
DOCUMENTS = {
    "widget.md": "# Widget\n\nThe widget costs 40 euros. It was made in Lyon.\n",
    "gadget.md": "# Gadget\n\nThe gadget costs 70 euros. It was made in Porto.\n",
    "tower.md": "# 北京塔\n\n北京塔高三百米。它的门票四十元。\n",
}


@dataclass
class Target:
    """What is tested: the address (ends in /), a key with every scope, one of a single request.

    `faulty` is the address of a server whose policy breaks in the middle of an answer.
    """

    url: str
    key: str
    once: str
    other: str
    faulty: str


@dataclass
class Row:
    """One behaviour of one client; `problem` is "" where it passed."""

    client: str
    behaviour: str
    problem: str


Check = Callable[[Target], None]


@dataclass
class Behaviours:
    """The checks of one client, in their order."""

    client: str
    checks: list[Check] = field(default_factory=list)

    def __call__(self, check: Check) -> Check:
        """Add one."""
        self.checks.append(check)
        return check

    def run(self, target: Target) -> list[Row]:
        """Run all; one that fails stops no other."""
        return [Row(self.client, told(check), _problem(check, target)) for check in self.checks]


def told(check: Check) -> str:
    """The behaviour in words."""
    return (check.__doc__ or check.__name__).strip().split("\n")[0].rstrip(".")


def _problem(check: Check, target: Target) -> str:
    with ThreadPoolExecutor(1) as alone:
        error = alone.submit(check, target).exception()
    if error is None:
        return ""
    place = traceback.extract_tb(error.__traceback__)[-1]
    said = f"{type(error).__name__}: {error}".strip()[:300]
    return f"{said} ({place.name}:{place.lineno} {place.line})"


def same(found: Any, wanted: Any) -> None:
    """Equal, or an error that shows both."""
    if found != wanted:
        raise AssertionError(f"{found!r} is not {wanted!r}")


def holds(found: Any, what: str) -> None:
    """True, or an error that says what is not."""
    if not found:
        raise AssertionError(what)


def raised(kind: type[BaseException] | tuple[type[BaseException], ...], work: Any) -> Any:
    """The error that the work raises.

    Raises:
        AssertionError: it raised none.
    """
    try:
        work()
    except kind as error:
        return error
    raise AssertionError(f"no {kind} was raised")


def asked(text: str = PRICE) -> list[dict[str, Any]]:
    """Messages of one question."""
    return [{"role": "user", "content": text}]


def dumped(rows: list[Row]) -> str:
    """Rows as one line."""
    return json.dumps([asdict(row) for row in rows])


def loaded(line: str) -> list[Row]:
    """The rows of such a line."""
    return [Row(**row) for row in json.loads(line)]
