"""The page on training, driven without a browser: what it says, and what its buttons do."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import gradio as gr
import pytest

from assistant.config import Settings
from assistant.errors import TrainerError
from assistant.schema import PolicyCard
from assistant.training import STAGES, Answer, Candidate, Obstacle, Pair, Point, Remark, Run
from assistant.ui import layout
from assistant.ui.actions import Actions
from assistant.ui.desk import Desk, guarded
from assistant.ui.layout import Updates
from assistant.ui.render_train import run as draw_run
from assistant.ui.shelf import Shelf
from assistant.ui.state import Lots, View
from assistant.ui.strings import LANGUAGES, TABLES, Language
from assistant.ui.turns import Turns
from rlhf.gates import NAMES
from tests.assistant.trainer_double import HOSTILE, LIVE, NOW, POOR, WAITING, TrainerDouble
from tests.assistant.ui_double import Double


class _Request:
    session_hash = "page"


class Rig:
    """The page over a trainer, opened at training."""

    def __init__(self, home: Path, trainer: TrainerDouble | None, *, folders: bool = True) -> None:
        self.trainer = trainer
        with gr.Blocks(analytics_enabled=False):
            self.page = layout.build("en", folders=folders)
        double = Double.with_guide()
        self.desk = Desk(double, Settings(home=home), self.page, folders, trainer=trainer)
        self.actions = Actions(self.desk, Turns(self.desk), Shelf(self.desk))
        self.shown: Updates = {self.page.view: View()}
        self.press("show-train")

    @property
    def double(self) -> TrainerDouble:
        """The trainer."""
        assert self.trainer is not None
        return self.trainer

    @property
    def view(self) -> View:
        """The page's state."""
        return cast(View, self.shown[self.page.view])

    def press(self, action: str, **given: Any) -> None:
        """Press a button of ours."""
        run = guarded(self.actions.run, self.actions.failed)
        words = json.dumps({"action": action, **given})
        for update in run(words, self.view, False, cast(gr.Request, _Request())):
            self.shown.update(update)

    def tick(self) -> Updates:
        """Let the clock strike; returns what it changed."""
        changed: Updates = {}
        for update in self.actions.train.tick(self.view, self.shown[self.page.seen]):
            changed.update(update)
        self.shown.update(changed)
        return changed

    def text(self, part: str) -> str:
        """The HTML of a region."""
        return str(self.shown[getattr(self.page, part)])

    def token(self, pair_id: str) -> str:
        """What a pick of this page proves itself with."""
        return self.desk.lots.draw(pair_id).token


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A page over a trainer with everything to show."""
    return Rig(tmp_path, TrainerDouble.full())


def test_the_page_opens_and_closes(rig: Rig) -> None:
    """Its regions hold something while it is seen, and nothing while the chat is."""
    assert "quote models/policy" in rig.text("train")
    assert all(rig.text(part) for part in ("run", "candidates", "blind", "stock"))
    rig.press("show-chat")
    assert rig.view.place == "chat"
    assert not any(rig.text(part) for part in ("train", "run", "candidates", "blind", "stock"))
    assert rig.shown[rig.page.pulse]["active"] is False


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_stage_and_gate_has_words(language: Language) -> None:
    """What a run goes through and what a candidate must pass is said in both languages."""
    table = TABLES[language]
    assert all(f"train_stage_{stage}" in table for stage in STAGES)
    assert all(f"train_gate_{name}" in table for name in NAMES)


def test_a_policy_that_cannot_be_trained_is_said_to_be(tmp_path: Path) -> None:
    """The obstacles stand there plainly, and there is no button to start."""
    obstacles = (Obstacle("policy", "remote"), Obstacle("weights", "models/policy"))
    rig = Rig(tmp_path, TrainerDouble(policy=PolicyCard("remote", "x"), obstacles=obstacles))
    assert "remote, cannot be trained" in rig.text("train")
    assert "weights of the policy are missing" in rig.text("train")
    assert 'data-action="start"' not in rig.text("train")


def test_a_policy_of_rules_is_said_to_have_nothing_to_train(tmp_path: Path) -> None:
    """Under extract the page says which network a run would train."""
    rig = Rig(tmp_path, TrainerDouble(policy=PolicyCard("extract", "")))
    assert "has no network that feedback could train" in rig.text("train")
    assert 'data-action="start"' in rig.text("train")


def test_an_obstacle_without_words_is_shown_as_it_comes(tmp_path: Path) -> None:
    """A new key does not hide what is wrong."""
    rig = Rig(tmp_path, TrainerDouble(obstacles=(Obstacle("moon", "the moon is full"),)))
    assert "Training cannot start: the moon is full" in rig.text("train")


def test_without_a_trainer_the_page_says_why(tmp_path: Path) -> None:
    """No trainer, and a page that others can reach: two sentences, no buttons, no verbs."""
    assert "without a trainer" in Rig(tmp_path, None).text("train")
    remote = Rig(tmp_path, TrainerDouble.full(), folders=False)
    assert "127.0.0.1" in remote.text("train")
    assert remote.text("candidates") == ""
    remote.press("promote", target=WAITING)
    remote.press("judge", target="pair-1", token=remote.token("pair-1"), value=0)
    assert remote.double.calls == []


def test_nothing_yet_is_said_in_every_part(tmp_path: Path) -> None:
    """Each empty part says what will be there."""
    rig = Rig(tmp_path, TrainerDouble())
    assert "No run yet" in rig.text("run")
    assert "No candidate yet" in rig.text("candidates")
    assert "No answers wait" in rig.text("blind")
    assert "No feedback with consent" in rig.text("stock")
    rig.press("open-start")
    rig.press("start")
    assert rig.double.calls == [("start",)]
    assert "The run has started." in rig.text("train")
    assert 'data-action="start"' not in rig.text("train")


def test_what_was_collected_is_counted_against_what_is_needed(rig: Rig) -> None:
    """Kinds, languages, days, and how many comparisons are missing."""
    stock = rig.text("stock")
    for words in ("1,384", "Chinese 861", "1,102 of 2,000", "898 more are needed", "53%", "68.8%"):
        assert words in stock
    assert stock.count("<rect") == 30


def test_a_remark_without_words_is_shown_as_it_comes(rig: Rig) -> None:
    """A sentence of the trainer's stands in for the words we lack."""
    rig.double.given = replace(rig.double.given, remarks=(Remark("new", "bees were seen"),))
    rig.press("show-train")
    assert "bees were seen" in rig.text("stock")


