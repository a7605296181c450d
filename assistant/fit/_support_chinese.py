"""Chinese sentences said in other words, and made false: by rule, for the support check.

As `_support_english`; a rule takes a sentence and gives another, or None where it does not fit.
"""

from __future__ import annotations

import random
import re

from assistant.fit._support_english import Pool, Rule, listed, table

#: Names that are known without a passage.
PLACES = tuple(listed("places_zh"))
_ADDED = listed("added_zh")
_DIGITS = "零一二三四五六七八九十"
_SAYS = ("据文中所述，", "资料显示，", "文中提到，", "事实上，", "根据记载，", "可以看到，")
NAME = re.compile(
    r"《[^《》]{1,20}》|[\u4e00-\u9fff]{1,5}[·‧][\u4e00-\u9fff·‧]{1,9}|[A-Z][A-Za-z-]{2,}"
)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def _exchange(found: dict[str, tuple[str, ...]], most: int) -> Rule:
    known = re.compile("|".join(map(re.escape, sorted(found, key=len, reverse=True))))

    def rule(text: str, dice: random.Random) -> str | None:
        places = list(known.finditer(text))
        taken = dice.sample(places, min(len(places), dice.randint(1, most)))
        for match in sorted(taken, key=lambda m: -m.start()):
            text = text[: match.start()] + dice.choice(found[match.group()]) + text[match.end() :]
        return text if places else None

    return rule


def _turned(text: str, dice: random.Random) -> str | None:
    """Put 1999年，甲成立。 as 甲于1999年成立。 and back."""
    verbs = "|".join(listed("dated_zh"))
    day = r"(?:\d{4}|[一二〇○零三四五六七八九]{4})年(?:\d+月)?(?:\d+日)?"
    lead = re.match(rf"^({day})[，,]([^，。]{{4,30}}?)({verbs})", text)
    if lead:
        return f"{lead[2]}于{lead[1]}{text[lead.start(3) :]}"
    inner = re.match(r"^([^，。]{2,16})[于於在](\d{4}年(?:\d+月)?(?:\d+日)?)([^，。]{2,}.*)$", text)
    return f"{inner[2]}，{inner[1]}{inner[3]}" if inner else None


def _active(text: str, dice: random.Random) -> str | None:
    """Put 甲由乙建造。 as 乙建造了甲。, for verbs of making."""
    verbs = "|".join(listed("made_zh"))
    found = re.match(
        rf"^([^，。]{{2,20}}?)(?:是|系)?由([^，。]{{2,20}}?)(?:所)?({verbs})(?:的)?(?=[，。；])",
        text,
    )
    return f"{found[2]}{found[3]}了{found[1]}。" if found else None


def _cut(text: str, dice: random.Random) -> str | None:
    """Without what stands in brackets, or only its first clauses; every part left was said."""
    ways = [
        re.sub(r"[（(][^（）()]*[)）]", "", text),
        re.sub(r"^[^，]{2,12}，(?=[^，]{6,}，)", "", text),
    ]
    clauses = text.rstrip("。").split("，")
    if len(clauses) > 1 and not re.match(r"如果|若|除非|虽然|尽管|当", text):
        ways += ["，".join(clauses[: dice.randint(1, len(clauses) - 1)]) + "。"] * 2
    ways = [w for w in ways if 8 < len(w) < len(text)]
    return dice.choice(ways) if ways else None


def _figures(text: str, dice: random.Random) -> str | None:
    """Numbers written another way."""
    said = text
    if dice.random() < 0.5:
        text = re.sub(
            r"(?<!\d)(\d{4})(?=年)",
            lambda m: "".join("〇一二三四五六七八九"[int(c)] for c in m[0]),
            text,
        )
    text = re.sub(r"(\d+(?:\.\d+)?)[%％]", r"百分之\1", text)
    text = re.sub(r"(?<!\d)([2-9])(?=[个座位名条种次部人])", lambda m: _DIGITS[int(m[0])], text)
    text = re.sub(rf"(?<![{_DIGITS}百千第])([三四五六七八九])(?=[个座位名条种次部人])",
                  lambda m: str(_DIGITS.index(m[0])), text) if text == said else text  # fmt: skip
    text = re.sub(r"(?<![\d.])(\d{1,3})(\d{4})(?=[人元平])", lambda m: f"{m[1]}{m[2]}", text)
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    return text if text != said else None


def _told(text: str, dice: random.Random) -> str | None:
    return dice.choice(_SAYS) + text


