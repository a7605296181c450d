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

    def judge(self, texts: Sequence[str], side: Side, question: str = "") -> list[Verdict]:
        """One verdict per text, in order; spans are offsets into that text.

        Args:
            texts: what is judged, each on its own.
            side: where the texts stand.
            question: the user's text that all of them answer, of any length; "" where it is not
                known, and on every side but output. It is never judged itself, and a moderator
                that cannot use it leaves it alone.

        Raises:
            ModeratorUnavailable: no judgement was possible; the guard then blocks.
        """
        ...
