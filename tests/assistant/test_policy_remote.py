from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from assistant.errors import ConfigError, PolicyRefused
from assistant.prompt import ABSTAIN
from assistant.schema import Delta, Usage
from retrieval.text import count_tokens
from tests.assistant.endpoint import KEY, Handler, Serve, connect, failing, saying, serving, shell
from tests.assistant.policies import ask, run, said


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start endpoints that are stopped after the test."""
    with serving() as start:
        yield start


# -- what is sent


def test_the_request_is_what_was_asked(serve: Serve) -> None:
    """Model, messages and sampling go out as they are, to one path."""
    end = serve(saying("ok"))
    prompt = ask("北京?", "中国的首都是北京。")
    run(
        connect(end), prompt, temperature=0.3, top_p=0.9, max_tokens=77, seed=5, stop=("a", "", "b")
    )
    assert end.paths == ["/v1/chat/completions"]
    body = end.bodies[0]
    assert body.pop("messages") == [{"role": m.role, "content": m.text} for m in prompt.messages]
    assert body == {
        "model": "some/model",
        "temperature": 0.3,
        "top_p": 0.9,
        "max_tokens": 77,
        "seed": 5,
        "stop": ["a", "b"],
        "stream": True,
    }


def test_the_environment_adds_nothing(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, organisations, headers and proxies of the environment stay there."""
    end = serve(saying("ok"))
    for name, value in {
        "OPENAI_API_KEY": "sk-ambient",
        "OPENAI_ADMIN_KEY": "sk-ambient-admin",
        "OPENAI_ORG_ID": "org-ambient",
        "OPENAI_PROJECT_ID": "proj-ambient",
        "OPENAI_BASE_URL": "http://127.0.0.1:9/ambient",
        "OPENAI_CUSTOM_HEADERS": "X-Ambient: ambient\nAuthorization: Bearer ambient",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
        "ALL_PROXY": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    assert said(run(connect(end), ask())) == "ok"
    assert end.headers[0]["authorization"] == f"Bearer {KEY}"
    run(connect(end, api_key=""), ask())
    assert "authorization" not in end.headers[1]
    for headers in end.headers:
        assert "ambient" not in json.dumps(headers)
        assert not [name for name in headers if name.startswith(("x-", "openai-"))]


def test_a_variant_is_another_sample(serve: Serve) -> None:
    """A variant has its own seed and a temperature above zero."""
    end = serve(saying("ok"))
    policy = connect(end)
    for variant in (0, 1, 2):
        run(policy, ask(), variant=variant)
    assert [b["temperature"] for b in end.bodies] == [0.0, 0.8, 0.8]
    assert len({b["seed"] for b in end.bodies}) == 3


def test_the_limits_newer_name_is_learnt(serve: Serve) -> None:
    """An endpoint that wants max_completion_tokens gets it, once told."""
    end = serve(failing(400, "use max_completion_tokens", param="max_tokens"), saying("ok"))
    policy = connect(end)
    assert said(run(policy, ask(), max_tokens=9)) == "ok"
    run(policy, ask(), max_tokens=9)
    assert ["max_tokens" in b for b in end.bodies] == [True, False, False]
    assert end.bodies[2]["max_completion_tokens"] == 9


# -- what comes back


def test_the_stream_comes_piece_by_piece(serve: Serve) -> None:
    """Each chunk is handed on as it comes; the last delta has the finish."""
    deltas = run(connect(serve(saying("北", "京", " [1]。"))), ask())
    assert [d.text for d in deltas] == ["北", "京", " [1]。", ""]
    assert [d.finish for d in deltas] == ["", "", "", "stop"]


@pytest.mark.parametrize(
    ("reason", "finish"), [("stop", "stop"), ("length", "length"), ("tool_calls", "stop")]
)
def test_the_finish_is_mapped(serve: Serve, reason: str, finish: str) -> None:
    """A cut answer says so."""
    assert run(connect(serve(saying("a", finish=reason))), ask())[-1].finish == finish


def test_a_content_filter_is_a_refusal(serve: Serve) -> None:
    """What the endpoint's filter stopped is an error, not half an answer."""
    with pytest.raises(PolicyRefused, match="content filter"):
        run(connect(serve(saying("a", finish="content_filter"))), ask())


def test_a_refusal_is_an_abstention(serve: Serve) -> None:
    """A model that refuses has not answered."""

    def act(handler: Handler) -> None:
        handler.start()
        handler.chunk(refusal="I cannot")
        handler.line("[DONE]")

    assert run(connect(serve(act)), ask()) == [Delta("", finish="abstain")]


def test_marker_thinking_and_stop_are_found_across_chunks(serve: Serve) -> None:
    """The stream is cleaned as a local one is."""
    end = serve(
        saying("<thi", "nk>x</th", "ink>", "\n[[no-", "answer]", "] well"),
        saying("<think>", "a", "</think>北京", "。问", "题：", "b"),
    )
    policy = connect(end)
    deltas = run(policy, ask())
    assert (said(deltas), deltas[-1].finish) == ("", "abstain")
    deltas = run(policy, ask(), stop=("问题：",))
    assert (said(deltas), deltas[-1].finish) == ("北京。", "stop")
    assert ABSTAIN == "[[no-answer]]"


def test_odd_chunks_are_passed_over(serve: Serve) -> None:
    """Usage, keep-alives, empty choices and missing fields do not disturb an answer."""

    def act(handler: Handler) -> None:
        handler.start()
        handler.wfile.write(b": keep-alive\n\n")
        handler.line(json.dumps(shell([])))
        handler.line(json.dumps({"id": "x"}))
        handler.line(json.dumps(shell([{"index": 0, "delta": None, "finish_reason": None}])))
        handler.chunk("a", reasoning_content="hmm")
        handler.chunk(None)
        handler.line(json.dumps(shell([{"index": 0, "delta": {}, "finish_reason": "stop"}])))
        handler.line(json.dumps(shell([], usage={"total_tokens": 3})))
        handler.line("[DONE]")

    deltas = run(connect(serve(act)), ask())
    assert (said(deltas), deltas[-1].finish) == ("a", "stop")


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}, Usage(9, 2)),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 2,
                "total_tokens": 11,
                "prompt_tokens_details": {"cached_tokens": 8},
            },
            Usage(9, 2, 8),
        ),
        ({"total_tokens": 11}, None),
        ({"prompt_tokens": "many", "completion_tokens": 2}, None),
    ],
)
def test_what_the_endpoint_counted_is_kept(
    serve: Serve, usage: dict[str, Any], expected: Usage | None
) -> None:
    """Token counts that come with the finish stand on the last delta; nonsense does not."""

    def act(handler: Handler) -> None:
        handler.start()
        handler.chunk("a")
        done = {"index": 0, "delta": {}, "finish_reason": "stop"}
        handler.line(json.dumps(shell([done], usage=usage)))

    assert run(connect(serve(act)), ask())[-1] == Delta("", finish="stop", usage=expected)


