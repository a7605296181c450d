"""The examples, each run as its user would run it: as a program, over a real socket, offline."""

from __future__ import annotations

import hmac
import http.server
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.assistant.embedded import TOWER, WIDGET

ROOT = Path(__file__).resolve().parent.parent
COSTS = "The widget costs 40 euros. [1]"
SECRET = "0123456789abcdef0123456789abcdef"


def environment(folder: Path, **values: str) -> dict[str, str]:
    """The variables of a user who tries the examples without a model."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONUTF8": "1",
        "OMP_NUM_THREADS": "1",
        "PLUMBLINE_HOME": str(folder / "home"),
        "PLUMBLINE_DOCS": "false",
        "PLUMBLINE_POLICY__BACKEND": "echo",
        "PLUMBLINE_POLICY__SUPPORT": "words",
        "PLUMBLINE_RETRIEVAL__EMBED__BACKEND": "hashing",
        "PLUMBLINE_RETRIEVAL__RERANK__BACKEND": "none",
        "PLUMBLINE_SAFETY__MODERATORS": '["rules"]',
        **values,
    }


def program(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program of the repository to its end."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """A folder with two documents."""
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "widget.md").write_text(WIDGET, encoding="utf-8")
    (folder / "tower.md").write_text(TOWER, encoding="utf-8")
    return folder


@pytest.fixture
def known(tmp_path: Path, documents: Path) -> Path:
    """A folder whose knowledge base holds the documents, one of them for staff only."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "vault.md").write_text("# Vault\n\nThe vault code is 9182.\n", encoding="utf-8")
    for arguments in ([str(documents)], [str(secret), "--readers", "staff"]):
        done = program(tmp_path, str(ROOT / "app.py"), "ingest", *arguments)
        assert done.returncode == 0, done.stderr
    return tmp_path


@contextmanager
def served(folder: Path, name: str, **values: str) -> Iterator[str]:
    """Run an example under uvicorn until the block ends; yields its address."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / f"{name}.log"
    with log.open("a", encoding="utf-8") as out:
        running = subprocess.Popen(
            [
                *(sys.executable, "-m", "uvicorn", "--app-dir", str(ROOT / "examples")),
                *(f"{name}:app", "--port", str(port), "--timeout-graceful-shutdown", "5"),
            ],
            cwd=folder,
            env=environment(folder, **values),
            stdout=out,
            stderr=out,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            assert until(lambda: answers(address), 120), log.read_text(encoding="utf-8")
            yield address
        finally:
            running.terminate()
            running.wait(30)


def answers(address: str) -> bool:
    """Whether anything listens there."""
    try:
        httpx.get(address)
    except httpx.TransportError:
        return False
    return True


def until(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether the condition comes true in time."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def test_every_example_is_run_here() -> None:
    """A new example comes with its test."""
    text = Path(__file__).read_text(encoding="utf-8")
    names = [path.stem for path in (ROOT / "examples").glob("*.py")]
    assert len(names) == 4
    assert all(f'"{name}' in text for name in names)


# a chain ------------------------------------------------------------------------------------------


def test_the_chain_answers_and_remembers(tmp_path: Path, documents: Path) -> None:
    """Answers come with their sources, and a follow-up is completed from the chain's history."""
    script = str(ROOT / "examples" / "langchain_chain.py")
    asked = [
        "Dear support, What does the widget cost?",
        "And where was it made?",
        "北京塔高多少米？",
    ]
    done = program(tmp_path, script, str(documents), *asked)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{COSTS}\n[1] Widget: The widget costs 40 euros.")
    assert "北京塔高三百米。" in done.stdout
    home = tmp_path / "home" / "conversations.db"
    with closing(sqlite3.connect(home)) as kept:
        said = [row[0] for row in kept.execute("SELECT user_text FROM turn ORDER BY created")]
        replies = [json.loads(r[0]) for r in kept.execute("SELECT reply FROM candidate")]
    assert said == ["What does the widget cost?", *asked[1:]]
    assert sum(reply["understanding"]["rewritten"] for reply in replies) == 1


# a source of one's own ----------------------------------------------------------------------------


