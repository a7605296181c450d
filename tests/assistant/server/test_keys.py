"""Keys and principals: what a key opens, and that nothing opens without one."""

from __future__ import annotations

import socket
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import httpx
import openai
import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount, Route

from assistant.config import ServerSettings, Settings
from assistant.errors import ConfigError
from assistant.server.app import check
from assistant.server.errors import ApiError
from assistant.server.gate import PUBLIC
from assistant.server.keys import KeyStore
from assistant.server.principal import LOCAL, SCOPES, Principal, acting
from tests.assistant.server.conftest import Running, Start, keys_of

ASKED = [{"role": "user", "content": "How much does the widget cost?"}]


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    """An empty store."""
    return KeyStore(tmp_path / "keys.db")


def test_a_key_is_found_until_it_is_taken_back(keys: KeyStore) -> None:
    """A key names its tenant, user, groups and scopes; revoked, it names nobody."""
    key = keys.create("bot", tenant="acme", user="ann", groups=["hr", "it"], scopes=["chat"])
    found = keys.find(key)
    assert found is not None
    assert (found.tenant, found.user) == ("acme", "ann")
    assert (found.groups, found.scopes) == (frozenset({"hr", "it"}), frozenset({"chat"}))
    keys.revoke(found.key)
    assert keys.find(key) is None
    assert not keys.cards()[0].alive


def test_what_is_remembered_ends_with_the_next_commit(keys: KeyStore, tmp_path: Path) -> None:
    """A key found once is known without a look, until another process takes any key back."""
    key, other = keys.create("bot"), keys.create("other")
    before = keys.recall(key)
    found = keys.find(key)
    known = keys.recall(key)
    elsewhere = KeyStore(tmp_path / "keys.db")
    assert found is not None
    elsewhere.revoke(found.key)
    assert (before, known, keys.recall(key), keys.find(key)) == (None, found, None, None)
    assert (keys.find(other), keys.recall(other + "x")) == (keys.recall(other), None)


def test_that_there_is_no_key_is_remembered_until_one_is_made(
    keys: KeyStore, tmp_path: Path
) -> None:
    """The server on this computer closes with the first key, in whatever process it is made."""
    told = [keys.none(), keys.any(), keys.none()]
    KeyStore(tmp_path / "keys.db").create("bot")
    assert [*told, keys.none(), keys.any(), keys.none()] == [False, False, True, False, True, False]


def test_a_key_ends(keys: KeyStore) -> None:
    """A key with days is dead after them."""
    key = keys.create("bot", days=1e-9)
    time.sleep(0.01)
    assert (keys.find(key), keys.recall(key)) == (None, None)


def test_no_secret_is_stored(keys: KeyStore, tmp_path: Path) -> None:
    """The file holds no key, nor its secret part; it is the owner's alone."""
    key = keys.create("bot")
    keys.close()
    stored = (tmp_path / "keys.db").read_bytes()
    assert key.rsplit("-", 1)[-1].encode() not in stored
    assert key.encode() not in stored
    assert (tmp_path / "keys.db").stat().st_mode & 0o077 == 0
    assert sqlite3.connect(tmp_path / "keys.db").execute("select count(*) from api_key").fetchone()


@pytest.mark.parametrize(
    "about",
    [
        {"scopes": ["fly"]},
        {"scopes": []},
        {"tenant": "a/b"},
        {"user": "*"},
        {"groups": ["a,b"]},
        {"days": 0},
        {"requests": -1},
    ],
)
def test_a_key_that_cannot_be_is_refused(keys: KeyStore, about: dict[str, object]) -> None:
    """A name that could stand for others', an unknown scope, or no time make no key."""
    with pytest.raises(ConfigError):
        keys.create("bot", **about)  # type: ignore[arg-type]


def test_names_of_tenants_do_not_meet() -> None:
    """The same user and group of two tenants are two, in lists and as owners."""
    one = Principal("1", "acme", "ann", frozenset({"hr"}))
    two = Principal("2", "bolt", "ann", frozenset({"hr"}))
    own = Principal("3", "main", "ann", frozenset({"hr"}))
    assert one.readers is not None
    assert two.readers is not None
    assert not one.readers & two.readers
    assert one.owner != two.owner != own.owner
    assert own.readers is not None
    assert {"ann", "hr"} <= own.readers
    assert not {"ann", "hr"} & one.readers


