from __future__ import annotations

from pathlib import Path

import pytest

from assistant.config import GateSettings, PolicySettings, Settings, TrainSettings
from assistant.policy.quote import calibration
from assistant.shipped import check
from retrieval.config import EmbedSettings, RerankSettings, RetrievalSettings
from rlhf import _loop_status as status
from rlhf.errors import TrainingError
from rlhf.fit import calibrate
from rlhf.fit.loop import run
from rlhf.preferences import PreferenceStore
from rlhf.registry import Registry
from safety.config import SafetySettings
from tests.assistant import quoters
from tests.rlhf.conftest import make_record
from tests.rlhf.test_fit_sft import KNOWN, data

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


def test_the_calibration_is_fitted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights stay, the card says so once, and what is served reads the new numbers."""
    monkeypatch.setattr(calibrate, "make", lambda *_, **__: iter(["made"]))
    monkeypatch.setattr(calibrate, "taught", lambda *_, **__: KNOWN)
    monkeypatch.setattr(calibrate, "readers", lambda _: ("", ""))
    folder = quoters.save(tmp_path / "models" / "policy")
    (folder / "card.md").write_text("# policy\n\nWeights.\n", encoding="utf-8")
    before = (folder / "model.safetensors").read_bytes()
    for _ in "ab":
        list(calibrate.run(tmp_path, tmp_path / "models" / "calibrate", 80, settings(tmp_path)))
        fits = calibration(folder)
        assert fits
        assert all(0 <= fit.more < 1 and fit.more != 0.5 for fit in fits.values())
    assert (folder / "model.safetensors").read_bytes() == before
    card = (folder / "card.md").read_text(encoding="utf-8")
    assert card.startswith("# policy\n\nWeights.\n")
    assert card.count("Calibrated by") == card.count("SHA-256 of calibration.json") == 1
    check(tmp_path / "models")


def test_a_calibration_needs_lessons_that_were_held_out(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are none in these few articles."""
    monkeypatch.setattr(calibrate, "WORK", tmp_path / "work")
    quoters.save(tmp_path / "models" / "policy")
    with pytest.raises(TrainingError, match="held out"):
        list(calibrate.run(data, tmp_path / "models" / "calibrate", 1, settings(tmp_path)))


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
