"""Messages as a causal language model reads them: its tokenizer's chat template, made safe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from assistant.errors import PolicyRefused
from assistant.schema import Message


def encode(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids of a prompt that asks for the next assistant message; training encodes alike.

    The tokenizer's chat template is used, thinking switched off where it can be. Control tokens
    that stand in a message are encoded as plain text, so a message cannot pose as another role.
    A template without a system role gets the system text before the first user message.

    A tokenizer without a template gets `System: …`, `User: …`, `Assistant: …`, parted by blank
    lines and ending in `Assistant:`.

    Raises:
        PolicyRefused: the template rejects the messages.
    """
    if not tokenizer.chat_template:
        lines = [f"{m.role.capitalize()}: {m.text}" for m in messages]
        text = "\n\n".join([*lines, "Assistant:"])
        plain = tokenizer(text, verbose=False, split_special_tokens=True)
        return list(plain["input_ids"])
    merged = _merge_system(messages)
    try:
        return _templated(tokenizer, messages)
    except (TemplateError, ValueError) as error:
        if len(merged) == len(messages):
            raise _unrenderable(error) from error
    try:
        return _templated(tokenizer, merged)
    except (TemplateError, ValueError) as error:
        raise _unrenderable(error) from error


def _templated(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    ids = tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.text} for m in messages],
        add_generation_prompt=True,
        return_dict=False,
        sanitize_control_tokens=True,
        enable_thinking=False,
    )
    return list(ids)


def _merge_system(messages: Sequence[Message]) -> list[Message]:
    if len(messages) > 1 and messages[0].role == "system" and messages[1].role == "user":
        return [Message("user", f"{messages[0].text}\n\n{messages[1].text}"), *messages[2:]]
    return list(messages)


def _unrenderable(error: Exception) -> PolicyRefused:
    return PolicyRefused(f"the model's chat template rejects the prompt: {error}")


def without_oldest(messages: list[Message]) -> list[Message] | None:
    """Drop the oldest question with its answer; None where only system and last user are left."""
    start = 1 if messages and messages[0].role == "system" else 0
    end = start + 1
    while end < len(messages) - 1 and messages[end].role == "assistant":
        end += 1
    if end >= len(messages):
        return None
    return [*messages[:start], *messages[end:]]