def test_tickets_are_taken_in_and_kept_in_step(tmp_path: Path) -> None:
    """Again: nothing is read twice, a change is seen, what is gone is forgotten, teams are kept."""
    database = tmp_path / "tickets.db"
    with closing(sqlite3.connect(database)) as tickets:
        tickets.execute("CREATE TABLE ticket (id, title, body, team, updated)")
        rows = [
            (1, "Printer", "The printer needs toner of type K7.", "", 1.7e9),
            (2, "Payroll", "The payroll closes on the 24th.", "finance", 1.7e9),
        ]
        tickets.executemany("INSERT INTO ticket VALUES (?, ?, ?, ?, ?)", rows)
        tickets.commit()
        script = str(ROOT / "examples" / "ingest_custom_source.py")

        def run() -> str:
            done = program(tmp_path, script, str(database))
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        said = [run(), run()]
        ask = program(tmp_path, str(ROOT / "app.py"), "ask", "Which toner does the printer need?")
        tickets.execute("UPDATE ticket SET body = 'It needs K8 now.', updated = 1.8e9 WHERE id = 1")
        tickets.execute("DELETE FROM ticket WHERE id = 2")
        tickets.commit()
        said.append(run())
    assert said == [
        "2 added, 0 updated, 0 unchanged, 0 removed, 0 failed",
        "0 added, 0 updated, 2 unchanged, 0 removed, 0 failed",
        "0 added, 1 updated, 0 unchanged, 1 removed, 0 failed",
    ]
    assert "K7" in ask.stdout


# a bot in a service -------------------------------------------------------------------------------


