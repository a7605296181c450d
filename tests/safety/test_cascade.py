from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety import Context, Guard, Verdict
from safety.audit import AuditLog
from safety.cascade import RANK, settle, stricter, worst
from safety.config import SafetySettings
from safety.schema import SEVERITY, Category, Side, stopping

CATEGORIES = [c for c in get_args(Category) if c != "fault"]
HARMS = [c for c in CATEGORIES if c != "none"]


def fault(side: Side) -> Verdict:
    """What the guard makes of a moderator that broke."""
    return Verdict("block", "fault", 1.0, side, "second", "fault.second")


@st.composite
def judged(draw: Callable[..., Any], side: Side, grey: bool | None = None) -> Verdict:
    """Some verdict on a text of this side."""
    action = draw(st.sampled_from(SEVERITY))
    category = draw(st.sampled_from(CATEGORIES if action == "allow" else HARMS))
    unsure = draw(st.booleans()) if grey is None else grey
    score = draw(st.floats(0, 1))
    return Verdict(action, category, score, side, "m", f"{category}.x", grey=unsure)


sides = st.sampled_from(get_args(Side))


@st.composite
def panels(draw: Callable[..., Any]) -> tuple[list[Verdict], list[Verdict]]:
    """First verdicts and second opinions on one text; some opinions are faults."""
    side = draw(sides)
    first = draw(st.lists(judged(side), min_size=1, max_size=3))
    second = draw(st.lists(st.one_of(judged(side), st.just(fault(side))), max_size=3))
    return first, second


fails = st.sampled_from(["closed", "open"])


@given(panel=panels(), mode=fails)
def test_a_sure_stop_is_never_lifted(panel: tuple[list[Verdict], list[Verdict]], mode: Any) -> None:
    """Whatever second opinions say, the result is as severe as each sure first-line stop."""
    first, second = panel
    found = settle(first, second, mode)
    for verdict in first:
        if verdict.stops and not verdict.grey:
            assert found.stops
            assert RANK[found.action] >= RANK[verdict.action]


@given(panel=panels(), mode=fails)
def test_a_second_stop_always_counts(panel: tuple[list[Verdict], list[Verdict]], mode: Any) -> None:
    """A second opinion that stops the text stops it."""
    first, second = panel
    if any(v.stops and v.category != "fault" for v in second):
        assert settle(first, second, mode).stops


@given(panel=panels(), mode=fails)
def test_without_grey_a_second_opinion_only_adds(
    panel: tuple[list[Verdict], list[Verdict]], mode: Any
) -> None:
    """A sure first line is not made milder, and a missing second opinion changes nothing."""
    first, second = [v for v in panel[0] if not v.grey], panel[1]
    if not first:
        return
    found = settle(first, second, mode)
    assert RANK[found.action] >= RANK[worst(first).action]
    if all(v.category == "fault" for v in second):
        assert found == worst(first)


@given(first=judged("input", grey=True), score=st.floats(0, 1))
def test_what_is_cleared_is_what_the_second_says(first: Verdict, score: float) -> None:
    """A grey verdict that the second opinion clears becomes the second's."""
    second = Verdict("allow", "none", score, "input", "second")
    assert settle([first], [second]) == second


@given(first=judged("output", grey=True), second=judged("output"))
def test_what_is_confirmed_is_the_more_severe(first: Verdict, second: Verdict) -> None:
    """A grey verdict that the second confirms becomes the more severe of the two."""
    if second.action == "allow" and not second.grey:
        return
    found = settle([first], [second])
    assert RANK[found.action] >= RANK[second.action] or found.stops
    assert found in (first, second)


@given(side=sides, data=st.data())
def test_a_missing_second_opinion_fails_as_set(side: Side, data: st.DataObject) -> None:
    """Closed, a grey verdict without a second opinion stops; open, it is left as it was."""
    first = data.draw(judged(side, grey=True))
    assert settle([first], [fault(side)], "closed").stops
    assert settle([first], [fault(side)], "open") == first


@given(side=sides, data=st.data())
def test_one_missing_opinion_of_two_is_missing(side: Side, data: st.DataObject) -> None:
    """Closed, all second opinions are needed to lift; open, one that is there is enough."""
    first = data.draw(judged(side, grey=True))
    clear = Verdict("allow", "none", 0.0, side, "clear")
    assert settle([first], [clear, fault(side)], "closed").stops
    assert settle([first], [clear, fault(side)], "open") == clear


@given(panel=panels(), mode=fails)
def test_the_order_of_moderators_does_not_matter(
    panel: tuple[list[Verdict], list[Verdict]], mode: Any
) -> None:
    """The action is the same in whatever order verdicts come."""
    first, second = panel
    backwards = settle(first[::-1], second[::-1], mode)
    assert settle(first, second, mode).action == backwards.action


@pytest.mark.parametrize("side", get_args(Side))
@pytest.mark.parametrize("category", CATEGORIES)
def test_the_stricter_reading_stops(side: Side, category: Category) -> None:
    """Read strictly, a grey verdict stops with the action of its category and side."""
    grey = Verdict("annotate", category, 0.5, side, "m", f"{category}.grey", grey=True)
    found = stricter(grey)
    assert found.stops
    assert found.reason.endswith("unconfirmed")
    if category == "none":
        assert (found.action, found.category) == ("block", "fault")
    else:
        assert (found.action, found.category) == (stopping(category, side), category)


