from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety.control import inert

TOKENS = [
    "<|im_start|>",
    "<|eot_id|>",
    "<｜begin▁of▁sentence｜>",
    "<|START_OF_TURN_TOKEN|>",
    "[INST]",
    "[/INST]",
    "[TOOL_CALLS]",
    "<<SYS>>",
    "<</SYS>>",
    "<s>",
    "</s>",
    "<start_of_turn>",
    "<think>",
    "</tool_call>",
    "[gMASK]",
]


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("frame", ["{}", "a{}b", "<{}>", "{}{}", "<|{}|>"])
def test_no_control_token_is_left(token: str, frame: str) -> None:
    """A token of any family is broken wherever it stands, and stays legible."""
    text = frame.replace("{}", token)
    got = inert(text)
    assert (token in got, got.replace(" ", ""), inert(got)) == (False, text, got)


@pytest.mark.parametrize(
    "text",
    ["plain", "a < b |> f <| g", "x[0], [1]", "<div>", "<strong>", "List<String>", "a<b>c", "北京"],
)
def test_other_text_is_left_alone(text: str) -> None:
    """Comparisons, pipes, tags and indices are no control tokens."""
    assert inert(text) == text


@given(st.lists(st.sampled_from([*TOKENS, "<", "|", ">", "[", "]", "s", "im", " "]), max_size=12))
def test_breaking_makes_no_token(parts: list[str]) -> None:
    """Once is enough: nothing that was no token becomes one."""
    once = inert("".join(parts))
    assert (inert(once), any(token in once for token in TOKENS)) == (once, False)


def test_a_hostile_text_is_read_in_time() -> None:
    """100 kB of half-open tokens cost a fraction of a second, not minutes."""
    begin = time.thread_time()
    for unit in ("<|", "<|a", "[INST", "<", "<<SYS"):
        inert(unit * (100_000 // len(unit)))
    assert time.thread_time() - begin < 5.0
