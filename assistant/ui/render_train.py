"""The page on training, above: who answers, what stands against a run, and the run itself."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TypeGuard

from assistant.schema import PolicyCard
from assistant.training import STAGES, Obstacle, Point, Run, Standing
from assistant.ui import charts
from assistant.ui.render import button, escape, page, page_with_charts
from assistant.ui.strings import Language, ago, known, say, span

#: States of a run that is at work.
AT_WORK = ("running", "cancelling")
#: The policy that has nothing to train.
_RULES = "extract"
_ROWS = 30
_EARLIER = 10


def places(place: str, language: Language) -> str:
    """The way from one page to the other."""
    items = ""
    for name in ("chat", "train"):
        here = ' aria-current="page"' if name == place else ""
        items += (
            f'<button type="button" class="pl-button pl-place" data-action="show-{name}"{here}>'
            f'<span class="pl-label">{escape(say(language, f"place_{name}"))}</span></button>'
        )
    label = escape(say(language, "place"))
    return page(f'<nav class="pl-places" aria-label="{label}" data-place="{place}">{items}</nav>')


def closed(why: str, language: Language) -> str:
    """The page where there is no trainer: `why` is the string key that says so."""
    return _head(_warning(say(language, why)), "", language)


def head(standing: Standing, runs: Sequence[Run], language: Language, note: str = "") -> str:
    """Who answers, what stands against training it, and the button that starts a run.

    `note` is what `said` made of the verb before.
    """
    body = f'<p class="pl-who">{escape(_who(standing.policy, language))}</p>'
    if standing.policy.name == _RULES and all(o.key != "policy" for o in standing.obstacles):
        body += f'<p class="pl-lead">{escape(say(language, "train_instead"))}</p>'
    if standing.refused:
        body += _warning(say(language, "train_refused", why=standing.refused))
    body += "".join(_warning(_obstacle(one, language)) for one in standing.obstacles)
    start = ""
    if not standing.obstacles and not any(run.state in AT_WORK for run in runs):
        start = (
            f'<div class="pl-verbs" data-host>'
            f"{button('open-start', say(language, 'train_start'), classes='pl-main')}"
            f"{confirm('start', say(language, 'train_start_sure'), 'train_start', language)}</div>"
        )
    return _head(body + start, note, language)


def _head(body: str, note: str, language: Language) -> str:
    return page(
        f'<div class="pl-train" data-lang="{language}"><h2>{escape(say(language, "train"))}</h2>'
        f'<p class="pl-lead">{escape(say(language, "train_lead"))}</p>{note}{body}</div>'
    )


def said(words: str, detail: str = "", *, bad: bool = False) -> str:
    """What a verb came to; it takes the focus where the button that was pressed is gone."""
    kind = "pl-note pl-error" if bad else "pl-note"
    told = f" {_foreign(detail)}" if detail else ""
    return f'<p class="{kind}" role="status" tabindex="-1">{escape(words)}{told}</p>'


def unread(why: str, language: Language) -> str:
    """A part that cannot be read, and why."""
    words = escape(say(language, "train_unread"))
    return page(f'<div class="pl-sheet"><p class="pl-warning">{words} {_foreign(why)}</p></div>')


def confirm(
    action: str,
    words: str,
    label: str,
    language: Language,
    target: str = "",
    *,
    danger: bool = False,
) -> str:
    """The second thought before a verb, hidden until asked for. `label` is the verb's key."""
    kind = "pl-danger" if danger else "pl-main"
    yes = button(action, say(language, label), classes=kind, data={"target": target})
    no = button("close-form", say(language, "train_no"), classes="pl-quiet")
    return (
        f'<div class="pl-form" data-form="{action}" role="group" aria-label="{escape(words)}" '
        f'hidden><p>{escape(words)}</p><div class="pl-row">{yes}{no}</div></div>'
    )


def _who(card: PolicyCard, language: Language) -> str:
    name = " ".join(part for part in (card.name, card.model) if part)
    version = (
        say(language, "train_version", id=card.version)
        if card.version
        else say(language, "train_as_set")
    )
    return f"{say(language, 'train_answers', name=name)} · {version}"


def _warning(words: str) -> str:
    return f'<p class="pl-warning">{escape(words)}</p>'


def _foreign(words: str) -> str:
    """A sentence of the trainer's, which is in English on either page."""
    return f'<span lang="en">{escape(words)}</span>'


