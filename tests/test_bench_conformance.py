from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import conformance
from bench.conform_rows import Behaviours, Target, loaded


def test_every_behaviour_holds_in_every_client_here(capsys: pytest.CaptureFixture[str]) -> None:
    """OpenAI's client in strict validation, LangChain's, and plain HTTP find all as it must be."""
    conformance.main(["--clients", "openai", "langchain", "raw"])
    values = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert (values["failed"], values["skipped"]) == (0, [])
    assert values["passed"] > 50


def test_a_behaviour_that_does_not_hold_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """One that raises fails with its place and stops no other; a skipped client is no success."""
    behaviour = Behaviours("a client")

    @behaviour
    def wrong(_: Target) -> None:
        """It holds."""
        assert [1] == [2], "not the same"

    @behaviour
    def right(_: Target) -> None:
        """It holds too."""

    rows = behaviour.run(Target("", "", "", "", ""))
    conformance.show(rows, [("openai1", "no environment")])
    values = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert (values["passed"], values["failed"], values["skipped"]) == (1, 1, ["openai1"])
    assert values["failures"] == ["a client: It holds"]
    assert "not the same" in rows[0].problem


def test_a_client_without_its_environment_is_a_failure_of_its_own(tmp_path: Path) -> None:
    """A client that cannot run is one failed row with what it said."""
    fake = tmp_path / "openai1" / "bin" / "python"
    fake.parent.mkdir(parents=True)
    fake.write_text("#!/bin/sh\necho no such thing >&2\nexit 3\n", encoding="utf-8")
    fake.chmod(0o755)
    (row,) = conformance.of("openai1", Target("", "", "", "", ""), tmp_path)
    assert "no such thing" in row.problem
    assert loaded("[]") == []
