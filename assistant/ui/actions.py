"""What the buttons inside our own HTML do: one message of the page, one method here.

The page sends JSON through one hidden text box: `{"action": …, …}`. Everything in it is checked:
an unknown action, a wrong type, or the id of an answer that is not on the page does nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from assistant.schema import Feedback, FeedbackKind, Turn
from assistant.ui.desk import USER, Desk, toast
from assistant.ui.layout import Play, Updates
from assistant.ui.render_chat import ASK_WHY, REASONS
from assistant.ui.shelf import Shelf
from assistant.ui.state import View
from assistant.ui.train import VERBS, Train
from assistant.ui.turns import Turns

_MAX_TITLE = 120
_MAX_TEXT = 8000


@dataclass(frozen=True, slots=True)
class Call:
    """A message of the page."""

    action: str
    turn: str = ""
    conversation: str = ""
    root: str = ""
    target: str = ""
    token: str = ""
    text: str = ""
    value: int = 0
    reasons: tuple[str, ...] = ()


def read(message: str) -> Call | None:
    """The call in `message`, or None where it is not one of ours."""
    try:
        raw = json.loads(message)
    except ValueError:
        return None
    if not isinstance(raw, dict) or not isinstance(raw.get("action"), str):
        return None
    words = {
        name: raw[name][:_MAX_TEXT]
        for name in ("turn", "conversation", "root", "target", "token", "text")
        if isinstance(raw.get(name), str)
    }
    given = raw.get("reasons")
    reasons = tuple(tag for tag in REASONS if isinstance(given, list) and tag in given)
    return Call(raw["action"], value=_sign(raw.get("value")), reasons=reasons, **words)


class Actions:
    """The methods; `run` picks one by the call's action."""

    def __init__(self, desk: Desk, turns: Turns, shelf: Shelf) -> None:
        self.desk = desk
        self.turns = turns
        self.shelf = shelf
        self.train = Train(desk)

    @classmethod
    def over(cls, desk: Desk) -> Actions:
        """The methods over a desk."""
        return cls(desk, Turns(desk), Shelf(desk))

    def run(self, message: str, view: View, consent: bool, request: gr.Request) -> Play:
        """Do what the page asks for."""
        call = read(message)
        if call is None:
            yield {}
        elif call.action in ("vote", "reasons", "edit", "copy", "another", "pick", "select"):
            yield from self._on_turn(call, view, consent, request)
        elif call.action in ("open", "rename", "delete"):
            yield from self._on_conversation(call, view)
        elif call.action == "stop-reading":
            self.shelf.stop(request)
            yield {}
        elif call.action == "remove" and call.root:
            yield from self.shelf.remove(call.root, view)
        elif call.action in ("show-chat", "show-train"):
            yield self.train.show("train" if call.action == "show-train" else "chat", view)
        elif call.action in VERBS:
            yield self.train.do(call.action, call.target, view)
        elif call.action == "judge":
            yield self.train.judge(call.target, call.token, call.value, view)
        else:
            yield {}

    def failed(self, words: str, request_id: str, _message: str, view: View, *_: Any) -> Updates:
        """An action that failed says so over the page, which stays as it was."""
        toast(view, words if words != "error" else "error_action", request_id)
        return {}

    def new_chat(self, view: View) -> Play:
        """An empty page."""
        view = View(language=view.language)
        yield {
            **self.desk.draw(view),
            **self.desk.draw_side(view),
            **self.desk.draw_train(view),
            self.desk.page.live: "",
            **self.turns.ready(view),
        }

    def _on_conversation(self, call: Call, view: View) -> Play:
        desk, given = self.desk, call.conversation
        if not given:
            yield {}
            return
        if call.action == "open":
            view = View(language=view.language, conversation_id=given)
            shown = {**desk.draw(view), **desk.draw_side(view), **desk.draw_train(view)}
            yield {**shown, desk.page.live: ""}
            return
        title = " ".join(call.text.split())[:_MAX_TITLE]
        if call.action == "delete":
            desk.assistant.delete(given, user_id=USER)
            if given == view.conversation_id:
                yield from self.new_chat(view)
                return
        elif title:
            desk.assistant.rename(given, title, user_id=USER)
        yield desk.draw_side(view)

    def _on_turn(self, call: Call, view: View, consent: bool, request: gr.Request) -> Play:
        desk = self.desk
        if call.turn not in view.turn_ids:
            yield {}
            return
        if call.action == "another":
            yield from self.turns.another(call.turn, view, consent, request)
        elif call.action == "pick":
            yield from self.turns.pick(call.turn, call.value, view)
        elif call.action == "select":
            yield desk.draw(replace(view, selected=call.turn, note=("", "")))
        else:
            turn = next((t for t in desk.turns(view) if t.id == call.turn), None)
            note = self._feedback(call, turn) if turn is not None else ""
            if call.action != "copy":
                yield desk.draw(replace(view, note=(call.turn, note)))

    def _feedback(self, call: Call, turn: Turn) -> str:
        """Log it; returns the note to show under the answer."""
        kinds: dict[str, FeedbackKind] = {
            "vote": "thumb",
            "reasons": "thumb",
            "edit": "edit",
            "copy": "copy",
        }
        text = call.text.strip()
        if call.action == "edit" and (not text or text == turn.reply.text.strip()):
            return ""
        value = -1 if call.action == "reasons" else call.value if call.action == "vote" else 0
        self.desk.assistant.give_feedback(
            Feedback(
                turn_id=turn.id,
                conversation_id=turn.conversation_id,
                user_id=USER,
                kind=kinds[call.action],
                candidate_ids=(turn.reply.candidate_id,),
                value=value,
                reasons=call.reasons if call.action == "reasons" else (),
                text="" if call.action in ("vote", "copy") else text,
                explicit=call.action != "copy",
                language=turn.reply.language,
            )
        )
        if call.action == "vote":
            return {1: "thanks", -1: ASK_WHY}.get(value, "")
        return "thanks_edit" if call.action == "edit" else "thanks"


def _sign(value: object) -> int:
    return value if isinstance(value, int) and value in (-1, 0, 1) else 0