def test_only_a_key_that_may_acts_for_others() -> None:
    """A user in a header needs the scope, and is one of the same tenant; limits stay the key's."""
    bot = Principal("1", "acme", "bot", scopes=frozenset({"chat"}))
    with pytest.raises(ApiError) as caught:
        acting(bot, "ann", None)
    assert caught.value.status == 403
    able = Principal("1", "acme", "bot", scopes=frozenset({"chat", "act"}))
    ann = acting(able, "ann", "hr, it")
    assert (ann.key, ann.owner, ann.groups) == ("1", "acme/ann", frozenset({"hr", "it"}))
    assert acting(able, None, None) is able
    assert acting(LOCAL, "ann", None).readers is not None
    with pytest.raises(ApiError):
        acting(able, "../bolt/ann", None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org"])
def test_strangers_need_a_key(host: str, tmp_path: Path) -> None:
    """An address that others reach is refused at start until a living key exists."""
    settings = Settings(home=tmp_path / "h", server=ServerSettings(host=host))
    with pytest.raises(ConfigError, match="keys create"):
        check(settings)
    store = keys_of(settings.home)
    store.create("bot")
    check(settings)
    store.revoke(store.cards()[0].id)
    with pytest.raises(ConfigError, match="keys create"):
        check(settings)


def test_once_there_is_a_key_it_is_needed(start: Start) -> None:
    """With a key made, also on loopback, nobody comes in without; a revoked one is dead at once."""
    running = start()
    assert running.openai().chat.completions.create(model="plumbline", messages=ASKED)
    key = running.key()
    with pytest.raises(openai.AuthenticationError) as caught:
        running.openai().chat.completions.create(model="plumbline", messages=ASKED)
    assert caught.value.code == "invalid_api_key"
    client = running.openai(key)
    assert client.chat.completions.create(model="plumbline", messages=ASKED).choices
    running.server.keys.revoke(running.server.keys.cards()[0].id)
    with pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(model="plumbline", messages=ASKED)


def test_azures_header_is_read_too(start: Start) -> None:
    """`api-key` is as good as a bearer token."""
    running = start()
    key = running.key()
    with running.http() as client:
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers={"api-key": key}).status_code == 200
        spoiled = {"authorization": f"Bearer {key[:-1]}!"}
        assert client.get("/v1/models", headers=spoiled).status_code == 401


def routes(running: Running) -> list[tuple[str, str]]:
    """Every method and path that the application has, nested routers too."""
    found: list[tuple[str, str]] = []
    app = running.app
    for path, methods in app.openapi()["paths"].items():
        found += [(method.upper(), path) for method in methods]
    return sorted({*found, *_below(app.routes, "")})


def _below(routes: Iterable[BaseRoute], root: str) -> Iterator[tuple[str, str]]:
    """Every method and path of these routes, those of mounted applications too.

    Raises:
        AssertionError: a route of a kind that is not looked into.
    """
    for route in routes:
        if isinstance(route, Mount):
            yield from _below(route.routes, root + route.path)
        elif isinstance(route, Route | APIRoute):
            yield from ((m, root + route.path_format) for m in route.methods or () if m != "HEAD")
        else:
            # FastAPI keeps the routers that were included; the OpenAPI description has their routes
            inner = getattr(route, "original_router", None)
            assert inner is not None, route
            yield from _below(inner.routes, root)


def filled(path: str) -> str:
    """A path with something in place of its parameters."""
    return path.replace("{name:path}", "x").replace("{", "").replace("}", "")


@pytest.mark.parametrize("origin", ["http://[", "https://[::1", "null", "//", "\\\\x"])
def test_an_origin_that_is_none_is_refused(start: Start, origin: str) -> None:
    """A crooked Origin is another site's, before a key is looked at, and never an error of ours."""
    running = start(server__ui="true")
    with running.http() as client:
        for path in ("/v1/models", "/ui/sign-in"):
            answer = client.post(path, headers={"origin": origin}, data={"key": "x"})
            assert answer.status_code == 403, (path, answer.text)


