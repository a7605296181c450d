"""Any OpenAI-compatible endpoint: vLLM, Ollama, llama.cpp, SGLang, a hosted service.

The request goes to `policy.url` and nowhere else: proxies, keys and headers from the environment
are ignored, redirects are not followed. The key is in the Authorization header and in no message.
The endpoint's tokens are its own, so `count_tokens` is an estimate (as retrieval counts).
"""

from __future__ import annotations

import email.utils
import logging
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx2
import openai
from openai.types.chat import ChatCompletionChunk

from assistant.config import PolicySettings
from assistant.errors import ConfigError, PolicyError, PolicyRefused, PolicyUnavailable
from assistant.policy._stream import Cleaner, Length, resolve
from assistant.policy.base import Policy, Resources
from assistant.schema import Delta, PolicyCard, Prompt, Sampling, Usage
from retrieval.text import count_tokens

logger = logging.getLogger(__name__)

RETRYABLE = (408, 409, 429)
#: The API takes four stop strings; further ones are applied here only.
MAX_STOP = 4
#: First pause before a retry, and the longest, seconds; doubled each time, with jitter.
BACKOFF, MAX_BACKOFF = 0.5, 8.0
HEADERS = {
    "host",
    "accept",
    "accept-encoding",
    "connection",
    "content-type",
    "content-length",
    "user-agent",
}
REMEDY = {
    400: "check policy.model, policy.context_tokens and policy.max_tokens against the endpoint",
    401: "check policy.api_key (PLUMBLINE_POLICY__API_KEY)",
    403: "check what policy.api_key is allowed to use",
    404: "check policy.model and policy.url (it usually ends in /v1)",
    413: "lower policy.passages or policy.context_tokens",
}


