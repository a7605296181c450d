"""What is counted and traced of a server, and the forms in which nothing is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from assistant.schema import Reply


@dataclass(frozen=True, slots=True)
class Done:
    """A request that is over. Times in seconds; `first` is None where no body was sent.

    `route` is the address as it is declared ("" where none fits), never as it was typed.
    """

    route: str
    method: str
    status: int
    seconds: float
    first: float | None


class Meter(Protocol):
    """Counts. Safe for several threads."""

    def request(self, done: Done) -> None:
        """A request is over."""

    def answered(self, reply: Reply, prompt: int, answer: int) -> None:
        """An answer was made, of so many tokens each way."""

    def page(self) -> tuple[bytes, str]:
        """All counts, and their content type."""


class Tracer(Protocol):
    """Says to a collector what was done when."""

    def request(
        self, headers: Mapping[str, str], method: str
    ) -> AbstractContextManager[Callable[[Done, str], None]]:
        """A request begins; what is returned is told how it ended, and its id."""

    def answered(self, reply: Reply) -> None:
        """The steps of an answer that was just made, in the request that is current."""

    def close(self) -> None:
        """Send what is left."""


class Uncounted:
    """A meter that counts nothing."""

    def request(self, done: Done) -> None:
        """Nothing."""

    def answered(self, reply: Reply, prompt: int, answer: int) -> None:
        """Nothing."""

    def page(self) -> tuple[bytes, str]:
        """Nothing."""
        return b"", "text/plain; charset=utf-8"


class Untraced:
    """A tracer that traces nothing."""

    @contextmanager
    def request(
        self, headers: Mapping[str, str], method: str
    ) -> Iterator[Callable[[Done, str], None]]:
        """Nothing."""
        yield lambda _done, _request_id: None

    def answered(self, reply: Reply) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
