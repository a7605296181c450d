from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.config import ParseSettings
from retrieval.errors import ParseError
from retrieval.parse._decode import decode
from retrieval.parse._lines import join_lines, unwrap
from retrieval.parse.base import REASONS, REMEDIES, TextBuilder, one_line, refuse, tidy
from retrieval.schema import Parsed

HERE = Path("notes.md")
SETTINGS = ParseSettings()

texts = st.text(
    st.characters(codec="utf-8") | st.sampled_from("中文。 \n\t\u00a0|"),
    max_size=40,
)
steps = st.lists(
    st.tuples(
        st.sampled_from(["heading", "paragraph", "line", "list_item", "row", "code", "quote"]),
        texts,
    ),
    max_size=12,
)


def play(builder: TextBuilder, played: list[tuple[str, str]]) -> None:
    """Append what hypothesis made up."""
    calls: dict[str, Callable[[str], None]] = {
        "heading": lambda text: builder.heading(2, text),
        "paragraph": builder.paragraph,
        "line": builder.line,
        "list_item": builder.list_item,
        "row": lambda text: builder.row(text.split("|")),
        "code": builder.code,
        "quote": lambda text: builder.paragraph(text, "quote"),
    }
    for name, text in played:
        calls[name](text)


def check(parsed: Parsed) -> None:
    """Check every promise of `Parsed`."""
    text = parsed.text
    spans = [(b.start, b.end) for b in parsed.blocks]
    assert spans == sorted(spans)
    for heading in parsed.headings:
        assert heading.text
        assert "\n" not in heading.text
        assert text.startswith(heading.text, heading.start)
    spans += [(h.start, h.start + len(h.text)) for h in parsed.headings]
    spans.sort()
    end = 0
    for start, stop in spans:
        assert start >= end, "spans overlap"
        assert not text[end:start].strip(), "text outside of every block"
        assert text[start:stop].strip()
        end = stop
    assert not text[end:].strip()
    for block in parsed.blocks:
        if block.kind == "table_row":
            assert "\n" not in text[block.start : block.end]


@given(steps)
def test_the_builder_keeps_every_promise_of_parsed(played: list[tuple[str, str]]) -> None:
    """Whatever is appended, blocks are sorted, disjoint, not empty, and cover all text."""
    builder = TextBuilder(HERE, SETTINGS)
    play(builder, played)
    try:
        parsed = builder.build()
    except ParseError:
        assert not any(tidy(text.replace("|", "")) for _, text in played)
    else:
        check(parsed)
        assert parsed.title


@given(texts)
def test_tidy_text_has_no_litter(text: str) -> None:
    """Tidy text has no hard spaces, no controls, no double blanks and no blank edges."""
    tidied = tidy(text)
    assert tidied == tidied.strip()
    assert not set(tidied) & {"\u00a0", "\u200b", "\ufeff", "\x00", "\r", "\t"}
    assert "  " not in tidied
    assert tidy(tidied) == tidied


def test_the_output_limit_is_a_named_reason() -> None:
    """Text beyond max_characters is refused while it is collected, not afterwards."""
    builder = TextBuilder(HERE, ParseSettings(max_characters=10))
    builder.paragraph("0123456789")
    with pytest.raises(ParseError) as caught:
        builder.paragraph("x")
    assert caught.value.reason == "output"


def test_every_reason_has_a_remedy() -> None:
    """An owner is told what to do about every reason there is."""
    for reason in REASONS:
        assert REMEDIES[reason].endswith(".")
        assert refuse(HERE, reason, "detail").remedy == REMEDIES[reason]


def test_the_title_falls_back_to_the_top_heading_then_to_the_file_name() -> None:
    """A title is what the source says, else the first top heading, else the file's name."""
    builder = TextBuilder(HERE, SETTINGS)
    builder.paragraph("text")
    assert builder.build().title == "notes"
    builder.heading(3, "three")
    builder.heading(2, "two")
    assert builder.build().title == "two"
    assert builder.build("own").title == "own"


