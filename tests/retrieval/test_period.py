from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.period import period

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def day(seconds: float | None) -> str:
    """Write a bound as a date, "" for none."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


@pytest.mark.parametrize(
    ("question", "since", "until", "phrase"),
    [
        ("What changed since 2025?", "2025-01-01", "", "since 2025"),
        ("2025年以来有哪些变化", "2025-01-01", "", "2025年以来"),
        ("自2024年3月起有什么规定", "2024-03-01", "", "自2024年3月起"),
        ("What is the fee from 2025 on?", "2025-01-01", "", "from 2025"),
        ("documents before March 2024", "", "2024-03-01", "before March 2024"),
        ("2023年之前的文档说了什么", "", "2023-01-01", "2023年之前"),
        ("as of March 2024, what is the fee", "", "2024-04-01", "as of March 2024"),
        ("notes from 2023", "2023-01-01", "2024-01-01", "from 2023"),
        ("2023年发布的公告", "2023-01-01", "2024-01-01", "2023年"),
        ("policies updated after 5 March 2024", "2024-03-06", "", "after 5 March 2024"),
        ("2024-03-05之后的文档", "2024-03-06", "", "2024-03-05之后"),
        ("documents from last week", "2026-11-09", "2026-11-16", "from last week"),
        ("上个月更新的文档", "2026-10-01", "2026-11-01", "上个月"),
        ("pages updated this week", "2026-11-16", "", "this week"),
        ("去年發布的公告", "2025-01-01", "2026-01-01", "去年"),
        ("最近三个月更新了什么", "2026-08-22", "", "最近三个月"),
        ("Which files were updated in the last 3 days?", "2026-11-19", "", "in the last 3 days"),
        ("最近更新了哪些文档", "2026-10-23", "", "最近更新"),
        ("recently updated pages", "2026-10-23", "", "recently updated"),
    ],
)
def test_a_documents_time_is_read(question: str, since: str, until: str, phrase: str) -> None:
    """Words about the documents' time bound the search, in both languages."""
    found = period(question, NOW)
    assert found is not None
    assert (day(found.since), day(found.until), found.phrase) == (since, until, phrase)


@pytest.mark.parametrize(
    "question",
    [
        "What happened in 1989?",
        "1989年发生了什么",
        "in 2023 what was the revenue?",
        "Who was president after 1945?",
        "Which novel was published in 1995?",
        "What did the report of 2021 say?",
        "What are this year's holidays?",
        "今年的放假安排是什么",
        "去年的收入是多少",
        "last year's revenue",
        "What will change after 2030?",
        "Is 2023.1 newer than 2022.4?",
        "三年级有几个班",
        "2008年奥运会在哪里举行",
        "后来怎么样",
        "How do I register?",
        "",
    ],
)
def test_a_topics_time_is_left_alone(question: str) -> None:
    """A time that the question is about bounds nothing."""
    assert period(question, NOW) is None


@given(st.text(max_size=80), st.dates(datetime(1990, 1, 2).date(), datetime(2100, 1, 1).date()))
def test_bounds_are_in_order(text: str, today: object) -> None:
    """Whatever the words, a lower bound lies before now and before the upper one."""
    now = datetime.fromisoformat(str(today)).replace(tzinfo=UTC)
    for question in (text, f"documents updated {text}", f"{text}2025年以来更新 last 3 months"):
        found = period(question, now)
        if found is not None:
            assert found.since is not None or found.until is not None
            assert found.since is None or found.since < now.timestamp()
            assert None in (found.since, found.until) or found.since < found.until  # type: ignore[operator]
            assert found.phrase


@given(st.integers(1, 400), st.sampled_from(["day", "week", "month", "year"]))
def test_a_window_is_counted_back(count: int, unit: str) -> None:
    """The last n units begin as many calendar units ago, whatever day it is."""
    now = datetime(2100, 3, 31, 23, tzinfo=UTC)
    found = period(f"pages changed in the last {count} {unit}s", now)
    if count > 100 and unit == "year":
        return
    assert found is not None
    assert found.since is not None
    days = {"day": 1, "week": 7, "month": 30.44, "year": 365.25}[unit] * count
    counted = timedelta(seconds=now.timestamp() - found.since).days
    assert days - 4 <= counted <= days + 4


def test_a_pasted_text_is_not_a_time() -> None:
    """Only the head of a long message is read, and fast."""
    assert period("word " * 200 + "documents since 2025", NOW) is None
    assert period("since " * 100_000 + "2025", NOW) is None
