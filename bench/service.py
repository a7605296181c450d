"""A server of ours as a process of its own, for the benchmarks of the HTTP API.

It is `python app.py serve` on a free port of loopback, with a home, documents and keys that the
benchmark made; nothing of it runs in the benchmark's own process.
"""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from assistant.server.keys import FILE, KeyStore

ROOT = Path(__file__).resolve().parent.parent
#: An assistant without models: what is measured is the server.
ECHO = {
    "policy.backend": "echo",
    "policy.support": "words",
    "retrieval.embed.backend": "hashing",
    "retrieval.rerank.backend": "none",
    "safety.moderators": "rules",
}
#: The default preset as it is.
EMBEDDED: dict[str, str] = {}
#: Limits that let a load come in: what is measured is the queue, not a key's allowance.
WIDE = {
    "server.key_requests": "10000000",
    "server.key_tokens": "1000000000",
    "server.key_concurrency": "10000",
    "server.user_concurrency": "10000",
}
_THINGS = "lamp kettle bicycle telescope printer violin tent drone freezer heater".split()
_PLACES = "Lyon Porto Turin Ghent Graz Malmo Lodz Cork Brno Split".split()
_WARES = "台灯 水壶 自行车 望远镜 打印机 小提琴 帐篷 无人机 冰柜 暖炉".split()


@dataclass
class Service:
    """A server that runs. `url` ends in a slash; `stderr` is what it has said so far."""

    url: str
    home: Path
    process: subprocess.Popen[str]
    seconds: float
    admin: str = ""
    stderr: list[str] = field(default_factory=list)

    def http(self, key: str = "", timeout: float = 60) -> httpx.Client:
        """A plain client."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=timeout)

    def rss_mib(self) -> float:
        """Memory of the process, MiB."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def state(self) -> dict[str, Any]:
        """What the server says of itself on its loopback port for operators."""
        found: dict[str, Any] = httpx.get(f"{self.admin}state", timeout=10).json()
        return found

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> int:
        """SIGTERM, and wait; the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


def flags(home: Path, options: Mapping[str, str]) -> list[str]:
    """Settings as they stand on a command line."""
    given = {"home": str(home), "docs": "false", "serve.open_browser": "false", **options}
    return [part for name, value in given.items() for part in ("--set", f"{name}={value}")]


def start(home: Path, options: Mapping[str, str], seconds: float = 300) -> Service:
    """Start a server and wait until it answers.

    Raises:
        SystemExit: it ended, or did not answer within so many seconds.
    """
    began = time.monotonic()
    here = ("127.0.0.1", 0)
    with socket.create_server(here) as one, socket.create_server(here) as other:
        port, admin = one.getsockname()[1], other.getsockname()[1]  # two that are not the same
    own = {"server.port": str(port), "operation.admin_port": str(admin), **options}
    command = [sys.executable, "app.py", *flags(home, own), "serve"]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    service = Service("", home, process, 0.0, f"http://127.0.0.1:{admin}/")
    ready = threading.Event()

    def listen() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            service.stderr.append(line)
            if "ready at http://" in line and not ready.is_set():
                address = line[line.index("http://") :].split()[0].rstrip("/")
                service.url = address.removesuffix("/v1") + "/"
                ready.set()
        ready.set()

    threading.Thread(target=listen, daemon=True).start()
    if not ready.wait(seconds) or not service.url:
        process.kill()
        raise SystemExit("the server did not start:\n" + "".join(service.stderr[-20:]))
    service.seconds = time.monotonic() - began
    return service


@contextmanager
def serving(home: Path, options: Mapping[str, str]) -> Iterator[Service]:
    """A server, stopped at the end."""
    service = start(home, options)
    try:
        yield service
    finally:
        service.stop()


def key(home: Path, name: str = "bench", **about: object) -> str:
    """Make a key in a home."""
    keys = KeyStore(home / FILE)
    try:
        return keys.create(name, **about)  # type: ignore[arg-type] # given by name
    finally:
        keys.close()


def fill(service: Service, given: str, documents: Mapping[str, str], seconds: float = 600) -> None:
    """Take documents in with a key, and wait until all are ready.

    Raises:
        SystemExit: one was not taken in.
    """
    ends, left = time.monotonic() + seconds, dict(documents)
    ids: set[str] = set()
    with service.http(given) as client:
        while time.monotonic() < ends:
            while left:
                name, text = next(iter(left.items()))
                answer = client.post("/v1/documents", files={"file": (name, text.encode())})
                if answer.status_code == 503:  # as many wait as may
                    break
                answer.raise_for_status()
                ids.add(answer.json()["id"])
                del left[name]
            found = {d["id"]: d for d in client.get("/v1/documents").json()["data"]}
            states = {found[i]["status"] for i in ids if i in found}
            if "failed" in states:
                raise SystemExit(next(d["error"] for d in found.values() if d["error"]))
            if not left and states == {"ready"}:
                return
            time.sleep(0.2)
    raise SystemExit(f"the documents were not taken in within {seconds:.0f} s")


def corpus(count: int = 200) -> tuple[dict[str, str], list[str]]:
    """Documents on invented wares, half of them Chinese, and a question on each."""
    dice, questions = random.Random(0), []
    documents = {}
    for number in range(count):
        price, weight = dice.randrange(5, 900), dice.randrange(2, 80)
        place, name = dice.choice(_PLACES), f"K{1000 + number}"
        if number % 2:
            ware = dice.choice(_WARES)
            text = (
                f"# {ware}{name}\n\n{ware}{name}的价格是{price}元。它在{place}制造。\n\n"
                f"{ware}{name}重{weight}公斤，保修期为{1 + number % 5}年。\n"
            )
            questions.append(f"{ware}{name}的价格是多少？")
        else:
            ware = dice.choice(_THINGS)
            text = (
                f"# The {ware} {name}\n\nThe {ware} {name} costs {price} euros. It is made in "
                f"{place}.\n\nThe {ware} {name} weighs {weight} kilograms and has a warranty of "
                f"{1 + number % 5} years.\n"
            )
            questions.append(f"How much does the {ware} {name} cost?")
        documents[f"{name}.md"] = text
    return documents, questions


def named(values: Sequence[float], share: float) -> float | None:
    """A quantile by the nearest rank; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 4)
