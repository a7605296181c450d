"""How often texts were stopped, and which hazards nobody looks for: nothing personal."""

from __future__ import annotations

from assistant.ui.render import escape, page
from assistant.ui.strings import Language, known, say
from safety.config import SafetySettings
from safety.hazards import HAZARDS, Coverage, served
from safety.rates import Rate, Rates

_SHOWN = 12


def safety(rates: Rates, settings: SafetySettings, language: Language) -> str:
    """The section of the sidebar, folded; its first line says the sums, its last list the gaps."""
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
    return _folded(line, body + _gaps(settings, language), language)


def silent(why: str, settings: SafetySettings, language: Language) -> str:
    """The section where there are no numbers, and why."""
    return _folded(say(language, why), _gaps(settings, language), language)


def _gaps(settings: SafetySettings, language: Language) -> str:
    """What the built-in model does not cover, or nothing set up looks for, folded."""
    gaps = [h for h in HAZARDS if h.trained != "yes" or not served(h, settings)]
    rows = "".join(_gap(hazard, settings, language) for hazard in gaps)
    return (
        f"<details><summary>{escape(say(language, 'hazard_gaps', n=len(gaps)))}</summary>"
        f"<table><thead><tr><th>{escape(say(language, 'hazard_what'))}</th>"
        f"<th>{escape(say(language, 'hazard_here'))}</th></tr></thead><tbody>{rows}</tbody></table>"
        f"<p><small>{escape(say(language, 'hazard_note'))}</small></p></details>"
    )


def _gap(hazard: Coverage, settings: SafetySettings, language: Language) -> str:
    name = hazard.label[0 if language == "en" else 1]
    why = known(language, f"hazard_{hazard.trained}", hazard.trained)
    here = ", ".join(served(hazard, settings)) or say(language, "hazard_nothing")
    return f"<tr><td>{escape(name)}<small>{escape(why)}</small></td><td>{escape(here)}</td></tr>"


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
