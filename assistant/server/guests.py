"""The assistant as somebody who signed in to the chat has it.

Whatever user a page names, it is the principal of its session who asks: their conversations, the
documents that they may read, their key's scopes and limits, the same workers as over the API.
"""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from assistant.errors import AssistantError
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
from assistant.server.base import Server
from assistant.server.documents import name_of
from assistant.server.errors import ApiError
from assistant.server.principal import Principal
from assistant.server.reading import CHARACTERS, QUESTION
from assistant.server.shelf import Kept
from assistant.ui.base import Visitor
from retrieval.schema import (
    FileReport,
    IndexStatus,
    IngestProgress,
    IngestSummary,
    RootStatus,
    Scope,
)

#: Between two looks at a file that is taken in, and how long one is waited for, seconds.
LOOK, PATIENCE = 0.2, 600.0

Made = Callable[[Callable[[], bool]], Iterator[Event]]


@dataclass(frozen=True, slots=True)
class _Raised:
    """What the assistant said instead of an answer; the page has words for it."""

    error: AssistantError


class Guests:
    """Makes a guest of who sent a request."""

    def __init__(self, server: Server) -> None:
        self.server = server
        #: That of the server, once it runs.
        self.loop: asyncio.AbstractEventLoop | None = None

    def of(self, scope: Mapping[str, Any]) -> Visitor:
        """Who sent the request of this ASGI scope, as the layer around the chat found out."""
        who = scope["state"]["principal"]
        assert isinstance(who, Principal)
        assert self.loop is not None
        guest = Guest(self.server, who, self.loop)
        if who.open:
            return Visitor(guest, folders=True)
        return Visitor(guest, who.owner, upload="ingest" in who.scopes)


