"""Killing the server again and again: `python -m bench.kills [--rounds N]`.

Each round a user uploads documents, talks in a conversation, and rates the answers, all at once,
until the server is killed with SIGKILL at a random moment. A new server is started on what is left,
and asked for everything that was acknowledged: an upload with 202, an answer in a conversation, a
rating with 200, a deletion with 200.

lost      acknowledged things that are not there, or deleted ones that are
torn      documents that are neither one whole version nor said to have failed, and answers whose
          question is missing
ready_s   the longest time from a start to the first answer of /readyz; `ready_p50_s` its median
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from assistant.server.principal import SCOPES
from bench.common import report, scratch
from bench.service import ECHO, WIDE, Service, key, start

#: Lines of an uploaded document; each names its version.
LINES = 12


@dataclass
class Known:
    """What was acknowledged. Versions of a document by its name; 0 = deleted.

    `sent` are versions whose request was cut off: they may be there or not.
    """

    versions: dict[str, int] = field(default_factory=dict)
    sent: dict[str, set[int]] = field(default_factory=dict)
    answers: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    ratings: dict[str, int] = field(default_factory=dict)
    counter: int = 0
    serial: int = 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Kill, look, report."""
    parser = argparse.ArgumentParser(description="kill -9 of the server at work")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=4.0, help="a round's longest work")
    options = parser.parse_args(arguments)
    with scratch() as home:
        values = rounds(home, options.rounds, options.seed, options.seconds)
    rows = [(name, str(value), "") for name, value in values.items()]
    report("kill -9", rows, values)
    if values["lost"] or values["torn"]:
        raise SystemExit(1)


def rounds(home: Path, count: int, seed: int, seconds: float) -> dict[str, Any]:
    """Work, kill and look so often; what was lost and torn, and the times."""
    dice, known = random.Random(seed), Known()
    given = key(home, user="ann", scopes=[*SCOPES])
    options = {**ECHO, **WIDE}
    values: dict[str, Any] = {"rounds": count, "lost": 0, "torn": 0, "acknowledged": 0}
    problems: list[str] = []
    times = []
    service = start(home, options)
    for _ in range(count):
        work(service, given, known, dice.uniform(0.1, seconds), dice)
        began = time.monotonic()
        service = start(home, options)
        until_ready(service)
        times.append(time.monotonic() - began)
        lost, torn = look(service, given, known)
        problems += [*lost, *torn]
        values["lost"] += len(lost)
        values["torn"] += len(torn)
    service.stop()
    values["acknowledged"] = known.counter
    values["ready_s"] = round(max(times), 2)
    values["ready_p50_s"] = round(statistics.median(times), 2)
    values["integrity"] = integrity(home)
    values["problems"] = problems[:20]
    return values


def work(service: Service, given: str, known: Known, seconds: float, dice: random.Random) -> None:
    """Three things at once, until the server is killed after so many seconds."""
    over = threading.Event()
    jobs: list[Callable[[httpx.Client, Known, random.Random], None]] = [upload, talk]
    seeds = [dice.random() for _ in jobs]

    def go_on(job: Callable[[httpx.Client, Known, random.Random], None], seed: float) -> None:
        own = random.Random(seed)
        with service.http(given, timeout=10) as client:
            while not over.is_set():
                try:
                    job(client, known, own)
                except httpx.TransportError:
                    return

    threads = [
        threading.Thread(target=go_on, args=(job, seed))
        for job, seed in zip(jobs, seeds, strict=True)
    ]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    service.kill()
    over.set()
    for thread in threads:
        thread.join()


def upload(client: httpx.Client, known: Known, dice: random.Random) -> None:
    """Put or delete one of six documents; what is acknowledged is written down at once."""
    name, version = f"d{dice.randrange(6)}.md", dice.randrange(1, 10**9)
    if known.versions.get(name) and dice.random() < 0.2:
        listed = client.get("/v1/documents").json()["data"]
        ids = [d["id"] for d in listed if d["name"] == name and d["status"] != "processing"]
        if not ids:
            return
        known.sent.setdefault(name, set()).add(0)
        if client.delete(f"/v1/documents/{ids[0]}").status_code == 200:
            known.versions[name], known.sent[name] = 0, set()
            known.counter += 1
        return
    known.sent.setdefault(name, set()).add(version)
    files = {"file": (name, text_of(name, version).encode())}
    if client.post("/v1/documents", files=files).status_code == 202:
        known.versions[name], known.sent[name] = version, set()
        known.counter += 1
    time.sleep(dice.random() * 0.3)


def text_of(name: str, version: int) -> str:
    """A document, each line of which names its version."""
    lines = [f"Line {n} of {name} says quokka{version} and no other." for n in range(LINES)]
    return f"# {name}\n\n" + "\n\n".join(lines) + "\n"


