"""What the server adds to an answer: `python -m bench.overhead [--requests N] [--policy P]`.

One process holds an assistant, the HTTP API over it on loopback, and one client that keeps its
connection. Every round asks one question three ways, in an order that turns from round to round:
in process (`Assistant.reply`, nothing stored), over HTTP, and over HTTP as a stream. The overhead
is the difference within a round, as time on the clock and as time of the processor; the latter
holds the client's too, and does not depend on what else the machine does. `first` is the first text
of a stream, and `durable` is what one commit to this disk costs, for comparison.
"""

from __future__ import annotations

import argparse
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import uvicorn

from assistant import Assistant, build_assistant
from assistant.config import Settings
from assistant.server.app import create_app
from assistant.server.keys import FILE, KeyStore
from assistant.server.listen import Announcing, listen
from assistant.server.principal import MAIN
from bench.asking import chosen, parser
from bench.common import report, scratch

DOCUMENTS = {
    "widget.md": "# Widget\n\nThe widget costs 40 euros. It was made in Lyon.\n",
    "gadget.md": "# Gadget\n\nThe gadget costs 70 euros. It was made in Porto.\n",
    "tower.md": "# 北京塔\n\n北京塔高三百米。它的门票四十元。\n",
}
QUESTIONS = ("What does the widget cost?", "Where was the gadget made?", "北京塔有多高？")
#: Rounds before anything counts.
WARM = 6
#: No limit of a key is to be met.
FREE = {"server.key_requests": "1000000", "server.key_tokens": "1000000000"}


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds of one answer: on the clock, of the processor, and to the first text."""

    clock: float
    processor: float
    first: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    made = parser(__doc__)
    made.add_argument("--requests", type=int, default=60, help="rounds that count")
    options = made.parse_args(arguments)
    with scratch() as home:
        values = measure(chosen(_free(options), home / "home"), home, options.requests)
    rows = [(name, f"{value} ms", "") for name, value in values.items() if name != "requests"]
    report("server overhead", rows, values)


def measure(settings: Settings, folder: Path, rounds: int) -> dict[str, float]:
    """The overheads in milliseconds, over so many rounds."""
    with build_assistant(settings) as assistant:
        assistant.warm()
        for _ in assistant.ingest([_written(folder)]):
            pass
        with _served(assistant, settings) as (address, key), closing(_connected(address)) as line:
            readers = frozenset({f"{MAIN}/bench", f"{MAIN}/*", "bench"})
            ways: tuple[Callable[[str], Took], ...] = (
                lambda q: _direct(assistant, q, readers),
                lambda q: _asked(line, key, q, stream=False),
                lambda q: _asked(line, key, q, stream=True),
            )
            took: list[list[Took]] = [[], [], []]
            for number in range(WARM + rounds):
                question = QUESTIONS[number % len(QUESTIONS)]
                for place in range(3):
                    way = (number + place) % 3
                    took[way].append(ways[way](question))
    return _told([one[WARM:] for one in took]) | {"durable": _commit(folder)}


def _told(took: Sequence[Sequence[Took]]) -> dict[str, float]:
    bare, whole, stream = took
    found: dict[str, float] = {"requests": len(bare)}
    found |= _spread("direct", [t.clock for t in bare])
    for name, one in (("whole", whole), ("stream", stream)):
        pairs = list(zip(one, bare, strict=True))
        found |= _spread(name, [a.clock - b.clock for a, b in pairs])
        found |= _spread(f"{name}_processor", [a.processor - b.processor for a, b in pairs])
    return found | _spread("first", [t.first for t in stream])


def _spread(name: str, seconds: Sequence[float]) -> dict[str, float]:
    low, high = np.quantile(np.asarray(seconds) * 1000, [0.5, 0.95])
    return {f"{name}_p50": round(float(low), 2), f"{name}_p95": round(float(high), 2)}


def _direct(assistant: Assistant, question: str, readers: frozenset[str]) -> Took:
    began, spent = time.perf_counter(), time.process_time()
    reply = assistant.reply(
        question, user_id=f"{MAIN}/bench", surface="http", readers=readers, history=(), keep=False
    )
    assert reply.outcome in ("answered", "abstained"), reply.outcome
    clock = time.perf_counter() - began
    return Took(clock, time.process_time() - spent, clock)


def _asked(line: http.client.HTTPConnection, key: str, question: str, *, stream: bool) -> Took:
    body = {"model": "plumbline", "messages": [{"role": "user", "content": question}]}
    sent = json.dumps({**body, "stream": stream}).encode()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    began, spent, first = time.perf_counter(), time.process_time(), 0.0
    line.request("POST", "/v1/chat/completions", sent, headers)
    answer = line.getresponse()
    if stream:
        for data in answer:
            if not first and b'"content": "' in data and b'"content": ""' not in data:
                first = time.perf_counter() - began
    else:
        answer.read()
    clock = time.perf_counter() - began
    assert answer.status == 200, answer.status
    return Took(clock, time.process_time() - spent, first or clock)


@contextmanager
def _served(assistant: Assistant, settings: Settings) -> Iterator[tuple[str, str]]:
    """The API's address, and a key for it."""
    with closing(KeyStore(settings.home / FILE)) as keys:
        key = keys.create("bench", user="bench")
    listener, address = listen("127.0.0.1", 0)
    ready = threading.Event()
    config = uvicorn.Config(
        create_app(assistant, settings), log_level="warning", access_log=False, server_header=False
    )
    server = Announcing(config, ready.set)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield address, key
    finally:
        server.should_exit = True
        thread.join(20)


def _connected(address: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(address).netloc, timeout=120)


def _written(folder: Path) -> Path:
    documents = folder / "documents"
    documents.mkdir()
    for name, text in DOCUMENTS.items():
        (documents / name).write_text(text, encoding="utf-8")
    return documents


def _commit(folder: Path) -> float:
    """Milliseconds of the median commit of one small row."""
    spent = []
    with closing(KeyStore(folder / "commits.db")) as store:
        for number in range(7):
            began = time.perf_counter()
            store.create(f"n{number}")
            spent.append(time.perf_counter() - began)
    return round(float(np.median(spent)) * 1000, 2)


def _free(options: argparse.Namespace) -> argparse.Namespace:
    options.set = [*(f"{name}={value}" for name, value in FREE.items()), *options.set]
    return options


if __name__ == "__main__":
    main()
