"""Every route of the application × everyone who may knock; a new route fails until it is named."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from assistant.server.gate import DOORS, PUBLIC, at_page
from assistant.server.principal import SCOPES
from tests.assistant.server.conftest import Running, _servers
from tests.assistant.server.pages import Page, signed_in
from tests.assistant.server.test_keys import NEEDED, routes
from tests.assistant.server.test_routes import upload

CANARY = "9137 euros"
QUESTION = "What is the payroll of the zeppelin crew?"
#: Parameters of paths that name something of somebody's; another name fails the build.
OWNED = {"conversation_id", "citation_id", "document_id"}
COMMON = {"name"}
#: What of the chat is open to everybody, and what only to who signed in; the rest is nobody's.
DOOR = {("GET", "/ui/sign-in"), ("POST", "/ui/sign-in")}
SERVED = {
    ("GET", "/ui/"),
    ("POST", "/ui/sign-out"),
    ("GET", "/ui/config"),
    ("GET", "/ui/theme.css"),
    ("GET", "/ui/favicon.ico"),
    ("GET", "/ui/manifest.json"),
    ("GET", "/ui/robots.txt"),
    ("GET", "/ui/assets/{path}"),
    ("GET", "/ui/static/{path}"),
    ("GET", "/ui/plumbline/{name}"),
    ("POST", "/ui/gradio_api/queue/join"),
    ("GET", "/ui/gradio_api/queue/data"),
    ("POST", "/ui/gradio_api/upload"),
    ("GET", "/ui/gradio_api/upload_progress"),
    ("POST", "/ui/gradio_api/cancel"),
    ("POST", "/ui/gradio_api/reset"),
    ("GET", "/ui/gradio_api/app_id"),
    ("GET", "/ui/gradio_api/startup-events"),
    ("GET", "/ui/gradio_api/heartbeat/{session_hash}"),
}


@dataclass
class World:
    """What one user owns, and the keys of everybody else."""

    running: Running
    owned: dict[str, str]
    response: str
    strangers: dict[str, str]
    closed: dict[str, str]
    alone: dict[str, str]

    def request(self, method: str, path: str) -> dict[str, Any]:
        """The arguments of a request that would work for the owner.

        Raises:
            KeyError: a path has a parameter that is not known here.
        """
        names = {name: self.owned[name] for name in set(_parameters(path)) - COMMON}
        at = path.format(**names, name="plumbline")
        if method in ("GET", "DELETE"):
            return {"method": method, "url": at}
        if (method, path) == ("POST", "/v1/documents"):
            return {"method": method, "url": at, "files": {"file": ("other.md", b"# A\n\nA.\n")}}
        asks = {"role": "user", "content": QUESTION}
        body = {
            "model": "plumbline-embed" if "embeddings" in path else "plumbline",
            "messages": [asks],
            "input": "Hello.",
            "query": QUESTION,
            "response_id": self.response,
            "rating": 1,
            "title": "mine",
        }
        if "moderations" in path:
            del body["model"]
        return {"method": method, "url": at, "json": body}


def _parameters(path: str) -> list[str]:
    return [name.split(":")[0] for name in re.findall(r"{([^}]+)}", path)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A server with a document, a conversation, an answer and its citation, all one user's."""
    with _servers(tmp_path_factory.mktemp("matrix")) as begin:
        yield _made(begin(server__ui="true"))


def _made(running: Running) -> World:
    every = [*SCOPES]
    about: dict[str, Any] = {"tenant": "acme", "user": "ann", "groups": ["hr"]}
    owner = running.key(**about, scopes=every)
    with running.http(owner) as client:
        text = f"# Payroll\n\nThe payroll of the zeppelin crew is {CANARY}.\n"
        document = upload(client, "payroll.md", text, groups="hr")
        conversation = client.post("/v1/conversations", json={"title": "zeppelin"}).json()["id"]
        body = {
            "model": "plumbline",
            "messages": [{"role": "user", "content": QUESTION}],
            "conversation_id": conversation,
        }
        made = client.post("/v1/chat/completions", json=body).json()
    assert CANARY in made["choices"][0]["message"]["content"]
    revoked, ended = running.key(**about, scopes=every), running.key(**about, days=1e-9)
    running.server.keys.revoke(revoked.split("-")[1])
    return World(
        running,
        {
            "conversation_id": conversation,
            "citation_id": made["citations"][0]["id"],
            "document_id": document["id"],
        },
        made["id"],
        {
            "same tenant": running.key(tenant="acme", user="bob", scopes=every),
            "other tenant": running.key(tenant="bolt", user="ann", groups=["hr"], scopes=every),
            "main": running.key(user="ann", groups=["hr"], scopes=every),
        },
        {
            "none": "",
            "wrong": owner[:-4] + "AAAA",
            "no key": "sk-something",
            "revoked": revoked,
            "ended": ended,
        },
        {scope: running.key(**about, scopes=[scope]) for scope in SCOPES},
    )


