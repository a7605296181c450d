from __future__ import annotations

from pathlib import Path

import pytest

from safety import menu
from safety.config import SafetySettings
from safety.errors import BackendMissing, ModelUnusable
from safety.schema import SEVERITY, Side


def test_the_menu_is_the_folder() -> None:
    """What is offered is the names of the files, protocol and helpers left out."""
    folder = Path(menu.__file__).parent / "moderator"
    files = {f.stem for f in folder.glob("*.py")}
    expected = sorted(n for n in files if n != "base" and not n.startswith("_"))
    assert list(menu.available()) == expected


@pytest.mark.parametrize("name", ["os", "base", "rules.x", ".rules", "../rules", ""])
def test_only_what_is_on_the_menu_is_imported(name: str) -> None:
    """A settings file cannot import other code, and is told what there is."""
    with pytest.raises(BackendMissing, match=r"there are: .*rules"):
        menu.load(name)


@pytest.mark.parametrize("name", menu.available())
@pytest.mark.parametrize("side", ["input", "passage", "output"])
def test_a_moderator_gives_one_sound_verdict_per_text(name: str, side: Side) -> None:
    """Every moderator answers in order, on the side asked, for any text at all."""
    try:
        moderator = menu.load(name).build(SafetySettings())
    except (BackendMissing, ModelUnusable) as error:
        pytest.skip(str(error))
    texts = ["", "hello", "你好", "\ud800", "a\x00b", "x" * 5000]
    verdicts = moderator.judge(texts, side)
    assert len(verdicts) == len(texts)
    for text, verdict in zip(texts, verdicts, strict=True):
        assert verdict.action in SEVERITY
        assert verdict.side == side
        assert 0 <= verdict.score <= 1
        assert all(0 <= s.start <= s.end <= len(text) for s in verdict.spans)
    assert moderator.judge([], side) == []
