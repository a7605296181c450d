from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety import Guard
from safety.config import SafetySettings
from safety.errors import ModelUnusable, ModeratorUnavailable
from safety.menu import load
from safety.moderator._hazards import MODERATIONS
from safety.moderator._plugin import Plugin
from safety.moderator.openai import read
from safety.schema import Side
from tests.safety.guards import GuardEndpoint, Handler, Reply

KEY = "sk-guard-secret-0123456789"
BOTH = pytest.mark.parametrize("name", ["openai", "chat_guard"])
#: OpenAI's own thirteen categories.
THIRTEEN = list(MODERATIONS)[:13]


class Serve:
    """Starts endpoints and stops them at the end."""

    def __init__(self) -> None:
        self.started: list[GuardEndpoint] = []

    def __call__(self, reply: Reply) -> GuardEndpoint:
        """Start one."""
        self.started.append(GuardEndpoint(reply))
        return self.started[-1]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Give a starter of endpoints."""
    starter = Serve()
    yield starter
    for endpoint in starter.started:
        endpoint.close()


def moderation(**found: tuple[bool, float]) -> dict[str, Any]:
    """One result as OpenAI's endpoint gives it; names with "_" for "/"."""
    values = {name: (False, 0.001) for name in THIRTEEN}
    values |= {name.replace("_", "/"): value for name, value in found.items()}
    return {
        "flagged": any(flag for flag, _ in values.values()),
        "categories": {name: flag for name, (flag, _) in values.items()},
        "category_scores": {name: score for name, (_, score) in values.items()},
        "category_applied_input_types": {name: ["text"] for name in values},
    }


def say(payload: Any, status: int = 200, **headers: str) -> Reply:
    """Reply with JSON."""

    def reply(handler: Handler, body: dict[str, Any]) -> None:
        handler.send(json.dumps(payload).encode(), status, **headers)

    return reply


def results(*found: dict[str, Any]) -> dict[str, Any]:
    """A whole answer of the moderation endpoint."""
    return {"id": "modr-1", "model": "omni-moderation-latest", "results": list(found)}


def completion(text: str | None) -> dict[str, Any]:
    """A whole answer of a chat endpoint."""
    message = {"role": "assistant", "content": text}
    return {"id": "c1", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def harmless(name: str) -> dict[str, Any]:
    """What either endpoint says of a harmless text."""
    if name == "openai":
        return results(moderation())
    return completion("Safety: Safe\nCategories: None")


def connect(name: str, endpoint: GuardEndpoint | str, **values: Any) -> Plugin:
    """Build a moderator on an endpoint."""
    url = endpoint if isinstance(endpoint, str) else endpoint.url
    chosen = {"guard_url": url, "guard_key": KEY, "guard_model": "a/guard", **values}
    found: Plugin = load(name).build(SafetySettings(audit=False, **chosen))
    return found


def test_the_moderation_endpoint_judges(serve: Serve) -> None:
    """What it flags stops, what it scores in the grey band is grey, the rest is allowed."""
    answers = {
        "good": moderation(),
        "bad": moderation(violence=(True, 0.91), harassment=(True, 0.6)),
        "unsure": moderation(hate=(False, 0.44)),
        "child": moderation(sexual=(True, 0.8), sexual_minors=(True, 0.5)),
        "sad": moderation(**{"self-harm": (True, 0.7)}),
    }

    def reply(handler: Handler, body: dict[str, Any]) -> None:
        handler.send(json.dumps(results(answers[body["input"]])).encode())

    endpoint = serve(reply)
    moderator = connect("openai", endpoint)
    found = {v: x for v, x in zip(answers, moderator.judge(list(answers), "input"), strict=True)}
    assert [(v.action, v.category, v.grey) for v in found.values()] == [
        ("allow", "none", False),
        ("refuse", "violence", False),
        ("refuse", "hate", True),
        ("block", "minors", False),
        ("crisis", "self_harm", False),
    ]
    assert found["bad"].score == 0.91
    assert endpoint.paths == ["/v1/moderations"] * 5
    assert endpoint.bodies[0] == {"input": "good", "model": "a/guard"}
    assert endpoint.headers[0]["authorization"] == f"Bearer {KEY}"
    assert moderator.policy.startswith("a/guard@127.0.0.1:")


def test_mistrals_moderations_are_read_too() -> None:
    """An endpoint without `flagged`, and with Mistral's names, is understood."""
    settings = SafetySettings()
    scores = {"sexual": 0.0, "health": 0.9, "pii": 0.8, "selfharm": 0.0, "law": 0.1}
    flags = {name: score > 0.5 for name, score in scores.items()}
    finding = read({"categories": flags, "category_scores": scores}, settings)
    assert finding.level == "unsafe"
    assert [(h.name, h.mlcommons) for h in finding.hazards] == [("health", "S6"), ("pii", "S7")]


@pytest.mark.parametrize(
    ("family", "said", "side", "expected"),
    [
        ("qwen3guard", "Safety: Safe\nCategories: None", "input", ("allow", "none")),
        ("qwen3guard", "Safety: Unsafe\nCategories: PII", "output", ("block", "privacy")),
        ("llamaguard", "\n\nunsafe\nS11", "input", ("crisis", "self_harm")),
        ("shieldgemma", "Yes", "input", ("refuse", "illicit")),
        ("granite", "<score> no </score>", "passage", ("allow", "none")),
    ],
)
def test_a_chat_endpoint_serves_every_family(
    family: str, said: str, side: Side, expected: tuple[str, str], serve: Serve
) -> None:
    """The model is asked as its family is, without sampling, and its answer read so."""
    endpoint = serve(say(completion(said)))
    (found,) = connect("chat_guard", endpoint, guard_family=family).judge(["a text"], side)
    assert (found.action, found.category) == expected
    body = endpoint.bodies[0]
    assert (body["model"], body["temperature"]) == ("a/guard", 0)
    assert body["messages"][-1] == {
        "role": "assistant" if side == "output" else "user",
        "content": "a text",
    }
    assert ("chat_template_kwargs" in body) == (family in ("shieldgemma", "granite"))
    assert set(endpoint.paths) == {"/v1/chat/completions"}


def test_an_endpoint_is_given_the_question(serve: Serve) -> None:
    """A chat endpoint gets both turns; the moderation API has no place for a question."""
    endpoint = serve(say(completion("safe")))
    connect("chat_guard", endpoint, guard_family="llamaguard").judge(["Yes."], "output", "Shall I?")
    assert endpoint.bodies[0]["messages"] == [
        {"role": "user", "content": "Shall I?"},
        {"role": "assistant", "content": "Yes."},
    ]
    endpoint = serve(say(harmless("openai")))
    connect("openai", endpoint).judge(["Yes."], "output", "Shall I?")
    assert endpoint.bodies == [{"input": "Yes.", "model": "a/guard"}]


@BOTH
@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (400, "guard_model"),
        (401, "check safety.guard_key"),
        (403, "allowed to use"),
        (404, "guard_url"),
        (418, "own log"),
        (302, "own log"),
    ],
)
def test_a_refusing_endpoint_blocks(name: str, status: int, remedy: str, serve: Serve) -> None:
    """A refusal is asked once, named with its remedy, and the key is in no message."""
    endpoint = serve(say({"error": {"message": KEY}}, status, Location="/elsewhere"))
    with pytest.raises(ModeratorUnavailable, match=f"HTTP {status}.*{remedy}") as failure:
        connect(name, endpoint).judge(["x"], "input")
    assert KEY not in str(failure.value)
    assert len(endpoint.bodies) == 1


