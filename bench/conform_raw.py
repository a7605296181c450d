"""What stands on the wire, read without any client's help."""

from __future__ import annotations

import base64
import json
import re
import socket
import struct
import threading
import time
from typing import Any

import httpx

from bench.conform_rows import (
    ANSWER,
    HARM,
    MODEL,
    PRICE,
    Behaviours,
    Target,
    asked,
    holds,
    same,
)

behaviour = Behaviours("raw HTTP")
CHAT = "/v1/chat/completions"
KEYS = {"message", "type", "param", "code"}


def http(target: Target, key: str = "") -> httpx.Client:
    """A plain client."""
    headers = {"authorization": f"Bearer {key or target.key}"}
    return httpx.Client(base_url=target.url, headers=headers, timeout=60)


def post(target: Target, path: str = CHAT, **more: Any) -> httpx.Response:
    """One request; chat where no path is named."""
    given = {"model": MODEL, "messages": asked(), **more} if path == CHAT else more
    with http(target) as client:
        return client.post(path, json=given)


def events(answer: httpx.Response) -> list[Any]:
    """The JSON of each event but the last, which must be [DONE]."""
    parts = answer.text.split("\n\n")
    same(parts[-2:], ["data: [DONE]", ""])
    return [json.loads(part.removeprefix("data: ")) for part in parts[:-2]]


@behaviour
def framing(target: Target) -> None:
    """Every event is one line of `data: ` and one JSON object; the last is [DONE]."""
    answer = post(target, stream=True)
    for part in answer.text.split("\n\n")[:-1]:
        holds(part.startswith("data: ") and "\n" not in part, part)
    holds(events(answer), "no events")


@behaviour
def stream_headers(target: Target) -> None:
    """A stream is text/event-stream, is not cached, and proxies are told not to buffer it."""
    headers = post(target, stream=True).headers
    holds(headers["content-type"].startswith("text/event-stream"), headers["content-type"])
    holds("no-" in headers["cache-control"], headers["cache-control"])
    same(headers["x-accel-buffering"], "no")


@behaviour
def chunk_form(target: Target) -> None:
    """Chunks have one id, created, model and object; the last has an empty delta."""
    found = events(post(target, stream=True))
    heads = {(c["id"], c["created"], c["model"], c["object"]) for c in found}
    same(len(heads), 1)
    same(heads.pop()[3], "chat.completion.chunk")
    same(found[0]["choices"][0]["delta"], {"role": "assistant", "content": ""})
    same((found[-1]["choices"][0]["delta"], found[-1]["choices"][0]["finish_reason"]), ({}, "stop"))


@behaviour
def split_stops(target: Target) -> None:
    """A stop string that is split over pieces does not leak in part."""
    for stop in (" [1]", "40 euros. [", "s. [1]"):
        found = events(post(target, stream=True, stop=stop))
        text = "".join(c["choices"][0]["delta"].get("content", "") for c in found)
        same(text, ANSWER[: ANSWER.index(stop)])


@behaviour
def error_form(target: Target) -> None:
    """Every error has {error: {message, type, param, code}} and x-request-id, whatever it is."""
    cases: list[tuple[str, str, bytes, int]] = [
        ("POST", CHAT, b"{", 400),
        ("POST", CHAT, b"[]", 400),
        ("POST", CHAT, b"null", 400),
        ("POST", CHAT, b"\xff\xfe", 400),
        ("POST", CHAT, b'{"messages":' + b"[" * 50_000, 400),
        ("POST", CHAT, json.dumps({"model": MODEL, "messages": "x"}).encode(), 400),
        ("POST", CHAT, json.dumps({"model": "gpt-9", "messages": asked()}).encode(), 404),
        ("POST", CHAT, b"x" * 2_000_000, 413),
        ("GET", CHAT, b"", 405),
        ("GET", "/v1/nothing", b"", 404),
        ("GET", "/v1/conversations/none", b"", 404),
        ("GET", "/v1/citations/none", b"", 404),
    ]
    with http(target) as client:
        for method, path, content, status in cases:
            answer = client.request(
                method, path, content=content, headers={"content-type": "application/json"}
            )
            same((method, path, answer.status_code), (method, path, status))
            same(set(answer.json()["error"]), KEYS)
            holds(answer.headers["x-request-id"].startswith("req_"), "no request id")
            holds(not re.search(r"/(work|home|usr|site-packages)|Traceback|SELECT", answer.text),
                  answer.text)  # fmt: skip


