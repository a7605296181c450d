"""Every word the chat shows, in both languages. A test holds the two tables to equal keys."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Literal

from assistant.ui import strings_train_en, strings_train_zh
from assistant.ui.strings_en import ENGLISH
from assistant.ui.strings_zh import CHINESE

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("zh", "en")
TABLES: dict[Language, dict[str, str]] = {
    "en": {**ENGLISH, **strings_train_en.ENGLISH},
    "zh": {**CHINESE, **strings_train_zh.CHINESE},
}

_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60))


def say(language: Language, key: str, **values: object) -> str:
    """The words for `key`; `{name}` in them is filled from `values`. KeyError if there is none."""
    words = TABLES[language][key]
    return words.format(**values) if values else words


def count(language: Language, key: str, number: int) -> str:
    """`key` with `{n}`, in the singular form `key_one` where the language has one."""
    form = f"{key}_one" if number == 1 else key
    return say(language, form, n=f"{number:,}")


def known(language: Language, key: str, fallback: str) -> str:
    """The words for `key`, or `fallback` where nobody wrote any (a new step, a new reason)."""
    return TABLES[language].get(key, fallback)


def pick(setting: str, cookie: str, accept: str) -> Language:
    """The language to start in: the user's last choice, else the setting, else the browser's."""
    for wish in (cookie, setting):
        for language in LANGUAGES:
            if wish == language:
                return language
    for part in accept.lower().split(","):
        tag = part.split(";")[0].strip()
        if tag.startswith("zh"):
            return "zh"
        if tag.startswith("en"):
            return "en"
    return "en"


def date(language: Language, seconds: float) -> str:
    """A day, as the language writes it; seconds since the epoch."""
    if seconds <= 0:
        return say(language, "unknown")
    day = datetime.fromtimestamp(seconds)
    if language == "zh":
        return f"{day.year}年{day.month}月{day.day}日"
    return f"{day.day} {day:%b} {day.year}"


def ago(language: Language, seconds: float, now: float | None = None) -> str:
    """How long ago that was; beyond 30 days, the date."""
    if seconds <= 0:
        return say(language, "never")
    age = max(0.0, (time.time() if now is None else now) - seconds)
    if age > 30 * 86_400:
        return date(language, seconds)
    for unit, size in _UNITS:
        if age >= size:
            return count(language, f"ago_{unit}", int(age // size))
    return say(language, "ago_now")


def span(language: Language, seconds: float) -> str:
    """A duration, short: milliseconds, seconds or minutes."""
    if seconds < 0.001:
        return "<1 ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 90:
        return say(language, "seconds", n=f"{seconds:.1f}" if seconds < 10 else f"{seconds:.0f}")
    return say(language, "minutes", n=f"{seconds / 60:.0f}")
