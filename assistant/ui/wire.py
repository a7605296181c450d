"""Which event calls which handler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gradio as gr

from assistant.build import AUDIT
from assistant.config import Settings
from assistant.training import Trainer
from assistant.ui import layout, render_side
from assistant.ui.actions import Actions
from assistant.ui.base import AssistantLike
from assistant.ui.desk import Desk, guarded, toast
from assistant.ui.layout import Page, Play, Updates
from assistant.ui.middleware import is_loopback
from assistant.ui.shelf import Shelf
from assistant.ui.state import View
from assistant.ui.strings import LANGUAGES, pick
from assistant.ui.turns import Turns
from safety.rates import RateReader

LANGUAGE_COOKIE = "plumbline_language"
CONSENT_COOKIE = "plumbline_consent"

#: Documents change behind the page's back: the line at the top is asked for this often.
_FRESHEN_SECONDS = 30.0

#: No endpoint of the page is an API: the programs' way in is the HTTP server.
_OPTIONS: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


def build_blocks(
    assistant: AssistantLike, settings: Settings, trainer: Trainer | None = None
) -> gr.Blocks:
    """The page with its events, ready to be mounted."""
    folders = is_loopback(settings.serve.host)
    blocks = gr.Blocks(
        analytics_enabled=False, title="plumbline", fill_width=True, delete_cache=(3600, 86_400)
    )
    with blocks:
        language = pick(settings.serve.language, "", "")
        page = layout.build(language, folders=folders)
        audit = RateReader(settings.home / AUDIT) if settings.safety.audit else None
        desk = Desk(assistant, settings, page, folders, audit=audit, trainer=trainer)
        turns, shelf = Turns(desk), Shelf(desk)
        actions = Actions(desk, turns, shelf)
        _wire_page(blocks, desk, actions)
        _wire_chat(page, turns, actions)
        _wire_shelf(page, shelf)
        page.pulse.tick(
            guarded(actions.train.tick, _quiet),
            [page.view, page.seen],
            page.outputs(),
            **_OPTIONS,
        )
    blocks.queue(max_size=64, default_concurrency_limit=4, api_open=False)
    return blocks


def _wire_page(blocks: gr.Blocks, desk: Desk, actions: Actions) -> None:
    page = desk.page

    def load(view: View, request: gr.Request) -> Play:
        cookies = request.cookies
        language = pick(
            desk.settings.serve.language,
            cookies.get(LANGUAGE_COOKIE, ""),
            request.headers.get("accept-language", ""),
        )
        conversation = request.query_params.get("c", "")[:200]
        train = request.query_params.get("p", "") == "train"
        view = replace(
            view,
            language=language,
            conversation_id=conversation,
            place="train" if train else "chat",
        )
        yield desk.start_page(view, consent=cookies.get(CONSENT_COOKIE) == "1")

    def switch(language: str, view: View) -> Play:
        if language in LANGUAGES:
            yield desk.draw_all(replace(view, language=pick("", language, "")))

    def freshen(view: View) -> Play:
        status = desk.assistant.index_status()
        yield {page.status: render_side.summary_line(status, view.language)}

    gr.Timer(_FRESHEN_SECONDS).tick(
        guarded(freshen, _quiet), [page.view], [page.status], **_OPTIONS
    )
    blocks.load(
        guarded(load, _toast_first),
        [page.view],
        page.outputs(),
        **_OPTIONS,
    )
    page.language.input(
        guarded(switch, _toast_second), [page.language, page.view], page.outputs(), **_OPTIONS
    )
    page.new_chat.click(
        guarded(actions.new_chat, _toast_first), [page.view], page.outputs(), **_OPTIONS
    )


def _wire_chat(page: Page, turns: Turns, actions: Actions) -> None:
    page.composer.submit(
        guarded(turns.ask, turns.failed),
        [page.composer, page.view, page.consent],
        page.outputs(),
        **_OPTIONS,
    )
    page.composer.stop(turns.stop, None, None, concurrency_limit=None, **_OPTIONS)
    page.bus.submit(
        guarded(actions.run, actions.failed),
        [page.bus, page.view, page.consent],
        page.outputs(),
        trigger_mode="multiple",
        **_OPTIONS,
    )


def _wire_shelf(page: Page, shelf: Shelf) -> None:
    page.files.upload(
        guarded(shelf.upload, shelf.failed),
        [page.files, page.view],
        page.outputs(),
        **_OPTIONS,
    )
    add: Callable[..., Play] = guarded(shelf.add_folder, shelf.failed)
    for trigger in (page.add.click, page.folder.submit):
        trigger(add, [page.folder, page.view], page.outputs(), **_OPTIONS)


def _quiet(*_: Any) -> Updates:
    return {}


def _toast_first(words: str, request_id: str, view: View, *_: Any) -> Updates:
    toast(view, words, request_id)
    return {}


def _toast_second(words: str, request_id: str, _given: object, view: View, *_: Any) -> Updates:
    toast(view, words, request_id)
    return {}