@behaviour
def no_key(target: Target) -> None:
    """Without a key and with a wrong one every path is 401 with invalid_api_key."""
    for headers in ({}, {"authorization": "Bearer pl-x"}, {"authorization": "Basic eDp5"}):
        for path in (CHAT, "/v1/models", "/v1/openapi.json", "/", "/docs", "/metrics"):
            answer = httpx.get(f"{target.url.rstrip('/')}{path}", headers=headers)
            same((path, answer.status_code), (path, 401))
            same(answer.json()["error"]["code"], "invalid_api_key")


@behaviour
def azure_key(target: Target) -> None:
    """A key in the header api-key is as good."""
    answer = httpx.get(f"{target.url}v1/models", headers={"api-key": target.key})
    same(answer.status_code, 200)


@behaviour
def rate_headers(target: Target) -> None:
    """Answers carry the six rate headers, with resets as OpenAI writes them."""
    for stream in (False, True):
        headers = post(target, stream=stream).headers
        for kind in ("requests", "tokens"):
            for what in ("limit", "remaining"):
                holds(headers[f"x-ratelimit-{what}-{kind}"].isdecimal(), "no number")
            holds(re.fullmatch(r"(\d+m)?\d+s|\d+ms", headers[f"x-ratelimit-reset-{kind}"]), "form")
        holds(headers["openai-processing-ms"].isdecimal(), "no openai-processing-ms")


@behaviour
def images(target: Target) -> None:
    """An image is refused with 400 and its address is never fetched."""
    visits: list[object] = []
    trap = socket.create_server(("127.0.0.1", 0))
    trap.settimeout(1.0)

    def wait() -> None:
        try:
            visits.append(trap.accept())
        except OSError:
            return

    thread = threading.Thread(target=wait)
    thread.start()
    url = f"http://127.0.0.1:{trap.getsockname()[1]}/x.png"
    part = {"type": "image_url", "image_url": {"url": url}}
    answer = post(target, messages=[{"role": "user", "content": [part]}])
    thread.join()
    trap.close()
    same((answer.status_code, visits), (400, []))


