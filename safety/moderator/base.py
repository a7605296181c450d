"""What a moderator is: text in, verdicts out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from safety.schema import Side, Verdict


class Moderator(Protocol):
    """Judges texts. One that is built from a policy may also have `policy`, its SHA-256."""

    @property
    def name(self) -> str:
        """The name that verdicts, logs and settings carry."""
        ...

    def judge(self, texts: Sequence[str], side: Side) -> list[Verdict]:
        """One verdict per text, in order; spans are offsets into that text.

        Raises:
            ModeratorUnavailable: no judgement was possible; the guard then blocks.
        """
        ...
