"""Whether two questions ask for the same thing: what a vector does not see. Pure functions.

Two questions that differ in one name, one number or one "not" lie next to each other for an encoder
and have different answers. So likeness of vectors is the last of the conditions, not the first:
here are those on the words. All err on the side of asking again.
"""

from __future__ import annotations

import functools
import re
import unicodedata

from retrieval.evidence import facts
from retrieval.text import content_words, is_han, query_terms, simplified, terms

_END = re.compile(r"[\s?!.。？！…]+$")
_GAP = re.compile(r"\s+")
#: Words around a question that ask for nothing, before it and after it.
_BEFORE = re.compile(
    r"^(?:(?:hi|hello|hey|excuse me|please|(?:quick|one|a) question|sorry)\b[\s,:!.]*|"
    r"(?:(?:could|can|would|will) (?:you|anyone|someone)|do you(?: happen to)?|please) "
    r"(?:please |kindly )?(?:tell me|say|explain|know|let me know)\b[\s,:]*|"
    r"(?:i(?: would|'d|’d)? (?:like|want|need) to (?:know|ask)|i (?:was )?wonder(?:ing)?|tell me)"
    r"\b[\s,:]*|(?:您好|你好|请问|请告诉我|我想知道|我想问|想问一下|麻烦问一下|你知道)[\s，,：:。]*)",
    re.I,
)
_AFTER = re.compile(
    r"[\s,，。.?？!！]*\b(?:please(?: answer)?|thanks(?: in advance)?|thank you)[\s.!]*$|"
    r"[\s,，。]*(?:谢谢|多谢|谢谢您)[\s。！!]*$",
    re.I,
)
#: What is asked for; "which" and "what" alone say too little.
_ENGLISH = {
    "time": r"\bwhen\b|\b(?:what|which) (?:time|year|date|day|month|century|decade)\b",
    "place": r"\bwhere\b|\b(?:what|which) (?:city|country|place|state|town|region|location)\b",
    "person": r"\bwho(?:m|se)?\b",
    "reason": r"\bwhy\b|\bwhat (?:reason|caused?)\b",
    "number": r"\bhow (?:many|much)\b|\b(?:what|which) (?:number|percentage|share)\b",
    "measure": r"\bhow (?:old|long|far|tall|high|deep|wide|large|big|heavy|fast|often|soon)\b",
    "manner": r"\bhow (?:do|does|did|can|could|should|to|is|are|was|were)\b",
    "truth": r"^(?:is|are|was|were|do|does|did|can|could|will|would|should|has|have|had|may)\b",
}
_CHINESE = {
    "time": r"何时|什么时[候间]|哪[一]?[年月天日]|几[点月号]|多久",
    "place": r"哪里|哪儿|何处|在哪|什么地方|哪个(?:国家|城市|地区|省)",
    "person": r"谁|哪位|何人",
    "reason": r"为什么|为何|为啥|什么原因",
    "number": r"多少|几[个名人次种家位条]",
    "measure": r"多[高长大远重深宽快老]",
    "manner": r"怎么|怎样|如何",
    "truth": r"是否|[吗么]$|能否|可否|有没有|是不是|能不能",
}
#: What means another day tomorrow.
_TODAY = re.compile(
    r"\b(?:today|tonight|yesterday|tomorrow|nowadays|ago|now|recent(?:ly)?|"
    r"(?:this|last|past|next|coming) (?:\w+ )?"
    r"(?:hours?|days?|night|weeks?|weekend|months?|quarter|years?|time))\b|"
    r"[今昨明前后]天|[今去明前后]年|[本上下这][个]?(?:周|月|星期|季度|年)|现在|目前|最近|近期"
)
#: English words that stand with a capital wherever they stand.
_PLAIN = frozenset({"i", "a", "the"})


@functools.lru_cache(maxsize=4096)
def bare(question: str) -> str:
    """The question without a greeting and words of politeness around it."""
    left = question.strip()
    while (cut := _AFTER.sub("", _BEFORE.sub("", left)).strip()) and cut != left:
        left = cut
    return left


@functools.lru_cache(maxsize=4096)
def normal(question: str) -> str:
    """The question without what no reader minds: politeness, case, spaces, its mark, the script."""
    folded = simplified(unicodedata.normalize("NFKC", bare(question))).casefold()
    return _END.sub("", _GAP.sub(" ", folded).strip())


def of_today(question: str) -> bool:
    """Whether the question names a time by where it lies from now."""
    return _TODAY.search(normal(question)) is not None


def told_apart(one: str, other: str, evidence: str) -> str:
    """Why two questions are not the same for all we know; "" where nothing tells them apart.

    Args:
        one: a question, as written.
        other: another.
        evidence: the sentences that match them best.
    """
    one, other = bare(one), bare(other)
    if facts(one) != facts(other):
        return "numbers or denials"
    if _asked_for(one) != _asked_for(other) and _asked_for(one) and _asked_for(other):
        return "what is asked for"
    left, right = set(query_terms(one)), set(query_terms(other))
    more, less = left - right, right - left
    if names(one) != names(other):
        return "names"
    if bool(more) != bool(less):
        return "a word more"
    held = set(terms(evidence))
    if more & held and less & held:
        return "words of the evidence"
    return ""


def names(question: str) -> frozenset[str]:
    """Words that stand for one thing alone, by their form: capitals, digits, Latin in Chinese."""
    words = content_words(question)
    chinese = is_han(question)
    first = _GAP.sub(" ", question).strip().split(" ")[0].strip("?!.,:;\"'") if words else ""
    found = set()
    for word in words:
        odd = any(c.isdigit() for c in word) or (chinese and word.isascii())
        capital = word != word.lower() and (word != first or word[1:] != word[1:].lower())
        if odd or (capital and word.lower() not in _PLAIN):
            found.add(word.casefold())
    return frozenset(found)


@functools.lru_cache(maxsize=4096)
def _asked_for(question: str) -> frozenset[str]:
    folded = normal(question)
    kinds = _CHINESE if is_han(folded) else _ENGLISH
    found = {kind: re.search(pattern, folded) for kind, pattern in kinds.items()}
    # how tall and how heavy are two things
    return frozenset(m[0] if kind == "measure" else kind for kind, m in found.items() if m)