def denied(text: str, dice: random.Random) -> str | None:
    """The opposite, by a 不 or 没有 more or less."""
    less = re.search(r"(?:并不|并未|没有|不是|不能|不会|并非|不可|从未|尚未)", text)
    if less and dice.random() < 0.8:
        word = {
            "不是": "是",
            "不能": "能",
            "不会": "会",
            "并非": "是",
            "不可": "可",
            "没有": "有",
            "从未": "曾",
            "尚未": "已",
        }
        return text[: less.start()] + word.get(less.group(), "") + text[less.end() :]
    ways = {
        **{
            v: f"不{v}"
            for v in "是 会 能 可以 属于 需要 由 包括 允许 应当 负责 拥有 认为 使用".split()
        },
        **{v: f"没有{v}" for v in "被 成为 获得 担任".split()},
        **{"曾": "从未", "已": "尚未", "有": "没有", "位于": "并不位于"},
    }
    known = re.compile(
        r"(?<![不没但只还可于总就或若凡正如社机未拥所只具])(?:可以|位于|属于|成为|获得|需要|包括|允许|应当|负责|担任|拥有|认为|使用|是|会|能|"
        r"曾|已|有|被|由)(?![于关限效机员议社力够源经所])"
    )
    places = list(known.finditer(text))
    if not places:
        return None
    match = dice.choice(places[:2])
    return text[: match.start()] + ways[match.group()] + text[match.end() :]


def renumbered(text: str, dice: random.Random) -> str | None:
    """Another number."""
    places = list(_NUMBER.finditer(text))
    if not places:
        found = re.search(
            rf"(?<![{_DIGITS}百千万第])[一二三四五六七八九](?=[十百千万个座位名条种次部人年月])",
            text,
        )
        if not found:
            return None
        other = dice.choice([c for c in _DIGITS[1:10] if c != found.group()])
        return text[: found.start()] + other + text[found.end() :]
    match = dice.choice(places)
    value = float(match.group())
    year = match.group().isdigit() and 1000 <= value <= 2100
    other_value = value + dice.choice((-1, 1)) * dice.randint(
        1, 60 if year else max(2, int(value * 0.7))
    )
    other_value = other_value if other_value > 0 else value + 3
    shown = f"{other_value:g}" if "." in match.group() else f"{other_value:.0f}"
    return text[: match.start()] + shown + text[match.end() :]


def renamed(text: str, dice: random.Random, pool: Pool) -> str | None:
    """Another name: one of the passage's answers, a known place, a title."""
    held = [n for n in pool.near if n in text]
    places = [(text.index(n), n) for n in held] or [
        (m.start(), m.group()) for m in NAME.finditer(text)
    ]
    places = places or [(text.index(p), p) for p in PLACES if p in text]
    if not places:
        return None
    at, name = dice.choice(places)
    if name in PLACES:
        others = [p for p in PLACES if p not in text]
    else:
        others = [n for n in (*pool.near, *pool.far) if n not in text and name not in n]
        others = [n for n in others if _shape(n) == _shape(name)]
    return text[:at] + dice.choice(others) + text[at + len(name) :] if others else None


def _shape(name: str) -> tuple[bool, bool, bool, bool]:
    """What kind of name it may be: with digits, with a title's marks, foreign, short."""
    return bool(_NUMBER.search(name)), "《" in name, "·" in name or name.isascii(), len(name) < 5


def swapped(text: str, dice: random.Random) -> str | None:
    """Who did it to whom, the other way round."""
    verbs = "|".join(listed("roles_zh"))
    found = re.match(rf"^([^，。]{{2,12}}?)({verbs})(?:了)?([^，。的]{{2,12}})(?=[，。])", text)
    if not found or found[1] == found[3]:
        return None
    return f"{found[3]}{found[2]}{found[1]}{text[found.end(3) :]}"


def extended(text: str, dice: random.Random, pool: Pool) -> str | None:
    """True, and then something that nobody said."""
    tail = (
        dice.choice(pool.clauses) if pool.clauses and dice.random() < 0.7 else dice.choice(_ADDED)
    )
    return text.rstrip("。；") + tail.rstrip("。；") + "。" if text.endswith("。") else None


TRUE: tuple[Rule, ...] = (
    *(_exchange(table("same_zh"), 3),) * 4, _turned, _turned, _active, _cut, _cut, _cut, _figures,
    _figures, _told,
)  # fmt: skip
opposite, remeasured = _exchange(table("opposite_zh"), 1), _exchange(table("units_zh"), 1)
#: What makes a sentence contradict its passage: rules, and how often each is tried.
FALSE: tuple[Rule, ...] = (
    denied, denied, denied, opposite, opposite, opposite, renumbered, renumbered, remeasured,
    swapped, swapped,
)  # fmt: skip
