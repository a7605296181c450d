"""What users say about themselves: found in their own messages by rules, in both languages.

Only whole statements of a user's message count, as they were worded; never a question, never an
answer, never a document. What the guard would mask in an answer is not kept at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from assistant.schema import Fact

#: Characters of a message beyond which it is a text to work on, and statements of one that count.
LONG, MOST = 600, 4

_CLAUSE = re.compile(r"[.!;。！；\n]+\s*|(?:,\s*|\s+)(?:and|but)\s+(?=(?:I|my)\b)|，")
_ASKING = re.compile(r"[?？]|[吗呢]\W*$|什么|怎么|多少|为什么|哪")
_OPENER = re.compile(
    r"(?:(?:hi|hello|hey|well|so|by the way|fyi|actually)\b|你好|您好)[\s,，:：]*", re.IGNORECASE
)
_ASKED_TO = re.compile(
    r"(?:(?:please\s+)?(?:remember|note|keep in mind)(?:\s+that\b|\s*:)\s*"
    r"|(?:请|帮我)?记住(?:了|一下)?[：:，]?\s*)(\S.*)",
    re.IGNORECASE,
)
_TOLD = re.compile(
    r"(?:my (?:full |first |last )?name is|call me|i (?:work|live) (?:at|for|in|as|on|with)"
    r"|i(?: a|')m (?:from|based in|working (?:at|for|in|as|on))"
    r"|i(?: a|')m an? [\w -]{2,40} (?:at|in|for|from|by)"
    r"|i (?:mostly |usually |always |only )?(?:use|prefer|speak)|i(?: a|')m using"
    r"|my (?:job|role|title|position|team|department|company|employer|school|manager|city|country"
    r"|time ?zone|language|operating system|os|laptop|computer|phone|device|birthday|project)"
    r" (?:is|runs)) .*\w.*"
    r"|我(?:现在)?(?:在|就职于|任职于).{1,30}(?:工作|上班|就职|任职|上学)\W*"
    r"|(?:我叫|我的名字(?:是|叫)|叫我|我住在|我来自|我是(?:一名|一个|一位)|我是.{2,20}(?:部|公司|大学|学校|团队|组)的"
    r"|我(?:平时|一般|通常|主要|只)?(?:使用|用的是|在用|更喜欢|偏好|会说)"
    r"|我的(?:工作|职位|职务|部门|团队|公司|学校|经理|城市|国家|时区|语言|操作系统|系统|电脑|手机|设备|生日|项目)"
    r"(?:是|叫|在)).*\w.*",
    re.IGNORECASE,
)
_ABOUT_ME = re.compile(
    r"\W*(?:(?:so|and|then)\s+)?(?:what|which things?) (?:do|did) (?:you|i) (?:know|remember|tell "
    r"you)(?: (?:and remember))? about (?:me|myself)\W*"
    r"|\W*(?:what (?:is|'s)|do you (?:know|remember)) my name\W*|\W*who am i\W*"
    r"|\W*(?:你|您)(?:都)?(?:知道|记得|记住了?|了解)(?:关于)?我的?(?:什么|哪些(?:事情?|信息)?|名字|事情?)?[吗呢]?\W*"
    r"|\W*我(?:叫什么(?:名字)?|是谁)\W*",
    re.IGNORECASE,
)
_LISTED = {
    "en": ("You told me about yourself:", "You have told me nothing about yourself yet."),
    "zh": ("你告诉过我：", "你还没有告诉过我关于你自己的事。"),
}


def stated(text: str, hide: Callable[[str], str]) -> list[str]:
    """What a message states about its author, as worded; `MOST` statements at most.

    Args:
        text: the user's message.
        hide: masks what no answer may show; a statement it would change is left out.
    """
    if len(text) > LONG:
        return []
    found = []
    for clause in _clauses(text):
        bare = _OPENER.sub("", clause, count=1) if _OPENER.match(clause) else clause
        wanted = _ASKED_TO.fullmatch(bare)
        if wanted is None and _TOLD.fullmatch(bare) is None:
            continue
        fact = (wanted[1] if wanted else bare).strip()
        if hide(fact) == fact:
            found.append(fact)
    return found[:MOST]


def _clauses(text: str) -> list[str]:
    """Sentences and parts of them, without the questions among them."""
    whole = re.split(r"(?<=[.!?;。！？；\n])\s*", text)
    told = [sentence for sentence in whole if not _ASKING.search(sentence)]
    return [c for s in told for clause in _CLAUSE.split(s) if (c := clause.strip(" ,，"))]


def asks_about_me(text: str) -> bool:
    """Whether a message asks what its author said about themselves."""
    return _ABOUT_ME.fullmatch(text) is not None


def listed(facts: Sequence[Fact], language: str) -> str:
    """The answer to that: every fact on a line, the one stated last comes first."""
    head, none = _LISTED["zh" if language == "zh" else "en"]
    return "\n".join([head, *(f"- {fact.text}" for fact in facts)]) if facts else none


def told_in_prompt(
    facts: Sequence[Fact], language: str, budget: int, count_tokens: Callable[[str], int]
) -> str:
    """The facts as a prompt holds them: the newest that fit in `budget` tokens, "" for none."""
    lines = [_LISTED["zh" if language == "zh" else "en"][0]]
    for fact in facts:
        if count_tokens("\n".join([*lines, f"- {fact.text}"])) > budget:
            break
        lines.append(f"- {fact.text}")
    return "\n".join(lines) if len(lines) > 1 else ""
