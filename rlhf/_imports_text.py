"""What the formats' values become: texts, messages and transcripts, checked."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from assistant.schema import Message, Role
from rlhf._imports_read import LeftOut, Malformed
from rlhf.schema import Sample

_TURN = re.compile(r"(?:\A|\n\n)[ \t]*(Human|Assistant):")
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}


def text_of(row: dict[str, Any], key: str) -> str:
    """The text under a key, not blank.

    Raises:
        Malformed: there is none.
    """
    if key not in row:
        raise Malformed(f"there is no {key!r}", "check that the format is the file's")
    return _sound(row[key], key)


def _sound(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise Malformed(f"{name!r} is no text but {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Malformed(f"{name!r} holds half a character", "write the file as UTF-8") from None
    if not value.strip():
        raise Malformed(f"{name!r} is empty")
    return value.strip()


def messages_of(value: object, name: str) -> tuple[Message, ...]:
    """Messages from a list of {"role", "content"}, neighbours of one role joined.

    Raises:
        Malformed: something else stands there.
    """
    if not isinstance(value, list) or not value:
        raise Malformed(f"{name!r} is no list of messages")
    found: list[Message] = []
    for item in value:
        if not isinstance(item, dict):
            raise Malformed(f"a message of {name!r} is no object")
        role = item.get("role", item.get("from"))
        if not isinstance(role, str) or role not in _ROLES:
            raise Malformed(
                f"a message of {name!r} has the role {role!r}",
                f"only {', '.join(sorted(set(_ROLES.values())))} are read",
            )
        text = _content(item.get("content", item.get("value")), name)
        found.append(Message(_ROLES[role], text))
    return joined(found)


def _content(value: object, name: str) -> str:
    if isinstance(value, list):
        parts = [p.get("text") if isinstance(p, dict) else p for p in value]
        if not all(isinstance(p, str) for p in parts):
            raise Malformed(f"a message of {name!r} is not all text", "leave out images and tools")
        value = "\n".join(str(p) for p in parts)
    return _sound(value, name)


def joined(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Messages with neighbours of one role made one."""
    found: list[Message] = []
    for message in messages:
        if found and found[-1].role == message.role:
            message = Message(message.role, f"{found.pop().text}\n\n{message.text}")
        found.append(message)
    return tuple(found)


def transcript(text: str) -> tuple[Message, ...]:
    """Messages of a transcript of HH-RLHF; what stands before its first turn is the system's.

    An empty last turn of the assistant, where an answer is to follow, is left out. Text without
    turns gives ().
    """
    marks = list(_TURN.finditer(text))
    if not marks:
        return ()
    found = [Message("system", before)] if (before := text[: marks[0].start()].strip()) else []
    ends = [*(m.start() for m in marks[1:]), len(text)]
    for mark, end in zip(marks, ends, strict=True):
        said = text[mark.end() : end].strip()
        if said:
            found.append(Message("user" if mark[1] == "Human" else "assistant", said))
    return joined(found)


def prompt_of(value: object, name: str = "prompt") -> tuple[Message, ...]:
    """A prompt from messages, a transcript, or the text of one question.

    Raises:
        Malformed: it does not end with a message of the user.
    """
    if isinstance(value, list):
        found = messages_of(value, name)
    else:
        text = _sound(value, name)
        found = transcript(text) or (Message("user", text),)
    if not found or found[-1].role != "user":
        raise Malformed(f"{name!r} does not end with a message of the user")
    return found


def answer_of(value: object, prompt: Sequence[Message], name: str) -> str:
    """An answer from a text, or from messages that may repeat the prompt before it.

    Raises:
        Malformed: it is not one message of the assistant.
    """
    if not isinstance(value, list):
        return _sound(value, name)
    found = messages_of(value, name)
    asked = tuple(m for m in prompt if m.role != "system")
    for before in (tuple(prompt), asked):
        if found[: len(before)] == before:
            found = found[len(before) :]
            break
    if len(found) != 1 or found[0].role != "assistant":
        raise Malformed(f"{name!r} is not one message of the assistant after the prompt")
    return found[0].text


def split_off(messages: Sequence[Message], name: str) -> tuple[tuple[Message, ...], str]:
    """A whole conversation as the prompt and its last answer.

    Raises:
        Malformed: it does not end with an answer to a user.
    """
    *before, last = messages
    if last.role != "assistant" or not before or before[-1].role != "user":
        raise Malformed(f"{name!r} does not end with an answer to a user")
    return tuple(before), last.text


def comparison(
    prompt: tuple[Message, ...],
    completions: Sequence[str],
    ranks: Sequence[int],
    **more: Any,
) -> Sample:
    """A comparison that decides something, or a tie.

    Raises:
        Malformed: there are not two answers or more, or there are over 64.
        LeftOut: all answers are the same.
    """
    if not 2 <= len(completions) <= 64 or len(ranks) != len(completions):
        raise Malformed(f"{len(completions)} answers with {len(ranks)} ranks are no comparison")
    if len(set(completions)) == 1:
        raise LeftOut("all answers are the same", "nothing is lost")
    if len(set(completions)) < len(completions):
        raise Malformed("one answer stands there twice")
    return Sample("comparison", prompt, tuple(completions), tuple(ranks), **more)


def weight_of(row: dict[str, Any]) -> float:
    """The weight of a row, 1 where it says none.

    Raises:
        Malformed: it is not in (0, 1].
    """
    value = row.get("weight", 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise Malformed(f"the weight {value!r} is not in (0, 1]")
    return float(value)


def name_of(value: object) -> str:
    """An id, a user's or model's name, as text; "" for none."""
    if isinstance(value, dict):
        value = value.get("id", value.get("email"))
    return str(value)[:200] if isinstance(value, str | int) and not isinstance(value, bool) else ""


def time_of(value: object) -> float:
    """Seconds since the epoch from a number or an ISO date; 0 where there is neither."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError, OSError):
            return 0.0
    return 0.0
