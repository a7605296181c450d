"""The middle of the page: the conversation, the answer being written, the first screen."""

from __future__ import annotations

from collections.abc import Sequence

from assistant.docket import decision
from assistant.schema import Citation, Reply, Turn
from assistant.ui.render import answer, button, escape, page, reply_html
from assistant.ui.render_panel import short, step_name
from assistant.ui.state import Comparison, Live, View
from assistant.ui.strings import Language, say

REASONS = ("incorrect", "not_in_documents", "outdated", "too_long", "unsafe", "other")
#: The note of a turn just voted down: its form opens.
ASK_WHY = "why_down"
_FLAGGED = ("abstained", "refused", "crisis", "failed")
_EXAMPLES = ("example_1", "example_2", "example_3", "example_4")
_MAX_EDIT = 8000


def transcript(turns: Sequence[Turn], view: View, *, documents: int, looking: str = "") -> str:
    """The whole conversation, or the first screen where there is none.

    `looking` is the id of a turn to which another answer is being sought.
    """
    language = view.language
    body = "".join(_turn(turn, view, looking == turn.id) for turn in turns)
    if not turns:
        body = _welcome(language, documents)
    return page(
        f'<div class="pl-transcript" data-conversation="{escape(view.conversation_id)}" '
        f'data-lang="{language}" data-copied="{escape(say(language, "copied"))}" '
        f'data-toggle="{escape(say(language, "sidebar_toggle"))}" '
        f'data-ask="{escape(say(language, "ask_label"))}" '
        f'data-busy="{"yes" if looking else ""}">{body}</div>'
    )


def live(state: Live | None, language: Language) -> str:
    """The turn in the making: the user's words, the step at work, the text so far."""
    if state is None:
        return ""
    running = not state.ended
    words = answer(state.text, language=language) if state.text else ""
    if running and not state.text:
        doing = step_name(state.steps[-1], language) if state.steps else ""
        words = (
            f'<p class="pl-working"><span class="pl-pulse" aria-hidden="true"></span>'
            f"{escape(say(language, 'thinking'))}"
            f'<span class="pl-step">{escape(doing)}</span></p>'
        )
    tail = "" if running else _ending(state, language)
    return page(
        f'<div class="pl-transcript pl-live" data-busy="{"yes" if running else ""}">'
        f'<article class="pl-turn">{_question(state.question, language)}'
        f'<div class="pl-answer" aria-busy="{str(running).lower()}">'
        f'<div class="pl-text">{words}</div>{tail}</div></article></div>'
    )


def _ending(state: Live, language: Language) -> str:
    code = (
        f'<small class="pl-code">{escape(say(language, "request_id", id=state.request_id))}</small>'
        if state.request_id
        else ""
    )
    kind = "pl-stopped" if state.ended == "stopped" else "pl-error"
    again = button("say", say(language, "retry"), icon="redo", data={"text": state.question})
    return (
        f'<div class="pl-ending {kind}" role="status"><span>{escape(say(language, state.ended))}'
        f"</span>{code}</div><div class='pl-actions'>{again}</div>"
    )


def _question(text: str, language: Language) -> str:
    return (
        f'<div class="pl-question"><span class="pl-hidden">{escape(say(language, "you"))}</span>'
        f"{escape(text)}</div>"
    )


def _turn(turn: Turn, view: View, looking: bool) -> str:
    language, reply = view.language, turn.reply
    comparison = view.comparison
    if comparison is not None and comparison.turn_id == turn.id:
        body = _comparison(comparison, language)
    else:
        body = _answer(turn, view) + (_looking(language) if looking else "")
    chosen = " pl-selected" if view.selected == turn.id and len(view.turn_ids) > 1 else ""
    return (
        f'<article class="pl-turn{chosen}" data-turn="{escape(turn.id)}">'
        f"{_question(turn.user_text, language)}"
        f'<div class="pl-answer pl-{reply.outcome}" lang="{escape(reply.language)}">'
        f'<span class="pl-hidden">{escape(say(language, "assistant"))}</span>'
        f"{body}</div></article>"
    )


def _answer(turn: Turn, view: View) -> str:
    language, reply = view.language, turn.reply
    flag = ""
    if reply.outcome in _FLAGGED:
        words = escape(say(language, f"outcome_{reply.outcome}"))
        flag = f'<div class="pl-flag">{words}{_decision(reply, language)}</div>'
    said = view.note[1] if view.note[0] == turn.id else ""
    note = ""
    if said and said != ASK_WHY:
        note = f'<p class="pl-note" role="status">{escape(say(language, said))}</p>'
    forms = _forms(turn, language, asking=said == ASK_WHY)
    ui = f'<div lang="{language}">{_actions(turn, language)}{note}{forms}</div>'
    return f'{flag}<div class="pl-text">{reply_html(reply, language)}</div>{ui}'


def _decision(reply: Reply, language: Language) -> str:
    """The id to object to a refusal with."""
    found = decision(reply)
    if not found:
        return ""
    label, info = say(language, "decision", id=found), say(language, "decision_info", id=found)
    return f' <small class="pl-code" title="{escape(info)}">{escape(label)}</small>'


