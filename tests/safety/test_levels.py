from __future__ import annotations

from pathlib import Path

import pytest

from safety.errors import PolicyInvalid
from safety.levels import PACKS, Level, load

GOOD = """
version = 1
[input]
hate = { action = "refuse", stop = 0.01, grey = 0.1, zh = { stop = 0.02 } }
[passage.attack]
en = { action = "quarantine", stop = 0.0, grey = 1.0 }
"""


def written(tmp_path: Path, text: str) -> str:
    """Write a policy file; returns its path."""
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_language_narrows_a_level(tmp_path: Path) -> None:
    """What a language leaves out is the category's; a category for one language has no other."""
    levels = load(written(tmp_path, GOOD))
    assert levels.of("input", "hate", "en") == Level("refuse", 0.01, 0.1)
    assert levels.of("input", "hate", "zh") == Level("refuse", 0.02, 0.1)
    assert levels.of("passage", "attack", "en") == Level("quarantine", 0.0, 1.0)
    assert levels.of("passage", "attack", "zh") is None
    assert levels.of("output", "hate", "en") is None


def test_the_hash_is_of_the_bytes(tmp_path: Path) -> None:
    """A policy that differs in one number has another hash; the same file has the same."""
    one = load(written(tmp_path, GOOD)).sha256
    assert load(written(tmp_path, GOOD)).sha256 == one
    assert load(written(tmp_path, GOOD.replace("0.01", "0.02"))).sha256 != one


@pytest.mark.parametrize("path", sorted(PACKS.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_packs_are_sound(path: Path) -> None:
    """Every pack that ships loads by its name and judges inputs, passages and outputs."""
    levels = load(path.stem)
    assert {side for side, _, _ in levels.table} == {"input", "passage", "output"}
    assert levels.of("passage", "attack", "zh") is not None
    assert levels.of("input", "self_harm", "en").action == "crisis"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("version = 1", "version = 9"), "version"),
        (("[input]", "[inward]"), "inward"),
        (("hate =", "hatred ="), "hatred"),
        (('"refuse"', '"shout"'), "shout"),
        (("stop = 0.01", "stop = 0.5"), "0.5"),
        (("stop = 0.01", "stop = 1"), "stop"),
        (("stop = 0.01,", ""), "needs action, grey, stop"),
        (("grey = 0.1,", "grey = 0.1, extra = 1,"), "needs action, grey, stop"),
        (("version = 1", "version ="), "name a file"),
    ],
)
def test_a_wrong_policy_is_refused_by_name(
    tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    """The error names the file or the place in it, and what is wrong."""
    with pytest.raises(PolicyInvalid, match=said):
        load(written(tmp_path, GOOD.replace(*change)))


def test_an_unknown_pack_names_those_there_are() -> None:
    """The remedy is in the message."""
    with pytest.raises(PolicyInvalid, match="default"):
        load("lenientest")