def _obstacle(one: Obstacle, language: Language) -> str:
    key = f"train_obstacle_{one.key}"
    words = known(language, key, say(language, "train_obstacle_other"))
    return words.format(detail=one.detail)


# the run ------------------------------------------------------------------------------------------


def run(
    runs: Sequence[Run],
    points: Sequence[Point],
    budget: float,
    language: Language,
    now: float | None = None,
) -> str:
    """The newest run with its plots, and those before it folded. `budget` is KL in nats."""
    heading = f'<h3 class="pl-heading">{escape(say(language, "train_run"))}</h3>'
    if not runs:
        empty = f'<p class="pl-empty">{escape(say(language, "train_no_run"))}</p>'
        return page(f'<section class="pl-sheet">{heading}{empty}</section>')
    one, clock = runs[0], time.time() if now is None else now
    why = "train_waiting" if one.state in AT_WORK else "train_unwatched"
    empty = f'<p class="pl-empty">{escape(say(language, why))}</p>'
    stage = known(language, f"train_stage_{one.stage}", one.stage)
    state = known(language, f"train_run_{one.state}", one.state)
    spoken = say(language, "train_spoken", state=state, stage=stage)
    wins = _wins(points, empty, language)
    plots = f'<div class="pl-plots">{_rewards(points, budget, empty, language)}{wins}</div>'
    return page_with_charts(
        f'<section class="pl-sheet pl-is-{one.state}" data-said="{escape(spoken)}">{heading}'
        f"{_state(one, state, clock, language)}{_stages(one, language)}{_progress(one, language)}"
        f"{_verbs(one, language)}{plots}{_table(points, language)}{_earlier(runs, language, clock)}"
        "</section>"
    )


def _state(one: Run, state: str, now: float, language: Language) -> str:
    took = span(language, max(0.0, (one.ended or now) - one.started))
    facts = [ago(language, one.started, now), say(language, "train_took", span=took)]
    reason = f'<p class="pl-warning">{_foreign(one.reason)}</p>' if one.reason else ""
    return (
        f'<p class="pl-facts"><span class="pl-badge pl-is-{one.state}">{escape(state)}</span> '
        f'<span class="pl-code">{escape(one.id)}</span> '
        f"<small>{escape(' · '.join(facts))}</small></p>{reason}"
    )


def _stages(one: Run, language: Language) -> str:
    at = STAGES.index(one.stage) if one.stage in STAGES else -1
    items = ""
    for i, name in enumerate(STAGES):
        done = i < at or one.state == "done"
        here = i == at and one.state != "done"
        kind = "pl-past" if done else "pl-here" if here else "pl-ahead"
        current = ' aria-current="step"' if here else ""
        items += f'<li class="{kind}"{current}>{escape(say(language, f"train_stage_{name}"))}</li>'
    return (
        f'<ol class="pl-stages" aria-label="{escape(say(language, "train_stages"))}">{items}</ol>'
    )


def _progress(one: Run, language: Language) -> str:
    if one.state not in AT_WORK:
        return ""
    stage = escape(known(language, f"train_stage_{one.stage}", one.stage))
    bar = f'<progress aria-label="{stage}"></progress>'
    words = ""
    if one.of > 0:
        bar = f'<progress aria-label="{stage}" value="{one.step}" max="{one.of}"></progress>'
        if f"{one.step} of {one.of}" not in one.text:
            words = escape(say(language, "train_step", step=f"{one.step:,}", of=f"{one.of:,}"))
    told = _foreign(one.text) if one.text else ""
    facts = " · ".join(part for part in (words, told) if part)
    return f'<div class="pl-progress">{bar}<p class="pl-facts"><small>{facts}</small></p></div>'


def _verbs(one: Run, language: Language) -> str:
    if one.state == "running":
        sure = say(language, "train_cancel_sure")
        form = confirm("cancel", sure, "train_cancel_yes", language, one.id, danger=True)
        opener = button("open-cancel", say(language, "train_cancel"), classes="pl-framed")
        return f'<div class="pl-verbs" data-host>{opener}{form}</div>'
    if one.resumable:
        again = button(
            "resume", say(language, "train_resume"), classes="pl-framed", data={"target": one.id}
        )
        return f'<div class="pl-verbs">{again}</div>'
    return ""


