"""The drawings: round numbers, everything in sight, and a sentence for who cannot see."""

from __future__ import annotations

import re

import pytest

from assistant.ui import charts
from assistant.ui.render import page_with_charts

AXES = charts.Axes("below", "beside", (0.0, 0.0), (1.0, 1.0))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-0.13, 0.9, [-0.5, 0.0, 0.5, 1.0]),
        (0.0, 0.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (3.0, 3.17, [3.0, 3.05, 3.1, 3.15, 3.2]),
        (0.0, 40.0, [0.0, 10.0, 20.0, 30.0, 40.0]),
        (0.0, float("nan"), [0.0, 1.0]),
    ],
)
def test_ticks_are_round_and_enclose(low: float, high: float, expected: list[float]) -> None:
    """The marks of an axis are multiples of 1, 2 or 5 and leave nothing outside."""
    assert charts.ticks(low, high) == expected


def test_counted_things_have_whole_ticks() -> None:
    """Between two updates there is none."""
    assert charts.ticks(0.0, 2.0, whole=True) == [0.0, 1.0, 2.0]


def test_every_spot_is_inside_the_drawing() -> None:
    """Whatever the numbers, dots and lines stay within the frame."""
    spots = [(0.0, -3.0), (2.5, 0.1), (9.0, 7.0)]
    drawn = charts.lines([charts.Series("main", spots)], AXES, "said")
    dots = re.findall(r'cx="([\d.-]+)" cy="([\d.-]+)"', drawn)
    assert len(dots) == 3
    assert all(0 <= float(x) <= charts.WIDTH for x, _ in dots)
    assert all(0 <= float(y) <= charts.HEIGHT for _, y in dots)


def test_long_lines_are_thinned_and_keep_their_end() -> None:
    """Ten thousand updates draw some hundreds of points, the last among them."""
    spots = [(float(i), 0.0) for i in range(10_001)]
    kept = charts.thinned(spots)
    assert len(kept) <= 301
    assert kept[0] == spots[0]
    assert kept[-1] == spots[-1]


def test_a_drawing_survives_the_cleaning_and_says_what_it_shows() -> None:
    """All that is drawn passes the allow list; words in it stay words."""
    drawn = charts.lines([charts.Series("main", [(0, 0), (1, 1)])], AXES, '"><script>x</script>')
    cleaned = page_with_charts(drawn)
    assert cleaned.count("<path") == drawn.count("<path")
    assert 'viewBox="0 0 440 250"' in cleaned
    assert "<script" not in cleaned
    assert 'role="img"' in cleaned


def test_days_without_feedback_are_drawn_flat() -> None:
    """A bar for each day, tall as its number; the tallest has its number over it."""
    drawn = charts.bars([0, 4, 2], "1 Nov", "3 Nov", "said")
    heights = [float(h) for h in re.findall(r'height="([\d.]+)" rx', drawn)]
    assert heights[0] < 2 < heights[2]
    assert heights[1] == pytest.approx(2 * heights[2])
    assert ">4</text>" in drawn
