from __future__ import annotations

import pytest

from safety.refusal import REFUSALS, crisis_reply, is_refusal, refusal_reply
from safety.schema import Category

CATEGORIES: list[Category] = list(REFUSALS)

DECLINES = [
    "I'm sorry, but I can't help with that.",
    "I cannot assist with this request.",
    "Sorry, I can't provide instructions for that.",
    "Unfortunately, I am not able to help with this.",
    "As an AI language model, I cannot create such content.",
    "I won’t write that, but I can explain the law.",
    "I must decline to answer.",
    "I'm not comfortable sharing that.",
    "很抱歉，我不能提供这方面的信息。",
    "对不起，我无法帮助您完成这个请求。",
    "我不能协助您做这件事。",
    "作为一个人工智能语言模型，我无法回答这个问题。",
    "这个问题我不能回答。",
]
ANSWERS = [
    "You can kill a process with kill -9.",
    "I can help with that. First, open the settings.",
    "The refund cannot be made after 30 days [1].",
    "Users can't delete files that are locked.",
    "I'm sorry to hear that your order is late. It ships tomorrow [1].",
    "He said he could not attend.",
    "The documents say nothing about this.",
    "Sorry for the delay: the answer is 42.",
    "进程无法被杀死时，可以使用 kill -9。",
    "抱歉让您久等了，您的订单明天发货。",
    "用户不能删除已锁定的文件。",
    "可以的，我来帮您。",
    "",
]


@pytest.mark.parametrize("text", DECLINES)
def test_a_refusal_is_recognised(text: str) -> None:
    """Common ways to decline are recognised in both languages."""
    assert is_refusal(text)


@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_is_no_refusal(text: str) -> None:
    """An answer with a negation in it, or a polite sorry, is no refusal."""
    assert not is_refusal(text)


@pytest.mark.parametrize("category", CATEGORIES)
@pytest.mark.parametrize("language", ["en", "zh", "zh-CN"])
def test_our_refusals_are_short_in_language_and_recognised(
    category: Category, language: str
) -> None:
    """A refusal is at most two sentences, in the user's language, and reads as one."""
    reply = refusal_reply(category, language)
    han = sum("\u4e00" <= c <= "\u9fff" for c in reply)
    assert (han > 0) == language.startswith("zh")
    assert len([c for c in reply if c in ".。"]) <= 2
    assert is_refusal(reply)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_an_output_refusal_does_not_blame_the_request(language: str) -> None:
    """Where the answer was at fault, the reply speaks of the answer."""
    reply = refusal_reply("illicit", language, "output")
    assert reply != refusal_reply("illicit", language)
    assert is_refusal(reply)


@pytest.mark.parametrize(
    ("language", "locale", "numbers"),
    [
        ("en", "", ("988", "116 123")),
        ("en", "US", ("988",)),
        ("en", "en_GB", ("116 123",)),
        ("en", "UK", ("116 123",)),
        ("zh", "", ("12356", "120", "110")),
        ("zh", "zh-CN", ("12356",)),
        ("en", "zh-CN", ("12356",)),
    ],
)
def test_a_crisis_reply_names_the_lines_of_the_place(
    language: str, locale: str, numbers: tuple[str, ...]
) -> None:
    """The reply names the region's crisis lines, by language where no region is set."""
    reply = crisis_reply(language, locale)
    assert all(n in reply for n in numbers)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_crisis_reply_stays_with_the_person(language: str) -> None:
    """It is no refusal, asks about safety, goes on talking, and has help for any place."""
    reply = crisis_reply(language, "BR")
    assert not is_refusal(reply)
    assert "?" in reply or "？" in reply
    assert ("local emergency" in reply.lower()) or ("当地的紧急电话" in reply)
    assert "988" not in reply
