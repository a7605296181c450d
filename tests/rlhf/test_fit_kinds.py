"""Questions made by rule, how their sentences are marked, and models that read nothing twice."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from assistant.phrases import PHRASES as BOOK
from assistant.policy._ranker import Candidate
from retrieval.schema import Chunk, Passage
from retrieval.text import sentences
from rlhf.fit._gist import gist, halves
from rlhf.fit._kinds import Asked, bare, followed, joint, phrases, said, summaries
from rlhf.fit._remembered import Answering, Reading

HAN = re.compile("[\u4e00-\u9fff]")
ENGLISH = "Pump 7 stands in hall 3. It was built in 1907 by Ann. It runs on steam."
CHINESE = "北京塔高三百米。它的门票是四十元。塔内有一座餐厅。"


def asked(number: str, text: str, answer: str, **values: str) -> Asked:
    """A question on the pump."""
    row = Asked(number, "squad/squad2_dev", "en", text, ENGLISH, "Pump 7", (answer,))
    return replace(row, **values)  # type: ignore[arg-type]


PUMP = [
    asked("1", "How many steam pumps like Pump 7 were built in the old hall?", "1907"),
    asked("2", "When was Pump 7 built?", "1907"),
    asked("3", "Where does Pump 7 stand?", "hall 3"),
]
ZH = {"lang": "zh", "context": CHINESE, "title": "北京塔"}
TOWER = [
    asked("4", "北京塔有多高？", "三百米", **ZH),
    asked("5", "北京塔的门票多少钱？", "四十元", **ZH),
]


def passage(text: str, number: int) -> Passage:
    """A passage of a document of its own."""
    chunk = Chunk(number, number, text, 0, len(text), (), number)
    return Passage(chunk, f"{number}.md", "", "", "", 0.0, 0.0, 1 / number, ())


def candidates(found: Sequence[Passage]) -> list[Candidate]:
    """Every sentence of some passages."""
    return [
        Candidate(n, a, b, p.chunk.text[a:b])
        for n, p in enumerate(found)
        for a, b in sentences(p.chunk.text)
    ]


def test_what_was_written_by_hand_is_in_both_languages() -> None:
    """As much of each kind, nothing twice, every key in the phrase book or a form with a place."""
    texts = said()
    counts = Counter((key, lang) for key, lang, _ in texts)
    assert len({(lang, text) for _, lang, text in texts}) == len(texts) > 500
    for key in {key for key, _, _ in texts}:
        assert 0.8 < counts[key, "en"] / counts[key, "zh"] < 1.25
    for key, lang, text in texts:
        assert ("{}" in text) == (key == "summary")
        assert key == "summary" or key in BOOK
        assert lang == "zh" or not HAN.search(text)
    assert {row.phrase for row in phrases()} == {key for key, _, _ in texts} - {"summary"}


def test_a_malformed_line_is_named(tmp_path: Path) -> None:
    """By its number."""
    path = tmp_path / "said.tsv"
    path.write_text("said\tlang\ttext\ngreeting\ten\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 2"):
        said(path)


def test_bare_words_keep_their_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Function words go, the rest stays in its order; what is left of one word is no request."""
    monkeypatch.setattr("rlhf.fit._kinds._BARE", 1.0)
    made = {row.id: row for row in bare([*PUMP, *TOWER])}
    assert made["1-bare"].text == "steam pumps like Pump 7 built old hall"
    assert made["1-bare"].answers == ("1907",)
    assert {row.lang for row in made.values()} == {"en", "zh"}
    assert all("？" not in row.text for row in made.values())


def test_two_questions_whose_answers_stand_apart_become_one() -> None:
    """Both answers are kept by part; questions on one sentence are not joined."""
    (english,) = joint(PUMP)
    assert len(english.parts) == 2
    assert {"1907", "hall 3"} == {*english.answers}
    (chinese,) = joint(TOWER)
    assert chinese.text.count("多") == 2
    assert not list(joint(PUMP[:2]))


