"""A conversation as its caller tells it: messages in, turns out, for a turn that keeps nothing.

What is told is not trusted: every message is judged as an input is, and an exchange with one that
would have been stopped is no context for what follows. No passages are known of such turns.
"""

from __future__ import annotations

from collections.abc import Sequence

from assistant.schema import Message, Outcome, PolicyCard, Reply, Turn, Understanding
from assistant.understand import understand
from safety import Guard

#: Exchanges that are looked at, the last ones.
EXCHANGES = 32
_NOBODY = PolicyCard("", "")


def retold(messages: Sequence[Message], guard: Guard, tongue: str) -> list[Turn]:
    """The exchanges of a conversation, oldest first; a question without an answer is none."""
    pairs = _pairs(messages)[-EXCHANGES:]
    verdicts = guard.retold([text for pair in pairs for text in pair])
    turns: list[Turn] = []
    for place, (asked, answered) in enumerate(pairs):
        stopped = any(v.stops for v in verdicts[2 * place : 2 * place + 2])
        turns.append(_turn(asked, answered, understand(asked, turns, tongue), stopped))
    return turns


def _pairs(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Questions with their answers; messages of one side in a row are one."""
    said: list[list[str]] = []
    sides: list[str] = []
    for message in messages:
        if message.role == "system" or not message.text.strip():
            continue
        if sides and sides[-1] == message.role:
            said[-1].append(message.text)
        else:
            sides.append(message.role)
            said.append([message.text])
    texts = ["\n".join(lines).encode(errors="replace").decode() for lines in said]
    return [
        (texts[at], texts[at + 1])
        for at in range(len(sides) - 1)
        if (sides[at], sides[at + 1]) == ("user", "assistant")
    ]


def _turn(asked: str, answered: str, understood: Understanding, stopped: bool) -> Turn:
    outcome: Outcome = "refused" if stopped else "answered"
    reply = Reply(
        turn_id="",
        candidate_id="",
        conversation_id="",
        text=answered,
        outcome=outcome,
        language=understood.language,
        citations=(),
        passages=(),
        verdicts=(),
        steps=(),
        understanding=understood,
        policy=_NOBODY,
        confidence=None,
        seconds=0.0,
    )
    return Turn("", "", asked, reply, 0.0)