def _actions(turn: Turn, language: Language) -> str:
    data = {"turn": turn.id}
    up = {"turn": turn.id, "value": 0 if turn.rating > 0 else 1}
    down = {"turn": turn.id, "value": 0 if turn.rating < 0 else -1}
    shown = [
        button("vote", say(language, "up"), icon="up", pressed=turn.rating > 0, data=up),
        button("vote", say(language, "down"), icon="down", pressed=turn.rating < 0, data=down),
    ]
    if turn.reply.outcome == "failed":
        again = {"text": turn.user_text}
        shown.append(button("say", say(language, "retry"), icon="redo", data=again))
    else:
        shown.append(button("another", say(language, "another"), icon="redo", data=data))
    shown += [
        button("open-edit", say(language, "edit"), icon="edit", data=data),
        button("copy", say(language, "copy"), icon="copy", data=data),
    ]
    if turn.reply.citations:
        label = f"{say(language, 'sources_of')} ({len(turn.reply.citations)})"
        shown.append(button("select", label, icon="book", classes="pl-to-sources", data=data))
    return f'<div class="pl-actions">{"".join(shown)}</div>'


def _forms(turn: Turn, language: Language, *, asking: bool) -> str:
    """The two forms of an answer, hidden until asked for; a thumb down asks for the first."""
    data = {"turn": turn.id}
    boxes = "".join(
        f'<label class="pl-tag"><input type="checkbox" value="{reason}">'
        f"<span>{escape(say(language, f'reason_{reason}'))}</span></label>"
        for reason in REASONS
    )
    cancel = button("close-form", say(language, "cancel"), classes="pl-quiet")
    send = button("reasons", say(language, "submit"), classes="pl-main", data=data)
    save = button("edit", say(language, "edit_save"), classes="pl-main", data=data)
    comment, correct = escape(say(language, "comment")), escape(say(language, "edit_label"))
    return (
        f'<div class="pl-form" data-form="reasons"{"" if asking else " hidden"}><fieldset><legend>'
        f"{escape(say(language, 'why_down'))}</legend>{boxes}</fieldset>"
        f'<textarea rows="2" maxlength="2000" aria-label="{comment}" placeholder="{comment}">'
        f'</textarea><div class="pl-row">{send}{cancel}</div></div>'
        f'<div class="pl-form" data-form="edit" hidden><div class="pl-form-title">{correct}</div>'
        f'<textarea rows="5" maxlength="{_MAX_EDIT}" aria-label="{correct}">'
        f"{escape(turn.reply.text)}"
        f'</textarea><div class="pl-row">{save}{cancel}</div></div>'
    )


def _looking(language: Language) -> str:
    return (
        f'<p class="pl-working" role="status"><span class="pl-pulse" aria-hidden="true"></span>'
        f"{escape(say(language, 'looking'))}</p>"
    )


def _comparison(comparison: Comparison, language: Language) -> str:
    sides = ""
    for reply, name, pick, value in zip(
        comparison.replies,
        ("compare_left", "compare_right"),
        ("pick_left", "pick_right"),
        (0, 1),
        strict=True,
    ):
        data = {"turn": comparison.turn_id, "value": value}
        choose = button("pick", say(language, pick), classes="pl-main", data=data)
        sides += (
            f'<section class="pl-side" aria-label="{escape(say(language, name))}">'
            f'<h3 lang="{language}">{escape(say(language, name))}</h3>'
            f'<div class="pl-text">{reply_html(reply, language, linked=False)}</div>'
            f'{_quoted(reply)}<div class="pl-row" lang="{language}">{choose}</div></section>'
        )
    equal = button(
        "pick", say(language, "pick_equal"), data={"turn": comparison.turn_id, "value": -1}
    )
    return (
        f'<div class="pl-compare"><h2 lang="{language}">{escape(say(language, "compare"))}</h2>'
        f'<div class="pl-sides">{sides}</div>'
        f'<div class="pl-row pl-equal" lang="{language}">{equal}</div></div>'
    )


def _quoted(reply: Reply) -> str:
    rows = "".join(
        f'<li><span class="pl-cite">{c.number}</span>{escape(_place(c))}</li>'
        for c in reply.citations
    )
    return f'<ul class="pl-quoted">{rows}</ul>' if rows else ""


def _place(citation: Citation) -> str:
    """Document and innermost heading, so that two places of one document differ."""
    title = citation.title or short(citation.source)
    last = citation.headings[-1] if citation.headings else ""
    return f"{title} › {last}" if last not in ("", title) else title


def _welcome(language: Language, documents: int) -> str:
    suffix = "" if documents else "_empty"
    examples = "".join(
        button("say", say(language, key), classes="pl-example", data={"text": say(language, key)})
        for key in _EXAMPLES
    )
    return (
        f'<div class="pl-welcome"><span class="pl-bob" aria-hidden="true"></span>'
        f"<h2>{escape(say(language, f'welcome{suffix}'))}</h2>"
        f"<p>{escape(say(language, f'welcome{suffix}_text'))}</p>"
        f'<div class="pl-examples" role="group" aria-label="{escape(say(language, "examples"))}">'
        f"{examples}</div></div>"
    )
