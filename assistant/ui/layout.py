"""The page: which components there are and where they stand. What they do is in `wire.py`."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from assistant.ui import render_side
from assistant.ui.base import Visitor
from assistant.ui.render import escape, page
from assistant.ui.state import View
from assistant.ui.strings import Language, say

#: What an event changes: component -> new value, or what `gr.update` makes.
Updates = dict[Any, Any]

#: A handler: it changes the page step by step, and can be closed in the middle.
Play = Generator[Updates, None, None]

SIDEBAR_WIDTH = 300

#: The regions of the page on training, from above; they hold nothing while the chat is seen.
_TRAIN = ("train", "run", "candidates", "blind", "stock")

#: A run at work is looked at this often.
_PULSE_SECONDS = 3.0


@dataclass(frozen=True)
class Page:
    """Every component an event reads or writes."""

    view: gr.State
    bus: gr.Textbox
    brand: gr.Markdown
    new_chat: gr.Button
    sessions: gr.Markdown
    knowledge: gr.Markdown
    files: gr.File
    drop: gr.Markdown
    folder: gr.Textbox
    add: gr.Button
    progress: gr.Markdown
    shelf: gr.Markdown
    consent: gr.Checkbox
    safety: gr.Markdown
    account: gr.Markdown
    status: gr.Markdown
    language: gr.Radio
    history: gr.Markdown
    live: gr.Markdown
    composer: gr.Textbox
    hint: gr.Markdown
    panel: gr.Markdown
    places: gr.Markdown
    train: gr.Markdown
    run: gr.Markdown
    candidates: gr.Markdown
    blind: gr.Markdown
    stock: gr.Markdown
    pulse: gr.Timer
    seen: gr.State

    def outputs(self) -> list[Any]:
        """All of them: an event's function names the ones it changes."""
        return list(self.__dict__.values())


def build(language: Language, *, folders: bool) -> Page:
    """Lay the page out inside the current Blocks. `folders` shows the box for server folders."""
    with gr.Sidebar(open=True, width=SIDEBAR_WIDTH, elem_id="pl-sidebar"):
        left = _sidebar(language, folders)
    with gr.Row(elem_id="pl-top"):
        status = _html("pl-status")
        places = _html("pl-places")
        switch = gr.Radio(
            choices=[("中文", "zh"), ("English", "en")],
            value=language,
            label=say(language, "language"),
            container=False,
            elem_id="pl-language",
        )
    with gr.Row(elem_id="pl-body"):
        with gr.Column(elem_id="pl-main", min_width=0):
            middle = _chat(language)
        with gr.Column(elem_id="pl-side", min_width=0):
            panel = _html("pl-panel")
    with gr.Column(elem_id="pl-train-page", min_width=0):
        below: dict[str, Any] = {name: _html(f"pl-{name}") for name in _TRAIN}
    return Page(
        view=gr.State(View(language=language)),
        bus=gr.Textbox(elem_id="pl-bus", visible="hidden", show_label=False),
        status=status,
        language=switch,
        panel=panel,
        **left,
        **middle,
        places=places,
        pulse=gr.Timer(_PULSE_SECONDS, active=False),
        seen=gr.State(""),
        **below,
    )


def relabel(page: Page, language: Language) -> Updates:
    """Every word that belongs to a component, in `language`."""
    return {
        page.brand: _brand(language),
        page.new_chat: gr.update(value=say(language, "new_chat")),
        page.knowledge: _heading(language, "knowledge"),
        page.files: gr.update(label=say(language, "upload_label")),
        page.drop: _drop(language),
        page.folder: gr.update(
            label=say(language, "folder_label"), placeholder=say(language, "folder_placeholder")
        ),
        page.add: gr.update(value=say(language, "folder_add")),
        page.consent: gr.update(label=say(language, "consent"), info=say(language, "consent_info")),
        page.language: gr.update(label=say(language, "language"), value=language),
        page.composer: gr.update(
            label=say(language, "ask_label"),
            placeholder=say(language, "ask_placeholder"),
            submit_btn=say(language, "send"),
            stop_btn=False,
        ),
        page.hint: _hint(language),
    }


