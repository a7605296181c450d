from __future__ import annotations

import re
import string

import pytest

from assistant.phrases import PHRASES, abstain, say


@pytest.mark.parametrize("key", sorted(PHRASES))
def test_every_phrase_is_there_in_both_languages(key: str) -> None:
    """English and Chinese say the same things, and fill in the same values."""
    fields = {
        tongue: {name for _, name, _, _ in string.Formatter().parse(text) if name}
        for tongue, text in PHRASES[key].items()
    }
    assert (set(fields), fields["en"]) == ({"en", "zh"}, fields["zh"])


@pytest.mark.parametrize("key", sorted(PHRASES))
def test_every_phrase_is_in_its_language(key: str) -> None:
    """Chinese phrases have Chinese characters and English ones have none."""
    han = re.compile("[\u4e00-\u9fff]")
    found = {tongue: bool(han.search(text)) for tongue, text in PHRASES[key].items()}
    assert found == {"en": False, "zh": True}


@pytest.mark.parametrize(
    ("language", "said"),
    [("en", "You are welcome."), ("zh", "不客气。"), ("de", "You are welcome.")],
)
def test_a_language_nobody_wrote_is_answered_in_english(language: str, said: str) -> None:
    """There are two languages; any other gets the first."""
    assert say("thanks", language) == said


@pytest.mark.parametrize("value", ["{query}", "100 % {0}", "“a”", "<b>"])
def test_what_a_user_said_is_never_a_template(value: str) -> None:
    """Braces in a question come out as braces."""
    found = [say("not_corrected", "en", query=value), abstain("zh", value, [], [])]
    assert [value in text for text in found] == [True, True]


@pytest.mark.parametrize(
    ("language", "absent", "near", "said"),
    [
        ("en", [], [], "I did not find an answer to “Q” in the documents."),
        (
            "en",
            ["zorg", "blat"],
            ["A › B"],
            "I did not find an answer to “Q” in the documents."
            " No document mentions “zorg”, “blat”.",
        ),
        (
            "en",
            [],
            ["A › B", "C"],
            "I did not find an answer to “Q” in the documents."
            " The closest I found is about: A › B, C.",
        ),
        (
            "zh",
            ["量子", "塔"],
            [],
            "我在文档中没有找到“Q”的答案。没有任何文档提到“量子”、“塔”。",
        ),
        ("zh", [], ["甲"], "我在文档中没有找到“Q”的答案。最接近的内容是：甲。"),
    ],
)
def test_abstaining_says_what_was_not_found(
    language: str, absent: list[str], near: list[str], said: str
) -> None:
    """Absent words are named; where none is absent, what lies nearest."""
    assert abstain(language, "Q", absent, near) == said
