from __future__ import annotations

from pathlib import Path

import pytest

from assistant.config import GateSettings, PolicySettings, Settings, TrainSettings
from retrieval.config import EmbedSettings, RerankSettings, RetrievalSettings
from rlhf import _loop_status as status
from rlhf.errors import TrainingError
from rlhf.fit.loop import run
from rlhf.preferences import PreferenceStore
from rlhf.registry import Registry
from safety.config import SafetySettings
from tests.assistant import quoters
from tests.rlhf.conftest import make_record
from tests.rlhf.test_fit_sft import data

__all__ = ["data"]


def settings(home: Path) -> Settings:
    """An assistant without models but the policy's, and a short run."""
    retrieval = RetrievalSettings(
        embed=EmbedSettings(backend="hashing"), rerank=RerankSettings(backend="none")
    )
    return Settings(
        home=home,
        retrieval=retrieval,
        policy=PolicySettings(support="words"),
        safety=SafetySettings(moderators=("rules",)),
        train=TrainSettings(lessons=60, held=8, updates=1, episodes=8),
        gates=GateSettings(least=2, rounds=200),
    )


def test_without_weights_the_command_says_what_is_missing(tmp_path: Path) -> None:
    """And how to make them; the run is listed as failed."""
    with pytest.raises(TrainingError, match="train sft"):
        list(run(tmp_path, tmp_path / "models" / "loop", None, settings(tmp_path / "home")))
    found = status.read(status.runs(tmp_path / "home")[0])
    assert found is not None
    assert found.state == "failed"
    assert "no weights" in found.reason


def test_the_command_goes_from_questions_and_the_log_to_a_candidate(
    data: Path, tmp_path: Path
) -> None:
    """With the real retrieval, guard and gates, on an untrained network; twice makes two runs."""
    home = tmp_path / "home"
    quoters.save(tmp_path / "models" / "policy")
    store = PreferenceStore(home / "preferences.db")
    for number in range(12):
        store.add_turn(make_record(f"t{number}", f"c{number}", f"user{number}"))
    store.close()
    lines = list(run(data, tmp_path / "models" / "loop", None, settings(home)))
    found = status.read(status.runs(home)[0])
    assert found is not None
    assert (found.state, found.stage) == ("done", "candidate")
    (entry,) = Registry(home).entries()
    assert entry.id == found.candidate
    assert entry.manifest is not None
    assert {g.name for g in entry.manifest.gates} >= {"safety.unsafe", "answers", "kl"}
    said = next(line for line in lines if "prompts to learn on" in line)
    assert " 0 of them users'" not in said
