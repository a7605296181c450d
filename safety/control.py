"""Control tokens of chat templates in a text, made inert.

A server that reads special tokens in a message's text would take `<|im_start|>` in a document for
the beginning of a new message. A space put inside leaves the token legible, and no tokenizer
takes it for its own. Spaces are all that is ever added: nothing that was no token becomes one.
"""

from __future__ import annotations

import re

_NAMES = (
    "s|bos|eos|eod|sop|eop|think|thinking|tool_calls?|tool_response|function_calls?|tools"
    "|start_of_turn|end_of_turn|start_of_image|end_of_image|end_of_text"
)
_FORMS = re.compile(
    # ChatML, Llama 3, Phi, Qwen, GLM, Kimi, Cohere; with the full-width bar DeepSeek
    r"(?P<bar><(?P<left>[|｜])(?P<inner>[^<>|｜\n]{1,80})(?P<right>[|｜])>)"
    # Llama 2, Mistral
    r"|(?P<square>\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|gMASK)\])"
    r"|(?P<double><</?SYS>>)"
    # Gemma, sentence ends, thinking and tool blocks
    rf"|(?P<tag></?(?:{_NAMES})>)",
    re.IGNORECASE,
)


def inert(text: str) -> str:
    """The text with every control token broken by a space; equal to `text` where there is none."""
    if "<" not in text and "[" not in text:
        return text
    while (after := _FORMS.sub(_broken, text)) != text:  # a bar token may hold a square one
        text = after
    return text


def _broken(match: re.Match[str]) -> str:
    found = match.group()
    if match.group("bar"):
        return f"< {found[1:-1]} >"
    if match.group("double"):
        return f"< {found[1:-1]} >"
    return f"{found[0]} {found[1:]}"
