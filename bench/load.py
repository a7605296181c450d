"""The HTTP API under load: `python -m bench.load --users N --seconds S`.

The server is `python app.py serve` as a process of its own on loopback, with 200 small documents in
two languages; each user has a key of their own and streams answers. `--modes` says what is done, in
this order on one server:

closed  every user asks again as soon as an answer has ended; a refused one waits as it was told
open    requests begin at random times, --rate a second, whether or not answers come; times count
        from when a request was due
leave   --leavers clients of one key hang up at random times, streaming or not
burst   --burst users at once, then single requests until an answer comes as fast as before

ttft_*           seconds to the first text; p50 and p95 over all answers of closed and open
tokens_per_s     of the answers, by the server's own count
engine_*         the same assistant without a server, in a process of its own afterwards, with as
                 many threads as the server has workers (one for one user)
overhead_ms      median time of an answer over HTTP less that without; only with one user
unexpected_5xx   5xx but 503 with Retry-After, before or within a stream, in all modes
slots_free_s     from the last client's leaving until no worker is busy and none waits
recovery_s       from the burst's last answer until a single one comes within twice the time before
rss_growth_mib   memory of the server, the last tenth of the closed or open run over its second one

The client runs on the same machine, and what it spends is not the server's: `client_cpu_s`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from assistant.config import load
from assistant.server.principal import SCOPES
from bench.common import assigned, report, scratch, settable
from bench.load_client import Asked, ask, connected, leave, outcomes
from bench.service import ECHO, ROOT, WIDE, Service, corpus, fill, key, named, serving

MODES = ("closed", "open", "leave", "burst")
#: A refused user comes back after so many seconds at most, whatever it was told.
PATIENCE = 10.0


@dataclass
class Run:
    """What was measured on one server."""

    users: int
    asked: list[Asked] = field(default_factory=list)
    burst: list[Asked] = field(default_factory=list)
    left: list[Asked] = field(default_factory=list)
    seconds: float = 0.0
    memory: list[float] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve, load, report."""
    options = _options(arguments)
    settings = {**(ECHO if options.policy == "echo" else {}), **WIDE, **assigned(options)}
    documents, questions = corpus(options.documents)
    run = Run(options.users)
    with scratch() as home:
        keys = [key(home, user=f"user{n}", scopes=["chat"]) for n in range(_most(options))]
        keeper = key(home, scopes=[*SCOPES])
        with serving(home, settings) as service:
            fill(service, keeper, documents)
            asyncio.run(_modes(run, service, keys, questions, options))
            run.values["ready_s"] = round(service.seconds, 2)
        if options.engine_seconds and run.asked:
            run.values["engine"] = engine(home, settings, questions, options)
    show(run, options)


