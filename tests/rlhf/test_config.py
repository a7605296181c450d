from __future__ import annotations

import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from assistant.config import load
from assistant.errors import ConfigError
from rlhf.commands.base import preferences
from rlhf.config import PreferenceSettings
from rlhf.fit._reward_log import logged
from rlhf.preferences import PreferenceStore
from tests.rlhf.conftest import make_feedback, make_record

FILE = """
[preferences]
retention_days = 7
test_fraction = 0.9
dev_fraction = 0.0
split_users = 1
"""


def test_someone_is_left_to_train_on() -> None:
    """Held-out fractions that leave no training users are refused."""
    with pytest.raises(ValidationError, match="stay below 1"):
        PreferenceSettings(dev_fraction=0.5, test_fraction=0.5)
    with pytest.raises(ConfigError, match="stay below 1"):
        load(overrides={"preferences.test_fraction": "0.95"})


def test_a_settings_file_says_how_long_turns_stay_and_who_is_held_out(tmp_path: Path) -> None:
    """Retention and shares of a file reach the log that app.py opens; no unknown key does."""
    path = tmp_path / "own.toml"
    path.write_text(FILE, encoding="utf-8")
    settings = load(file=path, overrides={"home": str(tmp_path)})
    store = preferences(settings)
    for number in range(30):
        user = f"user{number}"
        store.add_turn(make_record(f"t{number}", f"c{number}", user, created=time.time()))
    assert len([*store.prompts("test")]) > 20
    assert not [*store.prompts("dev")]
    assert store.purge() == 0
    store.close()
    later = PreferenceStore(
        tmp_path / "preferences.db",
        settings=settings.preferences,
        clock=lambda: time.time() + 8 * 86_400,
    )
    assert later.purge() == 30
    later.close()
    path.write_text("[preferences]\nretention = 7\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="retention_days"):
        load(file=path)


def test_where_nothing_may_be_learnt_from_nothing_is_given_out(tmp_path: Path) -> None:
    """Whatever users allowed: no prompt, no comparison, no thumb; feedback is still kept."""
    allowed = load(overrides={"home": str(tmp_path)})
    barred = load(overrides={"home": str(tmp_path), "preferences.consent": "never"})
    store = preferences(allowed)
    for side, text in enumerate(("Fact 1 [1].", "Fact 1, at length [1].")):
        store.add_turn(make_record("t", f"t-{side}", "alice", text, position=side))
    store.add_feedback(make_feedback("ab_pick", "t", candidate_ids=("t-0", "t-1"), value=0))
    store.add_feedback(make_feedback("thumb", "t", candidate_ids=("t-0",), value=1))
    assert [*store.pairs()]
    store.close()
    store = preferences(barred)
    for found in (
        store.pairs(), store.prompts(), store.thumbs(), store.edits(), store.comparisons(),
        store.records(),
    ):  # fmt: skip
        assert [*found] == []
    assert dict(store.counts().feedback) == {"ab_pick": 1, "thumb": 1}
    store.close()
    assert [*logged(tmp_path, barred.preferences)] == []