def test_the_plots_follow_the_run(rig: Rig) -> None:
    """While a run is at work the clock draws its region alone; when it ends, the whole page."""
    assert set(rig.tick()) == {rig.page.run}
    assert rig.text("run").count("<svg") == 2
    assert "√KL 2.05 of 3.16" in rig.text("run")
    rig.double.found[0] = replace(rig.double.found[0], state="done", ended=NOW, candidate="new")
    assert rig.page.candidates in rig.tick()
    assert rig.tick() == {}


def test_numbers_that_are_none_break_no_plot() -> None:
    """A run that diverges still shows what came before."""
    nan = float("nan")
    points = [Point(1, 0.1, -0.02), Point(2, 0.3, 0.5), Point(3, nan, nan, nan, nan)]
    one = Run("r", "failed", "ppo", 3, 40, "", NOW - 60, NOW, "update 3: the loss is not a number")
    drawn = draw_run([one], points, 10.0, "en", NOW)
    assert "After 2 updates" in drawn
    assert "the loss is not a number" in drawn
    assert '="nan' not in drawn


def test_a_run_is_cancelled_and_resumed(rig: Rig) -> None:
    """Each after its button, and the page says what became of it."""
    run = rig.double.found[0].id
    rig.press("cancel", target=run)
    assert "ends after its current step" in rig.text("train")
    assert 'data-action="resume"' in rig.text("run")
    rig.press("resume", target=run)
    assert rig.double.calls == [("cancel", run), ("resume", run)]


def test_a_candidate_is_promoted_tried_and_rolled_back(rig: Rig) -> None:
    """The verbs reach the trainer with who pressed them; the new state is shown."""
    share = rig.desk.settings.canary.share
    rig.press("canary", target=WAITING)
    assert "on trial" in rig.text("candidates")
    rig.press("end_canary")
    rig.press("promote", target=WAITING)
    assert "Promoted" in rig.text("candidates")
    rig.press("rollback", target=WAITING)
    assert rig.double.calls == [
        ("canary", WAITING, share, "page"),
        ("end_canary", "page"),
        ("promote", WAITING, "page"),
        ("rollback", "page"),
    ]