@behaviour
def strictness(target: Target) -> None:
    """Values of a wrong type are 400 with the field's name, and are not coerced."""
    cases: list[tuple[dict[str, Any], str]] = [
        ({"n": "2"}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages"),
        ({"model": 5}, "model"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ]
    for change, param in cases:
        answer = post(target, **change)
        error = answer.json()["error"]
        same((answer.status_code, error["param"].split(".")[0]), (400, param))


@behaviour
def vectors(target: Target) -> None:
    """Base64 vectors are little-endian float32, equal to the floats, of one length."""
    given = {"model": "plumbline-embed", "input": ["a widget", "北京塔"]}
    plain = post(target, "/v1/embeddings", **given, encoding_format="float").json()["data"]
    coded = post(target, "/v1/embeddings", **given, encoding_format="base64").json()["data"]
    for one, other in zip(plain, coded, strict=True):
        found = base64.b64decode(other["embedding"])
        floats = struct.unpack(f"<{len(found) // 4}f", found)
        holds(max(abs(a - b) for a, b in zip(one["embedding"], floats, strict=True)) < 1e-6, "")
    answer = post(target, "/v1/embeddings", model="plumbline-embed", input=[[1, 2], [3]])
    same((answer.status_code, answer.json()["error"]["param"]), (400, "input"))


@behaviour
def moderation_keys(target: Target) -> None:
    """Moderations have categories, scores and applied input types with the same keys."""
    found = post(target, "/v1/moderations", input=HARM).json()["results"][0]
    same(found["flagged"], True)
    same(found["categories"].keys(), found["category_scores"].keys())
    same(found["categories"].keys(), found["category_applied_input_types"].keys())


@behaviour
def markdown(target: Target) -> None:
    """Citations: markdown lists the sources below the text, streamed or not."""
    whole = post(target, citations="markdown").json()["choices"][0]["message"]["content"]
    holds("\n\nSources:\n[1] Widget – http" in whole, whole)
    found = events(post(target, citations="markdown", stream=True))
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in found)
    same(text.split("/cit-")[0], whole.split("/cit-")[0])


@behaviour
def citation_addresses(target: Target) -> None:
    """A citation's address gives the quote to its owner and 404 to another tenant."""
    url = post(target).json()["citations"][0]["url"]
    with http(target) as client:
        found = client.get(url)
    same((found.status_code, found.json()["quote"]), (200, "The widget costs 40 euros."))
    with http(target, target.other) as client:
        same(client.get(url).status_code, 404)


@behaviour
def feedback_is_owned(target: Target) -> None:
    """Another tenant's completion cannot be rated."""
    made = post(target).json()["id"]
    with http(target, target.other) as client:
        answer = client.post("/v1/feedback", json={"response_id": made, "rating": 1})
    same((answer.status_code, answer.json()["error"]["code"]), (404, "response_not_found"))


@behaviour
def errands(target: Target) -> None:
    """A front end's request for a title is answered without a search and without citations."""
    prompt = (
        "### Task:\nGenerate a concise, 3-5 word title with an emoji summarizing the chat "
        'history.\n### Output:\nJSON format: { "title": "your concise title here" }\n'
        f"### Chat History:\n<chat_history>\nUSER: {PRICE}\nASSISTANT: 40.\n</chat_history>"
    )
    made = post(target, messages=asked(prompt)).json()
    same(json.loads(made["choices"][0]["message"]["content"]), {"title": PRICE})
    same(made["citations"], [])


@behaviour
def described(target: Target) -> None:
    """OpenAPI names both content types of the chat, and the error body."""
    with http(target) as client:
        made = client.get("/v1/openapi.json").json()
    found = made["paths"][CHAT]["post"]["responses"]
    holds({"application/json", "text/event-stream"} <= found["200"]["content"].keys(), "types")
    holds(found["400"]["content"]["application/json"]["schema"]["$ref"].endswith("ErrorBody"), "")


@behaviour
def broken_stream(target: Target) -> None:
    """A policy that breaks ends a stream with an error event, without choices and [DONE]."""
    with httpx.Client(base_url=target.faulty, timeout=60) as client:
        given = {"model": MODEL, "messages": asked(), "stream": True}
        answer = client.post(CHAT, json=given, headers={"authorization": f"Bearer {target.key}"})
    same((answer.status_code, "40 euros" in answer.text), (200, True))
    last = answer.text.rstrip("\n").split("\n\n")[-1]
    found = json.loads(last.removeprefix("data: "))
    same((set(found), set(found["error"])), ({"error"}, KEYS))
    holds("[DONE]" not in answer.text, "[DONE] after an error")


@behaviour
def early_errors(target: Target) -> None:
    """What is wrong before the first word has a status of its own in a stream too."""
    answer = post(target, stream=True, conversation_id="nobody's")
    same((answer.status_code, answer.json()["error"]["code"]), (404, "conversation_not_found"))


@behaviour
def inert_sources(target: Target) -> None:
    """No title or text of a document puts an image or a tag into an answer or its sources."""
    page = (
        "<title>![t](http://evil.test/t.png) &lt;img src=http://evil.test/u.png&gt; Okapis</title>"
        "<p>The okapi costs 99 euros, ![x](http://evil.test/x.png?d=1) it is said.</p>"
    )
    files = {"file": ("okapi.html", page.encode(), "text/html")}
    with http(target) as client:
        made = client.post("/v1/documents", files=files).json()
        for _ in range(200):
            if client.get(f"/v1/documents/{made['id']}").json()["status"] == "ready":
                break
            time.sleep(0.05)
        asks: dict[str, Any] = {"messages": asked("How much does the okapi cost?")}
        asks["citations"] = "markdown"
        whole = post(target, **asks).json()["choices"][0]["message"]["content"]
        deltas = [
            c["delta"] for e in events(post(target, **asks, stream=True)) for c in e["choices"]
        ]
        for text in (whole, "".join(d.get("content", "") for d in deltas)):
            holds("99 euros" in text and "evil.test/" not in text and "<img" not in text, text)
        client.delete(f"/v1/documents/{made['id']}")


@behaviour
def foreign_pages(target: Target) -> None:
    """On loopback other host names are 421, and pages of other sites 403."""
    headers = {"authorization": f"Bearer {target.key}"}
    for more, status in (
        ({"host": "evil.example"}, 421),
        ({"origin": "https://evil.example"}, 403),
    ):
        answer = httpx.get(f"{target.url}v1/models", headers={**headers, **more})
        same(answer.status_code, status)
