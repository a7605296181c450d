"""How often texts were stopped, by side, category and language: numbers, and nothing personal."""

from __future__ import annotations

from assistant.ui.render import escape, page
from assistant.ui.strings import Language, known, say
from safety.rates import Rate, Rates

_SHOWN = 12


def safety(rates: Rates, language: Language) -> str:
    """The section of the sidebar, folded; its first line says the sums."""
    line = say(
        language,
        "safety_window",
        n=f"{rates.days:g}",
        judged=f"{rates.judged:,}",
        stopped=f"{rates.stopped:,}",
    )
    body = f"<p><small>{escape(say(language, 'safety_none'))}</small></p>"
    if rates.rates:
        rows = "".join(_row(rate, language) for rate in rates.rates[:_SHOWN])
        body = (
            f"<table><thead><tr><th>{escape(say(language, 'safety_what'))}</th>"
            f'<th class="pl-num">%</th></tr></thead><tbody>{rows}</tbody></table>'
        )
    return _folded(line, body, language)


def silent(why: str, language: Language) -> str:
    """The section where there are no numbers, and why."""
    return _folded(say(language, why), "", language)


def _folded(line: str, body: str, language: Language) -> str:
    return page(
        f'<details class="pl-why pl-safety"><summary>{escape(say(language, "safety"))}</summary>'
        f"<p><small>{escape(line)}</small></p>{body}</details>"
    )


def _row(rate: Rate, language: Language) -> str:
    what = known(language, f"category_{rate.category}", rate.category)
    side = known(language, f"side_{rate.side}", rate.side)
    spoken = known(language, f"safety_{rate.language}", rate.language)
    return (
        f"<tr><td>{escape(what)}<small>{escape(side)} · {escape(spoken)}</small></td>"
        f'<td class="pl-num">{rate.share:.1%}<small>{rate.stopped:,} / {rate.judged:,}</small>'
        f"</td></tr>"
    )
