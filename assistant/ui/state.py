"""What one open page remembers between events. The conversation itself is in the database."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field, replace
from typing import Literal

from assistant.schema import Reply, Turn
from assistant.training import Side
from assistant.ui.strings import Language


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to one turn, in the order shown. The order was drawn by lot."""

    turn_id: str
    conversation_id: str
    replies: tuple[Reply, Reply]


@dataclass(frozen=True, slots=True)
class Lot:
    """Which of a pair's two answers the lot put first, and the word by which a pick proves it."""

    first: Side
    token: str


class Lots:
    """Lots by a key that this process drew: the same pair lies the same way on every page.

    A pick of a page that an earlier process drew has another token, and counts for nothing.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def draw(self, pair_id: str) -> Lot:
        """The lot of a pair."""
        first: Side = "new" if self._hash("side", pair_id)[0] & 1 else "old"
        return Lot(first, self._hash("token", pair_id).hex()[:32])

    def _hash(self, use: str, pair_id: str) -> bytes:
        return hmac.digest(self._key, f"{use} {pair_id}".encode(), "sha256")


@dataclass(frozen=True, slots=True)
class View:
    """One page: which conversation, which of its answers has its sources shown, what is pending.

    `turn_ids` are the ids of the answers on the page, in order; an action that names another id
    is ignored. `note` is a word of thanks shown under one answer. `place` is what is seen of it.
    """

    language: Language = "en"
    conversation_id: str = ""
    turn_ids: tuple[str, ...] = ()
    selected: str = ""
    comparison: Comparison | None = None
    note: tuple[str, str] = ("", "")
    place: Literal["chat", "train"] = "chat"

    def showing(self, turns: list[Turn]) -> View:
        """This view over `turns`, the sources of the last answer shown unless one was picked."""
        ids = tuple(turn.id for turn in turns)
        selected = self.selected if self.selected in ids else (ids[-1] if ids else "")
        return replace(self, turn_ids=ids, selected=selected)


@dataclass(frozen=True, slots=True)
class Live:
    """The answer being written: the question, the steps done so far, the text so far.

    `ended` is "" while it runs, else the string key that says how it ended (stopped, an error).
    """

    question: str
    steps: tuple[str, ...] = field(default_factory=tuple)
    text: str = ""
    ended: str = ""
    request_id: str = ""
