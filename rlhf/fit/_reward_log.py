"""Comparisons of the chat's own users: what they picked, and what they wrote better.

Users whom the log has for training are learnt from, those for development are held out; those for
testing belong to the gates and are not read. Texts are the redacted ones, of users who allow
training as of now.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rlhf.config import PreferenceSettings
from rlhf.fit._reward_rows import Compared
from rlhf.preferences import PreferenceStore
from rlhf.scoring import asked


def logged(home: Path, settings: PreferenceSettings | None = None) -> Iterator[Compared]:
    """Comparisons of the log in `home`, if there is one, kept as the settings say.

    Raises:
        StoreError: the log cannot be opened.
    """
    path = home / "preferences.db"
    if not path.exists():
        return
    store = PreferenceStore(path, settings=settings)
    try:
        yield from comparisons(store)
    finally:
        store.close()


def comparisons(store: PreferenceStore) -> Iterator[Compared]:
    """Comparisons of one log; an edit weighs less than a pick, as the log has it."""
    for split in ("train", "dev"):
        for row in store.pairs(split):
            yield Compared(
                "log",
                f"user {row.origin.user}",
                asked(row.prompt),
                row.chosen,
                row.rejected,
                split == "dev",
                row.weight,
                row.origin.user,
            )
