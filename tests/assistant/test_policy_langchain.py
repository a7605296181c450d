from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from langchain_core import exceptions as known
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import (
    FakeListChatModel,
    FakeMessagesListChatModel,
    GenericFakeChatModel,
)
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import PrivateAttr

from assistant.config import PolicySettings
from assistant.errors import (
    BackendMissing,
    ConfigError,
    PolicyError,
    PolicyRefused,
    PolicyUnavailable,
)
from assistant.policy.langchain import LangChainPolicy, build
from assistant.prompt import ABSTAIN
from assistant.schema import Delta, Sampling, Usage
from tests.assistant.endpoint import KEY, Handler, Serve, failing, saying, serving
from tests.assistant.policies import ask, resources, run, said


def chunk(content: Any, **more: Any) -> AIMessageChunk:
    """Make a piece of an answer."""
    return AIMessageChunk(content=content, **more)


class Saying(BaseChatModel):
    """A chat model that streams given pieces, waits, or raises; it keeps what it was given."""

    pieces: Sequence[Any] = ()
    pause: float = 0.0
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    num_predict: int | None = None
    _asked: list[Any] = PrivateAttr(default_factory=list)
    _left: threading.Event = PrivateAttr(default_factory=threading.Event)

    @property
    def _llm_type(self) -> str:
        return "saying"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage("unused"))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        values = (self.temperature, self.top_p, self.seed, self.num_predict)
        self._asked.append((messages, stop, values, kwargs))
        try:
            for piece in self.pieces:
                if isinstance(piece, Exception):
                    raise piece
                time.sleep(self.pause)
                made = piece if isinstance(piece, AIMessageChunk) else chunk(piece)
                yield ChatGenerationChunk(message=made)
        finally:
            self._left.set()


def policy(*pieces: Any, **fields: Any) -> LangChainPolicy:
    """Make a policy of a model that says these pieces."""
    return LangChainPolicy(Saying(pieces=pieces, **fields), "fake:saying", KEY)


def answer(*pieces: Any, **sampling: Any) -> tuple[str, str]:
    """Return what is shown of these pieces, and how it ends."""
    deltas = run(policy(*pieces), ask(), **sampling)
    return said(deltas), deltas[-1].finish


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start endpoints that are stopped after the test."""
    with serving() as start:
        yield start


# -- what is asked and shown


def test_the_prompt_and_the_sampling_reach_the_model() -> None:
    """Roles and texts are the prompt's; sampling is set where the model has a field for it."""
    made = policy("Yes.")
    prompt = ask("What?", "Cats purr.")
    run(made, prompt, temperature=0.5, top_p=0.9, max_tokens=7, seed=3, stop=("END", ""))
    model: Any = made._model
    ((messages, stop, values, kwargs),) = model._asked
    assert [(m.type, m.text) for m in messages] == [
        ({"user": "human"}.get(m.role, m.role), m.text) for m in prompt.messages
    ]
    assert (stop, values, kwargs) == (["END"], (0.5, 0.9, 3, 7), {})
    assert (model.temperature, model.num_predict) == (None, None)  # the model itself is unchanged


def test_a_model_can_be_left_as_it_was_made() -> None:
    """A reasoning model that takes no temperature gets none."""
    model = Saying(pieces=("Yes.",), temperature=1.0)
    run(LangChainPolicy(model, "fake", sampled=False), ask(), temperature=0.2, max_tokens=9)
    assert model._asked[0][2] == (1.0, None, None, None)


@pytest.mark.parametrize(
    "model",
    [
        FakeListChatModel(responses=["Cats purr [1]. They sleep. STOP Dogs"]),
        FakeMessagesListChatModel(responses=[AIMessage("Cats purr [1]. They sleep. STOP Dogs")]),
        GenericFakeChatModel(messages=iter([AIMessage("Cats purr [1]. They sleep. STOP Dogs")])),
    ],
    ids=lambda m: type(m).__name__,
)
def test_models_of_langchain_answer(model: BaseChatModel) -> None:
    """Whether a model streams letters, words or nothing, the answer is the same."""
    deltas = run(LangChainPolicy(model, "fake"), ask(), stop=("STOP",), max_tokens=50)
    assert (said(deltas), deltas[-1].finish) == ("Cats purr [1]. They sleep. ", "stop")


def test_pieces_come_as_they_are_made() -> None:
    """The first piece is there before the last one is made."""
    stream = policy("One. ", "Two.", pause=0.2).stream(ask(), Sampling())
    began = time.monotonic()
    assert next(stream).text == "One. "
    assert time.monotonic() - began < 0.39
    assert said(list(stream)) == "Two."