def admit(page: Page, visitor: Visitor | None, language: Language) -> Updates:
    """What a visitor has on the page and another has not; {} where all have the same."""
    if visitor is None:
        return {}
    words = relabel(page, language)
    return {
        page.account: render_side.account(visitor.name, language) if visitor.name else "",
        page.files: words[page.files] | {"visible": visitor.upload},
        page.drop: _drop(language) if visitor.upload else "",
        page.folder: words[page.folder] | {"visible": visitor.folders},
        page.add: words[page.add] | {"visible": visitor.folders},
    }


def _sidebar(language: Language, folders: bool) -> dict[str, Any]:
    parts: dict[str, Any] = {"brand": _html("pl-brand", _brand(language))}
    parts["new_chat"] = gr.Button(say(language, "new_chat"), elem_id="pl-new", size="md")
    parts["sessions"] = _html("pl-sessions")
    parts["knowledge"] = _html("pl-knowledge", _heading(language, "knowledge"))
    with gr.Group(elem_id="pl-upload"):
        parts["files"] = gr.File(
            file_count="multiple",
            label=say(language, "upload_label"),
            height=84,
            elem_id="pl-files",
        )
        parts["drop"] = _html("pl-drop", _drop(language))
    with gr.Row(elem_id="pl-folders", visible=folders):
        parts["folder"] = gr.Textbox(
            label=say(language, "folder_label"),
            placeholder=say(language, "folder_placeholder"),
            max_lines=1,
            elem_id="pl-folder",
        )
        parts["add"] = gr.Button(say(language, "folder_add"), size="sm", elem_id="pl-add")
    parts["progress"] = _html("pl-progress")
    parts["shelf"] = _html("pl-shelf")
    parts["consent"] = gr.Checkbox(
        label=say(language, "consent"),
        info=say(language, "consent_info"),
        value=False,
        container=False,
        elem_id="pl-consent",
    )
    parts["safety"] = _html("pl-safety")
    parts["account"] = _html("pl-account")
    return parts


def _chat(language: Language) -> dict[str, Any]:
    with gr.Column(elem_id="pl-scroll", min_width=0):
        history = _html("pl-history")
        live = _html("pl-live")
    composer = gr.Textbox(
        label=say(language, "ask_label"),
        show_label=False,
        placeholder=say(language, "ask_placeholder"),
        lines=1,
        max_lines=8,
        max_length=8000,
        autofocus=True,
        container=False,
        submit_btn=say(language, "send"),
        elem_id="pl-composer",
    )
    hint = _html("pl-hint", _hint(language))
    return {"history": history, "live": live, "composer": composer, "hint": hint}


def _html(name: str, value: str = "") -> gr.Markdown:
    """A region of our own HTML: cleaned by `render.page`, so not cleaned (and stripped) again.

    The HTML component of Gradio compiles its template at run time, which our policy forbids.
    """
    return gr.Markdown(
        value, elem_id=name, sanitize_html=False, latex_delimiters=[], show_label=False
    )


def _brand(language: Language) -> str:
    return page(
        f'<header class="pl-brand"><span class="pl-bob" aria-hidden="true"></span>'
        f'<div class="pl-brand-name">plumbline</div>'
        f"<small>{escape(say(language, 'tagline'))}</small></header>"
    )


def _heading(language: Language, key: str) -> str:
    return page(f'<h2 class="pl-heading">{escape(say(language, key))}</h2>')


def _drop(language: Language) -> str:
    return page(f'<div class="pl-drop">{escape(say(language, "drop"))}</div>')


def _hint(language: Language) -> str:
    return page(f'<div class="pl-hint">{escape(say(language, "hint"))}</div>')
