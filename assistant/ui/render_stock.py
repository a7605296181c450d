"""The page on training: what users gave, and the reward model made of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from assistant.training import Collected, Remark, RewardModel
from assistant.ui import charts
from assistant.ui.render import escape, page_with_charts
from assistant.ui.strings import Language, count, known, say

_DAYS = 30


def stock(collected: Collected, reward: RewardModel | None, language: Language, today: date) -> str:
    """What was collected by kind, language and day, whether it is enough, and the reward model.

    `today` is the last day of the drawing, in UTC.
    """
    return page_with_charts(
        f'<section class="pl-sheet"><h3 class="pl-heading">'
        f"{escape(say(language, 'train_collected'))}</h3>{_given(collected, language, today)}"
        f'</section><section class="pl-sheet"><h3 class="pl-heading">'
        f"{escape(say(language, 'train_reward'))}</h3>{_reward(reward, language)}</section>"
    )


def _given(collected: Collected, language: Language, today: date) -> str:
    if not any(number for _, number in collected.kinds):
        return f'<p class="pl-empty">{escape(say(language, "train_collected_none"))}</p>'
    tiles = "".join(
        f"<div><dt>{escape(known(language, f'train_kind_{kind}', kind))}</dt>"
        f"<dd>{number:,}</dd></div>"
        for kind, number in collected.kinds
    )
    spoken = " · ".join(
        f"{known(language, f'train_language_{code}', code)} {number:,}"
        for code, number in collected.languages
    )
    facts = count(language, "train_users", collected.users)
    if spoken:
        facts += f" · {say(language, 'train_languages', spoken=spoken)}"
    remarks = "".join(f"<li>{_remark(one, language)}</li>" for one in collected.remarks)
    return (
        f'<dl class="pl-tiles">{tiles}</dl>{_need(collected, language)}'
        f'<p class="pl-facts"><small>{escape(facts)}</small></p>'
        f"{_days(collected.days, language, today)}"
        + (f'<ul class="pl-remarks">{remarks}</ul>' if remarks else "")
    )


def _need(collected: Collected, language: Language) -> str:
    words = say(language, "train_need", n=f"{collected.train:,}", needed=f"{collected.needed:,}")
    verdict = say(language, "train_enough")
    if collected.missing:
        verdict = say(language, "train_missing", n=f"{collected.missing:,}")
    share = min(collected.train, collected.needed)
    return (
        f'<div class="pl-progress"><p class="pl-facts">{escape(words)}</p>'
        f'<progress aria-label="{escape(words)}" value="{share}" '
        f'max="{max(collected.needed, 1)}"></progress>'
        f'<p class="pl-facts"><small>{escape(verdict)}</small></p></div>'
    )


def _days(days: Sequence[tuple[str, int]], language: Language, today: date) -> str:
    """The last month, a bar a day."""
    numbers = dict(days)
    span = [today - timedelta(days=back) for back in reversed(range(_DAYS))]
    counts = [numbers.get(day.isoformat(), 0) for day in span]
    first, last = _day(span[0], language), _day(span[-1], language)
    words = say(
        language,
        "train_said_days",
        first=first,
        last=last,
        n=f"{sum(counts):,}",
        most=f"{max(counts):,}",
    )
    drawing = charts.bars(counts, first, last, words)
    return (
        f'<figure class="pl-plot"><figcaption>{escape(say(language, "train_days"))}</figcaption>'
        f"{drawing}</figure>"
    )


def _day(day: date, language: Language) -> str:
    return f"{day.month}月{day.day}日" if language == "zh" else f"{day.day} {day:%b}"


def _remark(one: Remark, language: Language) -> str:
    words = known(language, f"train_remark_{one.key}", "")
    if not words:
        return f'<span lang="en">{escape(one.text)}</span>'
    return escape(words.format(n=f"{one.value:,.0f}", share=f"{one.value:.0%}"))


def _reward(reward: RewardModel | None, language: Language) -> str:
    if reward is None:
        return f'<p class="pl-empty">{escape(say(language, "train_no_reward"))}</p>'
    facts = [say(language, "train_unmeasured")]
    if reward.accuracy is not None:
        share, n = f"{reward.accuracy:.1%}", f"{reward.n:,}"
        facts = [say(language, "train_accuracy", share=share, n=n)]
        if reward.low is not None and reward.high is not None:
            low, high = f"{reward.low:.1%}", f"{reward.high:.1%}"
            facts.append(say(language, "train_interval", low=low, high=high))
        if reward.baseline is not None:
            facts.append(say(language, "train_baseline", share=f"{reward.baseline:.1%}"))
    if reward.ece is not None:
        facts.append(say(language, "train_ece", n=f"{reward.ece:.3f}"))
    return (
        f'<p class="pl-facts"><span class="pl-code">{escape(reward.name)}</span></p>'
        f'<p class="pl-facts">{escape(" · ".join(facts))}</p>'
    )