@contextmanager
def _knocking(world: World, key: str) -> Iterator[httpx.Client]:
    with world.running.http(key) as client:
        yield client


def every(world: World) -> list[tuple[str, str]]:
    """The routes that are not for everybody."""
    open_to_all = (*PUBLIC, *DOORS, *pages(world))
    return [pair for pair in routes(world.running) if not {pair, pair[1]} & {*open_to_all}]


def pages(world: World) -> list[tuple[str, str]]:
    """The routes of the chat, Gradio's own and those that it shows to nobody."""
    return [(method, path) for method, path in routes(world.running) if at_page(path)]


def test_the_matrix_is_complete(world: World) -> None:
    """Each route has a scope or is open to every key by name, and each parameter is known."""
    assert set(every(world)) == set(NEEDED)
    found = {name for _, path in every(world) for name in _parameters(path)}
    assert found == OWNED | COMMON


@pytest.mark.parametrize("who", ["none", "wrong", "no key", "revoked", "ended"])
def test_without_a_living_key_nothing_answers(world: World, who: str) -> None:
    """Whoever has no living key gets 401 on every route, with nothing of what lies behind."""
    with _knocking(world, world.closed[who]) as client:
        for method, path in every(world):
            answer = client.request(**world.request(method, path))
            assert answer.status_code == 401, (method, path)
            assert answer.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("who", ["same tenant", "other tenant", "main"])
def test_what_is_one_users_is_nobody_elses(world: World, who: str) -> None:
    """To another user each object is 404, and no route tells of it, its words or its id."""
    names = ("zeppelin crew is", CANARY, "payroll.md", *world.owned.values())
    with _knocking(world, world.strangers[who]) as client:
        for method, path in every(world):
            asked = world.request(method, path)
            answer = client.request(**asked)
            if OWNED & {*_parameters(path)} or path == "/v1/feedback":
                assert answer.status_code == 404, (method, path, answer.text)
            else:
                assert answer.status_code in (200, 202), (method, path, answer.text)
            assert not [name for name in names if name in answer.text], (method, path)
        body = {**world.request("POST", "/v1/chat/completions")["json"]}
        body["conversation_id"] = world.owned["conversation_id"]
        for stream in (False, True):
            answer = client.post("/v1/chat/completions", json={**body, "stream": stream})
            assert "conversation_not_found" in answer.text
            assert CANARY not in answer.text


@pytest.mark.parametrize("scope", [*SCOPES])
def test_a_key_opens_what_it_is_for(world: World, scope: str) -> None:
    """A key of one scope gets 403 on every route of another, and an answer on its own."""
    with _knocking(world, world.alone[scope]) as client:
        for method, path in every(world):
            if method == "DELETE" and NEEDED[method, path] == scope:
                continue  # the last test does that
            answer = client.request(**world.request(method, path))
            may = NEEDED[method, path] in (None, scope)
            assert answer.status_code in ((200, 202) if may else (403,)), (method, path)
            assert may or "scope" in answer.text


def test_only_a_key_that_may_names_a_user(world: World) -> None:
    """Naming somebody else is 403 on every route for a key without the scope act."""
    headers = {"x-plumbline-user": "ann", "x-plumbline-groups": "hr"}
    with _knocking(world, world.alone["chat"]) as client:
        for method, path in every(world):
            answer = client.request(**world.request(method, path), headers=headers)
            assert answer.status_code == 403, (method, path)


@contextmanager
def _browsing(world: World, who: str) -> Iterator[httpx.Client]:
    """A client that has what somebody without a session may have."""
    running = world.running
    about: dict[str, Any] = {"tenant": "acme", "user": "ann", "groups": ["hr"]}
    if who == "key":  # a key is for programs: it opens no page by itself
        with running.http(running.key(**about)) as client:
            yield client
        return
    key = running.key(**about, days=1.5 / 86_400 if who == "ended" else None)
    with signed_in(running, key) as client:
        if who == "revoked":
            running.server.keys.revoke(key.split("-")[1])
        elif who == "ended":
            time.sleep(1.6)
        elif who == "signed out":
            token = client.cookies["plumbline_session"]
            assert client.post("/ui/sign-out").status_code == 303
            client.cookies.set("plumbline_session", token, path="/ui")
        elif who in ("none", "wrong"):
            client.cookies.clear()
            if who == "wrong":
                client.cookies.set("plumbline_session", key, path="/ui")
        yield client


