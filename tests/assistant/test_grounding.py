from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assistant.grounding import Grounded, Grounder, SentenceStream, marks_removed
from assistant.schema import Delta
from retrieval.schema import Chunk, Passage

WIDGET = (
    "The widget costs 40 euros in Lyon. It was made in 1999 by Mara Lind. It is not waterproof."
)
TOWER = "北京塔高300米，建于1999年。门票四十元。"


def passage(text: str, number: int = 1, start: int = 0) -> Passage:
    """Make a passage that says `text`, at `start` of its document."""
    chunk = Chunk(number, number, text, start, start + len(text), (), 0)
    return Passage(chunk, f"{number}.md", "Doc", "en", "v", 0.0, 0.0, 1.0, ())


def even(terms: list[str]) -> list[float]:
    """Every word says as much as another."""
    return [1.0] * len(terms)


def grounder(*texts: str, unsupported: Literal["drop", "flag"] = "drop") -> Grounder:
    """Make a grounder on passages that say `texts`."""
    found = [passage(text, number) for number, text in enumerate(texts, start=1)]
    return Grounder(found, even, unsupported)


def check(sentence: str, *texts: str) -> str:
    """Say how `sentence` is supported by passages; "dropped" where it may not be shown."""
    found = grounder(*texts).sentence(sentence)
    return found.support if found else "dropped"


def quote(text: str, number: int, start: int, end: int) -> Delta:
    """Make a policy's quote."""
    return Delta(text, quote=(number, start, end))


def test_a_quote_at_its_place_is_cited() -> None:
    """The citation's offsets are the document's, and hold the quoted words."""
    found = Grounder([passage(WIDGET, start=100)], even)
    shown = found.quote(quote(WIDGET[:34], 1, 0, 34))
    (citation,) = found.citations
    got = (shown, citation.quote, citation.start, citation.end, citation.verbatim)
    expected = Grounded(f"{WIDGET[:34]} [1]", "quote"), WIDGET[:34], 100, 134, True
    assert got == expected


@pytest.mark.parametrize(
    "delta",
    [
        quote("The widget costs 40 euros in Lyon.", 1, 1, 35),
        quote("The widget costs 41 euros in Lyon.", 1, 0, 34),
        quote("The widget costs 40 euros in Lyon.", 0, 0, 34),
        quote("The widget costs 40 euros in Lyon.", 2, 0, 34),
        quote("The widget costs 40 euros in Lyon.", -1, 0, 34),
        quote("waterproof", 1, -11, -1),
        quote("", 1, 0, 0),
        quote("", 1, 9, 3),
        quote("waterproof.", 1, len(WIDGET) - 12, len(WIDGET)),
    ],
)
def test_a_quote_that_is_not_at_its_place_is_dropped(delta: Delta) -> None:
    """Wrong words, wrong place or wrong passage: not shown, not cited, counted."""
    found = grounder(WIDGET)
    assert (found.quote(delta), found.citations, found.dropped) == (None, (), 1)


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        ("The widget costs 40 euros in Lyon. [1]", "The widget costs 40 euros in Lyon. [1]"),
        ("The widget costs 40 euros in Lyon [1].", "The widget costs 40 euros in Lyon. [1]"),
        ("The widget costs 40 euros in Lyon.[1]", "The widget costs 40 euros in Lyon. [1]"),
        ("The widget costs 40 euros in Lyon.【1】", "The widget costs 40 euros in Lyon. [1]"),
        ("The widget costs 40 euros in Lyon. [1][1]", "The widget costs 40 euros in Lyon. [1]"),
        ("The widget costs 40 euros in Lyon. [7]", "The widget costs 40 euros in Lyon. [1]"),
        ("The widget costs 40 euros in Lyon. [0] [1]", "The widget costs 40 euros in Lyon. [1]"),
        ("The widget costs 40 euros in Lyon. [1, 7]", "The widget costs 40 euros in Lyon. [1]"),
        ("The widget costs 40 euros in Lyon.", "The widget costs 40 euros in Lyon. [1]"),
        ("北京塔高300米，建于1999年【2】。", "北京塔高300米，建于1999年。 [1]"),
        ("北京塔高300米，建于1999年。【2】", "北京塔高300米，建于1999年。 [1]"),
        ("北京塔高300米，建于1999年[2]。", "北京塔高300米，建于1999年。 [1]"),
    ],
)
def test_marks_are_read_wherever_they_stand_and_written_one_way(sentence: str, shown: str) -> None:
    """Before or after the full stop, in Latin or Chinese brackets; out of range they are dropped.

    Numbers in the reply count citations as they appear, not passages.
    """
    found = grounder(WIDGET, TOWER).sentence(sentence)
    assert found == Grounded(shown, "quote")


