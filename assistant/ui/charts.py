"""Small drawings made on the server as SVG: no script, and every colour is a class of style.css.

A drawing is an image with a sentence for who cannot see it; the numbers stand beside it as a table.
Positions are in units of the drawing, which the page scales.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from assistant.ui.render import escape

WIDTH, HEIGHT = 440, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 26, 40
#: More points than this are thinned out: a drawing is for the shape.
_MOST = 300
#: Up to so many points each has a dot.
_DOTS = 40

Spot = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """A line through `spots`, in their order; `kind` names its colour."""

    kind: Literal["main", "second"]
    spots: Sequence[Spot]


@dataclass(frozen=True, slots=True)
class Axes:
    """What the two axes are called, what must be in sight, and lines to compare with.

    `across` are heights of dashed lines, `upright` places of dashed lines. `whole` says that only
    whole numbers stand below the lower axis, `shares` that the left axis is in percent.
    """

    below: str
    beside: str
    low: Spot
    high: Spot
    across: tuple[float, ...] = ()
    upright: tuple[float, ...] = ()
    whole: bool = False
    shares: bool = False


def lines(series: Sequence[Series], axes: Axes, said: str) -> str:
    """Lines over two axes; `said` is the drawing as a sentence."""
    spots = [spot for one in series for spot in one.spots]
    xs = [axes.low[0], axes.high[0], *axes.upright, *(x for x, _ in spots)]
    ys = [axes.low[1], axes.high[1], *axes.across, *(y for _, y in spots)]
    columns, rows = ticks(min(xs), max(xs), whole=axes.whole), ticks(min(ys), max(ys))
    across = _scale(columns, _LEFT, WIDTH - _RIGHT)
    upward = _scale(rows, HEIGHT - _BOTTOM, _TOP)
    body = [_frame(columns, rows, axes, across, upward)]
    for height in axes.across:
        body.append(_path("pl-bound", [(_LEFT, upward(height)), (WIDTH - _RIGHT, upward(height))]))
    for place in axes.upright:
        body.append(_path("pl-bound", [(across(place), _TOP), (across(place), HEIGHT - _BOTTOM)]))
    for one in series:
        drawn = [(across(x), upward(y)) for x, y in thinned(one.spots)]
        if len(drawn) > 1:
            body.append(_path(f"pl-curve pl-{one.kind}-line", drawn))
        dots = drawn[:-1] if len(drawn) <= _DOTS else []
        body += [_dot(f"pl-{one.kind}-dot", spot, 2.4) for spot in dots]
        body += [_dot(f"pl-{one.kind}-dot", spot, 4.2) for spot in drawn[-1:]]
    return _image(body, WIDTH, HEIGHT, said)


def bars(counts: Sequence[int], first: str, last: str, said: str) -> str:
    """One bar a day; the words for the first and the last stand below."""
    width, height, bottom = 440, 96, 20
    most = max(max(counts, default=0), 1)
    step = width / max(len(counts), 1)
    body = []
    for i, count in enumerate(counts):
        tall = (height - bottom - 14) * count / most
        x, y = i * step + step * 0.12, height - bottom - max(tall, 1.5)
        kind = "pl-bar" if count else "pl-bar pl-bar-none"
        body.append(
            f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{step * 0.76:.1f}" '
            f'height="{max(tall, 1.5):.1f}" rx="1.5"></rect>'
        )
    if counts and max(counts):
        peak = max(range(len(counts)), key=lambda i: counts[i])
        x = min(max(peak * step + step / 2, 10), width - 10)
        body.append(_words(x, 10, f"{counts[peak]:,}", "middle"))
    body += [_words(0, height - 5, first), _words(width, height - 5, last, "end")]
    return _image(body, width, height, said)


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Four to eight round numbers, evenly apart, that enclose [low, high]."""
    if not math.isfinite(low) or not math.isfinite(high):
        return [0.0, 1.0]
    if high - low < 1e-9:
        high = low + 1.0
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough - 1e-12)
    step = max(step, 1.0) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 10) for n in range(first, last + 1)]


def thinned(spots: Sequence[Spot]) -> list[Spot]:
    """At most some hundreds of them, evenly chosen, the last among them."""
    every = max(1, math.ceil(len(spots) / _MOST))
    return [*spots[:-1:every], *spots[-1:]]


def _scale(marks: Sequence[float], start: float, end: float) -> Callable[[float], float]:
    low, high = marks[0], marks[-1]
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _frame(
    columns: Sequence[float],
    rows: Sequence[float],
    axes: Axes,
    across: Callable[[float], float],
    upward: Callable[[float], float],
) -> str:
    floor = HEIGHT - _BOTTOM
    body = [_path("pl-grid", [(_LEFT, upward(y)), (WIDTH - _RIGHT, upward(y))]) for y in rows]
    body.append(_path("pl-axis", [(_LEFT, floor), (WIDTH - _RIGHT, floor)]))
    for y in rows:
        label = f"{y:.0%}" if axes.shares else f"{y:g}"
        body.append(_words(_LEFT - 7, upward(y) + 3.5, label.replace("-", "−"), "end"))
    body += [_words(across(x), floor + 15, f"{x:g}", "middle") for x in columns]
    body.append(_words((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 6, axes.below, "middle"))
    body.append(_words(0, 12, axes.beside))
    return "".join(body)


def _image(body: Sequence[str], width: int, height: int, said: str) -> str:
    return (
        f'<svg class="pl-chart" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(said)}"><g aria-hidden="true">{"".join(body)}</g></svg>'
    )


def _path(kind: str, spots: Sequence[Spot]) -> str:
    route = "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
    return f'<path class="{kind}" d="M{route}"></path>'


def _dot(kind: str, spot: Spot, radius: float) -> str:
    return f'<circle class="{kind}" cx="{spot[0]:.1f}" cy="{spot[1]:.1f}" r="{radius}"></circle>'


def _words(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
