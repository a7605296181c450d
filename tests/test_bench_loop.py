from __future__ import annotations

import json

import pytest

from bench import loop
from rlhf.config import PPOSettings

KEYS = {
    "minutes", "gold_before", "gold_after", "gold_ci", "right_before", "right_after",
    "safety_before", "safety_after", "kl", "taste",
}  # fmt: skip


def test_the_loop_is_simulated_and_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A toy of a few updates goes through every stage; the last line is one JSON object."""
    fast = PPOSettings(updates=2, episodes=8, minibatches=2, epochs=1, most_kl=200.0)
    monkeypatch.setattr(loop, "TOY", (12, 6))
    monkeypatch.setattr(loop, "TOY_PPO", fast)
    loop.main(["--toy", "--turns", "40"])
    *rest, last = capsys.readouterr().out.strip().splitlines()
    values = json.loads(last)
    assert values.keys() >= KEYS
    assert values["simulated"] is True
    assert len(values["gold_ci"]) == 2
    names = [point["name"] for point in values["curve"]]
    assert names[0] == "PPO 0"
    assert {"best of 1", "best of 16", "FeedME"} <= set(names)
    assert any("by simulation" in line for line in rest)


def test_without_data_the_toy_must_be_asked_for() -> None:
    """Nothing is simulated on nothing."""
    with pytest.raises(SystemExit, match="--data"):
        loop.main([])
