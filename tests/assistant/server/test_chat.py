"""Chat completions as OpenAI's own client sees them, strict, over a socket."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from tests.assistant.server.conftest import Running, Start

ASKED = [{"role": "user", "content": "How much does the widget cost?"}]


def test_an_answer_is_a_completion_with_its_sources(running: Running) -> None:
    """A completion has text with marks, an annotation for each, and the list of citations."""
    client = running.openai()
    made = client.chat.completions.create(model="plumbline", messages=ASKED)
    message = made.choices[0].message
    assert message.content == "The widget costs 40 euros. [1]"
    assert (made.choices[0].finish_reason, message.refusal) == ("stop", None)
    annotation = message.annotations[0].url_citation
    assert message.content[annotation.start_index : annotation.end_index] == "[1]"
    cited = made.citations[0]
    assert cited["quote"] == "The widget costs 40 euros."
    assert cited["url"] == annotation.url
    assert cited["source"] == "widget.md"
    assert made.usage.total_tokens == made.usage.prompt_tokens + made.usage.completion_tokens
    assert made.moderation.input.results[0].flagged is False


def test_a_stream_says_what_the_whole_says(running: Running) -> None:
    """Streamed content is the content of the unsplit answer; usage comes only when asked for."""
    client = running.openai()
    whole = client.chat.completions.create(model="plumbline", messages=ASKED)
    chunks = list(
        client.chat.completions.create(
            model="plumbline",
            messages=ASKED,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    *body, last = chunks
    assert len({c.id for c in chunks}) == 1
    assert body[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in body)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in body][-1] == "stop"
    assert last.choices == []
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert all(c.usage is None for c in body)
    annotations = [c.choices[0].delta.model_extra.get("annotations") for c in body]
    assert next(filter(None, annotations))[0]["url_citation"]["title"]
    plain = list(client.chat.completions.create(model="plumbline", messages=ASKED, stream=True))
    assert all(c.choices for c in plain)


def test_the_wire_is_one_json_a_line(running: Running) -> None:
    """Each event is one data line; [DONE] is the last; proxies are told not to buffer."""
    with running.http() as client:
        body = {"model": "plumbline", "messages": ASKED, "stream": True}
        answer = client.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
    events = answer.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(e.startswith("data: {") and "\n" not in e for e in events[:-2])


def test_several_choices_come_by_their_index(running: Running) -> None:
    """Several choices have n indices, streamed or not, and count once as read."""
    client = running.openai()
    made = client.chat.completions.create(model="plumbline", messages=ASKED, n=3)
    assert [c.index for c in made.choices] == [0, 1, 2]
    texts = ["", "", ""]
    for chunk in client.chat.completions.create(
        model="plumbline", messages=ASKED, n=3, stream=True
    ):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [c.message.content for c in made.choices]


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_is_not_told(running: Running, stream: bool) -> None:
    """The answer ends before the first stop string, and its sources go with their marks."""
    made = running.openai().chat.completions.create(
        model="plumbline", messages=ASKED, stop=["euros", "zebra"], stream=stream
    )
    if stream:
        text = "".join(c.choices[0].delta.content or "" for c in made)
    else:
        text = made.choices[0].message.content
        assert made.citations == []
        assert made.choices[0].finish_reason == "stop"
    assert text == "The widget costs 40 "


def test_the_newer_limit_wins(running: Running) -> None:
    """max_completion_tokens goes before max_tokens; an answer that is cut says length."""
    client = running.openai()
    made = client.chat.completions.create(
        model="plumbline", messages=ASKED, max_tokens=200, max_completion_tokens=3
    )
    assert made.choices[0].finish_reason == "length"
    assert made.usage.completion_tokens <= 3
    assert "The widget costs 40 euros.".startswith(made.choices[0].message.content.strip())


def test_what_is_refused_says_so(running: Running) -> None:
    """A refusal is a completion: refusal set, content not empty, content_filter, and flagged."""
    client = running.openai()
    messages = [{"role": "user", "content": "How do I build a pipe bomb at home?"}]
    made = client.chat.completions.create(model="plumbline", messages=messages)
    choice = made.choices[0]
    assert choice.finish_reason == "content_filter"
    assert choice.message.refusal
    assert choice.message.content == choice.message.refusal
    assert made.moderation.input.results[0].flagged is True
    chunks = list(client.chat.completions.create(model="plumbline", messages=messages, stream=True))
    assert "".join(c.choices[0].delta.refusal or "" for c in chunks) == choice.message.refusal
    assert chunks[-1].choices[0].finish_reason == "content_filter"


def test_content_comes_in_parts_and_from_developers(running: Running) -> None:
    """Content parts of text are joined; developer messages are taken as system messages are."""
    made = running.openai().chat.completions.create(
        model="plumbline",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "How much does the"},
                    {"type": "text", "text": "gadget cost?"},
                ],
            },
        ],
    )
    assert made.choices[0].message.content == "The gadget costs 70 euros. [1]"


def test_the_history_is_what_the_client_sends(running: Running) -> None:
    """A follow-up is understood by the messages before it, and nothing of it is remembered."""
    messages = [
        *ASKED,
        {"role": "assistant", "content": "The widget costs 40 euros. [1]"},
        {"role": "user", "content": "Where was it made?"},
    ]
    made = running.openai().chat.completions.create(model="plumbline", messages=messages)
    assert "widget" in running.turns[-1].reply.understanding.query
    assert made.choices[0].message.content
    assert running.assistant.conversations("local") == []


def test_sources_stand_below_where_asked(running: Running) -> None:
    """The model of sources, or a field, lists them in the text, for clients that drop the rest."""
    client = running.openai()
    made = client.chat.completions.create(model="plumbline-sources", messages=ASKED)
    assert "\n\nSources:\n[1] Widget – http" in made.choices[0].message.content
    again = client.chat.completions.create(
        model="plumbline", messages=ASKED, extra_body={"citations": "markdown"}
    )
    assert "\n\nSources:\n[1] Widget – http" in again.choices[0].message.content


TITLE = """### Task:
Generate a concise, 3-5 word title with an emoji summarizing the chat history.
### Output:
JSON format: { "title": "your concise title here" }
### Chat History:
<chat_history>
USER: How much does the widget cost?
ASSISTANT: The widget costs 40 euros.
</chat_history>"""


def test_titles_are_cheap(running: Running) -> None:
    """A front end's errand is answered from its own words: no turn is logged, nothing is cited."""
    before = len(running.turns)
    client = running.openai()
    made = client.chat.completions.create(
        model="plumbline", messages=[{"role": "user", "content": TITLE}]
    )
    assert made.choices[0].message.content == '{"title": "How much does the widget cost?"}'
    named = client.chat.completions.create(
        model="plumbline-tasks", messages=[*ASKED, {"role": "user", "content": "Name this chat."}]
    )
    assert named.choices[0].message.content.startswith("How much does the widget cost?")
    assert len(running.turns) == before


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"n": 5}, "n", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": "2"}, "n", "invalid_value"),
        ({"temperature": 2.5}, "temperature", "invalid_value"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "invalid_value"),
        ({"stop": 5}, "stop", "invalid_value"),
        ({"stop": "x" * 300}, "stop", "invalid_value"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": None}, "messages", "invalid_value"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role", "invalid_value"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages", "invalid_value"),
        (
            {"messages": [{"role": "user", "content": "x" * 40_000}]},
            "messages",
            "context_length_exceeded",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 256}] * 17},
            "messages",
            "invalid_value",
        ),
        ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"model": "gpt-9"}, "model", "model_not_found"),
        ({"conversation_id": "nobody's"}, "conversation_id", "conversation_not_found"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}}
                        ],
                    }
                ]
            },
            "messages.0.content.0",
            "unsupported_value",
        ),
    ],
)
def test_a_field_that_cannot_be_honoured_is_named(
    running: Running, change: dict[str, object], param: str, code: str
) -> None:
    """A refused request says which field, in OpenAI's form, and never with its value."""
    with running.http() as client:
        body = {"model": "plumbline", "messages": ASKED, **change}
        answer = client.post("/v1/chat/completions", json=body)
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert answer.status_code == (404 if code.endswith("not_found") else 400)
    assert error["type"] == "invalid_request_error"
    assert error["code"] == code
    assert error["param"] == param


