from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.chunk import Piece, chunk
from retrieval.config import ChunkSettings, ParseSettings
from retrieval.parse.base import TextBuilder
from retrieval.schema import Parsed
from retrieval.text import count_tokens

SMALL = ChunkSettings(target_tokens=16, max_tokens=32)

EN = st.lists(st.sampled_from("the cat sat. on Dr. Lee? a mat, and extraordinarily".split()))
ZH = st.text(st.sampled_from("今天下雨我们回家。！？，；的"), max_size=60)
PROSE = st.one_of(
    EN.map(" ".join), ZH, st.tuples(EN.map(" ".join), ZH).map(" ".join), st.just("x" * 300)
)
BLOCK = st.one_of(
    st.tuples(st.just("paragraph"), PROSE),
    st.tuples(st.just("quote"), PROSE),
    st.tuples(st.just("list_item"), PROSE),
    st.tuples(st.just("row"), PROSE),
    st.tuples(st.just("code"), st.sampled_from(["x = 1\n\n    y = 2", "", "def f():\n\tpass\n"])),
    st.tuples(st.sampled_from(["h1", "h2", "h3"]), st.sampled_from(["Use", "安装", "The title"])),
)


def build(parts: list[tuple[str, str]], title: str = "The title") -> Parsed | None:
    """Make a parsed document out of (kind, text) parts; None where nothing is left."""
    builder = TextBuilder(Path("x.md"), ParseSettings())
    some = False
    for kind, text in parts:
        some = some or bool(text.strip())
        if kind == "row":
            builder.row(text.split(","))
            some = some and any(p[1].replace(",", "").strip() for p in parts)
        elif kind == "code":
            builder.code(text)
        elif kind.startswith("h"):
            builder.heading(int(kind[1]), text)
        elif kind == "quote":
            builder.paragraph(text, "quote")
        elif kind == "list_item":
            builder.list_item(text)
        else:
            builder.paragraph(text)
    return builder.build(title) if some else None


DOCUMENTS = (
    st.lists(BLOCK, max_size=12)
    .map(build)
    .filter(lambda parsed: parsed is not None)
    .map(lambda parsed: parsed or Parsed("", "", (), ()))
)


def bodies(parsed: Parsed, settings: ChunkSettings = SMALL) -> list[str]:
    """Return the text of each piece."""
    return [parsed.text[p.start : p.end] for p in chunk(parsed, settings)]


def made(*parts: tuple[str, str]) -> Parsed:
    """Return the document these parts make."""
    parsed = build(list(parts))
    assert parsed is not None
    return parsed


@given(DOCUMENTS)
def test_pieces_are_ordered_stretches(parsed: Parsed) -> None:
    """Pieces are in order, do not overlap, and neither begin nor end in white space."""
    edges = [edge for p in chunk(parsed, SMALL) for edge in (p.start, p.end)]
    assert edges == sorted(edges)
    assert all(body == body.rstrip() != "" for body in bodies(parsed))
    assert all(0 <= edge <= len(parsed.text) for edge in edges)


@given(DOCUMENTS)
def test_every_character_lies_in_one_piece(parsed: Parsed) -> None:
    """All but white space and heading lines lies in exactly one piece."""
    pieces = chunk(parsed, SMALL)
    held = [i for p in pieces for i in range(p.start, p.end)]
    assert len(held) == len(set(held))
    heads = {i for h in parsed.headings for i in range(h.start, h.start + len(h.text))}
    text = {i for i, char in enumerate(parsed.text) if not char.isspace()}
    assert text - heads == {i for i in held if not parsed.text[i].isspace()}


@given(DOCUMENTS, st.integers(32, 64))
def test_no_piece_is_too_long(parsed: Parsed, limit: int) -> None:
    """No piece has more than `max_tokens`."""
    settings = ChunkSettings(target_tokens=24, max_tokens=limit)
    assert all(count_tokens(body) <= limit for body in bodies(parsed, settings))


@given(DOCUMENTS)
def test_no_piece_crosses_a_heading(parsed: Parsed) -> None:
    """No heading starts inside a piece."""
    inside = [
        h.text for h in parsed.headings for p in chunk(parsed, SMALL) if p.start <= h.start < p.end
    ]
    assert inside == []


@given(DOCUMENTS)
def test_rows_stay_whole(parsed: Parsed) -> None:
    """A table row that fits lies in one piece."""
    pieces = chunk(parsed, SMALL)
    rows = [b for b in parsed.blocks if b.kind == "table_row"]
    fits = [b for b in rows if count_tokens(parsed.text[b.start : b.end]) <= SMALL.max_tokens]
    assert [any(p.start <= b.start and b.end <= p.end for p in pieces) for b in fits] == [
        True for _ in fits
    ]


