from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import asking
from bench.ir import lines
from retrieval.sources.memory import Given
from tests.bench_files import write


@pytest.mark.parametrize(
    ("text", "gold", "held"),
    [
        ("共有70个议席。", "70", True),
        ("ＲＣＥＰ包括 东盟、中国 和日本", ["东盟", "中国", "日本"], True),
        ("RCEP包括东盟和中国", ["东盟", "中国", "日本"], False),
        ("一共一百三十一 万人", [["1313851", "一百三十一万"]], True),
        ("Tampa,  FLORIDA", "tampa, florida", True),
        ("", ["x"], False),
        ("anything", [], False),
    ],
)
def test_an_answer_is_there_with_all_its_parts(text: str, gold: asking.Gold, held: bool) -> None:
    """Every part must be in the text, any alias of it, whatever its width, case and spaces."""
    assert asking.holds(text, gold) is held


@given(st.text(max_size=40), st.text(max_size=40))
def test_rouge_l_is_a_symmetric_share(one: str, other: str) -> None:
    """It lies in [0, 1], is the same both ways, and 1 for the same words."""
    value = asking.rouge_l(one, other)
    same = asking.rouge_l(one, one) if asking.tokens(one) else 1.0
    assert (0 <= value <= 1, value == asking.rouge_l(other, one), same) == (True, True, 1.0)


@pytest.mark.parametrize(
    ("text", "gold", "value"),
    [("the red cat sat", "the cat", 2 * 2 / 6), ("北京很大", "北京", 2 * 2 / 6), ("a", "", 0.0)],
)
def test_rouge_l_follows_the_order_of_words(text: str, gold: str, value: float) -> None:
    """Words count in their order; Chinese by character."""
    assert asking.rouge_l(text, gold) == pytest.approx(value)


def test_coverage_counts_a_word_as_often_as_it_is_there() -> None:
    """A word said once does not cover a part that says it twice."""
    assert asking.covered("no more", "no no more") == pytest.approx(2 / 3)
    assert (asking.covered("", "a"), asking.covered("a", "")) == (0.0, 0.0)


@given(st.lists(st.integers(), max_size=30), st.integers(0, 40))
def test_a_drawn_part_keeps_its_order_and_its_size(rows: list[int], limit: int) -> None:
    """At most so many, the same each time, in order; zero is all."""
    numbered = list(enumerate(rows))
    found = asking.drawn(numbered, limit)
    wanted = min(limit, len(rows)) if limit else len(rows)
    assert (found, len(found), found) == (asking.drawn(numbered, limit), wanted, sorted(found))


def test_a_setting_without_a_value_is_named(tmp_path: Path) -> None:
    """The error says which, and how to write it."""
    options = Namespace(set=["policy.passages"], policy="echo")
    with pytest.raises(SystemExit, match=r"--set policy\.passages: .*KEY=VALUE"):
        asking.chosen(options, tmp_path)


def test_a_row_of_nothing_is_said_so() -> None:
    """No questions have no rate and no interval."""
    assert (asking.average([]), asking.row("x", [])) == (None, ("x", "–", "n 0"))


def test_documents_are_open_to_their_readers_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two questions with the same words get their own passages, and nobody else any."""
    monkeypatch.setenv("PLUMBLINE_RETRIEVAL__EMBED__BACKEND", "hashing")
    given_ = [
        Given("a", "The harbour of Varnholm was built in 1874.", readers=("one",)),
        Given("b", "The harbour of Varnholm was built in 1990.", readers=("two",)),
    ]
    settings = asking.chosen(Namespace(set=[], policy="echo"), tmp_path)
    question = "When was the harbour of Varnholm built?"
    with asking.opened(settings, "tiny", given_) as assistant:
        replies = [assistant.reply(question, readers=frozenset({r})) for r in ("one", "two", "x")]
    found = [[year in asking.said(reply) for year in ("1874", "1990")] for reply in replies]
    assert found == [[True, False], [False, True], [False, False]]


def test_lines_written_are_lines_read(tmp_path: Path) -> None:
    """The tests' files are those the benchmarks read."""
    write(tmp_path / "a" / "b.jsonl.gz", [{"问": "答"}])
    assert list(lines(tmp_path / "a" / "b.jsonl.gz")) == [{"问": "答"}]
