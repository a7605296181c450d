"""The errands of front ends: titles, tags, follow-ups, queries, asked through the chat endpoint.

They are answered from the words of the conversation alone: nothing is searched, no policy is asked,
and nothing is remembered or logged. A request is one where its model says so, or where it has the
form of Open WebUI's own prompts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from assistant.schema import PolicyCard, Reply, Understanding
from assistant.server.answer import Choice, Piece
from assistant.server.base import TASKS, Server
from assistant.server.cut import Cut
from assistant.server.reading import Ask
from assistant.understand import language_of
from retrieval.text import content_words

Kind = Literal["title", "tags", "follow_ups", "queries", "text", "emoji", "line"]
_CARD = PolicyCard(TASKS, TASKS)
_HISTORY = re.compile(r"<chat_history>(.*?)</chat_history>", re.S)
_SAID = re.compile(r"^\s*(?:USER|User|用户)\s*[:：]\s*(.+?)\s*$", re.M)
_WANTED = re.compile(r'"(title|tags|follow_ups|queries|text)"\s*:')
_EMPTY = {"en": "Conversation", "zh": "对话"}
#: Characters of a title at most, tags at most.
TITLE, TAGS = 60, 3


@dataclass(frozen=True, slots=True)
class Task:
    """What a front end wants, and the words that it is about."""

    kind: Kind
    first: str
    last: str


def of(ask: Ask) -> Task | None:
    """The errand that a request is; None where it is a question."""
    history = _HISTORY.search(ask.question)
    if not ask.task and not (ask.question.startswith("### Task:") and history):
        return None
    wanted = _WANTED.search(ask.question)
    kind: Kind = "line"
    if wanted is not None:
        kind = wanted[1]  # type: ignore[assignment] # the pattern lists the kinds
    elif "emoji" in ask.question[:400]:
        kind = "emoji"
    said = _SAID.findall(history[1]) if history else []
    said = said or [m.text for m in ask.told or () if m.role == "user"] or [ask.question]
    return Task(kind, said[0], said[-1])


def answer(server: Server, ask: Ask, task: Task) -> Iterator[Piece | Choice]:
    """The one choice of an errand; what may not be asked makes no title either."""
    guard, count = server.assistant.parts.guard, server.assistant.parts.policy.count_tokens
    verdicts = guard.retold([task.first, task.last])
    language = language_of(task.first, [], "auto")
    stopped = any(v.stops for v in verdicts)
    cut = Cut(ask.stops, ask.limit, count)
    text = cut.feed(_text(task, language, stopped)) + cut.finish()
    reply = Reply(
        turn_id="",
        candidate_id="",
        conversation_id=ask.conversation_id or "",
        text=text,
        outcome="social",
        language=language,
        citations=(),
        passages=(),
        verdicts=tuple(verdicts),
        steps=(),
        understanding=Understanding("question", "", False, language, "an errand of a front end"),
        policy=_CARD,
        confidence=None,
        seconds=0.0,
    )
    yield Piece(0, text)
    finish: Literal["length", "stop"] = "length" if cut.ended == "length" else "stop"
    read, made = count(ask.question), count(text)
    yield Choice(0, text, None, finish, reply, (), (), read, made)


def _text(task: Task, language: str, stopped: bool) -> str:
    title = _EMPTY.get(language, "Conversation") if stopped else _line(task.first)
    if task.kind == "line":
        return title
    if task.kind == "emoji":
        return "💬"
    words = [] if stopped else list(dict.fromkeys(content_words(task.first)))[:TAGS]
    made: dict[str, object] = {
        "title": title,
        "tags": words,
        "follow_ups": [],
        "queries": [] if stopped else [task.last[:300]],
        "text": "",
    }
    return json.dumps({task.kind: made[task.kind]}, ensure_ascii=False)


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= TITLE else line[: TITLE - 1] + "…"
