from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety.lexicon import Lexicon, Sentences, chain, expand, near

HITS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 5)), max_size=8).map(
    lambda rows: sorted({(start, start + size) for start, size in rows})
)


def test_braces_stand_for_all_combinations() -> None:
    """`{a,b} {c,}` names every combination, an empty alternative leaving its word out."""
    assert expand("{a,b} {c,}") == ["a c", "a", "b c", "b"]


def test_too_many_combinations_are_refused() -> None:
    """A phrase that explodes is an error, not a slow start."""
    with pytest.raises(ValueError, match="more than"):
        expand("{a,b,c,d,e,f,g,h,i,j} " * 4)


def test_words_match_whole_and_stems_match_openings() -> None:
    """`bomb` finds no `bombastic`, `bomb*` does; phrases cross blanks and hyphens only."""
    lexicon = Lexicon({"w": ["bomb"], "s": ["bomb*"], "p": ["self harm*"], "zh": ["炸弹"]})
    assert lexicon.find("bombastic") == {"s": [(0, 9)]}
    assert lexicon.find("bomb")["w"] == [(0, 4)]
    assert lexicon.find("a self-harming") == {"p": [(2, 14)]}
    assert lexicon.find("self. harm") == {}
    assert lexicon.find("做炸弹") == {"zh": [(1, 3)]}


@pytest.mark.parametrize("phrase", ["a&b", "", "x*", "go x*"])
def test_a_phrase_that_could_never_match_is_refused(phrase: str) -> None:
    """Signs, nothing at all and stems that match everything are errors."""
    with pytest.raises(ValueError, match="phrase"):
        Lexicon({"g": [phrase]})


@given(HITS, HITS, st.integers(1, 20))
def test_a_chain_is_what_trying_all_pairs_finds(
    first: list[tuple[int, int]], second: list[tuple[int, int]], within: int
) -> None:
    """The linear chain fires on the same second hits as comparing every pair."""
    expected = {b for b in second if any(0 <= b[0] - a[1] <= within for a in first)}
    assert {b[1] for b in expected} == {end for _, end in chain([first, second], within, None)}


@given(HITS, HITS, st.integers(1, 20))
def test_nearness_is_what_trying_all_pairs_finds(
    first: list[tuple[int, int]], second: list[tuple[int, int]], within: int
) -> None:
    """Where any two hits lie close enough, `near` finds some, and only then."""
    if not first or not second:
        assert near([first, second], within, None) == []
        return
    expected = any(max(b[0] - a[1], a[0] - b[1]) <= within for a in first for b in second)
    assert expected == bool(near([first, second], within, None))


def test_a_full_stop_in_a_number_ends_no_sentence() -> None:
    """Sentences end at stops before blanks, at Chinese stops and at line ends."""
    text = "See v1.2 now. Then go。好\nEnd"
    sentences = Sentences(text)
    assert [sentences.of(text.index(w)) for w in ("See", "now", "Then", "好", "End")] == [
        0,
        0,
        1,
        2,
        3,
    ]
