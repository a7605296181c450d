from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest

from assistant.config import Settings, TrainSettings
from assistant.errors import TrainerError
from assistant.schema import Health, PolicyCard
from assistant.training import STAGES, Trainer
from rlhf import _loop_status as status
from rlhf._desk_views import command
from rlhf.desk import Desk, desks
from rlhf.gates import Gate
from rlhf.preferences import PreferenceStore
from rlhf.registry import Registry
from tests.assistant import quoters
from tests.rlhf.conftest import make_feedback, make_record
from tests.rlhf.cycle_parts import cycle, parts

#: A run that says it is at work until it is asked to end, then that it was cancelled.
RUN = """
import pathlib, sys, time
from rlhf._loop_status import Board
from rlhf.errors import Cancelled
name = next(a for a in sys.argv if a.startswith("train.run=")).partition("=")[2]
board = Board(pathlib.Path(sys.argv[1]) / "training" / name)
print("begun", sys.argv[2:], flush=True)
try:
    for step in range(600):
        board.at("ppo", step, 600, "working")
        time.sleep(0.05)
except Cancelled as error:
    board.end("cancelled", str(error))
"""


def health() -> Health:
    """A policy that answers."""
    card = PolicyCard("extract", "linear")
    return Health(0, 0, 0, "", card, (), "", 0, 0.0)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the models that a run needs beside it."""
    quoters.save(tmp_path / "models" / "policy")
    (tmp_path / "files" / "qa").mkdir(parents=True)
    (tmp_path / "home").mkdir(exist_ok=True)
    return tmp_path / "home"


def desk(home: Path, script: str = RUN) -> Desk:
    """The desk of a home; a run is `script`."""
    settings = Settings(home=home, train=TrainSettings(data=home.parent / "files", comparisons=100))
    store = PreferenceStore(home / "preferences.db")
    line = [sys.executable, "-c", script, str(home)]
    return Desk(settings, store, health, line, home.parent / "models")


def until(found: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_run_lives_in_a_process_of_its_own_and_ends_when_asked(home: Path) -> None:
    """Started, seen, cancelled, resumed: all by files; a second one is refused meanwhile."""
    made: Trainer = desk(home)
    run = made.start()
    assert (run.state, run.stage, run.resumable) == ("running", "preferences", False)
    with pytest.raises(TrainerError, match="at work") as refused:
        made.start()
    assert refused.value.why == "busy"
    until(lambda: made.runs()[0].step > 0)
    assert (made.runs()[0].text, made.runs()[0].of) == ("working", 600)
    made.cancel(run.id)
    until(lambda: made.runs()[0].state == "cancelled")
    ended = made.runs()[0]
    assert ended.resumable
    assert "cancelled at ppo" in ended.reason
    assert ended.ended > 0
    with pytest.raises(TrainerError):
        made.cancel(run.id)
    assert made.resume(run.id).id == run.id
    until(lambda: made.runs()[0].step > 0)
    made.cancel(run.id)
    until(lambda: made.runs()[0].state == "cancelled")
    said = (home / "training" / run.id / "output.log").read_text()
    assert f"'train', 'loop', '--data', '{home.parent / 'files'}'" in said


def test_a_run_whose_process_died_says_why(home: Path) -> None:
    """It was interrupted, and the last thing that its process printed is the reason."""
    made = desk(home, "import sys; sys.exit('no room for anything')")
    run = made.start()
    until(lambda: made.runs()[0].state == "interrupted")
    assert made.runs()[0].reason == "no room for anything"
    assert made.runs()[0].resumable
    assert made.runs()[0].stage in STAGES
    assert run.id == made.runs()[0].id


def test_what_stands_against_a_run_is_said(home: Path) -> None:
    """No weights; neither a reward model nor questions; a policy that is not ours to train."""
    made = desk(home)
    assert made.standing().obstacles == ()
    assert made.standing().reward is None
    (home.parent / "models" / "policy" / "model.safetensors").unlink()
    (home.parent / "files" / "qa").rmdir()
    assert [o.key for o in made.standing().obstacles] == ["weights", "reward"]
    with pytest.raises(TrainerError, match="model") as refused:
        made.start()
    assert refused.value.why == "obstacle"
    assert made.runs() == []


def test_what_was_collected_is_counted(home: Path) -> None:
    """By kind, language and day, with what is missing."""
    store = PreferenceStore(home / "preferences.db")
    for number in range(3):
        turn, user = f"t{number}", f"user{number}"
        for side, text in enumerate(("Fact 1 [1].", "Fact 1, at length [1].")):
            store.add_turn(make_record(turn, f"{turn}-{side}", user, text, position=side))
        pick = {"candidate_ids": (f"{turn}-0", f"{turn}-1"), "value": 0 if number else -1}
        store.add_feedback(make_feedback("ab_pick", turn, user, **pick))
        store.add_feedback(make_feedback("thumb", turn, user, value=1))
    found = desk(home).collected()
    kinds = dict(found.kinds)
    assert (kinds["comparison"], kinds["tie"], kinds["liked"]) == (2, 1, 3)
    assert sum(n for _, n in found.days) == 6
    assert dict(found.languages) == {"en": 6}
    assert (found.users, found.needed) == (3, 100)
    assert found.missing == 100 - found.train


def test_candidates_pairs_and_picks_of_a_true_run(home: Path, tmp_path: Path) -> None:
    """What a cycle made is listed with its gates and points; a pick is taken once."""
    run, board, store, registry = cycle(home, parts(tmp_path, reward=True))
    list(run.run())
    store.close()
    status.add(board.folder / status.GOLD, {"update": 1, "gold": 0.5, "win_rate": 0.6})
    made = desk(home)
    (candidate,) = made.candidates()
    assert (candidate.id, candidate.state) == (board.status.candidate, "candidate")
    assert {g.name for g in candidate.gates} >= {"win_rate", "kl", "answers"}
    assert candidate.blockers
    points = made.points(board.folder.name)
    assert [p.update for p in points] == [0, 1, 2, 3]
    assert (points[1].gold, points[1].win_rate, points[0].gold) == (0.5, 0.6, None)
    assert made.runs()[0].candidate == candidate.id
    with pytest.raises(TrainerError) as refused:
        made.promote(candidate.id, who="me")
    assert refused.value.why == "gates"
    pairs = made.pairs(candidate.id, 50)
    assert len(pairs) == candidate.pairs
    if pairs:
        assert pairs[0].old.text != pairs[0].new.text
        made.pick(pairs[0].id, "new", first="old", who="me")
        assert made.candidates()[0].picks == (1, 0, 0)
        assert made.pairs(candidate.id, 50) == pairs[1:]
        with pytest.raises(TrainerError, match="judged"):
            made.pick(pairs[0].id, "old", first="old", who="me")
    registry.promote(candidate.id, who="me", force=True)
    assert made.candidates()[0].state == "live"
    assert made.can_roll_back()
    made.rollback(who="me")
    assert made.candidates()[0].state == "rolled_back"
    assert [d.action for d in made.decisions()] == ["rollback", "promote by force"]
    with pytest.raises(TrainerError) as refused:
        made.rollback(who="me")
    assert refused.value.why == "nothing"


def test_a_trial_is_begun_and_ended(home: Path, tmp_path: Path) -> None:
    """With its share, and no votes yet; unknown candidates and runs are gone."""
    registry = Registry(home)
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "x.txt").write_text("x")
    made = registry.add(
        tmp_path / "some", policy={"backend": "extract"}, data_sha256="", config={}, seeds=(1,),
        gates=[Gate("kl", 1.0, None, (None, None), True, "")],
    )  # fmt: skip
    registry.begin_trial(made.id, 0.25, who="me", force=True)
    page = desk(home)
    (candidate,) = page.candidates()
    assert (candidate.state, candidate.share, candidate.votes) == ("canary", 0.25, (0, 0))
    assert candidate.pairs == 0
    page.end_canary(who="me")
    assert page.candidates()[0].state == "rolled_back"
    for verb in (lambda: page.points("x"), lambda: page.pairs("x"), lambda: page.resume("../x")):
        with pytest.raises(TrainerError) as refused:
            verb()
        assert refused.value.why == "gone"
    with pytest.raises(TrainerError):
        page.canary("nobody", 0.5, who="me")


def test_a_run_gets_the_settings_of_the_chat() -> None:
    """Preset, file, single settings and policy; another face has no desk."""
    options = Namespace(
        preset="embedded", config=Path("a.toml"), set=["policy.best_of=4"], policy="extract",
        face="assistant.server",
    )  # fmt: skip
    assert command(options, "app.py")[1:] == [
        "app.py", "--preset", "embedded", "--config", "a.toml", "--set", "policy.best_of=4",
        "--policy", "extract",
    ]  # fmt: skip
    assert desks(options, Settings(), None, None) == ()  # type: ignore[arg-type]
    assert json.dumps(command(Namespace(preset="p", config=None, set=[]), "x"))
