"""Questions with their answers, as statements: by rule, in both languages.

English questions are read by patterns, in order; a question that none of them fits gives nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from assistant.fit._support_english import listed, raised
from retrieval.text import simplified

_PAST = dict(row.split("/") for row in listed("past_en"))
_VERB = "|".join(sorted({*_PAST, *listed("verbs_en")}))
_DONE = "|".join(sorted(set(_PAST.values())))
_BE = "is|are|was|were"
_NP = r"(?:\S+ ){0,9}?\S+"
_SOME = "year|city|country|date|day|month|century|decade|state"
_WHEN = rf"when|where|(?:in |on )?(?:what|which) (?:{_SOME})"
_PARTICIPLE = (
    r"\w+(?:ed|en|ng)|built|made|held|found|set|sold|won|lost|born|based|fought|taught|led|known"
)
_PLACED = r"(?:in|on|at|during|after|before|from|by|since|between|near|to|around|under)\b"
_HAN_ASK = re.compile(
    r"为?(?:什么(?:时候|地方|人|名字|国家|城市|职位|职务|奖项|原因|作用|材料)?|谁|多少|几年|"
    r"哪(?:[里儿年天国]|[一几]?[个些座位种年天](?:国家|城市|地区|人|国|省)?)|"
    r"哪一?[部首本支所家条次场任][\u4e00-\u9fff]{0,2}|何(?:时|地|处|年|人|国)?)"
)
#: What is made of a match and the answer, with the whole question at hand.
Made = Callable[[re.Match[str], str, str], str]


def _of_name(found: re.Match[str], answer: str, question: str) -> str:
    """Who was the first king? -> The first king was A., or A was the first king."""
    be = re.match(rf"^({_BE}) (.+)$", found[1])
    named = be and re.match(r"^(?:the|an?|his|her|its|their|[A-Z]\S*|\S+['’]s)\b", be[2])
    if be and named and len(answer) % 2:
        return f"{be[2]} {be[1]} {answer}."
    return f"{answer} {found[1]}."


def _of_place(found: re.Match[str], answer: str, question: str) -> str:
    """When did the war end? -> The war ended in A."""
    return f"{found[2]} {_past(found[3], question)}{found[4]} {_at(answer)}."


def _of_state(found: re.Match[str], answer: str, question: str) -> str:
    """Where was the hall built? -> The hall was built in A."""
    return f"{found[3]} {found[2]} {found[4]}{found[5]} {_at(answer)}."


def _of_number(found: re.Match[str], answer: str, question: str) -> str:
    """How many ships did he lose? -> He lost A ships."""
    return f"{found[2]} {_past(found[3], question)} {_counted(found[1], answer)}{found[4]}."


def _of_thing(found: re.Match[str], answer: str, question: str) -> str:
    """What did she write in 1910? -> She wrote A in 1910."""
    return f"{found[1]} {_past(found[2], question)} {answer}{found[3]}."


def _of_reason(found: re.Match[str], answer: str, question: str) -> str:
    """Why did the plan fail? -> The plan failed because of A."""
    begun = re.match(r"^(?:because|to|due|for|in order)\b", answer, re.I)
    because = "" if begun else "because of "
    return f"{found[1]} {_past(found[2], question)}{found[3]} {because}{answer}."


_RULES: tuple[tuple[str, Made], ...] = (
    (rf"(?:who|what) ((?:{_BE}|has|had|can|will) .+(?<! to)(?<! of)(?<! in)(?<! by))", _of_name),
    (
        r"(?:who|what) (?!did|do|does|kind|type|class|process|species|series)"
        rf"((?:[a-z]+(?:ed|s)|{_DONE}) .+)",
        lambda found, answer, question: f"{answer} {found[1]}.",
    ),
    (rf"({_WHEN}) (?:did|do|does) ({_NP}) ({_VERB})\b(.*)", _of_place),
    (rf"({_WHEN}) ({_BE}) ({_NP}) ({_PARTICIPLE})\b(.*)", _of_state),
    (
        rf"(?:when|where) ({_BE}) ({_NP})",
        lambda found, answer, question: f"{found[2]} {found[1]} {_at(answer)}.",
    ),
    (rf"how (?:many|much) ((?:\S+ ){{1,3}}?)(?:did|do|does) ({_NP}) ({_VERB})\b(.*)", _of_number),
    (
        rf"how many ((?:\S+ ){{1,4}}?)((?:{_BE}|have|has|had|can|live|lived|died) .+)",
        lambda found, answer, question: f"{_counted(found[1], answer)} {found[2]}.",
    ),
    (
        rf"(?:what|which) (?!.* (?:did|do|does) )({_NP}) ((?:{_BE}|has|had|can|{_DONE}) .+)",
        lambda found, answer, question: f"{answer} is the {found[1]} that {found[2]}.",
    ),
    (rf"(?:who|what) (?:did|do|does) ({_NP}) ({_VERB})\b(.*)", _of_thing),
    (rf"why (?:did|do|does) ({_NP}) ({_VERB})\b(.*)", _of_reason),
)


def english(question: str, answer: str) -> str | None:
    """A statement that the answer is the answer, or None where no rule reads the question."""
    text = re.sub(r"\s+", " ", question).strip().rstrip("?").strip()
    answer = answer.strip().rstrip(".,;")
    if not text or not answer or len(answer) > 90:
        return None
    for pattern, make in _RULES:
        found = re.fullmatch(pattern, text, re.I)
        if found:
            return raised(re.sub(r"\s+", " ", make(found, answer, text)))
    return None


def chinese(question: str, answer: str) -> str | None:
    """The question with the answer in the place of what it asks for, or None."""
    text = question.strip().rstrip("？?。")
    answer = answer.strip().rstrip("。，；")
    plain = simplified(text)
    found = list(_HAN_ASK.finditer(plain if len(plain) == len(text) else text))
    if len(found) != 1 or not answer or len(answer) > 24:
        return None
    if re.search(r"为什么|怎么|怎样|如何|吗$|几(?!年)", plain) or text[:3] in answer:
        return None
    head, tail = text[: found[0].start()], text[found[0].end() :]
    # units and kinds that the answer brings along: 多少公里 with 364公里, 哪个岛 with 海南岛
    for size in range(min(4, len(tail), len(answer)), 0, -1):
        if answer.endswith(tail[:size]):
            tail = tail[size:]
            break
    for size in range(min(3, len(head), len(answer)), 0, -1):
        if answer.startswith(head[-size:]):
            head = head[:-size]
            break
    return f"{head}{answer}{tail}。"


def sort(answer: str) -> str:
    """What kind of answer it is; only like ones may stand for each other."""
    if re.fullmatch(r"\D{0,12}\d{4}年?\D{0,3}", answer):
        return "year"
    if re.search(
        r"\d|\b(?:one|two|three|four|five|six|ten|hundred)\b|[两三四五六七八九十百]",
        answer,
    ):
        return "number"
    if re.match(r"^[A-Z]", answer) and len(answer.split()) < 6:
        return "name"
    return "short" if len(answer) < 8 or len(answer.split()) in (2, 3) else "text"


def _past(verb: str, question: str) -> str:
    verb = verb.lower()
    if verb == "have" and re.search(r"\bdoes\b", question, re.I):
        return "has"
    if not re.search(r"\bdid\b", question, re.I):
        return verb + ("s" if re.search(r"\bdoes\b", question, re.I) else "")
    if verb in _PAST:
        return _PAST[verb]
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ied"
    return verb + ("d" if verb.endswith("e") else "ed")


def _counted(kind: str, answer: str) -> str:
    """The number with what it counts, unless the answer has said that."""
    kind = kind.strip()
    return answer if kind.split()[-1].lower() in answer.lower() else f"{answer} {kind}"


def _at(answer: str) -> str:
    if re.match(_PLACED, answer, re.I):
        return answer
    day = re.search(r"[A-Z][a-z]+ \d{1,2}\b|\d{1,2} [A-Z]", answer)
    return f"{'on' if day else 'in'} {answer}"