def talk(client: httpx.Client, known: Known, dice: random.Random) -> None:
    """Ask in a conversation, and rate the answer."""
    if not known.answers or dice.random() < 0.1:
        made = client.post("/v1/conversations", json={}).json()["id"]
        known.answers[made] = []
    own = dice.choice([*known.answers])
    known.serial += 1  # so that a question names its turn
    question = f"Query {known.serial}: what does line {known.serial % LINES} of d1.md say?"
    body = {
        "model": "plumbline", "messages": [{"role": "user", "content": question}],
        "conversation_id": own,
    }  # fmt: skip
    answer = client.post("/v1/chat/completions", json=body)
    if answer.status_code != 200:
        return
    made = answer.json()
    known.answers[own].append((question, made["choices"][0]["message"]["content"]))
    known.counter += 1
    rating = dice.choice([-1, 1])
    given = {"response_id": made["id"], "rating": rating}
    if client.post("/v1/feedback", json=given).status_code == 200:
        known.ratings[question] = rating
        known.counter += 1


def until_ready(service: Service, seconds: float = 120) -> None:
    """Wait for /readyz.

    Raises:
        SystemExit: it did not become ready.
    """
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if httpx.get(f"{service.url}readyz", timeout=10).status_code == 200:
            return
        time.sleep(0.05)
    raise SystemExit(f"not ready within {seconds:.0f} s")


def look(service: Service, given: str, known: Known) -> tuple[list[str], list[str]]:
    """What is lost, and what is torn."""
    lost, torn = [], []
    with service.http(given) as client:
        shelf = settled(client)
        for name, version in known.versions.items():
            may = {version} | known.sent.get(name, set())
            found, whole = version_of(client, name, shelf)
            if not whole:
                listed = shelf.get(name, {"status": "not listed", "error": ""})
                said = f"{listed['status']} {listed['error']}".strip()
                torn.append(f"{name}: version {found} of {sorted(may)}, {said}")
            elif found not in may:
                lost.append(f"{name}: version {found} of {sorted(may)}")
            else:
                known.versions[name], known.sent[name] = found, set()
        for own, turns in known.answers.items():
            said = client.get(f"/v1/conversations/{own}").json().get("messages", [])
            pairs = [
                (q["content"], a["content"]) for q, a in zip(said[::2], said[1::2], strict=False)
            ]
            if len(said) % 2 or any(not q for q, _ in pairs):
                torn.append(f"conversation {own}: {len(said)} messages")
            lost += [f"turn {turn[0]!r} of {own}" for turn in turns if turn not in pairs]
    held = rated(service.home)
    for question, rating in known.ratings.items():
        if held.get(question) != (rating, True):
            lost.append(f"rating {rating} of {question!r}: {held.get(question)}")
    return lost, torn


def settled(client: httpx.Client, seconds: float = 60) -> dict[str, dict[str, Any]]:
    """The documents by name, once none is being taken in."""
    ends = time.monotonic() + seconds
    while True:
        found = {d["name"]: d for d in client.get("/v1/documents").json()["data"]}
        busy = any(d["status"] == "processing" for d in found.values())
        if not busy or time.monotonic() > ends:
            return found
        time.sleep(0.1)


def version_of(
    client: httpx.Client, name: str, shelf: dict[str, dict[str, Any]]
) -> tuple[int, bool]:
    """The version of a document that the search finds, and whether it is whole; 0 = none."""
    body = {"query": f"lines of {name} say quokka", "limit": 50}
    found = client.post("/v1/search", json=body).json()["data"]
    texts = [p["text"] for p in found if p["source"] == name]
    words = [w for text in texts for w in text.split() if w.startswith("quokka")]
    versions = {int(word.removeprefix("quokka")) for word in words}
    listed = shelf.get(name)
    if not versions:
        return 0, listed is None or listed["status"] == "failed"
    one = len(versions) == 1 and listed is not None and listed["status"] == "ready"
    lines = {n for n in range(LINES) if any(f"Line {n} of" in text for text in texts)}
    return max(versions), one and len(lines) == LINES


def rated(home: Path) -> dict[str, tuple[int, bool]]:
    """By question: the rating in the memory, and whether the preference log has one."""
    with sqlite3.connect(f"file:{home / 'preferences.db'}?mode=ro", uri=True) as log:
        logged = {row[0] for row in log.execute("SELECT turn_id FROM feedback")}
    with sqlite3.connect(f"file:{home / 'conversations.db'}?mode=ro", uri=True) as memory:
        rows = memory.execute("SELECT user_text, rating, id FROM turn").fetchall()
    return {text: (rating, turn in logged) for text, rating, turn in rows}


def integrity(home: Path) -> str:
    """What SQLite says of every database of a home."""
    said = set()
    for path in sorted(home.glob("*.db")):
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            said.add(connection.execute("PRAGMA integrity_check").fetchone()[0])
    return ", ".join(sorted(said))


if __name__ == "__main__":
    main()