def test_a_missing_done_after_the_finish_is_fine(serve: Serve) -> None:
    """The finish reason is what ends an answer."""
    assert said(run(connect(serve(saying("a", done=False))), ask())) == "a"


# -- settings


@pytest.mark.parametrize(
    "settings",
    [
        {"url": ""},
        {"url": "ftp://127.0.0.1/v1"},
        {"url": "http://127.0.0.1:notaport/v1"},
        {"url": "http://user:pass@127.0.0.1/v1"},
        {"url": "http://127.0.0.1/v1?key=1"},
        {"model": ""},
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, str]) -> None:
    """Address and model are checked when the policy is built."""
    with pytest.raises(ConfigError, match=r"policy\.(url|model)"):
        connect(**{"endpoint": "http://127.0.0.1/v1", **settings})


def test_the_card_names_model_and_host() -> None:
    """The card says who answers, without the key."""
    card = connect("http://127.0.0.1:8000/v1").card
    assert (card.name, card.model) == ("remote", "some/model")
    assert "127.0.0.1:8000" in card.engine
    assert KEY not in repr(card)


def test_tokens_are_estimated() -> None:
    """The estimate is retrieval's."""
    text = "The quick 中国"
    assert connect("http://127.0.0.1:1/v1").count_tokens(text) == count_tokens(text)
