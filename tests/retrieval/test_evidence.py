from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.evidence import (
    disagrees,
    facts,
    jaccard,
    likeness,
    named,
    newer,
    settle,
    shingles,
    siblings,
)
from retrieval.schema import Chunk, Found, Passage
from retrieval.text import language

FEE = "Visitors pay a fee of {} euros at the gate. Children under six {}pay. Keep the ticket."


def passage(
    number: int,
    source: str,
    text: str,
    *,
    score: float = 0.5,
    modified: float = 0.0,
    title: str = "Guide",
    headings: tuple[str, ...] = (),
    document: int | None = None,
) -> Passage:
    """Make a passage of a document of its own."""
    chunk = Chunk(number, document or number, text, 0, len(text), headings, 0)
    found = (Found("fused", number, score),)
    tongue = language(text)
    return Passage(chunk, source, title, tongue, f"v{number}", modified, 0.0, score, found)


def test_the_same_text_is_shown_once() -> None:
    """A text of two sources is one passage, in the place of the first, that names the other."""
    one = passage(1, "/a/parking.md", FEE.format(5, ""), score=0.9)
    other = passage(2, "/b/visit.md", FEE.format(5, ""), score=0.8, title="Visit")
    rest = passage(3, "/c/else.md", "Dogs bark at strangers.", score=0.7)
    settled = settle([one, other, rest], "fee", 5)
    assert [p.source for p in settled] == ["/a/parking.md", "/c/else.md"]
    assert settled[0].also == ("/b/visit.md",)
    assert settled[0].older == ()


def test_traditional_and_simplified_are_the_same_text() -> None:
    """One text in two scripts is one text."""
    one = passage(1, "/a.md", "参观者在门口支付五欧元的费用，六岁以下儿童免费。")
    other = passage(2, "/b.md", "參觀者在門口支付五歐元的費用，六歲以下兒童免費。")
    assert [p.also for p in settle([one, other], "费用", 5)] == [("/b.md",)]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/d/guide-2023.md", "/d/guide-2025.md"),
        ("/d/policy_v1.pdf", "/d/policy_v2.pdf"),
        ("/d/policy v9.docx", "/d/policy v10.docx"),
        ("/d/old/guide.md", "/d/new/guide.md"),
        ("/d/v1.9/guide.md", "/d/v1.10/guide.md"),
        ("/d/员工手册2023年版.pdf", "/d/员工手册2025年版.pdf"),
        ("/d/制度第1版.docx", "/d/制度第2版.docx"),
        ("/d/手册（旧版）.md", "/d/手册（新版）.md"),
    ],
)
@pytest.mark.parametrize("flip", [False, True])
def test_the_newest_version_wins(old: str, new: str, flip: bool) -> None:
    """Of two versions the newer one answers, however they were ranked and dated; both are told."""
    first = passage(1, old, FEE.format(5, "do not "), score=0.9, modified=900.0)
    second = passage(2, new, FEE.format(8, ""), score=0.8, modified=100.0)
    settled = settle([second, first] if flip else [first, second], "visitor fee", 5)
    assert [p.source for p in settled] == [new]
    assert [(o.source, o.modified, o.version) for o in settled[0].older] == [(old, 900.0, "v1")]
    assert settled[0].score == (0.8 if flip else 0.9)
    assert disagrees("Visitors pay a fee of 8 euros at the gate.", settled[0].older[0].text)


@pytest.mark.parametrize(
    ("question", "one", "other"),
    [
        ("What was the fee in 2023?", "/d/guide-2023.md", "/d/guide-2025.md"),
        ("What is the fee in version 1?", "/d/policy_v1.md", "/d/policy_v2.md"),
        ("2023年的费用是多少", "/d/guide-2023.md", "/d/guide-2025.md"),
    ],
)
def test_a_version_that_is_asked_for_stays(question: str, one: str, other: str) -> None:
    """A question that names a version is not answered from another one alone."""
    found = [passage(1, one, FEE.format(5, "")), passage(2, other, FEE.format(8, ""))]
    assert [p.source for p in settle(found, question, 5)] == [one, other]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/d/minutes-2024-03-01.md", "/d/minutes-2024-03-08.md"),
        ("/d/north.md", "/d/south.md"),
        ("/d/plan-a.md", "/d/plan-b.md"),
        ("/d/chapter-1.md", "/d/chapter-2.md"),
    ],
)
def test_other_documents_are_no_versions(one: str, other: str) -> None:
    """Documents of a series, and of different names and titles, stay side by side."""
    found = [
        passage(1, one, FEE.format(5, ""), title=one, modified=1.0),
        passage(2, other, FEE.format(8, "do not ") + " Ask the porter.", title=other, modified=2.0),
    ]
    assert len(settle(found, "visitor fee", 5)) == 2