def test_what_is_blocked_has_no_button_and_says_why(rig: Rig) -> None:
    """A candidate that failed a gate shows its table, its reasons, and no way past them."""
    shown = rig.text("candidates")
    assert "10 of 12 gates passed" in shown
    assert "rises by +0.041" in shown
    assert f"but {LIVE} answers now" in shown
    assert f'data-action="promote" data-target="{POOR}"' not in shown
    assert f'data-action="promote" data-target="{WAITING}"' in shown


def test_a_refusal_is_shown_with_its_reason(rig: Rig) -> None:
    """Where the trainer says no, its sentence stands beside ours and nothing is claimed."""
    rig.double.refuse = TrainerError("kl: 12.10 nats, 10 is allowed", "gates")
    rig.press("promote", target=WAITING)
    assert "has not passed its gates" in rig.text("candidates")
    assert "12.10 nats" in rig.text("candidates")
    assert rig.double.calls == []


@pytest.mark.parametrize("value", [0, 1, -1])
def test_a_pick_says_which_was_better_and_which_was_first(rig: Rig, value: int) -> None:
    """The press names a side; the trainer hears old or new, and the order of the lot."""
    lot = rig.desk.lots.draw("pair-1")
    old, new = rig.text("blind").find("Breakfast"), rig.text("blind").find("per night. <span")
    assert (new < old) == (lot.first == "new") or old == -1
    rig.press("judge", target="pair-1", token=lot.token, value=value)
    other = "old" if lot.first == "new" else "new"
    choice = {0: lot.first, 1: other, -1: "equal"}[value]
    assert rig.double.calls == [("pick", "pair-1", choice, lot.first, "page")]
    assert "员工每年有多少天年假" in rig.text("blind")
    assert "1 question left" in rig.text("blind")


def test_a_pick_of_another_process_counts_for_nothing(rig: Rig) -> None:
    """A page drawn with another key may show another order, so its press is not believed."""
    rig.press("judge", target="pair-1", token=Lots().draw("pair-1").token, value=0)
    rig.press("judge", target="pair-2", token=rig.token("pair-1"), value=0)
    assert rig.double.calls == []


def test_the_order_is_drawn_by_lot() -> None:
    """Each side comes first about as often; a pair lies the same way whenever it is drawn."""
    lots = Lots()
    firsts = Counter(lots.draw(f"pair-{n}").first for n in range(400))
    assert 140 < firsts["new"] < 260
    assert lots.draw("pair-1") == lots.draw("pair-1")


def test_nothing_in_a_pair_tells_which_is_which(rig: Rig) -> None:
    """Neither the markup of a side nor its button names old or new."""
    blind = rig.text("blind")
    sides = blind[blind.index("pl-sides") :]
    assert "old" not in sides
    assert "new" not in sides
    assert WAITING not in sides


def test_what_cannot_be_read_leaves_the_rest_standing(rig: Rig) -> None:
    """A part whose reading fails says so; the others are drawn."""

    class Torn(TrainerDouble):
        def collected(self) -> Any:
            raise TrainerError("the log is locked by another process", "busy")

        def candidates(self) -> Any:
            raise OSError("/secret/path")

    desk = replace(rig.desk, trainer=Torn(found=[]))
    shown = desk.draw_train(View(place="train"))
    assert "the log is locked" in shown[rig.page.stock]
    assert "cannot be read" in shown[rig.page.candidates]
    assert "secret" not in shown[rig.page.candidates]
    assert "No run yet" in shown[rig.page.run]


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    """Ids, reasons, questions, answers and names that hold markup are only ever shown."""
    pair = Pair(HOSTILE, HOSTILE, HOSTILE, HOSTILE, Answer(HOSTILE), Answer(HOSTILE))
    one = Candidate(HOSTILE, HOSTILE, NOW, "candidate", blockers=(HOSTILE,), pairs=1)
    run = Run(HOSTILE, "failed", HOSTILE, 1, 2, HOSTILE, NOW, NOW, HOSTILE)
    trainer = TrainerDouble(
        policy=PolicyCard(HOSTILE, HOSTILE),
        obstacles=(Obstacle(HOSTILE, HOSTILE),),
        refused=HOSTILE,
        found=[run],
        stock=[one],
        waiting=[pair],
    )
    rig = Rig(tmp_path, trainer)
    for part in ("train", "run", "candidates", "blind", "stock"):
        assert "<img" not in rig.text(part)
        assert "<svg on" not in rig.text(part)
        assert "\n" not in rig.text(part)
