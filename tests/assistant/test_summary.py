from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant.schema import Outcome
from assistant.summary import ANSWER, QUESTION, TURNS, summarise
from tests.assistant.test_memory import turn, words

TOWER = "北京塔多高？ → 北京塔高三百米。"
TOLD = [
    turn("a", "c", "What does the widget cost?", "Made in Lyon. [1] The widget costs 40. [2]"),
    turn("b", "c", "北京塔多高？", "北京塔高三百米。[1]"),
    turn("c", "c", "And the zeppelin?", "Not found.", "abstained"),
]


def test_a_line_is_a_question_and_the_sentence_that_answers_it() -> None:
    """Words are the conversation's own; marks, which would point nowhere, are left out."""
    assert summarise(TOLD, 100, words).splitlines() == [
        "What does the widget cost? → The widget costs 40.",
        TOWER,
        "And the zeppelin?",
    ]


@pytest.mark.parametrize(
    ("budget", "lines"),
    [
        (0, []),
        (3, ["And the zeppelin?"]),
        (4, ["北京塔多高？", "And the zeppelin?"]),
        (9, ["What does the widget cost?", "北京塔多高？", "And the zeppelin?"]),
        (
            11,
            ["What does the widget cost?", "北京塔多高？ → 北京塔高三百米。", "And the zeppelin?"],
        ),
    ],
)
def test_newer_turns_and_questions_go_first(budget: int, lines: list[str]) -> None:
    """What does not fit is the oldest, and answers before questions."""
    assert summarise(TOLD, budget, words).splitlines() == lines


@pytest.mark.parametrize("outcome", ["refused", "crisis", "failed", "social"])
def test_what_was_stopped_is_not_summed_up(outcome: Outcome) -> None:
    """Neither refused requests nor small talk are what was talked about."""
    assert summarise([turn("x", "c", "bad", "a refusal", outcome)], 100, words) == ""


def test_long_words_are_cut() -> None:
    """A line has a bounded length, and a conversation a bounded number of lines."""
    long = [turn(f"t{n}", "c", "why " * 500, "because " * 5000) for n in range(200)]
    lines = summarise(long, 10**6, words).splitlines()
    assert len(lines) == TURNS
    assert all(len(line) <= QUESTION + ANSWER + 3 for line in lines)


@given(
    st.lists(st.tuples(st.text(max_size=40), st.text(max_size=60)), max_size=6),
    st.integers(0, 60),
)
def test_a_summary_fits_and_is_a_function_of_its_turns(
    told: list[tuple[str, str]], budget: int
) -> None:
    """Whatever was said, the budget holds and the same turns make the same bytes."""
    turns = [turn(str(n), "c", said, text) for n, (said, text) in enumerate(told)]
    first = summarise(turns, budget, words)
    assert words(first) <= budget
    assert summarise(turns, budget, words) == first