def test_names_of_users_are_words_in_any_script(start: Start) -> None:
    """A header names a user in UTF-8, as clients send what Latin-1 has not."""
    running = start()
    key = running.key(tenant="acme", scopes=["chat", "act"])
    given = [(b"x-plumbline-user", "张三".encode()), (b"x-plumbline-groups", "人事,hr".encode())]
    with running.http(key) as client:
        body = {"model": "plumbline", "messages": ASKED}
        answer = client.post("/v1/chat/completions", json=body, headers=given)
        assert answer.status_code == 200, answer.text
        crooked = client.get("/v1/models", headers=[(b"x-plumbline-user", b"\xff/\xfe")])
        assert crooked.status_code == 400
    assert running.turns[-1].user_id == "acme/张三"


def test_an_upload_is_not_read_for_who_may_not(start: Start) -> None:
    """Without the scope the refusal is there before the file is."""
    running = start()
    key = running.key(scopes=["chat"])
    at = httpx.URL(running.url)
    head = (
        f"POST /v1/documents HTTP/1.1\r\nhost: {at.host}:{at.port}\r\n"
        f"authorization: Bearer {key}\r\ncontent-length: 9000\r\n"
        "content-type: multipart/form-data; boundary=x\r\n\r\n"
    )
    with socket.create_connection((at.host, at.port or 80), timeout=10) as sender:
        sender.sendall(head.encode())
        assert b" 403 " in sender.makefile("rb").readline()


def test_every_route_is_closed_to_strangers(start: Start) -> None:
    """Whatever is served, and whatever is not, is 401 without a key, before its body is read."""
    running = start()
    running.key()
    every = routes(running)
    assert ("POST", "/v1/chat/completions") in every
    with running.http() as client:
        for method, path in [*every, ("GET", "/"), ("GET", "/docs"), ("PUT", "/v1/nothing")]:
            for content in (b"", b"{", b"x" * 3_000_000):
                answer = client.request(method, filled(path), content=content)
                large = 413 if len(content) > 1_048_576 else 200
                expected = large if path in PUBLIC else 401
                assert answer.status_code == expected, (method, path)
                if expected == 401:
                    assert answer.json()["error"]["code"] == "invalid_api_key"


#: What each route needs; a route that is not here fails the test below.
NEEDED = {
    ("POST", "/v1/chat/completions"): "chat",
    ("GET", "/v1/models"): None,
    ("GET", "/v1/models/{name}"): None,
    ("GET", "/v1/openapi.json"): None,
    ("POST", "/v1/embeddings"): "embed",
    ("POST", "/v1/moderations"): "moderate",
    ("POST", "/v1/search"): "search",
    ("GET", "/v1/citations/{citation_id}"): "search",
    ("POST", "/v1/feedback"): "feedback",
    ("POST", "/v1/documents"): "ingest",
    ("GET", "/v1/documents"): "documents",
    ("GET", "/v1/documents/{document_id}"): "documents",
    ("DELETE", "/v1/documents/{document_id}"): "ingest",
    ("POST", "/v1/conversations"): "chat",
    ("GET", "/v1/conversations"): "chat",
    ("GET", "/v1/conversations/{conversation_id}"): "chat",
    ("POST", "/v1/conversations/{conversation_id}"): "chat",
    ("DELETE", "/v1/conversations/{conversation_id}"): "chat",
}


def test_every_route_asks_for_its_scope(start: Start) -> None:
    """A key without the scope of a route gets 403 there, one with it does not."""
    running = start()
    every = [pair for pair in routes(running) if pair[1] not in PUBLIC]
    assert set(every) == set(NEEDED), "a route is missing from the matrix, or gone"
    for (method, path), scope in NEEDED.items():
        if scope is None:
            continue
        without = running.key(scopes=[s for s in SCOPES if s != scope])
        alone = running.key(scopes=[scope])
        body = {"model": "x", "messages": ASKED, "input": "x", "query": "x", "response_id": "x"}
        for key, closed in ((without, True), (alone, False)):
            with running.http(key) as client:
                given = None if method in ("GET", "DELETE") else body
                files = {"file": ("a.md", b"# A\n\nA.")} if path == "/v1/documents" else None
                files = files if method == "POST" else None
                answer = client.request(
                    method, filled(path), json=None if files else given, files=files
                )
            missing = answer.status_code == 403 and "scope" in answer.text
            assert missing is closed, (method, path, answer.text)