@pytest.mark.parametrize(
    "extra",
    [
        {"user": "u1", "presence_penalty": 0.5, "frequency_penalty": 0, "top_p": 1},
        {"seed": 7, "temperature": 0, "logit_bias": {}, "metadata": {"a": "b"}},
        {"tools": [{"type": "function"}], "tool_choice": "none"},
        {"something_new": {"deep": [1, 2, 3]}, "stream": None, "n": None},
    ],
)
def test_fields_nobody_knows_are_let_pass(running: Running, extra: dict[str, object]) -> None:
    """What clients send beside the question does not stop it."""
    with running.http() as client:
        body = {"model": "plumbline", "messages": ASKED, **extra}
        answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", b"[]", 400),
        ("POST", "/v1/chat/completions", b"null", 400),
        ("POST", "/v1/chat/completions", b"\xff\xfe", 400),
        ("POST", "/v1/chat/completions", b'{"messages":' + b"[" * 100_000, 400),
        ("POST", "/v1/chat/completions", b"x" * 2_000_000, 413),
        ("GET", "/v1/chat/completions", b"", 405),
        ("GET", "/v1/nothing", b"", 404),
        ("GET", "/docs", b"", 404),
        ("POST", "/v1/models/%2e%2e/etc/passwd", b"", 405),
    ],
)
def test_every_error_has_the_one_form(
    running: Running, method: str, path: str, content: bytes, status: int
) -> None:
    """Whatever is sent, an error has OpenAI's body, an id, and nothing of the inside."""
    with running.http() as client:
        answer = client.request(
            method, path, content=content, headers={"content-type": "application/json"}
        )
    assert answer.status_code == status, answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"].startswith("req_")
    assert "/" + "assistant" not in answer.text


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_without_its_kind_is_told_what_to_do(running: Running, kind: str | None) -> None:
    """What curl sends by itself is refused with the header that is missing."""
    content = json.dumps({"model": "plumbline", "messages": ASKED})
    headers = {} if kind is None else {"content-type": kind}
    with running.http() as client:
        answer = client.post("/v1/chat/completions", content=content, headers=headers)
    assert answer.status_code == 400
    assert "Content-Type: application/json" in answer.json()["error"]["message"]


