"""Any LangChain chat model as a policy.

From settings, `policy.model` is "provider:model" as `langchain.chat_models.init_chat_model` takes
it ("ollama:qwen3"); from Python, any object: `LangChainPolicy(model, "my-model")`.

The model runs in a thread of its own, so that an answer ends in time whatever the provider's
package does. Temperature, nucleus, seed and length are set on a copy of the model where it has such
fields. Reasoning is left out, be it a block of content or a tag in the text. Nothing is sent to a
tracing service, whatever the environment says.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any, Literal

import langchain
from langchain.chat_models import init_chat_model
from langchain_core import exceptions as known
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langsmith import tracing_context

from assistant.config import PolicySettings
from assistant.errors import (
    BackendMissing,
    ConfigError,
    PolicyError,
    PolicyRefused,
    PolicyUnavailable,
)
from assistant.policy._stream import Cleaner, Length, resolve
from assistant.policy.base import Policy, Resources
from assistant.schema import Delta, Message, PolicyCard, Prompt, Sampling, Usage
from retrieval.text import count_tokens
from safety.leaks import mask

logger = logging.getLogger(__name__)

#: What providers call the four settings of sampling; the first field that a model has is set.
FIELDS = {
    "temperature": ("temperature",),
    "top_p": ("top_p",),
    "seed": ("seed", "random_seed"),
    "max_tokens": ("max_tokens", "max_output_tokens", "num_predict", "max_new_tokens"),
}
#: Where providers say why an answer ended, and what means that it was cut or withheld.
REASONS = ("finish_reason", "stop_reason", "stopReason", "done_reason")
CUT = ("length", "max_tokens", "model_length", "max_output_tokens")
WITHHELD = ("content_filter", "safety", "refusal", "guardrail_intervened", "prohibited_content")
ROLES = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}
#: Pieces that may wait for a slow reader before the model has to wait too.
AHEAD = 64

Finish = Literal["", "stop", "length", "abstain"]


class LangChainPolicy:
    """A chat model of LangChain. Safe for several threads where the model is.

    Args:
        model: the model; it is not changed.
        name: its name, for the log.
        key: a secret that no error message may repeat.
        sampled: whether temperature, nucleus, seed and length of the settings are set on it; False
            leaves a model that takes none of them (some reasoning models) as it was made.
    """

    def __init__(
        self, model: BaseChatModel, name: str, key: str = "", *, sampled: bool = True
    ) -> None:
        self.card = PolicyCard("langchain", name, engine=f"langchain {langchain.__version__}")
        self._model = model
        self._key = key
        self._sampled = sampled

    def __repr__(self) -> str:
        return f"LangChainPolicy(model={self.card.model!r})"

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Delta]:
        """Stream an answer; closing the iterator ends the model's at its next piece.

        Raises:
            PolicyUnavailable: unreachable, overloaded or too slow.
            PolicyRefused: the provider rejects key, model, size or content.
            PolicyError: the provider's package failed otherwise.
        """
        sampling = resolve(sampling)
        work = _Work(self._configured(sampling), _converted(prompt.messages), sampling)
        cleaner, length = Cleaner(sampling.stop), Length(sampling.max_tokens)
        counted = add_usage(None, None)  # pieces tell of their own part
        finish: Finish = ""
        shown = False
        try:
            for piece in work.pieces():
                if isinstance(piece, BaseException):
                    raise self._failed(piece) from None  # the original may quote prompt and key
                text = str(piece.text)
                counted = add_usage(counted, piece.usage_metadata)
                finish = self._finish(piece) or finish
                if length.over(text):  # the limit was ignored
                    finish = "length"
                    break
                clean = cleaner.feed(text)
                if cleaner.ended:
                    yield Delta(clean, finish=cleaner.ended, usage=_usage(counted))
                    return
                if clean:
                    shown = True
                    yield Delta(clean)
        finally:
            work.stop()
        if work.late and not shown:
            raise PolicyUnavailable(
                f"{self.card.model} gave no answer within {sampling.seconds:g} s; try again later "
                "or raise policy.seconds"
            )
        finish = "length" if work.late else finish or "stop"
        yield Delta(cleaner.finish(), finish=cleaner.ended or finish, usage=_usage(counted))

    def count_tokens(self, text: str) -> int:
        """Estimate, within some tens of percent: only the provider knows its tokenizer."""
        return count_tokens(text)

    def close(self) -> None:
        """Do nothing: connections are the model's own."""

    def _configured(self, sampling: Sampling) -> BaseChatModel:
        """A copy of the model that samples as asked, as far as it can; connections are shared."""
        if not self._sampled:
            return self._model
        fields = type(self._model).model_fields
        values: dict[str, Any] = {}
        for ours, names in FIELDS.items():
            # some providers take temperature or nucleus, not both: the whole mass says nothing
            name = next((n for n in names if n in fields), "")
            if name and (ours != "top_p" or sampling.top_p < 1):
                values[name] = getattr(sampling, ours)
        return self._model.model_copy(update=values)

    def _finish(self, piece: BaseMessage) -> Finish:
        """Why the answer ended, where a piece says so."""
        said = (piece.response_metadata.get(name) for name in REASONS)
        reason = str(next((s for s in said if s), "")).rsplit(".", 1)[-1].lower()
        if reason in WITHHELD:
            raise PolicyRefused(f"the content filter of {self.card.model} stopped the answer")
        return "" if not reason else "length" if reason in CUT else "stop"

    def _failed(self, error: BaseException) -> PolicyError:
        """What a provider's error means; its text is shown without keys, and cut."""
        text = " ".join(str(error).split())
        text = mask(text.replace(self._key, "***") if self._key else text).text[:200]
        said = f"{self.card.model} failed ({type(error).__name__}: {text})"
        status = getattr(error, "status_code", None)
        status = getattr(getattr(error, "response", None), "status_code", status)
        code = status if isinstance(status, int) else 0
        if isinstance(error, known.ModelAuthenticationError) or code == 401:
            return PolicyRefused(f"{said}; check policy.api_key or the provider's variable")
        if isinstance(error, known.ModelPermissionDeniedError) or code == 403:
            return PolicyRefused(f"{said}; check what the key is allowed to use")
        if isinstance(error, known.ModelNotFoundError) or code == 404:
            return PolicyRefused(f"{said}; check policy.model and policy.url")
        if isinstance(error, known.ContextOverflowError) or code == 413:
            return PolicyRefused(f"{said}; lower policy.passages or policy.context_tokens")
        if _passing(error) or code in (408, 409, 429) or code >= 500:
            return PolicyUnavailable(f"{said}; try again later")
        if isinstance(error, known.ModelInvalidRequestError) or 400 <= code < 500:
            return PolicyRefused(f"{said}; check policy.model and the settings of policy")
        return PolicyError(f"{said}; check the model with LangChain alone")