@pytest.mark.parametrize("who", ["none", "wrong", "key", "revoked", "ended", "signed out"])
def test_without_a_session_no_page_answers(world: World, who: str) -> None:
    """Every route of the chat, Gradio's own too, is 401; a browser is led to the sign-in page."""
    every_page = [*pages(world), ("GET", "/ui/nothing"), ("PUT", "/ui/"), ("HEAD", "/ui/config")]
    assert {*every_page} > DOOR
    assert len(every_page) > 70
    with _browsing(world, who) as client:
        for method, path in every_page:
            answer = client.request(method, re.sub(r"{[^}]*}", "x", path), json={"key": "x"})
            if (method, path) == ("GET", "/ui/"):
                assert (answer.status_code, answer.headers["location"]) == (303, "/ui/sign-in")
            elif (method, path) != ("GET", "/ui/sign-in"):
                assert answer.status_code == 401, (method, path)
            assert "default-src 'self'" in answer.headers["content-security-policy"]
            assert "gradio" not in answer.text, (method, path)


def test_the_front_door_tells_nothing(world: World) -> None:
    """Without a key a browser is led to the chat and gets an icon; programs and posts get 405."""
    with _knocking(world, "") as client:
        led = client.get("/")
        assert (led.status_code, led.headers["location"], led.content) == (303, "/ui/", b"")
        icon = client.get("/favicon.ico")
        assert (icon.status_code, icon.headers["content-type"]) == (200, "image/svg+xml")
        assert icon.headers["x-content-type-options"] == "nosniff"
        for path in DOORS:
            assert client.post(path, json={}).status_code == 405


def test_what_the_page_does_not_ask_for_is_nobodys(world: World) -> None:
    """Of what Gradio would serve, those who signed in get what the page needs, else 404."""
    found = {*pages(world)} - DOOR
    assert found >= SERVED
    with signed_in(world.running, world.running.key(tenant="acme", user="ann")) as client:
        for method, path in found - SERVED:
            answer = client.request(method, re.sub(r"{[^}]*}", "x", path), json={})
            closed = (404, 405) if {("GET", path), ("POST", path)} & SERVED else (404,)
            assert answer.status_code in closed, (method, path, answer.status_code)


@pytest.mark.parametrize("who", ["same tenant", "other tenant", "main"])
def test_a_page_shows_nobody_elses(world: World, who: str) -> None:
    """In another's session no event shows the owner's chat, document or answer."""
    names = ("zeppelin crew is", CANARY, "payroll.md", world.owned["document_id"])
    chat = world.owned["conversation_id"]
    with signed_in(world.running, world.strangers[who]) as client:
        page = Page(client, path=f"?c={chat}")
        heard = page.load() + page.ask(QUESTION)
        for action in ("open", "rename", "delete"):
            heard += page.press(action=action, conversation=chat, text="mine now")
        heard += page.press(action="remove", root="payroll.md")
        assert not [name for name in names if name in heard]
    with signed_in(world.running, world.running.key(tenant="acme", user="ann", groups=["hr"])) as c:
        shown = Page(c, path=f"?c={chat}").load()
        assert not [n for n in (CANARY, "payroll.md", "zeppelin") if n not in shown]
        assert "mine now" not in shown


def test_nobody_listens_at_anothers_page(world: World) -> None:
    """The name that a page chose for its connection leads another session, or tenant, nowhere."""
    about: dict[str, Any] = {"tenant": "acme", "user": "ann", "groups": ["hr"]}
    with signed_in(world.running, world.running.key(**about)) as ann:
        page = Page(ann, "well-known")
        assert page.join("pl-composer", "submit", QUESTION, None, False).status_code == 200
        for key in (*world.strangers.values(), world.running.key(**about)):
            with signed_in(world.running, key) as other:
                heard = Page(other, "well-known").hear()
                assert "session_not_found" in heard or "Session not found" in heard
                assert CANARY not in heard
        assert CANARY in page.hear()


def test_the_owner_deletes(world: World) -> None:
    """After all that, what is the owner's is still there, and goes when the owner says so."""
    for scope, path in (("chat", "conversations"), ("ingest", "documents")):
        name = f"{path.removesuffix('s')}_id"
        with _knocking(world, world.alone[scope]) as client:
            assert client.delete(f"/v1/{path}/{world.owned[name]}").json()["deleted"] is True