def test_a_follow_up_is_asked_as_the_assistant_makes_it_standalone() -> None:
    """A pronoun for the title, and the title carried over from the question before."""
    (english,) = followed(PUMP[1:])
    assert re.search(r"\bit\b", english.text)
    assert english.text.endswith("Pump 7")
    (chinese,) = followed(TOWER)
    assert chinese.text.startswith("它")
    assert chinese.text.endswith("北京塔")
    assert not list(followed(PUMP[1:2]))


def test_a_title_within_a_name_is_no_pronoun() -> None:
    """The founding of Istanbul University is not the founding of "it" University."""
    rows = [
        asked("6", "When was Pump 7 Hall built?", "1907"),
        asked("7", "Who built Pump 7 Hall?", "Ann"),
    ]
    assert not list(followed(rows))


def test_short_articles_are_summed_up() -> None:
    """By a form in the title's language; one of many paragraphs is not."""
    made = list(summaries([*PUMP, *TOWER]))
    assert [(row.title, row.lang) for row in made] == [("Pump 7", "en"), ("北京塔", "zh")]
    for row in made:
        assert row.title in row.text
        assert row.answerable
    long = [asked(str(n), "?", "x", context=f"Text {n}.") for n in range(4)]
    assert not list(summaries(long))


def test_the_gist_is_the_lead_and_what_the_text_keeps_saying() -> None:
    """Of gold passages only; three sentences at the most, in the order of the text."""
    body = (
        "The heron is a large wading bird of ponds. In 1998 a bridge fell down somewhere else. "
        "Herons hunt fish in ponds by wading slowly. People drive cars along the motorway nearby. "
        "Ponds with fish draw wading herons. Nothing more was told by anyone there. "
    )
    found = [passage("Cars are fast and loud machines.", 1), passage(body, 2)]
    there = candidates(found)
    chosen = gist(found, [False, True], there)
    assert [there[i].text[:10] for i in chosen] == ["The heron ", "Ponds with"]
    assert gist(found, [False, False], there) == ()
    (alone,) = gist(found, [True, False], there)
    assert there[alone].passage == 0


def test_each_half_of_a_question_is_marked() -> None:
    """A sentence with both answers suffices; else the first of each, of what was found."""
    found = [passage(ENGLISH, 1), passage(ENGLISH.replace("Pump", "Fan"), 2)]
    there = candidates(found)
    assert halves([["hall 3"], ["1907"]], [True, False], there) == ((False,) * 6, (0, 1))
    right, needed = halves([["Ann"], ["1907"]], [False, True], there)
    assert (right.index(True), sum(right), needed) == (4, 1, ())
    assert halves([["hall 3"], ["2001"]], [True, False], there)[1] == (0,)
    assert halves([["hall 3"], ["1907"]], [False, False], there)[1] == ()


class Counting:
    """A reranker and a head whose results follow from the text."""

    id, calibrated = "counting", True

    def __init__(self) -> None:
        self.read: list[str] = []

    def rank(self, query: str, texts: Sequence[str]) -> np.ndarray:
        """Length of both."""
        return np.array([len(query + t) for t in self._noted(texts)], dtype=np.float32)

    def answers(self, question: str, stretches: Sequence[str]) -> np.ndarray:
        """Length of both."""
        return np.array([len(question + t) for t in self._noted(stretches)], dtype=np.float64)

    def _noted(self, texts: Sequence[str]) -> Sequence[str]:
        self.read += texts
        return texts


def test_nothing_is_read_twice_and_results_are_the_same() -> None:
    """By text and question; another question is read anew."""
    plain = Counting()
    for name, wrapped in {
        "rank": Reading(Counting()),
        "answers": Answering(Counting()),
    }.items():
        inner = next(v for v in vars(wrapped).values() if isinstance(v, Counting))
        for texts, about in ((["a", "bb", "a"], "query"), (["bb", "ccc"], "query"), (["a"], "x")):
            expected, found = (
                getattr(plain, name)(about, texts),
                getattr(wrapped, name)(about, texts),
            )
            assert np.array_equal(expected, found)
            assert expected.dtype == found.dtype
        assert inner.read == ["a", "bb", "ccc", "a"]