def test_numbers_follow_the_reply_and_not_the_evidence() -> None:
    """The first passage cited is [1] whatever its number was, and citations stand in order."""
    found = grounder("Lead is heavy.", "Gold is soft.", "Tin is cheap.")
    said = ["Tin is cheap. [3]", "Lead is heavy. [1]", "Tin is cheap. [3]"]
    shown = [g.text for s in said if (g := found.sentence(s))]
    cited = [(c.number, c.chunk_id) for c in found.citations]
    expected = ["Tin is cheap. [1]", "Lead is heavy. [2]", "Tin is cheap. [1]"]
    assert (shown, cited) == (expected, [(1, 3), (2, 1)])


def test_the_same_place_has_one_number() -> None:
    """A place quoted and written about again keeps its number; another place gets its own."""
    found = grounder(WIDGET)
    first = found.quote(quote(WIDGET[:34], 1, 0, 34))
    second = found.sentence("The widget costs 40 euros in Lyon. [1]")
    third = found.sentence("It is not waterproof. [1]")
    shown = [g.text[-3:] for g in (first, second, third) if g]
    assert (shown, len(found.citations)) == (["[1]", "[1]", "[2]"], 2)


SUPPORTED = [
    ("In Lyon the widget costs 40 euros. [1]", WIDGET, "supported"),
    ("The widget was made by Mara Lind in 1999. [1]", WIDGET, "supported"),
    ("The price is 1000 euros. [1]", "Its price, 1,000 euros, is high.", "supported"),
    ("The price is １０００ euros. [1]", "Its price, 1000 euros, is high.", "supported"),
    ("The widget is not at all waterproof. [1]", "The widget is not waterproof.", "supported"),
    ("The widget isn't waterproof. [1]", "The widget is not waterproof.", "supported"),
    ("They’re not waterproof. [1]", "Widgets are not waterproof.", "supported"),
    ("北京塔建于1999年，高300米。[1]", TOWER, "supported"),
    ("門票四十元。[1]", TOWER, "supported"),
    (
        "The widget of 1999 costs 40 euros. [1]",
        "The widget is not cheap. The one of 1999 costs 40 euros.",
        "supported",
    ),
]


@pytest.mark.parametrize(("sentence", "text", "support"), SUPPORTED)
def test_other_words_for_the_same_are_supported(sentence: str, text: str, support: str) -> None:
    """Word order, inflection, digits and traditional characters make no difference."""
    assert check(sentence, text) == support


UNSUPPORTED = [
    ("The widget costs 41 euros in Lyon. [1]", WIDGET),
    ("The widget costs 4 [1]", WIDGET),
    ("The widget costs 40 euros in 2001. [1]", WIDGET),
    ("The price is 100 euros. [1]", "Its price, 1,000 euros, is high."),
    ("The widget floats on rivers and lakes. [1]", WIDGET),
    ("Paris is the capital of France. [1]", WIDGET),
    ("The widget is waterproof. [1]", "The widget is not waterproof."),
    ("The widget is not cheap. [1]", "The widget is cheap."),
    ("The widget was not made in 1999 by Mara Lind. [1]", WIDGET),
    ("The widget can't be repaired. [1]", "The widget can be repaired."),
    ("It is [1]", "The unit is cheap. Kit is dear."),
    ("north [1]", "The northern gate is closed."),
    ("北京塔高301米。[1]", TOWER),
    ("北京塔不高。[1]", "北京塔高。"),
    ("门票可以退。[1]", "门票不可以退。"),
    ("上海塔位于浦东新区。[1]", TOWER),
]