def test_a_restated_text_is_a_version() -> None:
    """Equal title and headings, and a text that differs in numbers only: the later one answers."""
    old = passage(1, "/a/x.md", FEE.format(5, ""), modified=1.0, headings=("Fees",), score=0.9)
    new = passage(2, "/b/y.md", FEE.format(8, ""), modified=2.0, headings=("Fees",), score=0.8)
    assert [p.source for p in settle([old, new], "visitor fee", 5)] == ["/b/y.md"]
    assert len(settle([old, new], "fee of 5 euros", 5)) == 2, "the question tells them apart"


def test_records_without_a_title_stay_apart() -> None:
    """Texts that only have a number of their own are records, not versions of one another."""
    found = [passage(n, f"row-{n}", FEE.format(n, ""), title="", modified=n) for n in (1, 2, 3)]
    assert len(settle(found, "visitor fee", 5)) == 3


def test_likeness_of_pairs_is_the_jaccard_index() -> None:
    """Pairs that share nothing are left out; the others have what `jaccard` gives."""
    held = [shingles(text) for text in ("a b c d e", "a b c d x", "q r s t u", "a b c d e")]
    found = likeness(held)
    assert found == {(a, b): jaccard(held[a], held[b]) for a, b in ((0, 1), (0, 3), (1, 3))}


def test_a_document_is_no_version_of_itself() -> None:
    """Two passages of one document are never set aside for one another."""
    found = [passage(n, "/a.md", FEE.format(n, ""), document=7) for n in (1, 2)]
    assert len(settle(found, "fee", 5)) == 2


@pytest.mark.parametrize(
    ("quote", "older", "differ"),
    [
        ("The fee is 8 euros.", "Welcome. The fee is 5 euros. Bye.", True),
        ("The fee is 8 euros.", "Welcome. The fee is 8 euros. There are 5 gates.", False),
        ("Children do not pay.", "Children pay.", True),
        ("年假为十五天。", "欢迎。年假为十天。", True),
        ("年假為15天。", "年假为15天。", False),
        ("可以带宠物。", "不可以带宠物。", True),
        ("The fee is 8 euros.", "Dogs bark 5 times.", False),
        ("", "The fee is 5 euros.", False),
    ],
)
def test_disagreement(quote: str, older: str, differ: bool) -> None:
    """Matching sentences disagree in numbers and denials, and in nothing else."""
    assert disagrees(quote, older) is differ


TEXTS = st.text(st.sampled_from("ab 12 不猫狗貓。.,\n"), max_size=40)
SOURCES = st.sampled_from(
    ["/d/a-2023.md", "/d/a-2025.md", "/d/b_v1.md", "/d/b_v2.md", "/d/c.md", "/d/a-2024-03-01.md"]
)
FOUND = st.lists(st.tuples(SOURCES, TEXTS, st.floats(0, 1), st.integers(0, 9)), max_size=8)


@given(FOUND, st.sampled_from(["a", "1 2", "2023", "猫"]), st.integers(0, 9))
def test_nothing_is_lost(rows: list[tuple[str, str, float, int]], query: str, k: int) -> None:
    """Every source is shown, or named by a passage that is; scores keep their order."""
    found = [
        passage(number, source, text, score=score, modified=float(day), document=number)
        for number, (source, text, score, day) in enumerate(
            sorted(rows, key=lambda row: -row[2]), start=1
        )
    ]
    settled = settle(found, query, len(found))
    assert [p.score for p in settled] == sorted((p.score for p in settled), reverse=True)
    shown = [p.chunk.id for p in settled]
    assert len(shown) == len(set(shown))
    named_ = sum(1 + len(p.older) + len(p.also) for p in settled)
    assert named_ <= len(found)
    told = {s for p in settled for s in (p.source, *p.also, *(o.source for o in p.older))}
    assert told == {p.source for p in found}
    assert settle(found, query, k) == settled[:k]
    assert settle(settled, query, len(found)) == settled or any(p.older or p.also for p in settled)


@given(TEXTS, TEXTS)
def test_likeness(one: str, other: str) -> None:
    """Likeness is symmetric, within 0 and 1, and 1 for a text and itself."""
    left, right = shingles(one), shingles(other)
    assert jaccard(left, left) == 1.0
    assert 0.0 <= jaccard(left, right) == jaccard(right, left) <= 1.0
    assert facts(one) == facts(one + " ")


@given(SOURCES, SOURCES)
def test_versions_are_ordered(one: str, other: str) -> None:
    """Of two siblings exactly one is newer; a name is no sibling of itself."""
    assert not siblings(named(one), named(one))
    if siblings(named(one), named(other)):
        left, right = passage(1, one, "x"), passage(2, other, "x", modified=1.0)
        assert newer(left, right) != newer(right, left)
