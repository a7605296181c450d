"""What OpenAI's own client sees, in whatever version: `python -m bench.conform_sdk TARGET`.

The argument is a JSON object with the fields of `Target`; the last line printed is the rows. It
needs the package openai and nothing of ours.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import openai

from bench.conform_rows import (
    ANSWER,
    HARM,
    MODEL,
    PRICE,
    Behaviours,
    Target,
    asked,
    dumped,
    holds,
    raised,
    same,
)

behaviour = Behaviours(f"openai {openai.__version__}")
MAJOR = int(openai.__version__.split(".")[0])


def client(target: Target, key: str = "", **options: Any) -> Any:
    """A client that validates what it gets, and does not retry unless it is told to."""
    given = {"max_retries": 0, "_strict_response_validation": True, **options}
    return openai.OpenAI(api_key=key or target.key, base_url=f"{target.url}v1", **given)


def whole(target: Target, text: str = PRICE, **more: Any) -> Any:
    """A completion."""
    return client(target).chat.completions.create(model=MODEL, messages=asked(text), **more)


def chunks(target: Target, text: str = PRICE, **more: Any) -> list[Any]:
    """The chunks of a stream."""
    return list(whole(target, text, stream=True, **more))


def text_of(found: list[Any]) -> str:
    """Their content."""
    return "".join(c.choices[0].delta.content or "" for c in found if c.choices)


@behaviour
def models(target: Target) -> None:
    """Models.list and models.retrieve give the same models; another is NotFoundError."""
    listed = client(target).models.list()
    same(listed.data[0].id, MODEL)
    for model in listed:
        same(client(target).models.retrieve(model.id).id, model.id)
    error = raised(openai.NotFoundError, lambda: client(target).models.retrieve("org/other"))
    same((error.code, error.type), ("model_not_found", "invalid_request_error"))


@behaviour
def completion(target: Target) -> None:
    """Chat.completions.create gives a completion with usage, strictly valid."""
    made = whole(target)
    same(made.choices[0].message.content, ANSWER)
    same(
        (made.object, made.model, made.choices[0].finish_reason), ("chat.completion", MODEL, "stop")
    )
    holds(made.id.startswith("chatcmpl-"), made.id)
    same(made.usage.total_tokens, made.usage.prompt_tokens + made.usage.completion_tokens)


@behaviour
def streamed(target: Target) -> None:
    """Stream=True gives the same text in chunks of one id, role first, finish_reason last."""
    found = chunks(target)
    same(text_of(found), whole(target).choices[0].message.content)
    same(len({(c.id, c.created, c.model, c.object) for c in found}), 1)
    same(found[0].choices[0].delta.role, "assistant")
    same(found[0].choices[0].delta.content, "")
    same([c.choices[0].finish_reason for c in found][-1], "stop")
    holds(all(c.choices[0].finish_reason is None for c in found[:-1]), "finish_reason too early")
    same(found[-1].choices[0].delta.content, None)


@behaviour
def usage(target: Target) -> None:
    """Include_usage adds one chunk without choices; without it every chunk has choices."""
    *rest, last = chunks(target, stream_options={"include_usage": True})
    same(last.choices, [])
    holds(last.usage.total_tokens > 0, "no usage")
    holds(all(c.usage is None and c.choices for c in rest), "usage in an earlier chunk")
    holds(all(c.choices for c in chunks(target)), "a chunk without choices")


@behaviour
def choices(target: Target) -> None:
    """N=3 gives three choices, streamed by their index."""
    made = whole(target, n=3)
    same([c.index for c in made.choices], [0, 1, 2])
    texts = ["", "", ""]
    for chunk in chunks(target, n=3):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    same(texts, [c.message.content for c in made.choices])


@behaviour
def stops(target: Target) -> None:
    """Stop as text or list ends the answer before it, streamed or not."""
    for stop in ("euros", ["zebra", "euros"]):
        made = whole(target, stop=stop)
        same((made.choices[0].message.content, made.choices[0].finish_reason),
             ("The widget costs 40 ", "stop"))  # fmt: skip
        same(text_of(chunks(target, stop=stop)), "The widget costs 40 ")


@behaviour
def limits(target: Target) -> None:
    """Max_completion_tokens goes before max_tokens, and ends with finish_reason length."""
    made = whole(target, max_tokens=500, max_completion_tokens=3)
    same(made.choices[0].finish_reason, "length")
    holds(made.usage.completion_tokens <= 3, "more tokens than asked for")
    same(chunks(target, max_tokens=3)[-1].choices[0].finish_reason, "length")


@behaviour
def parsed(target: Target) -> None:
    """The parse helper raises LengthFinishReasonError and ContentFilterFinishReasonError."""
    api = client(target).chat.completions
    parse = api.parse if hasattr(api, "parse") else client(target).beta.chat.completions.parse
    raised(
        openai.LengthFinishReasonError,
        lambda: parse(model=MODEL, messages=asked(), max_tokens=2),
    )
    raised(openai.ContentFilterFinishReasonError, lambda: parse(model=MODEL, messages=asked(HARM)))


@behaviour
def helper(target: Target) -> None:
    """The stream helper accumulates the same completion as create."""
    api = client(target).chat.completions
    api = api if hasattr(api, "stream") else client(target).beta.chat.completions
    with api.stream(model=MODEL, messages=asked()) as stream:
        for _ in stream:
            pass
        made = stream.get_final_completion()
    same(made.choices[0].message.content, ANSWER)


@behaviour
def refused(target: Target) -> None:
    """A moderated answer is a completion: refusal set, content not empty, content_filter."""
    choice = whole(target, HARM).choices[0]
    same(choice.finish_reason, "content_filter")
    holds(choice.message.refusal and choice.message.content, "no refusal or no content")
    found = chunks(target, HARM)
    said = "".join(c.choices[0].delta.refusal or "" for c in found)
    same((said, found[-1].choices[0].finish_reason), (choice.message.refusal, "content_filter"))


@behaviour
def verdicts(target: Target) -> None:
    """The verdicts stand in the top-level moderation, typed in 3.x."""
    for made in (whole(target, HARM), chunks(target, HARM)[-1]):
        found = made.to_dict()["moderation"]
        same(found["input"]["results"][0]["flagged"], True)
        if MAJOR >= 3:
            same(made.moderation.input.results[0].flagged, True)


@behaviour
def marks(target: Target) -> None:
    """Annotations are url_citations whose indices point at the marks; extra keys survive."""
    message = whole(target).choices[0].message
    cited = message.annotations[0].url_citation
    same(message.content[cited.start_index : cited.end_index], "[1]")
    holds(cited.title and cited.url.startswith("http"), "no title or url")
    extra = cited.model_extra or {}
    same(extra["quote"], "The widget costs 40 euros.")
    holds({"document_id", "chunk_id", "score"} <= extra.keys(), f"{sorted(extra)}")


@behaviour
def citations(target: Target) -> None:
    """The top-level citations and delta.annotations come through as extra fields."""
    made = whole(target)
    same(made.citations[0]["url"], made.choices[0].message.annotations[0].url_citation.url)
    found = chunks(target)
    given = [(c.choices[0].delta.model_extra or {}).get("annotations") for c in found]
    holds(any(given), "no annotations in the stream")
    holds(found[-1].citations, "no citations in the last chunk")


@behaviour
def inputs(target: Target) -> None:
    """Content parts, developer and system messages, names and unknown fields are taken."""
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "system", "content": "Be polite."},
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": PRICE}]},
    ]
    made = client(target).chat.completions.create(
        model=MODEL, messages=messages, user="u1", seed=7, temperature=0.5, top_p=0.9,
        presence_penalty=0.1, frequency_penalty=0.1, logit_bias={}, metadata={"a": "b"},
        extra_body={"something_new": {"deep": [1]}},
    )  # fmt: skip
    same(made.choices[0].message.content, ANSWER)


@behaviour
def refusals_of_fields(target: Target) -> None:
    """What cannot be honoured is BadRequestError with code and param, images included."""
    image = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}}
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"n": 9}, "n"),
        ({"tools": [tool]}, "tools"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": [{"role": "user", "content": [image]}]}, "messages.0.content.0"),
    ]
    for change, param in cases:
        given = {"model": MODEL, "messages": asked(), **change}
        error = raised(
            openai.BadRequestError,
            lambda given=given: client(target).chat.completions.create(**given),
        )
        same((error.param, error.type), (param, "invalid_request_error"))
        holds(error.code and error.request_id.startswith("req_"), "no code or request id")


@behaviour
def keys(target: Target) -> None:
    """A wrong key is AuthenticationError with code invalid_api_key."""
    error = raised(openai.AuthenticationError, lambda: client(target, "pl-wrong").models.list())
    same(error.code, "invalid_api_key")


@behaviour
def waits(target: Target) -> None:
    """A 429 is RateLimitError; with retries the client waits as Retry-After says and passes."""
    call = {"model": "plumbline-tasks", "messages": asked()}
    limited = client(target, target.once)

    def many() -> None:
        for _ in range(60):  # more than the key may in a minute
            limited.chat.completions.create(**call)

    error = raised(openai.RateLimitError, many)
    same(error.code, "rate_limit_exceeded")
    least = int(error.response.headers["retry-after"]) - 1  # rounded up to whole seconds
    began = time.monotonic()
    client(target, target.once, max_retries=2).chat.completions.create(**call)
    spent = time.monotonic() - began
    holds(spent >= 0.7 * least, f"waited {spent:.1f} s of {least} s")


@behaviour
def embeddings(target: Target) -> None:
    """Embeddings come as base64, which the client asks for, and as floats, and are the same."""
    texts = ["a widget", "北京塔"]
    # the client validates before it decodes, so that strictness is off for its own default
    lax = client(target, _strict_response_validation=False)
    coded = lax.embeddings.create(model="plumbline-embed", input=texts)
    plain = client(target).embeddings.create(
        model="plumbline-embed", input=texts, encoding_format="float"
    )
    for one, other in zip(coded.data, plain.data):  # noqa: B905 # the lengths are compared below
        holds(max(abs(a - b) for a, b in zip(one.embedding, other.embedding)) < 1e-6, "differ")  # noqa: B905
    same([len(coded.data), len(plain.data)], [2, 2])
    holds(plain.usage.total_tokens > 0, "no usage")


@behaviour
def moderations(target: Target) -> None:
    """Moderations.create flags what is harmful, with the thirteen categories."""
    made = client(target).moderations.create(input=["Hello.", HARM])
    same([r.flagged for r in made.results], [False, True])
    found = made.results[1].categories.to_dict()
    holds({"self-harm/intent", "sexual/minors", "illicit"} <= found.keys(), f"{sorted(found)}")


@behaviour
def raw_headers(target: Target) -> None:
    """With_raw_response shows the request id, the rate limits and the time spent."""
    answer = client(target).chat.completions.with_raw_response.create(model=MODEL, messages=asked())
    same(answer.parse().choices[0].message.content, ANSWER)
    for name in ("x-request-id", "openai-processing-ms", "x-ratelimit-limit-requests",
                 "x-ratelimit-remaining-tokens", "x-ratelimit-reset-requests"):  # fmt: skip
        holds(name in answer.headers, f"no {name}")


@behaviour
def remembers(target: Target) -> None:
    """Nothing is remembered without a conversation id; with one the turns are kept."""
    api = client(target)
    before = api.get("/conversations", cast_to=object)["data"]
    whole(target)
    same(len(api.get("/conversations", cast_to=object)["data"]), len(before))
    own = api.post("/conversations", cast_to=object, body={"title": "t"})["id"]
    whole(target, extra_body={"conversation_id": own})
    kept = api.get(f"/conversations/{own}", cast_to=object)["messages"]
    same([m["role"] for m in kept], ["user", "assistant"])


@behaviour
def feedback(target: Target) -> None:
    """Feedback takes the completion's id, and an Idempotency-Key makes a retry harmless."""
    made = whole(target)
    given = {"response_id": made.id, "rating": 1, "comment": "Good."}
    options = {"headers": {"Idempotency-Key": made.id}}
    for _ in range(2):
        said = client(target).post("/feedback", cast_to=object, body=given, options=options)
        same(said["accepted"], True)