@pytest.mark.parametrize(
    ("lines", "joined"),
    [
        (["plain", "words"], "plain words"),
        (["中文换行", "不加空格"], "中文换行不加空格"),
        (["中文，", "然后"], "中文，然后"),
        (["使用", "Vue"], "使用 Vue"),
        (["使用 Vue", "，然后"], "使用 Vue，然后"),
        (["한국어", "문서"], "한국어 문서"),
        (["かな", "カナ"], "かなカナ"),
    ],
)
def test_chinese_lines_join_without_a_space_and_others_with_one(
    lines: list[str], joined: str
) -> None:
    """A line break between two Chinese characters is nothing; between words it is a space."""
    assert join_lines(lines) == joined
    assert one_line("\n".join(lines)) == joined


def test_hard_wrapped_lines_become_one_and_short_lines_stay() -> None:
    """A break is undone only where the next word would not have fitted."""
    wrapped = [
        "This is a paragraph that somebody wrapped at about sixty",
        "columns, as people do in mail and in plain text files, and",
        "it ends here.",
    ]
    assert unwrap(wrapped) == [" ".join(wrapped)]
    assert unwrap(["Anna Smith", "12 Long Road", "London"]) == [
        "Anna Smith",
        "12 Long Road",
        "London",
    ]
    assert len(unwrap(["a" * 300 + ".", "b" * 200])) == 2
    assert len(unwrap([*wrapped[:2], "- a bullet point of its own"])) == 2


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("今天天气很好，我们去公园散步。", "gb18030"),
        ("短文", "gb18030"),
        ("今天天氣很好，我們去公園散步。", "big5"),
        ("これは日本語のテキストです。今日は良い天気。", "shift_jis"),
        ("Größe und Maß, café", "cp1252"),
        ("Привет, это русский текст", "cp1251"),
        ("有标记的文本 text", "utf-16"),
        ("没有标记的文本 text\n第二行", "utf-16-le"),
        ("没有标记的文本 text\n第二行", "utf-16-be"),
        ("﻿带标记", "utf-8"),
        ("plain ascii", "ascii"),
        ("안녕하세요, 이 문서는 한국어로 작성되었습니다.", "cp949"),
        ("これは日本語のテキストです。今日は良い天気。", "euc_jp"),
        ("设置", "gbk"),
        ("El niño comió mañana en la montaña", "cp1252"),
        ("没有空格也没有换行的文本是这样的", "utf-16-le"),
    ],
)
def test_encodings_are_recognised(text: str, encoding: str) -> None:
    """Text in the encodings that people still send is read as it was written."""
    assert decode(HERE, text.encode(encoding)).lstrip("\ufeff") == text.lstrip("\ufeff")


ZH = "检索增强生成把文档检索与语言模型结合起来，使得回答能够引用真实的文献来源。"


def test_what_was_guessed_or_damaged_is_said() -> None:
    """A reading that is no certainty is named with its encoding; a certain one is not."""
    notes: list[str] = []
    assert decode(HERE, ZH.encode("gb18030"), notes=notes) == ZH
    assert decode(HERE, (ZH * 3).encode("utf-16")[:-1], notes=notes)[:-1] == (ZH * 3)[:-1]
    assert notes == ["damaged bytes in utf-16 text are shown as \ufffd"]
    assert decode(HERE, (ZH * 9).encode("gb18030")[:-1], notes=notes)[:-1] == (ZH * 9)[:-1]
    assert notes[1].startswith("read as gb18030 by a guess")


def test_lines_in_two_encodings_are_both_read() -> None:
    """UTF-8 with lines of an older encoding keeps both, and says so."""
    notes: list[str] = []
    data = b"\n".join([ZH.encode(), ZH[:20].encode("gb18030"), ZH.encode(), b"plain"])
    assert decode(HERE, data, notes=notes) == "\n".join([ZH, ZH[:20], ZH, "plain"])
    assert "gb18030" in notes[0]


def test_a_declared_encoding_is_read_as_its_extension() -> None:
    """A page that calls itself gb2312 may hold any character of GB 18030."""
    assert decode(HERE, "镕基堃".encode("gb18030"), "GB2312") == "镕基堃"


def test_binary_data_is_not_text() -> None:
    """NUL bytes that are not UTF-16 mean a disguised file, never garbage text."""
    with pytest.raises(ParseError) as caught:
        decode(HERE, bytes(range(256)) * 4)
    assert caught.value.reason == "disguised"


def test_a_few_damaged_bytes_do_not_lose_a_file() -> None:
    """UTF-8 cut in the middle of a character is read, the damage shown."""
    data = ("中文文本，" * 50).encode()[:-1]
    assert decode(HERE, data).endswith("文本\ufffd")
