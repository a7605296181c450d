"""What kind of thing a question asks for (a time, a number), and whether a sentence has one.

A feature of the linear ranker; questions are looked at with traditional characters simplified.
"""

from __future__ import annotations

import re

from retrieval.text import simplified

_KINDS: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...] = (
    (
        re.compile(r"\b(when|what (year|date|month|day|century)|which year)\b", re.I),
        re.compile(
            r"\d{3,4}|\b(january|february|march|april|may|june|july|august|september|october|"
            r"november|december|century|monday|tuesday|wednesday|thursday|friday|saturday|sunday|"
            r"spring|summer|autumn|winter|today|yesterday)\b",
            re.I,
        ),
    ),
    (
        re.compile(
            r"\bhow (many|much|long|old|far|high|tall|big|large|often|fast|deep)\b|"
            r"\bwhat (percent|percentage|number|size|age|amount|distance)\b",
            re.I,
        ),
        re.compile(
            r"\d|\b(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|hundred|"
            r"thousand|million|billion|half|twice|dozen|several|many|once)\b",
            re.I,
        ),
    ),
    (
        re.compile(r"\b(who|whom|whose)\b", re.I),
        re.compile(r"(?<!^)(?<![.!?] )\b[A-Z][\w’'-]+"),
    ),
    (
        re.compile(r"\bwhere\b|\bwhat (city|country|state|place|location)\b", re.I),
        re.compile(r"(?<!^)(?<![.!?] )\b[A-Z][\w’'-]+|\b(in|at|on|near|to|from) the\b"),
    ),
    (
        re.compile(r"\bwhy\b|\bwhat (reason|cause|caused)\b", re.I),
        re.compile(
            r"\b(because|since|due to|as a result|so that|in order to|to avoid|reason|cause|led to|"
            r"therefore)\b",
            re.I,
        ),
    ),
    (
        re.compile(r"\bhow (do|can|to|should|does|did|is|are|was)\b", re.I),
        re.compile(r"\b(by|using|use|run|with|through|via|click|press|set|add|call|type)\b", re.I),
    ),
    (
        re.compile("何时|什么时候|哪一?年|哪天|几月|哪个世纪|何年|哪一天|年份|日期"),
        re.compile("[0-9〇零一二三四五六七八九十]+[年月日]|世纪|年代|时期"),
    ),
    (
        re.compile(
            "多少|几[个人位名种次年天条座家支岁级部]|多[长大高远久重深宽]|第几|人口|面积|比例"
        ),
        re.compile("[0-9]|[一二三四五六七八九十百千万亿两]+[个人位名种次年天条座家支岁级部米公里]"),
    ),
    (
        re.compile("谁|何人|哪[一]?[位个]人|什么人|作者|导演|创始人"),
        re.compile("·|[父母妻夫儿女兄弟]|人|者|家|[王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗]"),
    ),
    (
        re.compile("哪里|哪儿|何处|在哪|什么地方|哪[个一]?[个]?(国家|城市|省|县|地区|国)|位于"),
        re.compile("[省市县区国州岛港村镇山湖河海]|位于|地区"),
    ),
    (
        re.compile("为什么|为何|原因|缘故|为甚么"),
        re.compile("因为|由于|所以|因此|为了|原因|导致|以致|使得|因"),
    ),
    (
        re.compile("如何|怎么|怎样|怎麼|方法|步骤"),
        re.compile("可以|使用|通过|运行|执行|点击|选择|设置|添加|输入|调用|用"),
    ),
    (
        re.compile(
            r"^\W*what(['’]s| is| are| does) (the |an? )?[^?]{1,40}( for| used for| mean| do)?\W*$|"
            r"什么是|是什么|做什么|干什么|是啥|什么意思|指什么|的定义",
            re.I,
        ),
        re.compile(
            r"\b(is|are) (an?|the|used|designed|intended)\b|\b(means|refers to|allows|lets)\b|"
            r"是一|是指|指的是|用于|用来|意味着|允许|可以让|让我们",
            re.I,
        ),
    ),
)


def wanted(question: str) -> re.Pattern[str] | None:
    """What an answer to the question has in it; None where that can't be said."""
    folded = simplified(question)
    return next((answer for asks, answer in _KINDS if asks.search(folded)), None)


def shows(kind: re.Pattern[str] | None, sentence: str, question: str) -> bool:
    """Whether a sentence has such a thing, and one that the question does not have."""
    if kind is None:
        return False
    asked = question.lower()
    return any(match.group().lower() not in asked for match in kind.finditer(simplified(sentence)))