def test_the_bot_answers_in_a_service(known: Path) -> None:
    """Signed-in users are answered from what they may read; the service's own routes go on."""
    users = {
        "token-ann": {"name": "ann", "groups": ["staff"]},
        "token-bob": {"name": "bob"},
    }
    (known / "users.json").write_text(json.dumps(users), encoding="utf-8")
    with (
        served(known, "fastapi_bot", BOT_USERS=str(known / "users.json")) as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):

        def ask(text: str, who: str, **more: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer token-{who}"}
            return client.post("/bot/ask", json={"text": text, **more}, headers=headers)

        assert client.get("/orders").json() == ["what your service does"]
        first = ask("What does the widget cost?", "bob").json()
        assert (first["text"], first["sources"][0]["title"]) == (COSTS, "Widget")
        assert "9182" in ask("What is the vault code?", "ann").json()["text"]
        assert "9182" not in ask("What is the vault code?", "bob").text
        again = {"conversation_id": first["conversation_id"]}
        assert ask("And where was it made?", "bob", **again).json()["outcome"] == "answered"
        assert ask("And where was it made?", "ann", **again).status_code == 404
        assert ask("What does it cost?", "eve").status_code == 401
        assert ask("x" * 5000, "ann").status_code == 422
        for _ in range(6):  # a stream that ended gave its place back
            body = {"text": "What does the widget cost?"}
            headers = {"Authorization": "Bearer token-bob"}
            with client.stream("POST", "/bot/stream", json=body, headers=headers) as response:
                lines = [json.loads(x[6:]) for x in response.iter_lines() if x.startswith("data: ")]
            assert "".join(line.get("text", "") for line in lines[:-1]) == COSTS
            assert lines[-1]["reply"]["outcome"] == "answered"


# a bot behind a webhook ---------------------------------------------------------------------------


class Platform:
    """A chat platform on loopback: keeps the answers it gets; `broken` refuses them."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, dict[str, Any]]] = []
        self.broken = False
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """Takes what is posted."""

            def do_POST(self) -> None:
                """Keep it, or refuse it."""
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not outer.broken:
                    outer.answers.append((self.headers["Idempotency-Key"], body))
                self.send_response(500 if outer.broken else 200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/reply"


@pytest.fixture
def platform() -> Iterator[Platform]:
    """A platform that listens."""
    made = Platform()
    yield made
    made.server.shutdown()
    made.server.server_close()


def message(number: str, text: str, thread: str = "t1", user: str = "ann") -> bytes:
    """A message as the platform writes it."""
    return json.dumps({"id": number, "user": user, "thread": thread, "text": text}).encode()


def post(
    address: str, body: bytes, *, secret: str = SECRET, age: float = 0, sign: bytes | None = None
) -> int:
    """Post a message with its signature; returns the status."""
    stamp = str(int(time.time() - age))
    signed = f"{stamp}.".encode() + (body if sign is None else sign)
    mac = hmac.new(secret.encode(), signed, sha256).hexdigest()
    headers = {"X-Timestamp": stamp, "X-Signature": f"sha256={mac}"}
    return httpx.post(f"{address}/webhook", content=body, headers=headers).status_code


def test_the_webhook_bot_answers_each_message_once(known: Path, platform: Platform) -> None:
    """Signed messages are answered, repeats are not, and a thread goes on as a conversation."""
    with served(known, "webhook_bot", WEBHOOK_SECRET=SECRET, REPLY_URL=platform.url) as address:
        first = message("m1", "What does the widget cost?")
        assert [post(address, first) for _ in range(3)] == [202] * 3
        assert until(lambda: len(platform.answers) == 1)
        assert post(address, first) == 202
        assert post(address, message("m2", "And where was it made?")) == 202
        assert post(address, message("m3", "What is the vault code?", "t2", "bob")) == 202
        assert until(lambda: len(platform.answers) == 3)
        bad = [
            post(address, message("m4", "Hi"), secret="x" * 32),
            post(address, message("m4", "Hi"), sign=message("m5", "Hi")),
            post(address, message("m4", "Hi"), age=3600),
            post(address, message("m4", "Hi"), age=-3600),
            httpx.post(f"{address}/webhook", content=message("m4", "Hi")).status_code,
            post(address, b"{}"),
            post(address, message("m4", "x" * 20_000)),
        ]
        assert bad == [401, 401, 401, 401, 401, 422, 413]
    keys = [key for key, _ in platform.answers]
    assert keys == ["m1", "m2", "m3"]
    assert platform.answers[0][1] == {"thread": "t1", "text": COSTS}
    assert "9182" not in platform.answers[2][1]["text"]
    with closing(sqlite3.connect(known / "home" / "conversations.db")) as kept:
        turns = kept.execute(
            "SELECT user_id, count(*) FROM turn JOIN conversation ON conversation.id = "
            "conversation_id GROUP BY conversation.id ORDER BY user_id"
        ).fetchall()
    with closing(sqlite3.connect(known / "webhook.db")) as kept:
        words = kept.execute("SELECT DISTINCT body, answer FROM message").fetchall()
    assert (turns, words) == ([("ann", 2), ("bob", 1)], [("", "")])


def test_the_webhook_bot_loses_nothing_over_a_restart(known: Path, platform: Platform) -> None:
    """What could not be delivered is delivered by the next run, and answered only once."""
    values = {"WEBHOOK_SECRET": SECRET, "REPLY_URL": platform.url}
    platform.broken = True
    with served(known, "webhook_bot", **values) as address:
        assert post(address, message("m1", "What does the widget cost?")) == 202
        with closing(sqlite3.connect(known / "webhook.db")) as kept:
            query = "SELECT count(*) FROM message WHERE answer LIKE 'The widget%'"
            assert until(lambda: kept.execute(query).fetchone()[0] == 1)
    platform.broken = False
    with served(known, "webhook_bot", **values):
        assert until(lambda: platform.answers == [("m1", {"thread": "t1", "text": COSTS})])
    with closing(sqlite3.connect(known / "home" / "conversations.db")) as kept:
        assert kept.execute("SELECT count(*) FROM turn").fetchone() == (1,)


def test_the_webhook_bot_needs_a_real_secret(tmp_path: Path) -> None:
    """It does not start with one that could be guessed."""
    done = subprocess.run(
        [sys.executable, "-m", "uvicorn", "--app-dir", str(ROOT / "examples"), "webhook_bot:app"],
        cwd=tmp_path,
        env=environment(tmp_path, WEBHOOK_SECRET="short", REPLY_URL="http://127.0.0.1:9/"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert "shorter than 32 bytes" in done.stderr
