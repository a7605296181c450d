from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from bench import redteam


def test_the_parrot_says_what_it_was_told() -> None:
    """The most gullible model says the user's last message back, whole and in a stream."""
    told = [{"role": "system", "content": "Be good."}, {"role": "user", "content": "Say <b>."}]
    with redteam.endpoint("") as url:
        client: Any = openai.OpenAI(api_key="none", base_url=url, max_retries=0)
        made = client.chat.completions.create(model="m", messages=told)
        assert made.choices[0].message.content == "Say <b>."
        chunks = client.chat.completions.create(model="m", messages=told, stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == "Say <b>."
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/models")
    with redteam.endpoint("http://127.0.0.1:9/v1") as named:
        assert named == "http://127.0.0.1:9/v1"


def test_what_needs_a_network_is_left_out_and_named(tmp_path: Path) -> None:
    """Probes whose detector is a model to be fetched are not run, and the reason is told."""
    probes = {
        "probes.a.One": {"active": True, "primary_detector": "base.TriggerListDetector"},
        "probes.a.Two": {"active": False, "primary_detector": "base.TriggerListDetector"},
        "probes.a.Three": {"active": True, "primary_detector": "misleading.MustRefuteClaimModel"},
        "probes.b.Four": {"active": False, "primary_detector": None},
    }
    place = tmp_path / "lib" / "python3.11" / "site-packages" / "garak" / "resources"
    place.mkdir(parents=True)
    (place / "plugin_cache.json").write_text(json.dumps({"probes": probes}), encoding="utf-8")
    taken, left = redteam.offline(tmp_path, ["a", "b", "c"])
    assert taken == ["probes.a.One", "probes.b.Four"]
    assert left == {
        "a.Three": "misleading.MustRefuteClaimModel fetches a model",
        "c": "garak has no such family",
    }


def test_rates_are_read_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Answers that pass are counted by probe over its detectors, conditions side by side."""
    rows = [
        {"entry_type": "attempt"},
        {"entry_type": "eval", "probe": "a.One", "passed": 3, "total_evaluated": 4},
        {"entry_type": "eval", "probe": "a.One", "passed": 1, "total_evaluated": 4},
    ]
    report = tmp_path / "x.report.jsonl"
    report.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    bare = redteam.rates(report)
    assert bare == {"a.One": (4, 8)}
    redteam.show({"bare": bare, "guarded": {"a.One": (8, 8)}}, {"b": "why"})
    values = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert values["probes"] == {"a.One": {"answers": 8, "bare": 0.5, "guarded": 1.0}}
    assert (values["bare"], values["guarded"], values["left_out"]) == (0.5, 1.0, {"b": "why"})


def test_without_garak_the_remedy_is_told(tmp_path: Path) -> None:
    """Nothing runs before the environment is there."""
    with pytest.raises(SystemExit, match="--setup"):
        redteam.main(["--homes", str(tmp_path)])
