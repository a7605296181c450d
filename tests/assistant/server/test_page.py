"""The chat on the API's server: sessions, what they may, and what a page costs the others."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from assistant.build import build_assistant
from assistant.server.app import create_app
from assistant.server.principal import SCOPES
from assistant.server.sessions import OF_ONE_KEY, Sessions
from tests.assistant.server.conftest import (
    DOCUMENTS,
    Running,
    Start,
    _servers,
    keys_of,
    small,
)
from tests.assistant.server.pages import API, Page, signed_in
from tests.assistant.server.test_operation import Slow, until
from tests.assistant.server.test_routes import upload

QUESTION = "How much does the widget cost?"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with the chat, and a key made."""
    with _servers(tmp_path_factory.mktemp("page")) as begin:
        running = begin(server__ui="true")
        running.key()
        yield running


def test_a_session_ends_by_itself_and_by_word() -> None:
    """After its hours, when its reader says so, and when its key has too many of them."""
    now = [0.0]
    sessions = Sessions(10.0, lambda: now[0])
    first, other = sessions.begin("one"), sessions.begin("two")
    found = sessions.find(first)
    assert found is not None
    assert (found.key, sessions.find("guess")) == ("one", None)
    more = [sessions.begin("one") for _ in range(OF_ONE_KEY)]
    assert sessions.find(first) is None
    assert sessions.find(other) is not None
    sessions.end(other)
    assert sessions.find(other) is None
    now[0] = 10.0
    assert [sessions.find(token) for token in more] == [None] * OF_ONE_KEY
    sessions.begin("three")
    assert len(sessions._open) == 1


def test_names_of_connections_are_a_sessions_own() -> None:
    """The same name in two sessions, of one key even, is two names."""
    sessions = Sessions(10.0)
    one, two = (sessions.find(sessions.begin("key")) for _ in range(2))
    assert one is not None
    assert two is not None
    assert one.own("page") == one.own("page") != two.own("page")


@pytest.mark.parametrize(
    ("options", "secure"),
    [
        ({}, False),
        ({"server__host": "0.0.0.0"}, True),
        ({"server__url": "https://chat.example"}, True),
    ],
)
def test_the_cookie_is_for_the_page_alone(
    options: dict[str, str], secure: bool, tmp_path: object
) -> None:
    """No script reads it, no other site sends it, none but /ui gets it; off loopback over TLS."""
    settings = small(tmp_path / "home", server__ui="true", **options)  # type: ignore[operator]
    key = keys_of(settings.home).create("bot")
    with build_assistant(settings) as assistant:
        app = create_app(assistant, settings)
        with TestClient(app, base_url="http://127.0.0.1", follow_redirects=False) as client:
            answer = client.post("/ui/sign-in", data={"key": key})
    session, consent = answer.headers.get_list("set-cookie")
    parts = {part.strip().lower() for part in session.split(";")[1:]}
    assert {"httponly", "samesite=lax", "path=/ui", "max-age=43200"} <= parts
    assert ("secure" in parts) is secure
    assert key not in session
    assert consent.startswith("plumbline_consent=")
    assert "Max-Age=0" in consent
    assert (answer.status_code, answer.headers["location"]) == (303, "/ui/")