def engine(
    home: Path, settings: dict[str, str], questions: Sequence[str], options: argparse.Namespace
) -> dict[str, Any]:
    """The same answers without a server, from a process of its own."""
    given = {"home": str(home), "docs": "false", **settings}
    workers = load(options.preset, None, given).server.workers
    job = {
        "settings": given, "preset": options.preset, "questions": list(questions),
        "seconds": options.engine_seconds, "threads": min(workers, options.users),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "bench.load_engine", json.dumps(job)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


async def _modes(
    run: Run,
    service: Service,
    keys: Sequence[str],
    questions: Sequence[str],
    options: argparse.Namespace,
) -> None:
    began = time.process_time()
    async with connected(service.url) as client:
        for number in range(3):  # the first answers of a process are none to measure
            await ask(client, keys[0], questions[number])
        for mode in options.modes:
            if mode in ("closed", "open"):
                watch = asyncio.create_task(_memory(run, service))
                start = time.monotonic()
                if mode == "closed":
                    await _closed(run, client, keys, questions, options.seconds)
                else:
                    await _open(run, client, keys, questions, options.seconds, options.rate)
                run.seconds += time.monotonic() - start
                watch.cancel()
            elif mode == "leave":
                await _leave(run, service, client, keys[0], questions, options.leavers)
            else:
                await _burst(run, client, keys[: options.burst], questions)
    run.values["client_cpu_s"] = round(time.process_time() - began, 1)


async def _closed(
    run: Run, client: Any, keys: Sequence[str], questions: Sequence[str], seconds: float
) -> None:
    ends = time.monotonic() + seconds

    async def user(number: int) -> None:
        dice = random.Random(number)
        while time.monotonic() < ends:
            made = await ask(client, keys[number], dice.choice(questions))
            run.asked.append(made)
            if made.outcome != "answered":
                await asyncio.sleep(min(made.wait or 1.0, PATIENCE))

    await asyncio.gather(*(user(number) for number in range(run.users)))


async def _open(
    run: Run,
    client: Any,
    keys: Sequence[str],
    questions: Sequence[str],
    seconds: float,
    rate: float,
) -> None:
    dice = random.Random(0)
    tasks: list[asyncio.Task[Asked]] = []
    began = due = time.monotonic()
    while (due := due + dice.expovariate(rate)) < began + seconds:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        given = keys[len(tasks) % run.users]
        tasks.append(asyncio.create_task(ask(client, given, dice.choice(questions), due)))
    run.asked += await asyncio.gather(*tasks)


async def _leave(
    run: Run, service: Service, client: Any, given: str, questions: Sequence[str], count: int
) -> None:
    """Hang up `count` times, and wait until the server has nothing to do."""
    dice = random.Random(1)
    typical = 1.0 + (named([a.total for a in run.asked if a.outcome == "answered"], 0.5) or 1.0)
    run.left += await asyncio.gather(
        *(
            leave(
                client, given, dice.choice(questions), dice.random() < 0.5, dice.random() * typical
            )
            for _ in range(count)
        )
    )
    began = time.monotonic()
    while time.monotonic() < began + 30:
        found = await asyncio.to_thread(service.state)
        if not (found["busy_workers"] or found["waiting_requests"] or found["open_requests"]):
            break
        await asyncio.sleep(0.02)
    run.values["slots_free_s"] = round(time.monotonic() - began, 3)
    run.values["left"] = outcomes(run.left)


async def _burst(run: Run, client: Any, keys: Sequence[str], questions: Sequence[str]) -> None:
    """All at once, then one by one."""

    async def one() -> Asked:
        return await ask(client, keys[0], questions[0])

    before = [await one() for _ in range(3)]
    usual = min(made.total for made in before)
    wanted = before[0].text
    run.burst += await asyncio.gather(*(ask(client, given, questions[0]) for given in keys))
    began = time.monotonic()
    while time.monotonic() < began + 60:
        made = await one()
        if made.outcome == "answered" and made.total <= 2 * usual + 0.05:
            break
    run.values["recovery_s"] = round(time.monotonic() - began, 3)
    run.values["burst"] = outcomes(run.burst)
    # an admitted one is unharmed where it says what it says alone
    run.values["burst_harmed"] = sum(
        made.outcome == "answered" and made.text != wanted for made in run.burst
    )


async def _memory(run: Run, service: Service) -> None:
    while True:
        run.memory.append(service.rss_mib())
        await asyncio.sleep(0.25)


def summary(run: Run) -> dict[str, Any]:
    """What the last line says."""
    done = [made for made in run.asked if made.outcome == "answered"]
    firsts = [made.first for made in done if made.first is not None]
    totals, gaps = [made.total for made in done], [gap for made in done for gap in made.gaps]
    every = [*run.asked, *run.left, *run.burst]
    rate = sum(made.tokens for made in done) / run.seconds if run.seconds else 0.0
    values: dict[str, Any] = {
        "users": run.users,
        "requests": len(every),
        "unexpected_5xx": sum(made.unexpected for made in every),
        "rejected": sum(made.outcome == "rejected" for made in every),
        "ttft_p50_s": named(firsts, 0.5),
        "ttft_p95_s": named(firsts, 0.95),
        "gap_p50_s": named(gaps, 0.5),
        "gap_p95_s": named(gaps, 0.95),
        "total_p50_s": named(totals, 0.5),
        "total_p95_s": named(totals, 0.95),
        "tokens_per_s": round(rate, 2),
        "answers_per_s": round(len(done) / run.seconds, 3) if run.seconds else 0.0,
        "rss_growth_mib": grown(run.memory),
        "outcomes": outcomes(run.asked),
    }
    if found := run.values.pop("engine", None):
        values["engine_tokens_per_s"] = found["tokens_per_s"]
        if found["tokens_per_s"]:
            values["share_of_engine"] = round(rate / found["tokens_per_s"], 3)
        if run.users == 1 and totals and found["seconds_p50"] is not None:
            values["overhead_ms"] = round(
                (float(np.median(totals)) - found["seconds_p50"]) * 1e3, 1
            )
    return values | run.values


def grown(memory: Sequence[float]) -> float | None:
    """MiB from the second tenth of the samples to the last; None of too few."""
    tenth = len(memory) // 10
    if not tenth:
        return None
    before, after = memory[tenth : 2 * tenth], memory[-tenth:]
    return round(float(np.median(after) - np.median(before)), 1)


def show(run: Run, options: argparse.Namespace) -> None:
    """Print the table and the JSON line."""
    values = summary(run)
    notes = {
        "outcomes": "of closed and open",
        "share_of_engine": "tokens a second, server over engine",
        "unexpected_5xx": "503 with Retry-After are by plan",
    }
    title = f"{options.users} users, {options.seconds:g} s, {options.policy or options.preset}"
    rows = [(name, str(value), notes.get(name, "")) for name, value in values.items()]
    report(title, rows, values)


def _most(options: argparse.Namespace) -> int:
    return int(max(options.users, options.burst if "burst" in options.modes else 1))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["closed"])
    parser.add_argument("--rate", type=float, default=2.0, help="requests a second of open")
    parser.add_argument("--leavers", type=int, default=100)
    parser.add_argument("--burst", type=int, default=256)
    parser.add_argument("--policy", choices=["", "echo"], default="", help="echo: without models")
    parser.add_argument("--preset", default="embedded", help="settings of the assistant")
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--engine-seconds", type=float, default=30, help="0: without the engine")
    settable(parser)
    options = parser.parse_args(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    return options


if __name__ == "__main__":
    main()
