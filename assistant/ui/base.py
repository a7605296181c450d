"""What the chat needs of an assistant. `assistant.dialogue.Assistant` is the real one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from assistant.schema import (
    Citation,
    Consent,
    Conversation,
    Event,
    Excerpt,
    Feedback,
    Health,
    Turn,
)
from retrieval.schema import IndexStatus, IngestProgress, IngestSummary


class AssistantLike(Protocol):
    """One assistant, as its faces see it. Every call is safe from any thread."""

    def stream(
        self,
        text: str,
        *,
        conversation_id: str | None = None,
        user_id: str = "local",
        language: str = "auto",
        surface: str = "ui",
        consent: Consent = ...,
    ) -> Iterator[Event]:
        """Answer `text`: steps and pieces of text, then exactly one reply. Closing it stops it."""

    def alternative(
        self, turn_id: str, *, user_id: str = "local", consent: Consent = ...
    ) -> Iterator[Event]:
        """Another candidate for a stored turn, not yet chosen."""

    def choose(self, turn_id: str, candidate_id: str, *, user_id: str = "local") -> Turn:
        """Make a candidate the answer that the turn shows."""

    def give_feedback(self, feedback: Feedback) -> None:
        """Log what the user did with an answer."""

    def conversations(self, user_id: str = "local") -> list[Conversation]:
        """The user's conversations."""

    def turns(self, conversation_id: str, *, user_id: str = "local") -> list[Turn]:
        """The turns of a conversation, oldest first. Raises ConversationNotFound."""

    def rename(self, conversation_id: str, title: str, *, user_id: str) -> None:
        """Give a conversation a title."""

    def delete(self, conversation_id: str, *, user_id: str) -> None:
        """Forget a conversation."""

    def excerpt(self, citation: Citation) -> Excerpt:
        """The words around a citation, and whether the document still says so."""

    def ingest(self, paths: Sequence[Path | str]) -> Iterator[IngestProgress | IngestSummary]:
        """Take in files, folders and URLs; the last item is the summary."""

    def upload(self, files: Sequence[tuple[str, Path]]) -> Iterator[IngestProgress | IngestSummary]:
        """Copy (display name, path) files into the knowledge base and take them in."""

    def forget(self, root: str) -> int:
        """Remove a root and its documents; returns how many documents went."""

    def index_status(self) -> IndexStatus:
        """What is indexed."""

    def health(self) -> Health:
        """What runs."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks at a page, where not everybody sees the same.

    `assistant` answers as to them; `name` is who signed in, "" where nobody has to. `upload` and
    `folders` say whether they may add files of theirs, and folders of the assistant's computer.
    """

    assistant: AssistantLike
    name: str = ""
    upload: bool = True
    folders: bool = False