def test_of_several_kinds_the_nearest_is_told(running: Running) -> None:
    """A list that is too long is told so, and not that it is no text."""
    with running.http() as client:
        answer = client.post("/v1/moderations", json={"input": ["x"] * 65})
        file = client.post("/v1/documents", data={"file": "words"}, files={"other": b"x"})
    error = answer.json()["error"]
    assert (error["param"], "at most 64" in error["message"]) == ("input", True)
    assert file.json()["error"]["message"] == "file: Send a file, with its name."


def test_models_are_listed(running: Running) -> None:
    """The list and each of its models can be had; another name is not found."""
    client = running.openai()
    names = [m.id for m in client.models.list()]
    assert names[0] == "plumbline"
    assert client.models.retrieve(names[1]).id == names[1]
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("org/other")
    assert caught.value.code == "model_not_found"


def test_a_name_of_another_service_can_be_answered_to(start: Start) -> None:
    """A bot that has a model's name built in gets answers once the settings name it."""
    running = start(server__models="gpt-4o-mini")
    made = running.openai().chat.completions.create(model="gpt-4o-mini", messages=ASKED)
    assert made.model == "gpt-4o-mini"


def test_a_remembered_conversation(start: Start) -> None:
    """With an id the server keeps the turns, and only the last message counts."""
    running = start()
    own = running.assistant.parts.memory.open(None, "local", "Widgets")
    client = running.openai()
    client.chat.completions.create(
        model="plumbline", messages=ASKED, extra_body={"conversation_id": own}
    )
    made = client.chat.completions.create(
        model="plumbline",
        messages=[{"role": "user", "content": "Where was it made?"}],
        extra_headers={"x-conversation-id": own},
    )
    assert made.conversation_id == own
    assert running.assistant.turns(own)[0].user_text == ASKED[0]["content"]
    assert len(running.assistant.turns(own)) == 2


def test_a_web_page_cannot_ask(running: Running) -> None:
    """On loopback, other host names and foreign origins are turned away."""
    body = {"model": "plumbline", "messages": ASKED}
    with running.http() as client:
        rebound = client.post("/v1/chat/completions", json=body, headers={"host": "evil.example"})
        foreign = client.post(
            "/v1/chat/completions", json=body, headers={"origin": "https://evil.example"}
        )
    assert (rebound.status_code, foreign.status_code) == (421, 403)


def test_langchains_client_reads_it(running: Running) -> None:
    """ChatOpenAI streams and invokes."""
    from langchain_openai import ChatOpenAI

    model: Any = ChatOpenAI(
        model="plumbline-sources", base_url=f"{running.url}v1", api_key="none", max_retries=0
    )
    said = model.invoke("How much does the widget cost?").content
    assert said.startswith("The widget costs 40 euros. [1]\n\nSources:")
    streamed = "".join(c.content for c in model.stream("How much does the widget cost?"))
    assert streamed.split("/cit-")[0] == said.split("/cit-")[0]


def test_raw_requests_need_no_client(running: Running) -> None:
    """A plain HTTP client gets JSON with our headers."""
    answer = httpx.post(
        f"{running.url}v1/chat/completions", json={"model": "plumbline", "messages": ASKED}
    )
    assert answer.json()["object"] == "chat.completion"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert int(answer.headers["x-ratelimit-remaining-requests"]) > 0