@pytest.mark.parametrize(
    "pieces",
    [
        ("<thi", "nk>hm</th", "ink>Yes", "."),
        (chunk([{"type": "reasoning", "reasoning": "hm", "index": 0}]), "Yes."),
        (chunk([{"type": "thinking", "thinking": "hm", "index": 0}]), "Yes."),
        (chunk([{"type": "text", "text": "Yes.", "index": 1}]),),
        (chunk("", additional_kwargs={"reasoning_content": "hm"}), "Yes."),
    ],
    ids=["tag", "reasoning", "thinking", "text", "beside"],
)
def test_reasoning_is_left_out(pieces: tuple[Any, ...]) -> None:
    """Neither a tag cut over pieces nor a block of content shows what the model thought."""
    assert answer(*pieces) == ("Yes.", "stop")


def test_the_marker_is_an_abstention() -> None:
    """An answer that begins with the marker shows nothing."""
    assert answer(ABSTAIN[:4], ABSTAIN[4:], " and more") == ("", "abstain")


def test_a_stop_string_is_found_across_pieces() -> None:
    """The answer ends before it, also where the model does not know stop strings."""
    assert answer("Yes. ST", "OP No.", stop=("STOP",)) == ("Yes. ", "stop")


@pytest.mark.parametrize(
    ("metadata", "finish"),
    [
        ({"finish_reason": "stop"}, "stop"),
        ({"finish_reason": "length"}, "length"),
        ({"finish_reason": "MAX_TOKENS"}, "length"),
        ({"stop_reason": "end_turn"}, "stop"),
        ({"stop_reason": "max_tokens"}, "length"),
        ({"done_reason": "length"}, "length"),
        ({}, "stop"),
    ],
)
def test_the_finish_is_mapped(metadata: dict[str, str], finish: str) -> None:
    """A cut answer says so, in the words of every provider."""
    assert answer("Yes", chunk(".", response_metadata=metadata)) == ("Yes.", finish)


def test_usage_is_kept() -> None:
    """Token counts of the pieces are added up; without any there is none."""
    first = {"input_tokens": 9, "output_tokens": 0, "total_tokens": 9}
    last = {"input_tokens": 0, "output_tokens": 2, "total_tokens": 2}
    cached = {"input_token_details": {"cache_read": 8}}
    deltas = run(
        policy(
            chunk("Yes", usage_metadata={**first, **cached}),
            chunk(".", usage_metadata=last),
        ),
        ask(),
    )
    assert deltas[-1] == Delta("", finish="stop", usage=Usage(9, 2, 8))
    assert run(policy("Yes."), ask())[-1].usage is None


def test_a_model_that_ignores_the_limit_is_stopped() -> None:
    """More pieces than tokens were asked for end the answer, and the model's work."""
    made = policy(*["word "] * 5000)
    deltas = run(made, ask(), max_tokens=5)
    assert (said(deltas), deltas[-1].finish) == ("word " * 5, "length")
    model: Any = made._model
    assert model._left.wait(5)


# -- errors


class Odd(Exception):
    """An error of a provider's package, with a status as many have it."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status_code = status


class ReadTimeout(Exception):
    """A package's own name for it."""


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (known.ModelAuthenticationError("no"), PolicyRefused, r"policy\.api_key"),
        (known.ModelPermissionDeniedError("no"), PolicyRefused, "allowed"),
        (known.ModelNotFoundError("no"), PolicyRefused, r"policy\.model"),
        (known.ContextOverflowError("no"), PolicyRefused, r"policy\.passages"),
        (known.ModelInvalidRequestError("no"), PolicyRefused, r"policy\.model"),
        (known.ModelRateLimitError("no"), PolicyUnavailable, "later"),
        (known.ModelAPIError("no"), PolicyUnavailable, "later"),
        (known.ModelConnectionError("no"), PolicyUnavailable, "later"),
        (known.ModelTimeoutError("no"), PolicyUnavailable, "later"),
        (Odd("no", 401), PolicyRefused, r"policy\.api_key"),
        (Odd("no", 429), PolicyUnavailable, "later"),
        (Odd("no", 503), PolicyUnavailable, "later"),
        (Odd("no", 422), PolicyRefused, r"policy\.model"),
        (ReadTimeout("no"), PolicyUnavailable, "later"),
        (ConnectionResetError("no"), PolicyUnavailable, "later"),
        (Odd("no"), PolicyError, "Odd: no"),
        (ValueError("not json"), PolicyError, "ValueError: not json"),
    ],
)
@pytest.mark.parametrize("before", [(), ("half ",)], ids=["at once", "in mid-answer"])
def test_errors_are_ours(
    error: Exception, kind: type[PolicyError], said: str, before: tuple[str, ...]
) -> None:
    """Whatever a provider's package raises, and when: one of ours, with model and remedy."""
    with pytest.raises(PolicyError, match=f"fake:saying failed.*{said}") as caught:
        run(policy(*before, error), ask())
    assert type(caught.value) is kind