class RemotePolicy:
    """A model behind an endpoint. Safe to use from several threads.

    Args:
        options: url, model, key, timeouts and retries.
    """

    def __init__(self, options: PolicySettings) -> None:
        address = urlsplit(options.url)
        self.card = PolicyCard(
            name="remote",
            model=options.model,
            engine=f"openai {openai.__version__} {address.hostname}:{address.port or ''}".rstrip(
                ":"
            ),
        )
        self._options = options
        self._key = options.api_key.get_secret_value()
        self._limit_name = "max_tokens"
        http = httpx2.Client(
            trust_env=False, follow_redirects=False, event_hooks={"request": [self._bare]}
        )
        self._client = openai.OpenAI(
            api_key=self._key or "none", base_url=options.url, max_retries=0, http_client=http
        )

    def __repr__(self) -> str:
        return f"RemotePolicy(model={self.card.model!r})"

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Delta]:
        """Stream a chat completion; closing the iterator closes the connection.

        Raises:
            PolicyUnavailable: unreachable, overloaded, too slow, or cut off in mid-answer.
            PolicyRefused: the endpoint rejects key, model, size or content.
        """
        sampling = resolve(sampling)
        deadline = time.monotonic() + sampling.seconds
        stream = self._open(prompt, sampling, deadline)
        cleaner, length = Cleaner(sampling.stop), Length(sampling.max_tokens)
        shown = False
        try:
            with self._watched(stream, deadline) as late:
                for text, finish, usage in self._pieces(stream, late):
                    if length.over(text):  # the limit was ignored
                        yield Delta(cleaner.finish(), finish=cleaner.ended or "length")
                        return
                    clean = cleaner.feed(text)
                    if cleaner.ended:
                        yield Delta(clean, finish=cleaner.ended)
                        return
                    if finish:
                        clean += cleaner.finish()
                        yield Delta(clean, finish=cleaner.ended or finish, usage=usage)
                        return
                    if clean:
                        shown = True
                        yield Delta(clean)
        finally:
            stream.close()
        if not (late.is_set() and shown):
            raise self._too_late(sampling.seconds) if late.is_set() else self._cut(stream)
        yield Delta(cleaner.finish(), finish=cleaner.ended or "length")

    def count_tokens(self, text: str) -> int:
        """Estimate, within some tens of percent: only the endpoint knows its tokenizer."""
        return count_tokens(text)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    # -- asking

    def _open(
        self, prompt: Prompt, sampling: Sampling, deadline: float
    ) -> openai.Stream[ChatCompletionChunk]:
        """Send the request until an answer begins, retrying what may pass."""
        attempt = 0
        while True:
            failure: PolicyError
            try:
                return self._request(prompt, sampling, deadline)
            except openai.APIStatusError as error:
                # the API's newest models know the limit under another name only
                if error.status_code == 400 and error.param == "max_tokens" == self._limit_name:
                    self._limit_name = "max_completion_tokens"
                    continue
                failure = self._status(error)
                told = _retry_after(error.response.headers)
                again = error.response.headers.get("x-should-retry") != "false"
            except openai.APIConnectionError as error:
                failure, told, again = self._unreachable(error), None, True
            except (openai.OpenAIError, httpx2.HTTPError, ValueError) as error:
                failure, told, again = self._broken(error), None, False
            # raised out here, so that the library's error, which quotes the endpoint, is not
            # part of it
            pause = told if told is not None else _backoff(attempt)
            out_of_time = time.monotonic() + pause >= deadline
            if not (failure.retryable and again) or attempt >= self._options.retries or out_of_time:
                raise failure
            attempt += 1
            logger.info("retry attempt=%d pause=%.2f", attempt, pause)
            time.sleep(pause)

    def _request(
        self, prompt: Prompt, sampling: Sampling, deadline: float
    ) -> openai.Stream[ChatCompletionChunk]:
        left = max(deadline - time.monotonic(), 0.001)
        body: dict[str, Any] = {
            "model": self._options.model,
            "messages": [{"role": m.role, "content": m.text} for m in prompt.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": sampling.seed,
            self._limit_name: sampling.max_tokens,
        }
        if sampling.stop:
            body["stop"] = [s for s in sampling.stop if s][:MAX_STOP]
        stream: openai.Stream[ChatCompletionChunk] = self._client.chat.completions.create(
            **body,
            stream=True,
            timeout=httpx2.Timeout(left, connect=min(self._options.connect_seconds, left)),
        )
        return stream

    def _bare(self, request: httpx2.Request) -> None:
        """Send our own headers only: the library adds some from the environment."""
        for name in list(request.headers):
            if name.lower() not in HEADERS:
                del request.headers[name]
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"

    # -- reading

    def _pieces(
        self, stream: openai.Stream[ChatCompletionChunk], late: threading.Event
    ) -> Iterator[tuple[str, Literal["", "stop", "length", "abstain"], Usage | None]]:
        """Text, finish and usage of each chunk; ends without a finish where the stream does."""
        failure: PolicyError
        try:
            for chunk in stream:
                choices = chunk.choices if isinstance(chunk, ChatCompletionChunk) else None
                if not choices or late.is_set():
                    if late.is_set():
                        return
                    continue  # usage, or a keep-alive
                delta, usage = choices[0].delta, _usage(chunk.usage)
                text = (delta.content if delta is not None else None) or ""
                if not isinstance(text, str):  # the library does not check what it reads
                    raise TypeError("the text of a chunk is no text")
                reason = choices[0].finish_reason
                if delta is not None and delta.refusal:
                    yield "", "abstain", usage
                elif reason == "content_filter":
                    raise PolicyRefused("the endpoint's content filter stopped the answer")
                elif reason:
                    yield text, "length" if reason == "length" else "stop", usage
                else:
                    yield text, "", usage
            return
        except openai.APIConnectionError as error:
            failure = self._unreachable(error)
        except openai.APIError as error:
            failure = PolicyUnavailable(
                f"the endpoint {self._options.url} broke off: {self._quote(error)}"
            )
        except (
            openai.OpenAIError,
            httpx2.HTTPError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
        ) as error:
            failure = self._broken(error)
        if not late.is_set():
            raise failure

    @contextmanager
    def _watched(
        self, stream: openai.Stream[ChatCompletionChunk], deadline: float
    ) -> Iterator[threading.Event]:
        """Break the connection at the deadline, also while a read is waiting; sets the event."""
        late = threading.Event()
        network = stream.response.extensions.get("network_stream")
        wire = network.get_extra_info("socket") if network is not None else None

        def cut() -> None:
            late.set()
            if isinstance(wire, socket.socket):
                with suppress(OSError):
                    socket.socket.shutdown(wire, socket.SHUT_RDWR)

        timer = threading.Timer(min(max(deadline - time.monotonic(), 0), 1e6), cut)
        timer.daemon = True
        timer.start()
        try:
            yield late
        finally:
            timer.cancel()

    # -- errors

    def _status(self, error: openai.APIStatusError) -> PolicyError:
        status = error.status_code
        said = f"the endpoint {self._options.url} answered {status}: {self._quote(error)}"
        if status in RETRYABLE or status >= 500:
            return PolicyUnavailable(f"{said}; try again later")
        if 300 <= status < 400:
            return PolicyRefused(f"{said}; redirects are not followed, correct policy.url")
        return PolicyRefused(f"{said}; {REMEDY.get(status, REMEDY[400])}")

    def _unreachable(self, error: openai.APIConnectionError) -> PolicyUnavailable:
        cause = error.__cause__
        why = type(cause).__name__ if cause is not None else type(error).__name__
        detail = self._scrub(str(cause or ""))[:200]
        return PolicyUnavailable(
            f"cannot reach the endpoint {self._options.url} ({why}: {detail}); check that it runs "
            "and that policy.url is right"
        )

    def _broken(self, error: Exception) -> PolicyUnavailable:
        return PolicyUnavailable(
            f"the endpoint {self._options.url} sent what is no chat completion stream "
            f"({type(error).__name__}); check policy.url"
        )

    def _too_late(self, seconds: float) -> PolicyUnavailable:
        return PolicyUnavailable(
            f"the endpoint {self._options.url} gave no answer within {seconds:g} s; "
            "try again later or raise policy.seconds"
        )

    def _cut(self, stream: openai.Stream[ChatCompletionChunk]) -> PolicyError:
        kind = stream.response.headers.get("content-type", "")
        if "text/event-stream" not in kind:
            return PolicyRefused(
                f"the endpoint {self._options.url} answered {kind or 'nothing'} instead of an "
                "event stream; check policy.url (it usually ends in /v1)"
            )
        return PolicyUnavailable(
            f"the endpoint {self._options.url} ended the stream in mid-answer; try again later"
        )

    def _quote(self, error: openai.APIError) -> str:
        body = error.body
        said = body.get("message") if isinstance(body, dict) else None
        return self._scrub(said if isinstance(said, str) else type(error).__name__)[:200]

    def _scrub(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


def build(options: PolicySettings, resources: Resources) -> Policy:
    """Prepare the client; the endpoint is not asked before the first question.

    Raises:
        ConfigError: url or model are missing or malformed.
    """
    if not options.model:
        raise ConfigError("policy.backend = remote needs policy.model, the endpoint's model name")
    try:
        address = urlsplit(options.url)
        fine = address.scheme in ("http", "https") and address.hostname and address.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise ConfigError(f"policy.url = {options.url!r} is no http(s) address")
    if address.username or address.password or address.query or address.fragment:
        raise ConfigError("policy.url must hold no user, password or query; use policy.api_key")
    return RemotePolicy(options)


def _usage(given: Any) -> Usage | None:
    """What an endpoint says it counted, where that makes sense."""
    details = getattr(given, "prompt_tokens_details", None)
    prompt = getattr(given, "prompt_tokens", None)
    answer = getattr(given, "completion_tokens", None)
    cached = getattr(details, "cached_tokens", None) or 0
    if isinstance(prompt, int) and isinstance(answer, int) and isinstance(cached, int):
        return Usage(prompt, answer, cached)
    return None


def _backoff(attempt: int) -> float:
    """Seconds to wait before retry number `attempt` + 1."""
    return float(min(BACKOFF * 2**attempt, MAX_BACKOFF) * random.uniform(0.75, 1.25))


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Read how many seconds the endpoint asks to wait (RFC 9110 §10.2.3); None if it does not."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with suppress(ValueError):
            return max(0.0, float(headers.get(name, "")) * unit)
    with suppress(ValueError):
        when = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        return max(0.0, when.timestamp() - time.time())
    return None