class _Work:
    """One answer, made in a thread of its own and read within a time limit."""

    def __init__(
        self, model: BaseChatModel, messages: list[BaseMessage], sampling: Sampling
    ) -> None:
        self._model = model
        self._messages = messages
        self._stop = [s for s in sampling.stop if s] or None
        self._deadline = time.monotonic() + sampling.seconds
        self._ready: queue.Queue[AIMessage | BaseException | None] = queue.Queue(AHEAD)
        self._stopped = threading.Event()
        #: Whether the time was over before the answer.
        self.late = False
        # a daemon: a package that hangs in its connection must not keep the program from ending
        threading.Thread(target=self._run, name="langchain-policy", daemon=True).start()

    def pieces(self) -> Iterator[AIMessage | BaseException]:
        """What the model sends, or the error it ends with; ends at the deadline too."""
        while True:
            left = self._deadline - time.monotonic()
            try:
                piece = self._ready.get(timeout=min(max(left, 0.001), threading.TIMEOUT_MAX))
            except queue.Empty:
                piece, self.late = None, True
            if piece is None:
                return
            yield piece
            if time.monotonic() >= self._deadline:
                self.late = True
                return

    def stop(self) -> None:
        """Let the thread end at the model's next piece."""
        self._stopped.set()

    def _run(self) -> None:
        try:
            with tracing_context(enabled=False):
                source = self._model.stream(self._messages, stop=self._stop)
                for piece in source:
                    self._put(piece)
                    if self._stopped.is_set():
                        source.close()  # type: ignore[attr-defined]
                        return
        except Exception as error:  # every provider's package has errors of its own
            self._put(error)
        else:
            self._put(None)

    def _put(self, piece: AIMessage | BaseException | None) -> None:
        while not self._stopped.is_set():
            try:
                return self._ready.put(piece, timeout=0.1)
            except queue.Full:
                continue


def build(options: PolicySettings, resources: Resources) -> Policy:
    """Make the model "provider:model"; it is not asked before the first question.

    Raises:
        ConfigError: policy.model is malformed, or the provider cannot be set up with what it says.
        BackendMissing: the provider's package is not installed.
    """
    if not all(options.model.partition(":")[::2]):
        raise ConfigError(
            f"policy.model = {options.model!r} is no LangChain model; write provider:model, such "
            "as ollama:qwen3"
        )
    key = options.api_key.get_secret_value()
    given: dict[str, Any] = {"timeout": options.seconds, "max_retries": options.retries}
    given |= {"api_key": key} if key else {}
    given |= {"base_url": options.url} if options.url else {}
    try:
        model = init_chat_model(options.model, **given)
    except ImportError as error:
        raise BackendMissing(
            f"policy.model = {options.model!r}: {error}; install the provider's package"
        ) from error
    except Exception as error:  # what a provider wants to know is its own affair, and its errors
        reason = " ".join(str(error).split())
        reason = mask(reason.replace(key, "***") if key else reason).text[:300]
        raise ConfigError(
            f"policy.model = {options.model!r} cannot be made by LangChain ({reason}); set what "
            "the provider needs, such as policy.api_key"
        ) from None
    assert isinstance(model, BaseChatModel)
    return LangChainPolicy(model, options.model, key)


def _converted(messages: tuple[Message, ...]) -> list[BaseMessage]:
    return [ROLES[m.role](m.text) for m in messages]


def _usage(counted: UsageMetadata) -> Usage | None:
    if not counted["total_tokens"]:
        return None
    cached = counted.get("input_token_details", {}).get("cache_read", 0)
    return Usage(counted["input_tokens"], counted["output_tokens"], cached)


def _passing(error: BaseException) -> bool:
    """Whether trying again may help; packages that do not say so call it by common names."""
    if isinstance(error, known.ModelError):
        return error.is_retryable
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    names = " ".join(kind.__name__ for kind in type(error).__mro__)
    return any(word in names for word in ("Timeout", "Connect", "RateLimit", "Overloaded"))
