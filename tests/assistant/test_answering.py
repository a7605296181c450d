"""Whether a stretch answers a question: what is read, by whom, and what the policy makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from assistant import support
from assistant.answering import MOST, ROOM, asked_of, grown
from assistant.policy._ranker import ANSWERS, STRETCHES, answerable, weigh
from assistant.policy.base import Resources
from assistant.schema import Prompt
from assistant.support import COLUMN, HEADS, KINDS, Calibration, Trained, units
from retrieval.config import EmbedSettings
from retrieval.embed import hashing
from retrieval.schema import Chunk, Found, Passage
from retrieval.text import count_tokens

LENT = Resources(hashing.build(EmbedSettings()), lambda terms: [1.0] * len(terms))


class Counting:
    """An answerer that gives the n-th stretch the logit n, and keeps what it was asked."""

    id = "counting"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def answers(self, question: str, stretches: Sequence[str]) -> NDArray[np.float64]:
        """See `assistant.answering.Answerer`."""
        self.asked += stretches
        return np.arange(1.0, len(stretches) + 1)


def passage(text: str, number: int) -> Passage:
    """A passage that was found."""
    chunk = Chunk(number, number, text, 0, len(text), (), 0)
    return Passage(
        chunk, f"{number}.md", f"Page {number}", "en", "v", 0.0, 0.0, 1.0, (Found("fused", 1, 1.0),)
    )


def prompt(*texts: str) -> Prompt:
    """A question with passages."""
    found = tuple(passage(text, n) for n, text in enumerate(texts, start=1))
    return Prompt((), "When was the mill built?", found, "en")


@given(st.lists(st.integers(3, 60), min_size=1, max_size=12), st.data())
def test_a_stretch_is_as_much_as_can_be_read(sizes: list[int], data: st.DataObject) -> None:
    """It holds its sentence, stays in the passage, and ends where no neighbour fits."""
    text = " ".join(" ".join(["Mill"] * size) + "." for size in sizes)
    spans = units(text)
    anchor = data.draw(st.integers(0, len(spans) - 1))
    start, end = grown(text, anchor, data.draw(st.booleans()))
    inside = [i for i, (a, b) in enumerate(spans) if start <= a and b <= end]
    assert (anchor in inside, spans[inside[0]][0], spans[inside[-1]][1]) == (True, start, end)
    assert len(inside) <= MOST
    cost = [count_tokens(text[a:b]) for a, b in spans]
    held = sum(cost[i] for i in inside)
    assert held <= ROOM or len(inside) == 1
    near = [i for i in (inside[0] - 1, inside[-1] + 1) if 0 <= i < len(spans)]
    assert len(inside) == MOST or all(held + cost[i] > ROOM for i in near)


def test_a_stretch_stands_behind_its_title() -> None:
    """A short title is read whole, none leaves nothing behind."""
    assert asked_of("Mills", "It was built in 1902.") == "Mills: It was built in 1902."
    assert asked_of("", "It was built in 1902.") == "It was built in 1902."
    assert len(asked_of("m" * 900, "x")) < 60


def test_logits_are_calibrated_for_the_languages_at_hand() -> None:
    """The head's column, through the line of the pair's languages."""

    class Fixed:
        id = "fixed"

        def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return np.tile(np.arange(len(HEADS), dtype=np.float32), (len(texts), 1))

    lines = {
        kind: np.array([[0, 0], [0, 0], [n + 1, 0.5]], dtype=np.float32)
        for n, kind in enumerate(KINDS)
    }
    made = Trained(Fixed(), Calibration(lines, dict.fromkeys(KINDS, 0.5)))
    found = made.answers("When was the mill built?", ["It was built in 1902.", "它建于1902年。"])
    assert found.tolist() == [COLUMN + 0.5, 3 * COLUMN + 0.5]
    assert made.answers("When?", []).shape == (0,)


def test_the_ranker_reads_the_likeliest_stretches_once() -> None:
    """Few stretches, none twice; sentences that were not read count as the least likely read."""
    texts = [
        f"The mill number {n} was built in 19{n:02}. Its owner lives there." for n in range(20)
    ]
    answerer = Counting()
    evidence = weigh(prompt(*texts), replace(LENT, answerer=answerer))
    assert evidence is not None
    assert len(answerer.asked) == len(set(answerer.asked)) == STRETCHES
    assert all(text.startswith("Page ") for text in answerer.asked)
    column = evidence.matrix[:, ANSWERS]
    assert (column.min(), column.max()) == (1.0, STRETCHES)
    read = {c.passage for c, value in zip(evidence.candidates, column, strict=True) if value > 1}
    assert len(read) == STRETCHES - 1


def test_without_an_answerer_nothing_is_read() -> None:
    """The column is zero, and so are the features of the question."""
    evidence = weigh(prompt("The mill was built in 1902."), LENT)
    assert evidence is not None
    assert not evidence.matrix[:, ANSWERS].any()
    assert answerable(evidence, np.zeros(len(evidence.candidates)))[-2:].tolist() == [0.0, 0.0]


@pytest.mark.skipif(not support.NETWORK.exists(), reason="no trained weights in models/support")
def test_the_shipped_head_tells_an_answer_from_a_look_alike() -> None:
    """In both languages, with the words of the question in the stretch."""
    from assistant.build import supporter_of
    from assistant.config import Settings

    head = supporter_of(Settings())
    assert head is not None
    asked = (
        ("Who designed the harbour of Lindau?", "The harbour of Lindau was designed by Carl Hoff."),
        ("林岛港是谁设计的？", "林岛港由何大林设计，1902年建成。"),
    )
    other = (
        ("Who destroyed the harbour of Lindau?", asked[0][1]),
        ("林岛港是哪一年被毁的？", "林岛港由何大林设计。"),
    )
    for (question, stretch), (wrong, beside) in zip(asked, other, strict=True):
        (yes,), (no,) = head.answers(question, [stretch]), head.answers(wrong, [beside])
        assert yes > no
