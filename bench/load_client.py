"""One user of the HTTP API, as load: asks, reads the stream, and takes the times."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

CHAT = "/v1/chat/completions"


@dataclass(slots=True)
class Asked:
    """One request and what came of it; times in seconds from `began` (monotonic).

    `outcome` is `answered`, `rejected` (429 or 503 with Retry-After), `left` (by its own will), or
    what went wrong: an HTTP status, `error_event`, `cut` (no [DONE]), `timeout`, `connection`.
    """

    began: float
    outcome: str = "connection"
    first: float | None = None
    total: float = 0.0
    gaps: list[float] = field(default_factory=list)
    tokens: int = 0
    wait: float = 0.0
    text: str = ""

    @property
    def unexpected(self) -> bool:
        """A 5xx that is no refusal by plan, before or within the stream."""
        return self.outcome == "error_event" or (
            self.outcome.isdecimal() and self.outcome.startswith("5")
        )


def body(question: str, *, stream: bool = True) -> dict[str, Any]:
    """A chat request."""
    given: dict[str, Any] = {
        "model": "plumbline",
        "messages": [{"role": "user", "content": question}],
        "stream": stream,
    }
    return {**given, "stream_options": {"include_usage": True}} if stream else given


def connected(url: str, seconds: float = 180) -> httpx.AsyncClient:
    """A client with as many connections as there are users."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(base_url=url, timeout=seconds, limits=limits, trust_env=False)


async def ask(
    client: httpx.AsyncClient, key: str, question: str, due: float | None = None
) -> Asked:
    """Ask and read to the end; `due` is when the request should have begun, if not now."""
    made = Asked(time.monotonic() if due is None else due)
    headers = {"authorization": f"Bearer {key}"}
    try:
        async with client.stream("POST", CHAT, json=body(question), headers=headers) as answer:
            if answer.status_code == 200:
                made.outcome = await _read(answer, made)
            else:
                await answer.aread()
                made.outcome = str(answer.status_code)
                wait = answer.headers.get("retry-after", "")
                if answer.status_code in (429, 503) and wait.isdecimal():
                    made.outcome, made.wait = "rejected", float(wait)
    except httpx.TimeoutException:
        made.outcome = "timeout"
    except httpx.TransportError:
        made.outcome = "connection"
    made.total = time.monotonic() - made.began
    return made


async def _read(answer: httpx.Response, made: Asked) -> str:
    last, ended = made.began, "cut"
    async for line in answer.aiter_lines():
        if not line.startswith("data: "):
            continue
        if line == "data: [DONE]":
            return "answered"
        event = json.loads(line[6:])
        if "error" in event:
            ended = "error_event"
        elif event["choices"]:
            if text := event["choices"][0]["delta"].get("content"):
                now = time.monotonic()
                if made.first is None:
                    made.first = now - made.began
                else:
                    made.gaps.append(now - last)
                last, made.text = now, made.text + text
        else:
            made.tokens = event["usage"]["completion_tokens"]
    return ended


async def leave(
    client: httpx.AsyncClient, key: str, question: str, stream: bool, after: float
) -> Asked:
    """Ask, and hang up after so many seconds."""
    made = Asked(time.monotonic())
    headers = {"authorization": f"Bearer {key}"}

    async def read() -> None:
        await client.post(CHAT, json=body(question, stream=stream), headers=headers)

    try:
        async with asyncio.timeout(after):
            await read()
        made.outcome = "answered"
    except TimeoutError:
        made.outcome = "left"
    except httpx.TransportError:
        made.outcome = "connection"
    made.total = time.monotonic() - made.began
    return made


def outcomes(found: Sequence[Asked]) -> dict[str, int]:
    """How many of each outcome."""
    return dict(Counter(one.outcome for one in found))