@pytest.mark.parametrize(("sentence", "text"), UNSUPPORTED)
def test_what_the_passage_does_not_say_is_dropped(sentence: str, text: str) -> None:
    """Another number, another topic, half a word, or the opposite: nothing supports it."""
    assert check(sentence, text) == "dropped"


def test_words_that_say_more_weigh_more() -> None:
    """One rare word missing outweighs common ones that are there."""

    def rarity(words: list[str]) -> list[float]:
        return [9.0 if word == "zirconium" else 0.1 for word in words]

    found = Grounder([passage("The widget shell is made of plain steel.")], rarity)
    got = found.sentence("The widget shell is made of zirconium steel. [1]")
    assert (got, found.dropped) == (None, 1)


@pytest.mark.parametrize(
    ("sentence", "texts", "support"),
    [
        ("The tower was built in 1999. [1]", (TOWER,), "unchecked"),
        ("这个小部件售价40欧元。[1]", (WIDGET,), "unchecked"),
        ("The tower was built in 2001. [1]", (TOWER,), "dropped"),
        ("The tower was built in 1999.", (TOWER,), "dropped"),
    ],
)
def test_across_languages_only_numbers_are_checked(
    sentence: str, texts: tuple[str, ...], support: str
) -> None:
    """A cited sentence in the other language counts as unchecked, and needs its citation."""
    assert check(sentence, *texts) == support


def test_every_cited_passage_must_support() -> None:
    """Of two marks the one whose passage says nothing of the kind is dropped."""
    found = grounder(WIDGET, "Cats purr.")
    got = found.sentence("The widget costs 40 euros in Lyon. [2][1]")
    shown = (got.text if got else "", [c.chunk_id for c in found.citations])
    assert shown == ("The widget costs 40 euros in Lyon. [1]", [1])


def test_the_citation_of_a_written_sentence_holds_its_support() -> None:
    """Its quote is the sentence, or the two neighbours, that support it, and is not verbatim."""
    found = grounder(WIDGET)
    found.sentence("Mara Lind made it in 1999. [1]")
    (citation,) = found.citations
    got = (citation.quote, citation.verbatim, WIDGET[citation.start : citation.end])
    expected = "It was made in 1999 by Mara Lind."
    assert got == (expected, False, expected)


def test_flagged_sentences_are_shown_without_a_citation() -> None:
    """In flag mode an unsupported sentence stays, marked as such, and cites nothing."""
    found = grounder(WIDGET, unsupported="flag")
    got = found.sentence("Cats purr at night. [1]")
    expected = (Grounded("Cats purr at night.", "unsupported"), (), 1)
    assert (got, found.citations, found.dropped) == expected


@pytest.mark.parametrize("mode", ["drop", "flag"])
@pytest.mark.parametrize("text", ["", " ", "[1]", "...", "。【1】", "—"])
def test_a_sentence_without_words_is_no_sentence(text: str, mode: Literal["drop", "flag"]) -> None:
    """Marks and punctuation alone are passed over and do not count as dropped."""
    found = grounder(WIDGET, unsupported=mode)
    assert (found.sentence(text), found.dropped) == (None, 0)


def test_without_passages_nothing_is_supported() -> None:
    """A policy that writes from nothing is not shown."""
    found = grounder()
    got = (found.sentence("Paris is big. [1]"), found.quote(quote("x", 1, 0, 1)))
    assert (got, found.dropped) == ((None, None), 2)


