"""What all handlers share: the assistant, the page, how to redraw it, and what an error shows."""

from __future__ import annotations

import functools
import logging
import secrets
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import gradio as gr

from assistant.config import Settings
from assistant.errors import (
    AssistantError,
    ConversationNotFound,
    PolicyRefused,
    PolicyUnavailable,
    TurnNotFound,
)
from assistant.schema import Excerpt, Reply, Turn
from assistant.server.errors import ApiError
from assistant.training import Trainer
from assistant.ui import render_chat, render_panel, render_safety, render_side, train_page
from assistant.ui.base import AssistantLike, Visitor
from assistant.ui.layout import Page, Play, Updates, admit, relabel
from assistant.ui.pace import Runs
from assistant.ui.state import Lots, View
from assistant.ui.strings import say
from retrieval.errors import RetrievalError
from safety.rates import RateReader

USER = "local"

#: Finds out who sent an event.
Visitors = Callable[[gr.Request], Visitor]

logger = logging.getLogger(__name__)

Handler = Callable[..., Play]


@dataclass(frozen=True)
class Desk:
    """One application: shared by all pages, so it holds nothing that belongs to one of them.

    With `visitors`, what an event may see and do is its sender's: handlers work over `at(request)`.
    """

    assistant: AssistantLike
    settings: Settings
    page: Page
    folders: bool
    asking: Runs = field(default_factory=Runs)
    reading: Runs = field(default_factory=Runs)
    audit: RateReader | None = None
    trainer: Trainer | None = None
    lots: Lots = field(default_factory=Lots)
    visitors: Visitors | None = None
    visitor: Visitor | None = None

    def at(self, request: gr.Request) -> Desk:
        """This desk, for who sent the request."""
        if self.visitors is None:
            return self
        visitor = self.visitors(request)
        return replace(
            self,
            assistant=visitor.assistant,
            folders=self.folders and visitor.folders,
            visitor=visitor,
        )

    def turns(self, view: View) -> list[Turn]:
        """The conversation on the page, as the database has it now."""
        if not view.conversation_id:
            return []
        return self.assistant.turns(view.conversation_id, user_id=USER)

    def draw(self, view: View, *, looking: str = "") -> Updates:
        """The conversation and the sources of its selected answer, afresh."""
        turns = self.turns(view)
        view = view.showing(turns)
        reply = next((turn.reply for turn in turns if turn.id == view.selected), None)
        if view.comparison is not None and view.comparison.turn_id == view.selected:
            # the cards would tell which of the two answers is the first one
            panel = render_panel.blank("comparing", view.language)
        else:
            panel = render_panel.panel(reply, self._excerpts(reply), view.language)
        return {
            self.page.view: view,
            self.page.history: render_chat.transcript(
                turns, view, documents=self._documents(), looking=looking
            ),
            self.page.panel: panel,
        }

    def draw_side(self, view: View, note: str = "") -> Updates:
        """The list of chats, what is indexed, and the line at the top."""
        chats = self.assistant.conversations(USER)
        status = self.assistant.index_status()
        return {
            self.page.sessions: render_side.sessions(chats, view.conversation_id, view.language),
            self.page.shelf: render_side.shelf(status, view.language, note),
            self.page.status: render_side.summary_line(status, view.language),
            self.page.safety: self._safety(view),
        }

    def _safety(self, view: View) -> str:
        settings = self.settings.safety
        if self.visitor is not None and self.visitor.name:
            return ""  # these are the numbers of all tenants
        if self.audit is None:
            return render_safety.silent("safety_off", settings, view.language)
        try:
            return render_safety.safety(self.audit.read(), settings, view.language)
        except OSError as error:
            logger.error("rates_not_read error=%s", type(error).__name__)
            return render_safety.silent("safety_unread", settings, view.language)

    def draw_train(self, view: View, note: str = "", under: str = "train") -> Updates:
        """The page on training where it is seen, else its regions empty.

        `note` is a sentence as markup, `under` the region that it stands in.
        """
        return self.sheet.draw(view, {under: note})

    @property
    def sheet(self) -> train_page.Sheet:
        """The page on training; only for who sits at the computer that runs the assistant."""
        trainer = self.trainer if self.folders else None
        why = "train_none" if self.folders else "train_remote"
        return train_page.Sheet(self.page, trainer, self.settings, self.lots, why)

    def draw_all(self, view: View) -> Updates:
        """The whole page."""
        return {
            **relabel(self.page, view.language),
            **admit(self.page, self.visitor, view.language),
            **self.draw(view),
            **self.draw_side(view),
            **self.draw_train(view),
            self.page.live: "",
        }

    def start_page(self, view: View, *, consent: bool) -> Updates:
        """The page as it opens; a conversation that is gone leaves an empty one."""
        try:
            updates = self.draw_all(view)
        except ConversationNotFound:
            updates = self.draw_all(replace(view, conversation_id="", selected=""))
        updates[self.page.consent] |= {"value": consent}
        return updates

    def _documents(self) -> int:
        return self.assistant.index_status().documents

    def _excerpts(self, reply: Reply | None) -> dict[int, Excerpt | None]:
        found: dict[int, Excerpt | None] = {}
        for citation in reply.citations if reply else ():
            try:
                found[citation.number] = self.assistant.excerpt(citation)
            except (AssistantError, RetrievalError):
                found[citation.number] = None
        return found


def guarded(work: Handler, show: Callable[..., Updates]) -> Handler:
    """The service boundary: whatever goes wrong in `work` is logged under a request id.

    `show(words, request_id, *arguments)` says it to the user: no path, no SQL, no trace.
    """

    @functools.wraps(work)
    def run(*arguments: Any) -> Play:
        try:
            with closing(work(*arguments)) as play:
                # Gradio empties every region where nothing is yielded at all
                yield _or_skip(next(play, {}))
                for updates in play:
                    yield _or_skip(updates)
        except Exception as error:
            request_id = secrets.token_hex(4)
            # the message may hold the user's words, so only the kind and the place are logged
            where = "".join(traceback.format_tb(error.__traceback__))
            logger.error("ui request=%s error=%s\n%s", request_id, type(error).__name__, where)
            yield _or_skip(show(words_for(error), request_id, *arguments))

    return run


def _or_skip(updates: Updates) -> Updates:
    # Gradio takes an empty dict for a value that is missing
    return updates or gr.skip()


def words_for(error: BaseException) -> str:
    """The string key that tells a user about `error`."""
    if isinstance(error, PolicyUnavailable):
        return "error_unavailable"
    if isinstance(error, PolicyRefused):
        return "error_refused"
    if isinstance(error, ConversationNotFound | TurnNotFound):
        return "error_gone"
    if isinstance(error, ApiError):
        return {403: "error_denied", 429: "error_busy", 503: "error_busy"}.get(
            error.status, "error"
        )
    return "error"


def session(request: gr.Request) -> str:
    """The key of one open page."""
    return str(request.session_hash or "")


def toast(view: View, key: str, request_id: str = "") -> None:
    """A passing message over the page."""
    words = say(view.language, key)
    if request_id:
        words += " " + say(view.language, "request_id", id=request_id)
    gr.Warning(words, duration=8, title="plumbline")
