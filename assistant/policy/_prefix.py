"""What a local model has read already: the keys and values of its last prompt.

The prompts of a conversation begin alike (see `assistant.prompt`), so the next one is read from
where it first differs. Only the last prompt is kept. No torch here; the caller holds the lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Prefix:
    """Keys and values between two prompts.

    Args:
        room: tokens that may be kept; 0 keeps nothing.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._ids: list[int] = []
        self._cache: Any = None

    def take(self, ids: Sequence[int]) -> tuple[Any, int]:
        """Hand out what is known of a prompt.

        The caller owns it from here on and gives it back by `keep`; until then nothing is kept.

        Returns:
            The cache and how many first tokens of `ids` it holds, never all of them, since the
            last one must be read for its logits; None and 0 where nothing can be used.
        """
        known, cache = self._ids, self._cache
        self.drop()
        shared = _shared(known, ids[:-1])
        if cache is None or not shared or not _cut(cache, len(known) - shared):
            return None, 0
        return cache, shared

    def keep(self, ids: Sequence[int], cache: Any) -> None:
        """Keep the cache of a prompt and its answer: the first tokens, as many as there is room."""
        room = min(self._room, len(ids))
        if cache is not None and room and _cut(cache, len(ids) - room):
            self._ids, self._cache = list(ids[:room]), cache

    def drop(self) -> None:
        """Forget everything."""
        self._ids, self._cache = [], None


def _shared(one: Sequence[int], two: Sequence[int]) -> int:
    """How many first tokens are the same."""
    pairs = enumerate(zip(one, two, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(two)))


def _cut(cache: Any, tokens: int) -> bool:
    """Take the last tokens out of a cache; False where its kind cannot go back."""
    if not tokens:
        return True
    if not getattr(cache, "is_croppable", False):
        return False
    try:
        cache.crop(-tokens)
    except RuntimeError:  # a sliding window that has moved on, or a recurrent state
        return False
    return True
