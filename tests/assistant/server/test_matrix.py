"""Every route of the application × everyone who may knock; a new route fails until it is named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from assistant.server.gate import PUBLIC
from assistant.server.principal import SCOPES
from tests.assistant.server.conftest import Running, _servers
from tests.assistant.server.test_keys import NEEDED, routes
from tests.assistant.server.test_routes import upload

CANARY = "9137 euros"
QUESTION = "What is the payroll of the zeppelin crew?"
#: Parameters of paths that name something of somebody's; another name fails the build.
OWNED = {"conversation_id", "citation_id", "document_id"}
COMMON = {"name"}


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
        yield _made(begin())


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
    return [(method, path) for method, path in routes(world.running) if path not in PUBLIC]


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


def test_the_owner_deletes(world: World) -> None:
    """After all that, what is the owner's is still there, and goes when the owner says so."""
    for scope, path in (("chat", "conversations"), ("ingest", "documents")):
        name = f"{path.removesuffix('s')}_id"
        with _knocking(world, world.alone[scope]) as client:
            assert client.delete(f"/v1/{path}/{world.owned[name]}").json()["deleted"] is True
