"""From what users picked to another answer in the running chat and back, without a double."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import app
from assistant.config import (
    GateSettings,
    PolicySettings,
    PreferenceSettings,
    Settings,
    TrainSettings,
)
from assistant.schema import Reply
from retrieval.config import EmbedSettings, RerankSettings, RetrievalSettings
from retrieval.embed import _weights
from rlhf import _loop_status as status
from rlhf.commands.base import preferences
from rlhf.desk import Desk
from rlhf.fit.loop import run
from rlhf.registry import Registry
from rlhf.scoring import load
from safety.config import SafetySettings
from tests.assistant import quoters
from tests.rlhf.conftest import make_feedback, make_record
from tests.rlhf.lessons_made import put
from tests.rlhf.test_reward_fit import data as files

WIDGET = "# Widget\n\nThe widget costs 40 euros. It was made in Lyon.\n"
QUESTION = "How much does the widget cost?"
#: A tiny network of chance is neither better nor worse, and few rows are sure of little.
WIDE = GateSettings(
    least=2, rounds=200, win_margin=0.49, reward_margin=1, ece=1, safety_margin=1,
    refusal_margin=1, grounded_margin=1, answers_margin=1, length_low=0.01, length_high=100,
    optional=("modelling", "win_rate", "length", "sign", "over_refusal"),
)  # fmt: skip


#: Picks of each user.
EACH = 6


def settings(folder: Path) -> Settings:
    """An assistant whose network quotes, and a run of seconds."""
    return Settings(
        home=folder / "home",
        docs=False,
        retrieval=RetrievalSettings(
            embed=EmbedSettings(backend="hashing"), rerank=RerankSettings(backend="none")
        ),
        policy=PolicySettings(
            backend="quote",
            model=str(folder / "models" / "policy"),
            support="words",
            min_confidence=0.0,  # calibrated or not, it answers: two of chance should not differ
        ),
        safety=SafetySettings(moderators=("rules",), audit=False),
        preferences=PreferenceSettings(dev_fraction=0.2, test_fraction=0.3, split_users=1),
        train=TrainSettings(
            lessons=30, held=8, updates=1, episodes=8, comparisons=12, rate=1e-6, data=folder
        ),
        gates=WIDE,
    )


def collected(own: Settings) -> None:
    """Forty users pick the shorter of two answers, each time: enough for a fresh head to learn."""
    store = preferences(own)
    for number in range(40 * EACH):
        turn, user = f"t{number}", f"user{number // EACH}"
        asked = f"What is fact 1 of part {number}?"
        for side, text in enumerate(("Fact 1 [1].", "Fact 1. Fact 2 is more of it [1].")):
            store.add_turn(make_record(turn, f"{turn}-{side}", user, text, asked, position=side))
        names = (f"{turn}-0", f"{turn}-1")
        store.add_feedback(make_feedback("ab_pick", turn, user, candidate_ids=names, value=0))
    store.close()


def until(found: Callable[[], bool]) -> None:
    """Wait for what a thread does."""
    end = time.monotonic() + 120
    while not found():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.skipif(_weights.extension() is None, reason="there is no models/encoder")
def test_picks_become_a_candidate_that_answers_until_it_is_taken_back(tmp_path: Path) -> None:
    """Log, reward model, PPO, gates, registry, desk and chat are those of the product."""
    own = settings(tmp_path)
    data = files(tmp_path / "data")
    quoters.save(tmp_path / "models" / "policy")
    collected(own)
    put(data, own)
    list(run(data, tmp_path / "models" / "loop", None, own))

    (folder,) = status.runs(own.home)
    (entry,) = Registry(own.home).entries()
    assert entry.manifest is not None
    assert entry.manifest.config["reward"] == "trained"
    scores = load(folder / "reward", runtime="torch", dtype="float32")(
        [("What is fact 1?", "Fact 1."), ("What is fact 1?", "Nobody knows.")]
    )
    assert scores[0] != scores[1]
    gates = {gate.name: gate for gate in entry.manifest.gates}
    assert gates["reward_accuracy"].n >= 2
    assert gates["safety.unsafe"].n == gates["kl"].n > 8
    assert gates["kl"].value == pytest.approx(0, abs=0.05)
    assert [name for name, gate in gates.items() if not gate.passed] == []
    readings = status.lines(folder / status.GOLD)
    assert [row["update"] for row in readings] == [-1, 0]

    document = tmp_path / "widget.md"
    document.write_text(WIDGET, encoding="utf-8")
    with app._opened(own) as (assistant, store):
        for _ in assistant.ingest([document]):
            pass
        desk = Desk(own, store, assistant.health, [sys.executable], tmp_path / "models")
        (candidate,) = desk.candidates()
        assert (candidate.id, candidate.state, candidate.blockers) == (entry.id, "candidate", ())
        first = assistant.reply(QUESTION)

        def after() -> Reply:
            return assistant.reply(QUESTION, conversation_id=first.conversation_id)

        desk.promote(entry.id, who="test")
        until(lambda: after().policy.version == entry.id)  # a turn looks, a thread loads
        second = after()
        assert desk.candidates()[0].state == "live"
        desk.rollback(who="test")
        until(lambda: after().policy.version == "")
        third = after()
        assert [r.policy.version for r in (first, second, third)] == ["", entry.id, ""]
        assert {r.policy.name for r in (first, second, third)} == {"quote"}
        assert assistant.health().refused == ""
        assert desk.candidates()[0].state == "rolled_back"
        assert [made.action for made in desk.decisions()][:2] == ["rollback", "promote"]
