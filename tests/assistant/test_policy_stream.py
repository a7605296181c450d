from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from assistant.policy._stream import THINKING, Cleaner, Length, Pieces, unclosed
from assistant.prompt import ABSTAIN

SIGNS = ("[[no", "STOP", "ST", "<", "[", " ", "\n", "北京", "a", "]]", "<th")
PARTS = st.sampled_from((*THINKING, *THINKING.values(), ABSTAIN, *SIGNS))


def clean(pieces: list[str], stop: tuple[str, ...], thinking: bool) -> tuple[str, str]:
    """Feed pieces as a policy does; the text shown and how it ended."""
    cleaner, out = Cleaner(stop, "</think>" if thinking else ""), ""
    for piece in pieces:
        out += cleaner.feed(piece)
        if cleaner.ended:
            return out, cleaner.ended
    return out + cleaner.finish(), cleaner.ended


@given(st.lists(PARTS, max_size=8).map("".join), st.data(), st.booleans())
@example("", None, False)
def test_how_a_text_is_cut_does_not_matter(
    text: str, data: st.DataObject | None, thinking: bool
) -> None:
    """Any cut of a text into pieces shows the same and ends the same."""
    whole = clean([text], ("STOP", "TOPA"), thinking)
    letters = clean(list(text), ("STOP", "TOPA"), thinking)
    assert letters == whole
    if data is not None and text:
        at = data.draw(st.integers(0, len(text)))
        assert clean([text[:at], text[at:]], ("STOP", "TOPA"), thinking) == whole


@given(st.text(max_size=30))
def test_plain_text_passes(text: str) -> None:
    """Text without tag, marker or stop string comes out whole but for leading space."""
    if ABSTAIN not in text and not any(tag in text for tag in THINKING):
        assert clean(list(text), (), False) == (text.lstrip(), "")


def test_the_earliest_stop_string_wins() -> None:
    """The answer ends at the first of several, wherever it stands in the list."""
    assert clean(list("one two three"), ("three", "two"), False) == ("one ", "stop")


def test_the_marker_counts_at_the_beginning_only() -> None:
    """Later in an answer the marker is text."""
    assert clean([f"see {ABSTAIN}"], (), False) == (f"see {ABSTAIN}", "")
    assert clean([f"<think>?</think> {ABSTAIN}."], (), False) == ("", "abstain")
    assert clean(["[[no-ans"], (), False) == ("[[no-ans", "")


def test_an_unfinished_thought_is_not_shown() -> None:
    """A thinking block cut by the token limit shows nothing."""
    assert clean(["<think>hm"], (), False) == ("", "")
    assert clean(["hm"], (), True) == ("", "")


@given(st.text(max_size=20))
def test_pieces_rejoin(text: str) -> None:
    """Bytes fed one by one come out as whole characters that make the text."""
    pieces = Pieces(lambda ids: bytes(ids).decode("utf-8", errors="replace"))
    out = [pieces.feed(byte) for byte in text.encode()]
    assert "".join([*out, pieces.finish()]) == text
    if "\ufffd" not in text:
        assert all("\ufffd" not in piece for piece in out)


@pytest.mark.parametrize(("tag", "closing"), THINKING.items())
def test_every_way_of_thinking_is_left_out(tag: str, closing: str) -> None:
    """Blocks of all kinds go, wherever they are cut; a tag of another kind does not end one."""
    other = next(c for c in THINKING.values() if c != closing)
    text = f"One. {tag}hm {other} hm{closing}Two."
    assert clean(list(text), (), False) == clean([text], (), False) == ("One. Two.", "")
    assert unclosed(f"Question {tag}\n") == closing
    assert unclosed(f"Question {tag} hm") == ""


def test_more_than_was_asked_for_is_noticed() -> None:
    """As many pieces as tokens are fine, empty ones are none; more of them, or long ones, not."""
    length = Length(3)
    assert [length.over(piece) for piece in ("a", "", "b", "c", "", "d")] == [False] * 5 + [True]
    assert not Length(3).over("two or three words in one piece")
    assert Length(3).over("word " * 100)
