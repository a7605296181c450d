"""Time expressions of a question as bounds on a document's date. Pure functions, two languages.

A question may speak of the documents' time or of its topic's. So that no filter hides the answer:

* "since 2025", "2025年以来", "as of March 2024" are explicit and set their bound;
* "last week", "最近三个月", "after May 2025" do where the question asks for news ("changed",
  "updated", "更新") or names documents ("notes", "文档");
* an upper bound ("in 2023", "before March 2024", "2023年之前") needs a word for documents beside it
  ("notes from 2023", "2023年的文档"): later documents tell of earlier times too, so "What happened
  in 1989?" sets none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from retrieval.text import simplified

#: Characters looked at: time expressions of a pasted text are not the question's.
_LOOKED_AT = 600
#: Days meant by "recently".
RECENT_DAYS = 30
_YEARS = (1970, 2199)


@dataclass(frozen=True, slots=True)
class Period:
    """Bounds in seconds since the epoch, since <= date < until, and the words that set them."""

    since: float | None
    until: float | None
    phrase: str


@dataclass(frozen=True, slots=True)
class _Span:
    """A stretch of the calendar [first, last) named at [start, end) of the text.

    `recent`: counted back from now, so that it has a lower bound of its own.
    """

    first: datetime
    last: datetime
    start: int
    end: int
    recent: bool = False


_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "january jan", "february feb", "march mar", "april apr", "may", "june jun",
            "july jul", "august aug", "september sep sept", "october oct", "november nov",
            "december dec",
        ),
        start=1,
    )
    for name in names.split()
}  # fmt: skip
_NAME = "|".join(sorted(_MONTHS, key=len, reverse=True))
_NUMBERS = {
    word: number
    for number, words in enumerate(
        (
            "one a 一", "two couple 两 二", "three few 三 几", "four 四", "five 五", "six 六 半",
            "seven 七", "eight 八", "nine 九", "ten 十", "eleven 十一", "twelve 十二",
        ),
        start=1,
    )
    for word in words.split()
}  # fmt: skip
_COUNT = r"\d{1,3}|" + "|".join(sorted(_NUMBERS, key=len, reverse=True))
_YEAR = r"(?:19|20|21)\d\d"

_DATES = (
    re.compile(rf"(?<![\d.-])(?P<y>{_YEAR})[-/](?P<m>\d\d?)(?:[-/](?P<d>\d\d?))?(?![\d.-]*\d)"),
    re.compile(rf"(?<![\d.-])(?P<y>{_YEAR})\.(?P<m>\d\d?)\.(?P<d>\d\d?)(?![\d.-]*\d)"),
    re.compile(rf"(?<!\d)(?P<y>{_YEAR}) ?年(?: ?(?P<m>\d\d?) ?月(?: ?(?P<d>\d\d?) ?[日号])?)?"),
    re.compile(rf"\b(?P<d>\d\d?)(?:st|nd|rd|th)? (?P<n>{_NAME})\.?,? (?P<y>{_YEAR})\b", re.I),
    re.compile(rf"\b(?P<n>{_NAME})\.?(?: (?P<d>\d\d?)(?:st|nd|rd|th)?)?,? (?P<y>{_YEAR})\b", re.I),
    re.compile(rf"(?<![\w.,/-])(?P<y>{_YEAR})(?![\w/-]|[.,]\d)"),
)
_NAMED = re.compile(
    r"\b(?P<en>today|yesterday|(?:this|last) (?:week|month|quarter|year))\b(?!['’]s name)|"
    r"(?P<zh>今天|昨天|[本这上](?:个)?(?:周|星期|月|季度)|今年|去年|前年|這週|上週|本週)",
    re.I,
)
_BACK = re.compile(
    rf"\b(?:(?:in|over|during|within) )?the (?:last|past) (?:(?P<n>{_COUNT}) )?"
    r"(?P<u>day|week|month|year)s?\b|"
    rf"\b(?:last|past) (?P<n2>{_COUNT}) (?P<u2>day|week|month|year)s?\b|"
    rf"(?:最近|近|过去|過去)的?(?P<n3>{_COUNT})(?:个|個)?(?P<u3>天|日|周|週|星期|月|年)(?!级|級|代)",
    re.I,
)
_RECENTLY = re.compile(
    r"\b(?:recently|newly|lately) (?:updated|changed|added|published|modified|revised)\b|"
    r"\b(?:recent|latest) (?:updates|changes|additions)\b|"
    r"(?:最近|近期)(?:的)?(?:更新|修改|修订|发布|新增|添加|变更|改动|上传)",
    re.I,
)
_SINCE = re.compile(
    r"\b(?:since|starting(?: from| in)?|from)( the (?:start|beginning) of)?\W*$", re.I
)
_AFTER = re.compile(r"\b(?:after|later than)( the end of)?\W*$", re.I)
_BEFORE = re.compile(
    r"\b(?:before|until|till|up to|prior to|older than|earlier than|by)"
    r"( the (?:start|end) of)?\W*$",
    re.I,
)
_AS_OF = re.compile(r"\b(?:as of|as at)( the end of)?\W*$|截至|截止到?$", re.I)
_WITHIN = re.compile(r"\b(?:in|from|during|dated|on)\W*$", re.I)
_SINCE_ZH = re.compile(r"(?:初|年初|月初)?(?:以来|以來|至今|起(?!源|点|義|义)|开始|開始|迄今)")
_FROM_ZH = re.compile(r"(?:自从|自從|自|从|從)$")
_AFTER_ZH = re.compile(r"(?:之后|之後|以后|以後|后(?!来)|後)")
_BEFORE_ZH = re.compile(r"(?:之前|以前|前(?!后|後|往|去|任|夫|妻))")
_DOCUMENTS = re.compile(
    r"\b(?:documents?|docs?|files?|pages?|articles?|notes|memos?|guides?|manuals?|handbooks?|"
    r"posts?|minutes|announcements?|entries|versions?|policy|policies)\b"
    r"(?: (?:that|which|were|was|you have|we have|i have|written|published|updated|added|changed|"
    r"modified|revised|posted|dated|uploaded|last|are))*\W*$|"
    r"\b(?:last )?(?:updated|modified|revised|edited|uploaded)\W*$",
    re.I,
)
_NEWS = re.compile(
    r"\b(?:what(?:'s| is| was) new|new|news|chang(?:ed|es)|updat(?:ed?|es)|added|published|"
    r"modified|revised|edited|uploaded|happened|announced|removed|documents?|docs?|files?|pages?|notes|"
    r"articles?)\b|更新|修改|修订|发布|新增|添加|上传|变更|变化|改动|公布|新的|发生|删除|文档|文件|资料|公告",
    re.I,
)
_DOCUMENTS_ZH = re.compile(
    r"^[\s,，]*(?:的|中|里|所|间|内|期间|被|曾|最后)*"
    r"(?:更新|发布|修改|修订|公布|新增|添加|上传|写|撰写)?(?:过|了|的)*"
    r"(?:文档|文件|资料|文章|页面|公告|通知|手册|指南|笔记|纪要|版本|更新|修改过|修订过)"
)


_BEFORE_DATE = (("as of", _AS_OF), ("since", _SINCE), ("after", _AFTER), ("before", _BEFORE))
_AFTER_DATE = (("since", _SINCE_ZH), ("after", _AFTER_ZH), ("before", _BEFORE_ZH))
_TO_NOW = re.compile(r"\W*(?:on(?:wards?)?|until (?:now|today)|to (?:now|date|today))\b", re.I)


def period(text: str, now: datetime) -> Period | None:
    """Read the first time expression of `text` that bounds a document's date.

    Args:
        text: the question.
        now: the present, with a time zone; days begin and end in it.

    Returns:
        None where the question sets no such bound.
    """
    written = text[:_LOOKED_AT]
    looked = simplified(written)
    looked = looked if len(looked) == len(written) else written
    for span in sorted(_spans(looked, now), key=lambda s: (s.start, -s.end)):
        since, until, start, end = _bounds(looked, span, now)
        if since is not None and since >= now:
            continue  # of plans, not of documents
        if since is not None or until is not None:
            phrase = written[start:end].strip(" \t\n,.，。的")
            return Period(_seconds(since), _seconds(until), phrase)
    return None


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _bounds(
    text: str, span: _Span, now: datetime
) -> tuple[datetime | None, datetime | None, int, int]:
    """(since, until, start and end of the phrase) that one expression sets; None = no bound."""
    relation, start, end = _relation(text[: span.start], text[span.end :])
    start, end = span.start - start, span.end + end
    documents = bool(_DOCUMENTS.search(text[:start]) or _DOCUMENTS_ZH.match(text[end:]))
    news = documents or bool(_NEWS.search(text))
    since = until = None
    if relation == "as of":
        until = span.last
    elif relation == "since":
        since = span.first
    elif relation == "after":
        since = span.first if news else None
        since = span.last if documents and not span.recent else since
    elif relation == "before":
        until = span.first if documents else None
    elif documents:
        since, until = span.first, span.last if span.last < now else None
    elif span.recent and news:
        since = span.first
    return since, until, start, end


def _relation(before: str, after: str) -> tuple[str, int, int]:
    """How a date is bound: the relation, and characters of it before and after the date."""
    for name, pattern in _BEFORE_DATE:
        if found := pattern.search(before):
            if found.group().lower().startswith("from") and not _TO_NOW.match(after):
                break
            return name, len(before) - found.start(), 0
    for name, pattern in _AFTER_DATE:
        if found := pattern.match(after):
            opener = _FROM_ZH.search(before)
            return name, len(opener.group()) if opener else 0, found.end()
    found = _WITHIN.search(before)
    return "in", len(before) - found.start() if found else 0, 0


def _spans(text: str, now: datetime) -> Iterator[_Span]:
    taken: list[tuple[int, int]] = []
    for pattern in _DATES:
        for match in pattern.finditer(text):
            a, b = match.span()
            if any(a < right and b > left for left, right in taken):
                continue
            found = _calendar(match.groupdict(), now)
            if found is not None:
                taken.append((a, b))
                yield _Span(*found, a, b)
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    for match in _NAMED.finditer(text):
        first, last = _named(match.group().lower(), today)
        yield _Span(first, last, *match.span(), recent=True)
    for match in _BACK.finditer(text):
        values = [value for value in match.groups() if value]
        unit = values[-1].lower()
        count = values[0].lower() if len(values) > 1 else "one"
        number = int(count) if count.isdigit() else _NUMBERS[count]
        yield _Span(_back(now, number, unit), now, *match.span(), recent=True)
    for match in _RECENTLY.finditer(text):
        yield _Span(now - timedelta(days=RECENT_DAYS), now, *match.span(), recent=True)


def _calendar(parts: dict[str, str | None], now: datetime) -> tuple[datetime, datetime] | None:
    """[first, last) of a year, a month or a day; None for what is no date."""
    year = int(parts["y"] or 0)
    name = (parts.get("n") or "").lower()
    month = _MONTHS[name] if name else int(parts.get("m") or 0)
    day = int(parts.get("d") or 0)
    if not _YEARS[0] <= year <= _YEARS[1]:
        return None
    try:
        first = datetime(year, month or 1, day or 1, tzinfo=now.tzinfo)
    except ValueError:
        return None
    if day:
        return first, first + timedelta(days=1)
    return first, _months(first, 1 if month else 12)


def _named(words: str, today: datetime) -> tuple[datetime, datetime]:
    """[first, last) of "last week", "去年" and the like, in whole calendar units."""
    if words in ("today", "今天"):
        return today, today + timedelta(days=1)
    if words in ("yesterday", "昨天"):
        return today - timedelta(days=1), today
    past = words[0] in "l上去"
    if words.endswith(("week", "周", "星期", "週")):
        monday = today - timedelta(days=today.weekday() + (7 if past else 0))
        return monday, monday + timedelta(days=7)
    month = today.replace(day=1)
    if words.endswith(("month", "月")):
        first = _months(month, -1) if past else month
        return first, _months(first, 1)
    if words.endswith(("quarter", "季度")):
        quarter = month.replace(month=(month.month - 1) // 3 * 3 + 1)
        first = _months(quarter, -3) if past else quarter
        return first, _months(first, 3)
    back = 2 if words == "前年" else 1 if past else 0
    first = month.replace(year=month.year - back, month=1)
    return first, _months(first, 12)


def _back(now: datetime, count: int, unit: str) -> datetime:
    if unit in ("day", "天", "日"):
        return now - timedelta(days=count)
    if unit in ("week", "周", "週", "星期"):
        return now - timedelta(weeks=count)
    months = count if unit in ("month", "月") else 12 * count
    moved = _months(now.replace(day=1), -months)
    return min(moved + timedelta(days=now.day - 1), _months(moved, 1) - timedelta(days=1))


def _months(first: datetime, count: int) -> datetime:
    """The same moment `count` months on; `first` is the first of a month."""
    index = first.year * 12 + first.month - 1 + count
    return first.replace(year=max(index // 12, 1), month=index % 12 + 1)