class Guest:
    """One principal's assistant. Its methods are called by threads beside the event loop's.

    Every method raises `ApiError` where the key is not for what it does.
    """

    def __init__(self, server: Server, who: Principal, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._assistant = server.assistant
        self._who = who
        self._loop = loop

    # answers ------------------------------------------------------------------------------------

    def stream(
        self,
        text: str,
        *,
        conversation_id: str | None = None,
        user_id: str = "",
        language: str = "auto",
        surface: str = "ui",
        consent: Consent = Consent(),
    ) -> Iterator[Event]:
        """Answer `text`, made by a worker of the server."""
        who = self._may("chat")
        if len(text) > QUESTION:
            raise ApiError(400, f"The question is too long; at most {QUESTION} are read.")

        def made(stopped: Callable[[], bool]) -> Iterator[Event]:
            return self._assistant.stream(
                text,
                conversation_id=conversation_id,
                user_id=who.owner,
                language=language,
                surface=surface,
                consent=consent,
                readers=who.readers,
                stopped=stopped,
            )

        return self._worked(made, text)

    def alternative(
        self, turn_id: str, *, user_id: str = "", consent: Consent = Consent()
    ) -> Iterator[Event]:
        """Another candidate for a stored turn of theirs."""
        who = self._may("chat")

        def made(_stopped: Callable[[], bool]) -> Iterator[Event]:
            return self._assistant.alternative(
                turn_id, user_id=who.owner, consent=consent, readers=who.readers
            )

        return self._worked(made, "")

    def choose(self, turn_id: str, candidate_id: str, *, user_id: str = "") -> Turn:
        """Make a candidate the answer that the turn shows."""
        return self._assistant.choose(turn_id, candidate_id, user_id=self._may("chat").owner)

    def give_feedback(self, feedback: Feedback) -> None:
        """Log what they did with an answer; what they did not say is left out without the scope."""
        if not feedback.explicit and "feedback" not in self._who.scopes:
            return
        who = self._may("feedback")
        self._assistant.give_feedback(replace(feedback, user_id=who.owner))

    # conversations ------------------------------------------------------------------------------

    def conversations(self, user_id: str = "") -> list[Conversation]:
        """Their conversations."""
        return self._assistant.conversations(self._may("chat").owner)

    def turns(self, conversation_id: str, *, user_id: str = "") -> list[Turn]:
        """The turns of a conversation of theirs."""
        return self._assistant.turns(conversation_id, user_id=self._may("chat").owner)

    def rename(self, conversation_id: str, title: str, *, user_id: str) -> None:
        """Give a conversation of theirs a title."""
        self._assistant.rename(conversation_id, title, user_id=self._may("chat").owner)

    def delete(self, conversation_id: str, *, user_id: str) -> None:
        """Forget a conversation of theirs, with the citations of its answers."""
        owner = self._may("chat").owner
        self._assistant.delete(conversation_id, user_id=owner)
        self._server.records.forget_conversation(conversation_id, owner)

    def excerpt(self, citation: Citation) -> Excerpt:
        """The words around a citation, where they may read the document still."""
        if "search" not in self._who.scopes:
            return Excerpt(citation, "", citation.quote, "", current=True)
        return self._assistant.excerpt(citation, self._who.readers)

    # documents ----------------------------------------------------------------------------------

    def ingest(self, paths: Sequence[Path | str]) -> Iterator[IngestProgress | IngestSummary]:
        """Take in files and folders of this computer; only for who sits at it."""
        if not self._who.open:
            raise _denied()
        return self._assistant.ingest(paths)

    def upload(self, files: Sequence[tuple[str, Path]]) -> Iterator[IngestProgress | IngestSummary]:
        """Take (display name, path) files in, for all of their tenant."""
        who = self._may("ingest")
        return self._assistant.upload(files) if who.open else self._put(who, files)

    def forget(self, root: str) -> int:
        """Remove a document of theirs by its name; returns how many went."""
        who = self._may("ingest")
        if who.open:
            return self._assistant.forget(root)
        found = [kept for kept in self._server.shelf.all(who) if kept.name == root]
        return sum(self._server.shelf.delete(who, kept.id) is not None for kept in found)

    def index_status(self) -> IndexStatus:
        """How many documents they may read, and those that came in over the API by name."""
        status = self._assistant.index_status()
        if self._who.open:
            return status
        documents, chunks = self._counts()
        seen = "documents" in self._who.scopes
        kept = self._server.shelf.all(self._who) if seen else []
        return IndexStatus(
            documents=documents,
            chunks=chunks,
            sequence=status.sequence,
            served=status.served,
            embedder=status.embedder,
            roots=tuple(_root(one) for one in kept),
        )

    def health(self) -> Health:
        """What runs; of what lies here, only what is theirs."""
        health = self._assistant.health()
        if self._who.open:
            return health
        own = len(self.conversations())
        documents, chunks = self._counts()
        return replace(health, documents=documents, chunks=chunks, data_dir="", conversations=own)

    # --------------------------------------------------------------------------------------------

    def _counts(self) -> tuple[int, int]:
        return self._assistant.parts.knowledge.store.counts(Scope(self._who.readers))

    def _may(self, scope: str) -> Principal:
        if scope not in self._who.scopes:
            raise _denied(scope)
        return self._who

    def _worked(self, made: Made, text: str) -> _Answer:
        """What `made` yields, in a worker, after its turn; closing it gives the worker back."""
        server, who = self._server, self._who
        items: queue.SimpleQueue[Event | _Raised | ApiError | None] = queue.SimpleQueue()

        def work(stopped: Callable[[], bool]) -> Iterator[Event | _Raised]:
            try:
                yield from made(stopped)
            except AssistantError as error:
                yield _Raised(error)

        async def run() -> None:
            server.operation.open += 1
            try:
                ticket = await server.admission.enter(who, len(text) // CHARACTERS + 1)
                job = server.engine.start(work, ticket, self._spent)
                async for item in job.items():
                    items.put(item)
                items.put(None)
            except ApiError as error:
                items.put(error)
            finally:
                server.operation.open -= 1

        return _Answer(run(), items, self._loop)

    def _spent(self, item: Event | _Raised) -> int:
        reply = item.reply if isinstance(item, Event) else None
        if reply is None:
            return 0
        count = self._server.assistant.parts.policy.count_tokens
        answer = reply.usage.answer if reply.usage else count(reply.text)
        self._server.operation.answered(reply, reply.usage.prompt if reply.usage else 0, answer)
        return answer

    def _put(
        self, who: Principal, files: Sequence[tuple[str, Path]]
    ) -> Iterator[IngestProgress | IngestSummary]:
        began, shelf = time.monotonic(), self._server.shelf
        reports: list[FileReport] = []
        for done, (given, path) in enumerate(files, 1):
            sent = time.time()
            kept = shelf.put(who, name_of(given), path.read_bytes(), [who.everybody])
            new = kept.updated >= sent
            while kept.status == "processing" and time.monotonic() - began < PATIENCE:
                time.sleep(LOOK)
                spent = time.monotonic() - began
                yield IngestProgress(done - 1, len(files), 0, 0, spent, None)
                kept = shelf.get(who, kept.id) or replace(kept, status="failed")
            reports.append(_report(kept) if new else FileReport(kept.name, "unchanged"))
            spent = time.monotonic() - began
            yield IngestProgress(done, len(files), 0, 0, spent, reports[-1])
        outcomes = [report.outcome for report in reports]
        yield IngestSummary(
            documents=len(reports),
            added=outcomes.count("added"),
            updated=outcomes.count("updated"),
            unchanged=outcomes.count("unchanged"),
            removed=0,
            chunks=0,
            embedded=0,
            seconds=time.monotonic() - began,
            failures=tuple(r for r in reports if r.outcome == "failed"),
        )


class _Answer:
    """What `run` puts into `items` on the loop, for the thread that reads this."""

    def __init__(
        self,
        run: Coroutine[Any, Any, None],
        items: queue.SimpleQueue[Event | _Raised | ApiError | None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._items = items
        self._over = False
        self._task = asyncio.run_coroutine_threadsafe(run, loop)

    def __iter__(self) -> _Answer:
        return self

    def __next__(self) -> Event:
        item = None if self._over else self._items.get()
        self._over = not isinstance(item, Event)
        if isinstance(item, _Raised):
            raise item.error
        if isinstance(item, ApiError):
            raise item
        if item is None:
            raise StopIteration
        return item

    def stop(self) -> None:
        """Nobody wants it any more: leave the queue, or give the worker back. From any thread."""
        self._task.cancel()
        self._items.put(None)

    def close(self) -> None:
        """The same, as a generator has it."""
        self.stop()


def _report(kept: Kept) -> FileReport:
    if kept.status == "failed":
        return FileReport(kept.name, "failed", detail=kept.error)
    return FileReport(kept.name, "updated" if len(kept.versions) > 1 else "added")


def _root(kept: Kept) -> RootStatus:
    ready = int(kept.status == "ready")
    failed = (_report(kept),) if kept.status == "failed" else ()
    return RootStatus(kept.name, ready, 0, kept.updated, kept.updated, failed)


def _denied(scope: str = "") -> ApiError:
    needs = f"; it needs the scope {scope!r}" if scope else ""
    return ApiError(403, f"This key is not for this{needs}.")
