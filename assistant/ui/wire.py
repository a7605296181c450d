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
from assistant.ui.desk import Desk, Visitors, guarded, toast
from assistant.ui.layout import Play, Updates
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
    assistant: AssistantLike,
    settings: Settings,
    trainer: Trainer | None = None,
    *,
    host: str = "",
    visitors: Visitors | None = None,
    seats: int = 4,
) -> gr.Blocks:
    """The page with its events, ready to be mounted.

    `host` is where it is served, `serve.host` where "". With `visitors` each event sees and does
    what its sender may. `seats` events of a kind run at once.
    """
    folders = is_loopback(host or settings.serve.host)
    blocks = gr.Blocks(
        analytics_enabled=False, title="plumbline", fill_width=True, delete_cache=(3600, 86_400)
    )
    with blocks:
        language = pick(settings.serve.language, "", "")
        page = layout.build(language, folders=folders)
        audit = RateReader(settings.home / AUDIT) if settings.safety.audit else None
        desk = Desk(
            assistant, settings, page, folders, audit=audit, trainer=trainer, visitors=visitors
        )
        _wire_page(blocks, desk)
        _wire_chat(desk)
        _wire_shelf(desk)
    blocks.queue(max_size=64, default_concurrency_limit=seats, api_open=False)
    return blocks


def _wire_page(blocks: gr.Blocks, desk: Desk) -> None:
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
        yield desk.at(request).start_page(view, consent=cookies.get(CONSENT_COOKIE) == "1")

    def switch(language: str, view: View, request: gr.Request) -> Play:
        if language in LANGUAGES:
            yield desk.at(request).draw_all(replace(view, language=pick("", language, "")))

    def freshen(view: View, request: gr.Request) -> Play:
        status = desk.at(request).assistant.index_status()
        yield {page.status: render_side.summary_line(status, view.language)}

    def tick(view: View, seen: str, request: gr.Request) -> Play:
        yield from Actions.over(desk.at(request)).train.tick(view, seen)

    def new_chat(view: View, request: gr.Request) -> Play:
        yield from Actions.over(desk.at(request)).new_chat(view)

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
    page.new_chat.click(guarded(new_chat, _toast_first), [page.view], page.outputs(), **_OPTIONS)
    page.pulse.tick(guarded(tick, _quiet), [page.view, page.seen], page.outputs(), **_OPTIONS)


def _wire_chat(desk: Desk) -> None:
    page, plain = desk.page, Actions.over(desk)

    def ask(question: str, view: View, consent: bool, request: gr.Request) -> Play:
        yield from Turns(desk.at(request)).ask(question, view, consent, request)

    def run(message: str, view: View, consent: bool, request: gr.Request) -> Play:
        yield from Actions.over(desk.at(request)).run(message, view, consent, request)

    page.composer.submit(
        guarded(ask, plain.turns.failed),
        [page.composer, page.view, page.consent],
        page.outputs(),
        **_OPTIONS,
    )
    page.composer.stop(plain.turns.stop, None, None, concurrency_limit=None, **_OPTIONS)
    page.bus.submit(
        guarded(run, plain.failed),
        [page.bus, page.view, page.consent],
        page.outputs(),
        trigger_mode="multiple",
        **_OPTIONS,
    )


def _wire_shelf(desk: Desk) -> None:
    page, plain = desk.page, Shelf(desk)

    def upload(files: list[str] | None, view: View, request: gr.Request) -> Play:
        yield from Shelf(desk.at(request)).upload(files, view, request)

    def add_folder(folder: str, view: View, request: gr.Request) -> Play:
        yield from Shelf(desk.at(request)).add_folder(folder, view, request)

    page.files.upload(
        guarded(upload, plain.failed),
        [page.files, page.view],
        page.outputs(),
        **_OPTIONS,
    )
    add: Callable[..., Play] = guarded(add_folder, plain.failed)
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