def _rewards(points: Sequence[Point], budget: float, empty: str, language: Language) -> str:
    """The curve of over-optimisation: reward against the distance it was bought with."""
    kept = [p for p in points if math.isfinite(p.reward) and math.isfinite(p.kl)]
    title = say(language, "train_plot_reward")
    if not kept:
        return _figure(title, empty)
    far = math.sqrt(budget)
    last = kept[-1]
    golds = [(_root(p.kl), p.gold) for p in kept if _finite(p.gold)]
    series = [charts.Series("main", [(_root(p.kl), p.reward) for p in kept])]
    keys = [("main", "train_series_reward")]
    if golds:
        series.append(charts.Series("second", golds))
        keys.append(("second", "train_series_gold"))
    keys.append(("bound", "train_series_budget"))
    axes = charts.Axes(
        say(language, "train_axis_kl"),
        say(language, "train_axis_reward"),
        (0.0, kept[0].reward),
        (far, kept[0].reward),
        upright=(far,),
    )
    words = say(
        language,
        "train_said_reward",
        n=len(kept),
        first=f"{kept[0].reward:+.2f}",
        last=f"{last.reward:+.2f}",
        kl=f"{_root(last.kl):.2f}",
        budget=f"{far:.2f}",
    )
    return _figure(title, charts.lines(series, axes, words), _legend(keys, language), words)


def _wins(points: Sequence[Point], empty: str, language: Language) -> str:
    wins = [(float(p.update), p.win_rate) for p in points if _finite(p.win_rate)]
    title = say(language, "train_plot_wins")
    if not wins:
        return _figure(title, empty)
    axes = charts.Axes(
        say(language, "train_axis_update"),
        say(language, "train_axis_wins"),
        (0.0, 0.3),
        (max(float(points[-1].update), 1.0), 0.7),
        across=(0.5,),
        whole=True,
        shares=True,
    )
    words = say(language, "train_said_wins", n=len(wins), last=f"{wins[-1][1]:.0%}")
    keys = [("main", "train_axis_wins"), ("bound", "train_series_even")]
    drawing = charts.lines([charts.Series("main", wins)], axes, words)
    return _figure(title, drawing, _legend(keys, language), words)


def _root(kl: float) -> float:
    return math.sqrt(max(0.0, kl))


def _figure(title: str, drawing: str, legend: str = "", words: str = "") -> str:
    note = f'<small aria-hidden="true">{escape(words)}</small>' if words else ""
    return (
        f'<figure class="pl-plot"><figcaption>{escape(title)}{legend}</figcaption>{drawing}{note}'
        "</figure>"
    )


def _legend(keys: Sequence[tuple[str, str]], language: Language) -> str:
    return (
        '<span class="pl-legend">'
        + "".join(
            f'<span><span class="pl-swatch pl-swatch-{kind}" aria-hidden="true"></span>'
            f"{escape(say(language, key))}</span>"
            for kind, key in keys
        )
        + "</span>"
    )


def _table(points: Sequence[Point], language: Language) -> str:
    if not points:
        return ""
    names = (
        "train_update",
        "train_axis_reward",
        "train_kl",
        "train_series_gold",
        "train_axis_wins",
    )
    head = "".join(f'<th scope="col">{escape(say(language, name))}</th>' for name in names)
    rows = "".join(
        f"<tr><td>{p.update}</td><td>{_number(p.reward, '+.3f')}</td>"
        f"<td>{_number(p.kl, '.3f')}</td>"
        f"<td>{_number(p.gold, '+.3f')}</td><td>{_number(p.win_rate, '.1%')}</td></tr>"
        for p in reversed(points[-_ROWS:])
    )
    words = escape(say(language, "train_numbers"))
    return (
        f'<details class="pl-fold pl-fold-numbers"><summary>{words}</summary>'
        f'<div class="pl-wide" tabindex="0" role="group" aria-label="{words}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _number(value: float | None, form: str) -> str:
    return format(value, form) if _finite(value) else "–"


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _earlier(runs: Sequence[Run], language: Language, now: float) -> str:
    older = runs[1 : 1 + _EARLIER]
    if not older:
        return ""
    rows = "".join(
        f"<li>{_state(one, known(language, f'train_run_{one.state}', one.state), now, language)}"
        f"{_verbs(one, language) if one.state not in AT_WORK else ''}</li>"
        for one in older
    )
    words = escape(say(language, "train_earlier", n=len(runs) - 1))
    return (
        f'<details class="pl-fold pl-fold-runs"><summary>{words}</summary>'
        f'<ul class="pl-list">{rows}</ul></details>'
    )