# -- through the guard


@dataclass
class Says:
    """A moderator that answers by a word of the text, and counts what it saw."""

    name: str
    words: dict[str, Verdict]
    seen: list[str] = field(default_factory=list)

    def judge(self, texts: Sequence[str], side: Side, question: str = "") -> list[Verdict]:
        """Give the verdict of the first known word; allow the rest."""
        self.seen += texts
        allow = Verdict("allow", "none", 0.0, side, self.name)
        return [next((v for w, v in self.words.items() if w in t), allow) for t in texts]


@dataclass
class Breaks:
    """A second moderator that breaks, or hangs, until it is mended."""

    hang: threading.Event | None = None
    mended: bool = False
    name: str = "second"

    def judge(self, texts: Sequence[str], side: Side, question: str = "") -> list[Verdict]:
        """Break."""
        if self.mended:
            return [Verdict("allow", "none", 0.0, side, self.name) for _ in texts]
        if self.hang is not None:
            self.hang.wait(30)
        raise RuntimeError("broken")


GREY = Verdict("annotate", "violence", 0.5, "input", "first", "violence.grey", grey=True)
SURE = Verdict("refuse", "illicit", 0.9, "input", "first", "illicit.model")
STOP = Verdict("refuse", "violence", 0.9, "input", "second", "violence.second")


def first() -> Says:
    """A first line that is unsure of "grey" and sure of "sure"."""
    return Says("first", {"grey": GREY, "sure": SURE})


def settings(**values: Any) -> SafetySettings:
    """Settings without an audit."""
    return SafetySettings(audit=False, **values)


def test_only_grey_texts_go_to_the_second() -> None:
    """The second moderator sees what the first is unsure of, and nothing else."""
    second = Says("second", {"grey bad": STOP})
    guard = Guard([first()], settings(), second=[second])
    texts = ["plain", "grey good", "sure", "grey bad"]
    assert [v.action for v in guard.screen_many(texts, "input")] == [
        *("allow", "allow", "refuse", "refuse"),
    ]
    assert second.seen == ["grey good", "grey bad"]


def test_always_asks_about_every_text() -> None:
    """Asked about everything, the second can stop what the first allowed, and lift no sure stop."""
    second = Says("second", {"plain bad": STOP})
    guard = Guard([first()], settings(second_always=True), second=[second])
    texts = ["plain", "plain bad", "sure"]
    assert [v.action for v in guard.screen_many(texts, "input")] == ["allow", "refuse", "refuse"]
    assert second.seen == texts


def test_without_a_second_the_first_reading_holds() -> None:
    """With nobody to ask, a grey verdict is what the first line made of it."""
    found = Guard([first()], settings()).screen("grey", "input")
    assert (found.action, found.grey) == ("annotate", True)


@pytest.mark.parametrize(("mode", "action"), [("closed", "refuse"), ("open", "annotate")])
@pytest.mark.parametrize("hangs", [False, True])
def test_a_broken_second_fails_as_set(mode: str, action: str, hangs: bool) -> None:
    """A second moderator that breaks or hangs costs its deadline, and fails as the setting says."""
    release = threading.Event()
    second = Breaks(release if hangs else None)
    guard = Guard([first()], settings(second_fails=mode, second_seconds=0.05), second=[second])
    begin = time.perf_counter()
    verdicts = guard.screen_many(["plain", "grey"], "input")
    release.set()
    assert time.perf_counter() - begin < 5
    assert [v.action for v in verdicts] == ["allow", action]
    assert (verdicts[1].reply != "") == (action == "refuse")


def test_a_missing_opinion_is_not_remembered() -> None:
    """Once the second moderator works again, the same text is lifted, and that is remembered."""
    second = Breaks()
    line = first()
    guard = Guard([line], settings(), second=[second])
    assert guard.screen("grey", "input").action == "refuse"
    second.mended = True
    assert [guard.screen("grey", "input").action for _ in range(2)] == ["allow", "allow"]
    assert line.seen == ["grey", "grey"]


def test_the_audit_names_the_second_and_its_model(tmp_path: Path) -> None:
    """A stop by the second moderator is recorded with its name and the identity of its model."""
    second = Says("second", {"grey": STOP})
    second.policy = "model-identity"  # type: ignore[attr-defined]
    path = tmp_path / "audit.jsonl"
    guard = Guard([first()], SafetySettings(), AuditLog(path, sync=False), second=[second])
    guard.screen("grey", "input", Context())
    written = path.read_text()
    assert '"moderator":"second"' in written
    assert "model-identity" in written


def test_the_grey_band_has_an_order() -> None:
    """A band that ends below its start is refused with both values."""
    with pytest.raises(ValueError, match=r"guard_low=0\.8 is above guard_high=0\.2"):
        SafetySettings(guard_low=0.8, guard_high=0.2)
