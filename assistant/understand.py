"""What a message means: intent, whether to search, and the question made standalone.

Everything here is a rule: no model call a turn, no drift, and the searched query is shown. Search
is the default; only a pure greeting, thanks, farewell or question about the assistant itself goes
without. A follow-up is rewritten only when a gate says so (a pronoun, an opener, or fewer than
three content words), by carrying over the words of the previous question that name its topic.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from assistant.schema import Intent, Turn, Understanding
from retrieval.text import content_words, language, query_terms

_SOCIAL: tuple[tuple[Intent, re.Pattern[str]], ...] = (
    (
        "greeting",
        re.compile(
            r"(hi|hello|hey|good (morning|afternoon|evening)|greetings)( there| all)?|"
            r"(你|您|大家)好[啊呀]?|嗨|哈喽|哈啰|早上好|早安|下午好|晚上好|在吗|在嗎",
            re.I,
        ),
    ),
    (
        "thanks",
        re.compile(
            r"(many |ok,? |great,? |perfect,? )?(thanks|thank you|thx|cheers)( a lot| so much| "
            r"very much| again)?|(太好了[，,]?|好的[，,]?)?(非常|多)?(谢谢|感谢|謝謝|多谢)"
            r"(你|您|啦|了)?",
            re.I,
        ),
    ),
    (
        "farewell",
        re.compile(
            r"(good)?bye( bye)?|see you( later)?|good night|再见|拜拜|回头见|晚安|再見", re.I
        ),
    ),
    (
        "capability",
        re.compile(
            r"(who|what) are you|what can you do( for me)?|what do you do|help( me)?|"
            r"how can you help( me)?|(你|您)(是谁|是誰|叫什么名字|叫什么|是什么|能做什么|会做什么|"
            r"可以做什么|能干什么|能帮我做什么|有什么功能)|帮助",
            re.I,
        ),
    ),
)
_EDGES = re.compile(r"^[\s,.!?~，。！？～、…]+|[\s,.!?~，。！？～、…]+$")
_CORRECTION = re.compile(
    r"^\W*(no[,.!]?\s+)?(that|this|it|your answer|you)('s| is|'re| are| was)?\s*(wrong|not (right|"
    r"correct|true|what i (asked|meant))|incorrect|mistaken|false)\b|"
    r"^\W*(wrong|incorrect|not true|that can'?t be right|you made a mistake|are you sure)\b|"
    r"^\W*(不对|不對|错了|錯了|你(说|说得|答|回答)?错了|说错了|答错了|答非所问|不正确|不是这样|不是這樣|"
    r"这不对|这是错的|你搞错了|你确定吗|有误)",
    re.I,
)
_PRONOUN_EN = re.compile(
    r"\b(it|its|they|them|their|theirs|he|him|his|she|her|hers|that one|this one|those|these|"
    r"the same|the former|the latter|such)\b|\b(this|that)\b(?=[\s?.!,]*$)|"
    r"\b(of|about|with|for|to|in|do|does|did|is|was|doing) (this|that)\b",
    re.I,
)
_EXPLETIVE = re.compile(
    r"\b(is|was|would|will) it (be )?(possible|ok|okay|safe|allowed|necessary|better|true)\b|"
    r"\bit (is|was|takes?) (possible|necessary|true|safe)\b|\bdoes it (take|matter)\b",
    re.I,
)
_PRONOUN_ZH = re.compile(
    r"它|他们|她们|他(?!人)|她|(?<!其)其(?![他它中实余次])|该[^应]|这个|那个|这些|那些|这样|那样|此(?!外)|"
    r"上述|前者|后者|刚才|上面|這個|那個|它們"
)
_OPENER = re.compile(
    r"^\W*(and|or|but|also|then|so|what about|how about|what if|why( not)?\W*$|how so|what else|"
    r"any (other|more)|more\b|which one|when\W*$|where\W*$|who\W*$)|"
    r"^\W*(那么?(?!些|个|里)|还有|另外|以及|然后|接着|为什么[？?呢]*$|怎么说|比如|例如|具体|详细|再|除此|而)|"
    r"[^么什]呢[？?]*$",
    re.I,
)
_ELLIPSIS = re.compile(r"^\W*(and|or|what about|how about)\b|呢[？?]*$|^\W*(那|还有|以及)", re.I)


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether a message leans on the turn before, and the reason, for "why this answer"."""

    follow_up: bool
    reason: str


def understand(text: str, history: Sequence[Turn], tongue: str = "auto") -> Understanding:
    """Say what `text` asks for.

    Args:
        text: the user's message, as screened.
        history: earlier turns, oldest first.
        tongue: "en" or "zh" from the user's settings, "auto" = by the message's script.

    Returns:
        An understanding; `query` is "" where nothing is to be searched.
    """
    spoken = _language(text, history) if tongue == "auto" else tongue
    bare = _EDGES.sub("", text)
    for intent, pattern in _SOCIAL:
        if pattern.fullmatch(bare):
            return Understanding(intent, "", False, spoken, f"a pure {intent}: nothing to search")
    asked = _last_question(history)
    if asked is not None and _CORRECTION.search(text):
        rest = _CORRECTION.sub("", text)
        query = " ".join([asked.reply.understanding.query, *content_words(rest)])
        return Understanding(
            "correction", query, True, spoken, "told of a mistake: search again, elsewhere"
        )
    gate = follow_up(text) if asked is not None else Gate(False, "first question")
    if asked is None or not gate.follow_up:
        return Understanding("question", text.strip(), False, spoken, gate.reason)
    query = standalone(text, asked)
    return Understanding("question", query, query != text.strip(), spoken, gate.reason)


def follow_up(text: str) -> Gate:
    """The gate: deterministic, and generous only where the words leave no topic."""
    if _OPENER.search(text):
        return Gate(True, "opens like a follow-up")
    if _PRONOUN_ZH.search(text) or _PRONOUN_EN.search(_EXPLETIVE.sub(" ", text)):
        return Gate(True, "a pronoun points back")
    if len(content_words(text)) < 2 and len(query_terms(text)) < 3:
        return Gate(True, "too few words to stand alone")
    return Gate(False, "stands alone")


def standalone(text: str, asked: Turn) -> str:
    """Add to `text` the words of the previous question that name its topic.

    An elliptic follow-up ("and in version 3?") takes over the whole previous question; one with a
    pronoun takes the words that the cited document's title and headings share with it, all where
    they share none.
    """
    before = asked.reply.understanding.query
    have = {w.lower() for w in content_words(text)}
    carried = [w for w in content_words(before) if w.lower() not in have]
    if not _ELLIPSIS.search(text):
        about = " ".join(" ".join((c.title, *c.headings)) for c in asked.reply.citations).lower()
        topical = [w for w in carried if w.lower() in about]
        carried = topical or carried
    joint = "" if language(text) == "zh" else " "
    return f"{text.strip()} {joint.join(carried)}".strip() if carried else text.strip()


def _last_question(history: Sequence[Turn]) -> Turn | None:
    return next((t for t in reversed(history) if t.reply.understanding.query), None)


def _language(text: str, history: Sequence[Turn]) -> str:
    """By script; a message without letters ("3.4?") keeps the conversation's language."""
    if history and not any(c.isalpha() for c in text):
        return history[-1].reply.language
    return language(text)