@BOTH
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_endpoint_is_asked_again(name: str, status: int, serve: Serve) -> None:
    """What may pass is tried again after the pause the endpoint asks for; then it blocks."""
    good = (
        results(moderation()) if name == "openai" else completion("Safety: Safe\nCategories: None")
    )
    count: list[int] = []

    def reply(handler: Handler, body: dict[str, Any]) -> None:
        count.append(1)
        if len(count) == 1:
            handler.send(b"{}", status, Retry_After="0.01")
        else:
            handler.send(json.dumps(good).encode())

    assert connect(name, serve(reply)).judge(["x"], "input")[0].action == "allow"
    endpoint = serve(say({}, status, Retry_After="0"))
    with pytest.raises(ModeratorUnavailable, match=f"HTTP {status}"):
        connect(name, endpoint).judge(["x"], "input")
    assert len(endpoint.bodies) == 3


@BOTH
@pytest.mark.parametrize("how", ["hang", "drip", "retry"])
def test_a_slow_endpoint_is_given_up(name: str, how: str, serve: Serve) -> None:
    """Silence, a slow drip, or a long pause asked for: the deadline holds."""

    def reply(handler: Handler, body: dict[str, Any]) -> None:
        if how == "hang":
            time.sleep(1)
        elif how == "drip":
            handler.drip(1)
        else:
            handler.send(b"{}", 503, Retry_After="3600")

    moderator = connect(name, serve(reply), seconds=0.2, second_seconds=0.2)
    begin = time.monotonic()
    with pytest.raises(ModeratorUnavailable, match=r"within 0\.2 s|HTTP 503"):
        moderator.judge(["x"], "input")
    assert time.monotonic() - begin < 0.9


@BOTH
@pytest.mark.parametrize(
    "data",
    [
        *[b"", b"no", b"null", b"[]", b"{}", b'{"results": [], "choices": []}', b"\xff"],
        *[b'{"results": null, "choices": null}', b'{"results": [1], "choices": [1]}'],
        *[b'{"results": [{}], "choices": [{}]}', b"[" * 5000, b" " * (2 << 20)],
        b'{"results": [{"categories": [], "category_scores": {}}], "choices": [{"message": null}]}',
        json.dumps({**results(moderation(), moderation()), **completion(None)}).encode(),
    ],
)
def test_wrong_json_is_no_judgement(name: str, data: bytes, serve: Serve) -> None:
    """Whatever else comes back, the text is not judged, so it is blocked."""
    moderator = connect(name, serve(lambda handler, body: handler.send(data)))
    with pytest.raises(ModeratorUnavailable):
        moderator.judge(["x"], "input")
    guard = Guard([moderator], SafetySettings(audit=False))
    assert guard.screen("x", "input").reason == f"fault.{name}"


