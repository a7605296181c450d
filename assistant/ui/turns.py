"""Asking: the question typed, and another answer to one asked before."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import gradio as gr

from assistant.schema import Consent, Event, Feedback, Reply
from assistant.ui.desk import USER, Desk, session
from assistant.ui.layout import Play, Updates
from assistant.ui.pace import paced
from assistant.ui.render_chat import live
from assistant.ui.state import Comparison, Live, View
from assistant.ui.strings import say


class Turns:
    """The handlers that make the assistant write."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.page = desk.page

    def ask(self, question: str, view: View, consent: bool, request: gr.Request) -> Play:
        """Answer what was typed, showing it grow; Stop closes the assistant's stream."""
        question = question.strip()
        if not question:
            yield {}
            return
        key, page = session(request), self.page
        now = Live(question)
        yield {
            page.composer: gr.update(
                value="", submit_btn=False, stop_btn=say(view.language, "stop")
            ),
            page.live: live(now, view.language),
        }
        stop = self.desk.asking.start(key)
        reply: Reply | None = None
        produce = self._question(question, view, consent)
        try:
            with closing(paced(produce, stop)) as batches:
                for batch in batches:
                    now, reply = _grow(now, batch)
                    if reply is None:
                        yield {page.live: live(now, view.language)}
        finally:
            self.desk.asking.end(key, stop)
        if reply is None:
            ended = live(replace(now, ended="stopped"), view.language)
            yield {page.live: ended, **self.ready(view)}
            return
        view = replace(
            view, conversation_id=reply.conversation_id, selected=reply.turn_id, note=("", "")
        )
        yield {
            **self.desk.draw(view),
            **self.desk.draw_side(view),
            page.live: "",
            **self.ready(view),
        }

    def failed(self, words: str, request_id: str, question: str, view: View, *_: object) -> Updates:
        """What a question that failed leaves on the page: it, and how to send it again."""
        state = Live(question.strip(), ended=words, request_id=request_id)
        return {self.page.live: live(state, view.language), **self.ready(view)}

    def stop(self, request: gr.Request) -> None:
        """Stop whatever this page is waiting for."""
        self.desk.asking.stop(session(request))

    def another(self, turn_id: str, view: View, consent: bool, request: gr.Request) -> Play:
        """A second answer, set beside the first in an order drawn by lot."""
        desk = self.desk
        turn = next((t for t in desk.turns(view) if t.id == turn_id), None)
        if turn is None:
            yield desk.draw(view)
            return
        view = replace(view, note=("", ""), comparison=None)
        yield desk.draw(view, looking=turn_id)
        shown = turn.reply
        desk.assistant.give_feedback(
            Feedback(
                turn_id=turn_id,
                conversation_id=turn.conversation_id,
                user_id=USER,
                kind="regenerate",
                candidate_ids=(shown.candidate_id,),
                explicit=False,
                language=shown.language,
            )
        )
        other = self._alternative(turn_id, consent, session(request))
        if other is None or other.outcome == "failed" or _same(other, shown):
            yield desk.draw(replace(view, note=(turn_id, "no_other")))
            return
        pair = (shown, other) if secrets.randbelow(2) else (other, shown)
        comparison = Comparison(turn_id, turn.conversation_id, pair)
        yield desk.draw(replace(view, comparison=comparison, selected=turn_id))

    def pick(self, turn_id: str, value: int, view: View) -> Play:
        """The user's verdict on two answers: 0 the first shown, 1 the second, -1 neither."""
        comparison = view.comparison
        if comparison is None or comparison.turn_id != turn_id or value not in (-1, 0, 1):
            yield self.desk.draw(view)
            return
        replies = comparison.replies
        self.desk.assistant.give_feedback(
            Feedback(
                turn_id=turn_id,
                conversation_id=comparison.conversation_id,
                user_id=USER,
                kind="ab_pick",
                candidate_ids=(replies[0].candidate_id, replies[1].candidate_id),
                value=value,
                order_randomised=True,
                language=replies[0].language,
            )
        )
        if value >= 0:
            self.desk.assistant.choose(turn_id, replies[value].candidate_id, user_id=USER)
        thanks = "thanks_pick" if value >= 0 else "thanks_equal"
        yield self.desk.draw(
            replace(view, comparison=None, note=(turn_id, thanks), selected=turn_id)
        )

    def ready(self, view: View) -> Updates:
        """The input box, ready for the next question."""
        words = say(view.language, "send")
        return {self.page.composer: gr.update(submit_btn=words, stop_btn=False)}

    def _question(self, question: str, view: View, consent: bool) -> Callable[[], Iterator[Event]]:
        return lambda: self.desk.assistant.stream(
            question,
            conversation_id=view.conversation_id or None,
            user_id=USER,
            surface="ui",
            consent=Consent(train=consent),
        )

    def _alternative(self, turn_id: str, consent: bool, key: str) -> Reply | None:
        stop = self.desk.asking.start(key)
        reply: Reply | None = None

        def produce() -> Iterator[Event]:
            given = Consent(train=consent)
            return self.desk.assistant.alternative(turn_id, user_id=USER, consent=given)

        try:
            with closing(paced(produce, stop)) as batches:
                for batch in batches:
                    reply = next((e.reply for e in batch if e.reply is not None), reply)
        finally:
            self.desk.asking.end(key, stop)
        return reply


def _grow(now: Live, batch: list[Event]) -> tuple[Live, Reply | None]:
    reply: Reply | None = None
    for event in batch:
        if event.kind == "text":
            now = replace(now, text=now.text + event.text)
        elif event.step is not None:
            now = replace(now, steps=(*now.steps, event.step.name))
        elif event.reply is not None:
            reply = event.reply
    return now, reply


def _same(one: Reply, other: Reply) -> bool:
    return one.candidate_id == other.candidate_id or one.text.strip() == other.text.strip()