@behaviour
def breaks(target: Target) -> None:
    """A policy that breaks in the middle of a stream is APIError with a body, no short answer."""
    broken = client(Target(target.faulty, target.key, "", "", ""))

    def read() -> None:
        for _ in broken.chat.completions.create(model=MODEL, messages=asked(), stream=True):
            pass

    error = raised(openai.APIError, read)
    holds(error.body and error.body["type"] == "server_error", f"{error.body}")


@behaviour
def leaves(target: Target) -> None:
    """A stream that is closed early leaves the server able to answer."""
    for _ in range(5):
        stream = whole(target, stream=True)
        next(iter(stream))
        stream.close()
    same(whole(target).choices[0].message.content, ANSWER)


@behaviour
def together(target: Target) -> None:
    """The asynchronous client gets six answers and streams at once."""

    async def one(api: Any, stream: bool) -> str:
        made = await api.chat.completions.create(model=MODEL, messages=asked(), stream=stream)
        if not stream:
            return str(made.choices[0].message.content)
        return text_of([chunk async for chunk in made])

    async def run() -> list[str]:
        given: dict[str, Any] = {"_strict_response_validation": True, "max_retries": 0}
        async with openai.AsyncOpenAI(
            api_key=target.key, base_url=f"{target.url}v1", **given
        ) as api:
            return await asyncio.gather(*(one(api, n % 2 == 0) for n in range(6)))

    same(set(asyncio.run(run())), {ANSWER})


if __name__ == "__main__":
    print(dumped(behaviour.run(Target(**json.loads(sys.argv[1])))))