@pytest.mark.parametrize(
    "change",
    [
        {"categories": {"witchcraft": True}},
        {"category_scores": {"violence": 1.5}},
        {"category_scores": {"violence": "high"}},
        {"category_scores": {"violence": float("nan")}},
        {"category_scores": {"witchcraft": 0.9}},
        {"categories": {"violence": "no"}},
        {"flagged": True, "categories": {"violence": False}},
    ],
)
def test_a_moderation_that_makes_no_sense_is_none(change: dict[str, Any], serve: Serve) -> None:
    """Unknown categories, impossible scores and flags for nothing never pass as harmless."""
    result = {"flagged": False, "categories": {}, "category_scores": {}, **change}
    moderator = connect("openai", serve(say(results(result))))
    with pytest.raises(ModeratorUnavailable):
        moderator.judge(["x"], "input")


@given(
    flags=st.dictionaries(st.sampled_from(THIRTEEN), st.booleans()),
    scores=st.dictionaries(st.sampled_from(THIRTEEN), st.floats(0, 1)),
)
def test_every_flag_counts(flags: dict[str, bool], scores: dict[str, float]) -> None:
    """A result is unsafe exactly where a category is flagged, safe only if all scores are low."""
    settings = SafetySettings()
    finding = read({"categories": flags, "category_scores": scores}, settings)
    assert (finding.level == "unsafe") == any(flags.values())
    if finding.level == "safe":
        assert all(score < settings.guard_low for score in scores.values())


@BOTH
def test_one_text_that_fails_does_not_block_the_others(
    name: str, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Among several texts the one that cannot be judged is blocked alone, and never logged."""
    good = (
        results(moderation()) if name == "openai" else completion("Safety: Safe\nCategories: None")
    )

    def reply(handler: Handler, body: dict[str, Any]) -> None:
        bad = "poison" in json.dumps(body)
        handler.send(b"nonsense" if bad else json.dumps(good).encode())

    guard = Guard([connect(name, serve(reply))], SafetySettings(audit=False))
    with caplog.at_level(logging.INFO):
        verdicts = guard.screen_many(["good", "poison", "fine"], "passage")
    assert [v.action for v in verdicts] == ["allow", "block", "allow"]
    assert verdicts[1].reason == f"fault.{name}"
    assert "poison" not in caplog.text
    assert KEY not in caplog.text


@BOTH
def test_a_long_text_is_sent_in_pieces(name: str, serve: Serve) -> None:
    """Harm in any window of a long text is found."""
    fine, bad = results(moderation()), results(moderation(violence=(True, 0.9)))
    if name == "chat_guard":
        fine = completion("Safety: Safe\nCategories: None")
        bad = completion("Safety: Unsafe\nCategories: Violent")

    def reply(handler: Handler, body: dict[str, Any]) -> None:
        handler.send(json.dumps(bad if "bomb" in json.dumps(body) else fine).encode())

    endpoint = serve(reply)
    text = "plain words " * 500
    found = connect(name, endpoint).judge([text, text + "bomb"], "input")
    assert [v.action for v in found] == ["allow", "refuse"]
    assert len(endpoint.bodies) == 6


@BOTH
def test_an_endpoint_that_is_away_blocks(name: str, serve: Serve) -> None:
    """Nobody listening is an error with the place and the remedy."""
    endpoint = serve(say({}))
    url = endpoint.url
    endpoint.close()
    serve.started.clear()
    with pytest.raises(ModeratorUnavailable, match=r"127\.0\.0\.1:\d+ cannot be reached"):
        connect(name, url).judge(["x"], "input")


@BOTH
def test_nothing_of_the_environment_is_used(
    name: str, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies and keys of the environment are ignored; without a key none is sent."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    good = (
        results(moderation()) if name == "openai" else completion("Safety: Safe\nCategories: None")
    )
    endpoint = serve(say(good))
    assert connect(name, endpoint, guard_key="").judge(["x"], "input")[0].action == "allow"
    assert "authorization" not in endpoint.headers[0]


@BOTH
@pytest.mark.parametrize(
    "url",
    ["", "example.org/v1", "ftp://x", "http://", "http://[", "http://u:p@x/v1", "http://x?k=1"],
)
def test_a_bad_address_is_refused_at_build(name: str, url: str) -> None:
    """An address that cannot be asked, or that holds a secret, is named at build."""
    with pytest.raises(ModelUnusable, match=r"safety\.guard_url"):
        connect(name, url)


def test_a_chat_endpoint_needs_a_model() -> None:
    """Without a model's name the chat endpoint cannot be asked."""
    with pytest.raises(ModelUnusable, match=r"safety\.guard_model is empty"):
        connect("chat_guard", "http://127.0.0.1:1/v1", guard_model="")