@given(st.text(alphabet="abc 。.不 [1]【2】\n40,", max_size=40), st.sampled_from(["drop", "flag"]))
def test_citations_are_numbered_from_one_and_point_into_their_passage(
    text: str, mode: Literal["drop", "flag"]
) -> None:
    """Whatever a policy writes, marks and citations agree, and a citation quotes its passage."""
    texts = ("a b c. ab 40", "不 a 40。abc")
    found = grounder(*texts, unsupported=mode)
    found.sentence(text)
    numbers = [c.number for c in found.citations]
    held = [texts[c.chunk_id - 1][c.start : c.end] == c.quote for c in found.citations]
    assert (numbers, all(held)) == (list(range(1, len(numbers) + 1)), True)


def stream(pieces: Sequence[str]) -> list[str]:
    """Cut streamed pieces into sentences."""
    cutter = SentenceStream()
    return [s for piece in pieces for s in cutter.feed(piece)] + cutter.flush()


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("A cat. [1] It sat. [2]", ["A cat. [1]", "It sat. [2]"]),
        ("A cat [1]. It sat [2].", ["A cat [1].", "It sat [2]."]),
        ("A cat. [1] [2] It sat.", ["A cat. [1] [2]", "It sat."]),
        ("A cat. [1][2] It sat.", ["A cat. [1][2]", "It sat."]),
        ("A cat. [1, 2] It sat.", ["A cat. [1, 2]", "It sat."]),
        ("A cat.[1] It sat.[2]", ["A cat.[1]", "It sat.[2]"]),
        ("猫在睡。[1]狗在叫。[2]", ["猫在睡。[1]", "狗在叫。[2]"]),
        ("猫在睡。【1】狗在叫。【2】", ["猫在睡。【1】", "狗在叫。【2】"]),
        ("猫在睡[1]。狗在叫[2]。", ["猫在睡[1]。", "狗在叫[2]。"]),
        ("It is 3.5 m. So far.", ["It is 3.5 m. So far."]),
        ("It is 3.5 metres. So far.", ["It is 3.5 metres.", "So far."]),
        ("One\nTwo", ["One", "Two"]),
        ("No end", ["No end"]),
        ("", []),
    ],
)
@pytest.mark.parametrize("width", [1, 2, 3, 1000])
def test_marks_stay_with_their_sentence(text: str, sentences: list[str], width: int) -> None:
    """A mark after the full stop belongs to the sentence before, however the text arrives."""
    pieces = [text[i : i + width] for i in range(0, len(text), width)]
    assert stream(pieces) == sentences


ALPHABET = 'ab A1 5.。!？[]【】,，\n"” x\u3000é塔Mr'


@given(st.text(alphabet=ALPHABET, max_size=60), st.data())
def test_any_split_of_a_text_gives_the_same_sentences(text: str, data: st.DataObject) -> None:
    """Sentences do not depend on how a policy's engine happens to cut its output."""
    places = st.lists(st.integers(0, len(text)), max_size=12).map(sorted)
    cuts = [0, *data.draw(places), len(text)]
    pieces = [text[a:b] for a, b in pairwise(cuts)]
    assert stream(pieces) == stream([text])


@given(st.text(alphabet=ALPHABET, max_size=60))
def test_no_character_is_lost_in_the_stream(text: str) -> None:
    """Joined again, the sentences are the text but for the white space between them."""
    assert "".join("".join(stream(list(text))).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("A cat. [1] It sat. [12]", "A cat. It sat."),
        ("猫【1】在。[2][3]", "猫在。"),
        ("See [1, 2].", "See."),
        ("[a] stays [1234]", "[a] stays [1234]"),
    ],
)
def test_marks_can_be_taken_out(text: str, bare: str) -> None:
    """What is compared with a gold answer has no marks in it."""
    assert marks_removed(text) == bare


def test_passages_of_one_text_are_told_apart() -> None:
    """The same words in two documents are two citations."""
    twins = [passage("Cats purr.", 1), replace(passage("Cats purr.", 2), title="Other")]
    found = Grounder(twins, even)
    shown = [g.text for n in (1, 2) if (g := found.sentence(f"Cats purr. [{n}]"))]
    cited = [c.title for c in found.citations]
    assert (shown, cited) == (["Cats purr. [1]", "Cats purr. [2]"], ["Doc", "Other"])