def test_an_error_repeats_no_key() -> None:
    """Neither our own key nor what looks like one stands in a message."""
    other = "sk-proj-" + "a1B2" * 12
    with pytest.raises(PolicyError) as caught:
        run(policy(Odd(f"wrong key {KEY} or {other}")), ask())
    assert KEY not in str(caught.value)
    assert other not in str(caught.value)


@pytest.mark.parametrize("reason", ["content_filter", "SAFETY", "refusal"])
def test_a_content_filter_is_a_refusal(reason: str) -> None:
    """What the provider's filter stopped is an error, not half an answer."""
    with pytest.raises(PolicyRefused, match="content filter"):
        answer("Half", chunk("", response_metadata={"finish_reason": reason}))


def test_no_answer_in_time_is_unavailable() -> None:
    """The time limit holds whatever the model does in its thread."""
    began = time.monotonic()
    with pytest.raises(PolicyUnavailable, match=r"policy\.seconds"):
        run(policy("late", pause=1.5), ask(), seconds=0.2)
    assert time.monotonic() - began < 1.2


def test_an_answer_cut_by_the_deadline_is_too_long() -> None:
    """What came in time is kept, and said to be cut."""
    deltas = run(policy(*["word "] * 60, pause=0.1), ask(), seconds=0.65)
    assert deltas[-1].finish == "length"
    assert 1 <= said(deltas).count("word ") < 10


def test_leaving_ends_the_models_work() -> None:
    """A reader who leaves stops the model at its next piece."""
    made = policy(*["word "] * 5000, pause=0.01)
    stream = made.stream(ask(), Sampling(max_tokens=10_000))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    model: Any = made._model
    assert model._left.wait(5)


def test_tracing_stays_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of another project sends no prompt to a tracing service."""
    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    monkeypatch.setenv("LANGSMITH_API_KEY", "k")
    assert answer("Yes.") == ("Yes.", "stop")
    assert not [t for t in threading.enumerate() if "langsmith" in t.name.lower()]


# -- from settings


def made(**settings: Any) -> Any:
    """Build from settings."""
    return build(PolicySettings(backend="langchain", **settings), resources())


@pytest.mark.parametrize("model", ["", "openai", "openai:", ":gpt"])
def test_a_model_needs_provider_and_name(model: str) -> None:
    """Half a name is refused with the way to write it."""
    with pytest.raises(ConfigError, match="write provider:model"):
        made(model=model)


def test_an_unknown_provider_is_named() -> None:
    """LangChain's own list is part of the message."""
    with pytest.raises(ConfigError, match=r"nonesuch:m.*cannot be made by LangChain"):
        made(model="nonesuch:m")


def test_a_missing_package_is_named() -> None:
    """The provider's package is what to install."""
    with pytest.raises(BackendMissing, match="langchain-mistralai"):
        made(model="mistralai:m")


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the provider wants to know is said when the policy is built."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"openai:m.*policy\.api_key"):
        made(model="openai:m")


def test_a_providers_model_answers(serve: Serve) -> None:
    """Address, key, name and sampling reach the provider's package, and its answer comes back."""
    end = serve(saying("Cats ", "purr [1]."))
    policy = made(model="openai:small", url=end.url, api_key=KEY)
    deltas = run(policy, ask(), max_tokens=9, temperature=0.5, seed=4, stop=("X",))
    assert (said(deltas), deltas[-1].finish) == ("Cats purr [1].", "stop")
    (body,) = end.bodies
    assert (body["model"], body["temperature"], body["seed"]) == ("small", 0.5, 4)
    assert 9 in (body.get("max_tokens"), body.get("max_completion_tokens"))
    assert end.headers[0]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("status", "kind"), [(401, PolicyRefused), (404, PolicyRefused), (503, PolicyUnavailable)]
)
def test_a_providers_errors_are_ours(serve: Serve, status: int, kind: type[PolicyError]) -> None:
    """A status of the endpoint comes out as it does with the remote policy, without the key."""
    end = serve(failing(status, f"no {KEY}"))
    policy = made(model="openai:m", url=end.url, api_key=KEY, retries=0)
    with pytest.raises(kind) as caught:
        run(policy, ask())
    assert KEY not in str(caught.value)


def garbled(handler: Handler) -> None:
    """Begin well, then send what is no JSON."""
    handler.start()
    handler.chunk("half")
    handler.line("{not json")


def page(handler: Handler) -> None:
    """Answer with a page."""
    handler.start("text/html")
    handler.wfile.write(b"<html>Please log in</html>")


@pytest.mark.parametrize("act", [garbled, page])
def test_what_is_no_answer_is_an_error(serve: Serve, act: Any) -> None:
    """Malformed pieces and error pages are errors of ours, whatever the package makes of them."""
    policy = made(model="openai:m", url=serve(act).url, api_key=KEY, retries=0)
    with pytest.raises(PolicyError):
        run(policy, ask())
