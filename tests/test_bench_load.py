from __future__ import annotations

import json

import pytest

from bench import load
from bench.load_client import Asked, outcomes

KEYS = {
    "requests", "unexpected_5xx", "rejected", "ttft_p50_s", "ttft_p95_s", "tokens_per_s",
    "rss_growth_mib",
}  # fmt: skip


def test_a_server_under_load_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """All modes on one small server: no 5xx, nothing harmed, slots free again, all times there."""
    arguments = "--policy echo --users 2 --seconds 3 --documents 4 --engine-seconds 1".split()
    arguments += "--modes closed open leave burst --rate 4 --leavers 12 --burst 90".split()
    load.main(arguments)
    values = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert values.keys() >= KEYS
    assert values["unexpected_5xx"] == 0
    assert values["outcomes"].keys() == {"answered"}
    assert values["tokens_per_s"] > 0
    assert values["engine_tokens_per_s"] > 0
    assert values["burst"].keys() <= {"answered", "rejected"}
    assert values["burst_harmed"] == 0
    assert values["slots_free_s"] < 10


def test_what_went_wrong_is_told_from_what_was_meant() -> None:
    """A refusal with Retry-After is no error; an error within a stream and a bare 503 are."""
    found = [Asked(0.0, outcome) for outcome in ("answered", "rejected", "503", "error_event")]
    assert [one.unexpected for one in found] == [False, False, True, True]
    assert outcomes(found)["rejected"] == 1


def test_growth_is_that_after_the_start() -> None:
    """What a server takes in its first tenth is no growth; too few samples say nothing."""
    assert load.grown([1.0, 50.0, *[100.0] * 17, 103.0]) == 1.5
    assert load.grown([100.0] * 20) == 0.0
    assert load.grown([1.0]) is None
