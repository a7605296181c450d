from __future__ import annotations

import json

import pytest

from bench import kills


def test_a_killed_server_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Killed three times at work, it has all that it acknowledged, whole, and is soon ready."""
    kills.main(["--rounds", "3", "--seconds", "3"])
    values = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert (values["lost"], values["torn"], values["problems"]) == (0, 0, [])
    assert values["acknowledged"] > 0
    assert values["integrity"] == "ok"