@given(DOCUMENTS)
def test_the_path_is_the_headings_above(parsed: Parsed) -> None:
    """A piece's headings are the open ones above it, topmost first, the title left out."""
    for piece in chunk(parsed, SMALL):
        path: list[tuple[int, str]] = []
        for heading in parsed.headings:
            if heading.start < piece.start:
                path = [h for h in path if h[0] < heading.level] + [(heading.level, heading.text)]
        names = tuple(text for _, text in path)
        assert piece.headings == (names[1:] if names[:1] == (parsed.title,) else names)


@given(DOCUMENTS)
def test_code_is_marked(parsed: Parsed) -> None:
    """The stretches a piece calls code are those of its code blocks."""
    found = {p.start + i for p in chunk(parsed, SMALL) for a, b in p.code for i in range(a, b)}
    code = {i for b in parsed.blocks if b.kind == "code" for i in range(b.start, b.end)}
    assert {i for i in code if not parsed.text[i].isspace()} == {
        i for i in found if not parsed.text[i].isspace()
    }


def test_an_example() -> None:
    """Sections are chunks, with their heading path and without heading lines."""
    parsed = made(
        ("h1", "The title"),
        ("paragraph", "About it."),
        ("h2", "Install"),
        ("paragraph", "Download it. Run it."),
        ("h3", "Linux"),
        ("paragraph", "Unpack it."),
        ("h2", "使用"),
        ("paragraph", "打开它。"),
    )
    pieces = chunk(parsed, SMALL)
    assert [(parsed.text[p.start : p.end], p.headings) for p in pieces] == [
        ("About it.", ()),
        ("Download it. Run it.", ("Install",)),
        ("Unpack it.", ("Install", "Linux")),
        ("打开它。", ("使用",)),
    ]


@given(st.integers(1, 40), st.sampled_from(["list_item", "row", "code"]))
def test_a_sentence_stays_with_what_it_announces(before: int, kind: str) -> None:
    """A sentence that ends in a colon is never the last of a piece when a list follows."""
    words = ("paragraph", " ".join(["word"] * before) + ".")
    parsed = made(words, ("paragraph", "Do this:"), (kind, "first step"), ("paragraph", "End."))
    assert not any(body.endswith("Do this:") for body in bodies(parsed))


def test_the_items_of_a_long_list_keep_their_sentence() -> None:
    """Pieces that begin inside a list have the sentence that announces it as their last heading."""
    items = [("list_item", f"第 {n} 步：打开设置并保存。") for n in range(12)]
    parsed = made(("h1", "安装"), ("paragraph", "先说一句。请按以下步骤操作："), *items)
    first, *rest = chunk(parsed, SMALL)
    assert first.headings == ("安装",)
    assert rest
    assert all(piece.headings == ("安装", "请按以下步骤操作：") for piece in rest)


def test_chinese_sentences_are_packed() -> None:
    """Chinese is cut at its sentence ends, each chunk filled up to the target."""
    parsed = made(("paragraph", "今天下雨我们回家。" * 6))
    assert bodies(parsed) == ["今天下雨我们回家。" * 2] * 3


def test_a_short_tail_joins() -> None:
    """A last piece that fits into the one before joins it."""
    parsed = made(("paragraph", "今天下雨我们回家。" * 3))
    assert bodies(parsed) == ["今天下雨我们回家。" * 3]


@pytest.mark.parametrize("word", ["x" * 2_000, "雨" * 200, "a,b;" * 200, "|" * 90])
def test_what_does_not_fit_is_halved(word: str) -> None:
    """Text without a sentence end is cut all the same and loses nothing."""
    parsed = made(("paragraph", word))
    found = bodies(parsed)
    assert "".join(found) == word
    assert max(count_tokens(body) for body in found) <= SMALL.max_tokens


def test_a_long_row_is_split_at_its_cells() -> None:
    """A row that alone is too long is cut between cells, where it has them."""
    builder = TextBuilder(Path("x.csv"), ParseSettings())
    builder.row([f"cell {i} of it" for i in range(20)])
    found = bodies(builder.build())
    assert " ".join(found) == " | ".join(f"cell {i} of it" for i in range(20))
    assert all(body.startswith("cell") for body in found)


def test_headings_only_give_nothing() -> None:
    """A document of headings gives no chunk."""
    assert chunk(made(("h1", "One"), ("h2", "Two")), SMALL) == []


def test_a_big_document_is_cut_in_one_pass() -> None:
    """Ten thousand sections give ten thousand chunks."""
    parsed = made(*[("h1", "Head"), ("paragraph", "Body.")] * 10_000)
    first = Piece(6, 11, ("Head",))
    found = chunk(parsed, SMALL)
    assert (len(found), found[0]) == (10_000, first)