def test_other_sites_get_nothing_done(running: Running) -> None:
    """Signing in, signing out and asking from another site's page is 403, another host 421."""
    key = running.key()
    foreign: list[dict[str, str]] = [
        {"origin": "https://evil.test"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ]
    with signed_in(running, key) as client:
        for headers in foreign:
            for path in ("/ui/sign-in", "/ui/sign-out", f"{API}/queue/join", f"{API}/upload"):
                answer = client.post(path, data={"key": key}, headers=headers)
                assert (answer.status_code, answer.cookies.get("plumbline_session")) == (403, None)
        assert client.get("/ui/config", headers={"host": "evil.test"}).status_code == 421
        forged = {"x-forwarded-host": "evil.test"}
        config = client.get("/ui/config", headers=forged)
        assert config.json()["root"] == f"{running.url}ui"
        assert "evil" not in config.text + client.get("/ui/", headers=forged).text


def test_scripts_are_ours_by_a_nonce(running: Running) -> None:
    """Each page has another nonce, and every inline script bears it; the sign-in page has none."""
    with signed_in(running, running.key()) as client:
        nonces = set()
        for _ in range(2):
            answer = client.get("/ui/")
            policy = answer.headers["content-security-policy"]
            nonce = re.findall(r"script-src 'self' 'nonce-([\w-]+)';", policy)
            assert len(nonce) == 1
            assert "<script>" not in answer.text
            assert answer.text.count(f'nonce="{nonce[0]}"') == answer.text.count("<script")
            nonces.add(nonce[0])
        assert len(nonces) == 2
        door = client.get("/ui/sign-in", headers={"accept-language": "zh-CN"})
        assert "<script" not in door.text
        assert "API 密钥" in door.text
        assert not re.findall(r"(?:src|href)=\"(?!data:,)", door.text)


@pytest.mark.parametrize("given", ["", "pl-000000000000-" + "A" * 43, "key", "<b>", "\udcff"])
def test_a_wrong_key_opens_no_session(running: Running, given: str) -> None:
    """401, the form again, and no word of what was given."""
    with running.http() as client:
        body = b"key=" + given.encode(errors="surrogateescape")
        headers = {"content-type": "application/x-www-form-urlencoded"}
        answer = client.post("/ui/sign-in", content=body, headers=headers)
        assert (answer.status_code, answer.cookies.get("plumbline_session")) == (401, None)
        assert "opens nothing" in answer.text
        assert "<b>" not in answer.text
        assert client.post("/ui/sign-in", content=b"x" * 5000).status_code == 413


def test_a_session_may_what_its_key_may(running: Running) -> None:
    """No chat, no session; no ingest, no upload; no feedback, no thumb; no documents, no list."""
    with running.http() as client:
        answer = client.post("/ui/sign-in", data={"key": running.key(scopes=["search"])})
        assert answer.status_code == 403
        assert "scope" in answer.text
    with signed_in(running, running.key(scopes=["chat"])) as client:
        files = {"files": ("a.md", b"# A\n\nA.\n")}
        assert client.post(f"{API}/upload", files=files).status_code == 403
        page = Page(client)
        assert "40 euros" in page.ask(QUESTION)
        turn = running.turns[-1].turn_id
        before = len(running.feedback)
        heard = page.press(action="vote", turn=turn, value=1)
        assert "Your key does not allow this" in heard
        assert page.do("pl-add", "click", "/etc", None)
        assert len(running.feedback) == before


def test_a_page_counts_what_its_user_may_read(start: Start) -> None:
    """The number on the page is that of the documents a search sees, whoever brought them."""
    running = start(server__ui="true")
    owner = running.key(tenant="acme", user="ann", groups=["hr"], scopes=[*SCOPES])
    with running.http(owner) as client:
        upload(client, "payroll.md", "# Payroll\n\nNine euros.\n", groups="hr")
        upload(client, "menu.md", "# Menu\n\nSoup.\n")
    for about, count in (
        ({"tenant": "acme", "user": "ann", "groups": ["hr"]}, len(DOCUMENTS) + 2),
        ({"tenant": "acme", "user": "bob"}, len(DOCUMENTS) + 1),
        ({"tenant": "bolt", "user": "ann", "groups": ["hr"]}, len(DOCUMENTS)),
        ({"tenant": "acme", "user": "cat", "scopes": ["chat"]}, len(DOCUMENTS) + 1),
    ):
        with signed_in(running, running.key(**about)) as client:
            heard = Page(client).load()
            assert {*re.findall(r"(\d+) documents ·", heard)} == {str(count)}, about
            assert "Start by adding documents" not in heard


def test_the_page_and_the_api_are_one(running: Running) -> None:
    """A chat of the page is the user's over the API, and one deleted there is gone here."""
    key = running.key(tenant="acme", user="eve")
    with signed_in(running, key) as client, running.http(key) as api:
        page = Page(client)
        page.load()
        assert "40 euros" in page.ask(QUESTION)
        assert running.turns[-1].user_id == "acme/eve"
        listed = api.get("/v1/conversations").json()["data"]
        assert [c["turns"] for c in listed] == [1]
        page.press(action="vote", turn=running.turns[-1].turn_id, value=1)
        assert (running.feedback[-1].user_id, running.feedback[-1].value) == ("acme/eve", 1)
        page.press(action="delete", conversation=listed[0]["id"])
        assert api.get("/v1/conversations").json()["data"] == []


def test_a_page_has_its_keys_limits(running: Running) -> None:
    """Events count as requests of the key; the next one is 429, and other keys go on."""
    with signed_in(running, running.key(requests=3)) as client:
        page = Page(client)
        statuses = [page.join("pl-bus", "submit", "", None, False).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    with signed_in(running, running.key()) as client:
        assert "40 euros" in Page(client).ask(QUESTION)


def test_open_pages_keep_nobody_up(start: Start) -> None:
    """A page that is only open is no answer; one under way is, ends, and then pages are let go."""
    policy = Slow()
    running = start(policy=policy, server__ui="true")
    operation, key = running.server.operation, running.key()
    with signed_in(running, key) as client, signed_in(running, key) as other:
        page = Page(client)
        ended = threading.Event()

        def beat() -> None:
            with other.stream("GET", f"{API}/heartbeat/page", timeout=60) as alive:
                list(alive.iter_lines())
            ended.set()

        threading.Thread(target=beat, daemon=True).start()
        assert until(lambda: operation.open == 0)
        assert page.join("pl-composer", "submit", QUESTION, None, False).status_code == 200
        heard: list[str] = []
        listening = threading.Thread(target=lambda: heard.append(page.hear()))
        listening.start()
        assert until(lambda: running.server.admission.busy == 1 == operation.open)
        running.server.admission.draining = True
        assert page.join("pl-composer", "submit", QUESTION, None, False).status_code == 503
        assert until(lambda: operation.open == 1)
        policy.go.set()
        listening.join(60)
        assert "Porto" in heard[0] or "40 euros" in heard[0]
        assert until(lambda: operation.open == 0 and running.server.admission.busy == 0)
        assert not ended.is_set()
        job_loop = running.app.state.guests.loop
        job_loop.call_soon_threadsafe(operation.hang_up)
        assert ended.wait(20)


def test_leaving_gives_the_worker_back(start: Start) -> None:
    """Stop on the page ends the answer in its worker, and nothing of the turn is kept."""
    policy = Slow()
    running = start(policy=policy, server__ui="true")
    with signed_in(running, running.key(tenant="acme", user="ann")) as client:
        page = Page(client)
        assert page.join("pl-composer", "submit", QUESTION, None, False).status_code == 200
        listening = threading.Thread(target=page.hear, daemon=True)
        listening.start()
        assert until(lambda: running.server.admission.busy == 1)
        stop = page.event("pl-composer", "stop")
        body = {"fn_index": stop["id"], "data": [], "session_hash": page.name}
        assert client.post(f"{API}/queue/join", json=body).status_code == 200
        assert until(lambda: running.server.operation.open == 0)
        policy.go.set()
        assert until(lambda: running.server.admission.busy == 0)
        with running.http(running.key(tenant="acme", user="ann")) as api:
            assert api.get("/v1/conversations").json()["data"] == []
        assert running.turns == []
