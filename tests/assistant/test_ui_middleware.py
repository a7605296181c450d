from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from assistant.config import Settings
from assistant.errors import ConfigError
from assistant.ui.app import create_app, serve
from assistant.ui.middleware import is_loopback
from tests.assistant.ui_double import Double

ROUTES = (
    "/",
    "/config",
    "/theme.css",
    "/manifest.json",
    "/favicon.ico",
    "/robots.txt",
    "/plumbline/page.js",
    "/plumbline/style.css",
    "/plumbline/train.css",
    "/plumbline/app.py",
    "/plumbline/..%2fapp.py",
    "/gradio_api/info",
    "/gradio_api/startup-events",
    "/gradio_api/file=/etc/passwd",
    "/nowhere",
    "/static/../../config.py",
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of the chat bound to loopback."""
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    app = create_app(Double.with_guide(), settings)
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        yield client


def _policy(header: str) -> dict[str, str]:
    parts = (part.strip().partition(" ") for part in header.split(";"))
    return {name: value for name, _, value in parts}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_every_answer_carries_the_headers(client: TestClient, route: str, method: str) -> None:
    """Found or not, refused or not: the policy stands on every response."""
    response = client.request(method, route)
    policy = _policy(response.headers["content-security-policy"])
    assert policy["default-src"] == "'self'"
    assert "unsafe" not in policy["script-src"]
    assert "http" not in response.headers["content-security-policy"]
    assert policy["frame-ancestors"] == policy["object-src"] == "'none'"
    assert policy["form-action"] == policy["base-uri"] == policy["connect-src"] == "'self'"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert "camera=()" in response.headers["permissions-policy"]
    assert "server" not in response.headers


def test_every_inline_script_of_the_index_carries_the_nonce(client: TestClient) -> None:
    """The nonce is new with each response, and no script goes without it."""
    seen = set()
    for _ in range(2):
        response = client.get("/", headers={"accept-encoding": "br, gzip"})
        policy = _policy(response.headers["content-security-policy"])
        nonce = re.findall(r"'nonce-([\w-]+)'", policy["script-src"])[0]
        scripts = re.findall(r"<script[^>]*>", response.text)
        assert scripts
        assert all(f'nonce="{nonce}"' in script for script in scripts)
        seen.add(nonce)
    assert len(seen) == 2


def test_files_of_the_server_stay_on_the_server(client: TestClient, tmp_path: Path) -> None:
    """Neither the file endpoint nor our own serves anything but what it is for."""
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    for route in (
        f"/gradio_api/file={secret}",
        "/gradio_api/file=/etc/passwd",
        "/plumbline/app.py",
        "/plumbline/..%2f..%2fconfig.py",
        "/plumbline/%2e%2e/config.py",
    ):
        response = client.get(route, follow_redirects=False)
        assert response.status_code in (400, 403, 404), route


@pytest.mark.parametrize(
    "host", ["evil.test", "127.0.0.1.evil.test", "localhost.evil.test:7860", "10.0.0.1", ""]
)
def test_foreign_host_names_are_refused(client: TestClient, host: str) -> None:
    """A page that rebinds its name to this computer gets nothing."""
    assert client.get("/", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost", "LOCALHOST:1", "[::1]:7860"])
def test_loopback_names_are_served(client: TestClient, host: str) -> None:
    """All the names of this computer are good."""
    assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.test"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_requests_of_other_sites_change_nothing(
    client: TestClient, headers: dict[str, str]
) -> None:
    """A state-changing request must come from our own page."""
    for route in ("/gradio_api/queue/join", "/gradio_api/upload"):
        assert client.post(route, headers=headers, json={}).status_code == 403


def test_requests_of_our_page_pass(client: TestClient) -> None:
    """The same request from the page itself is not refused."""
    headers = {"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}
    answer = client.post("/gradio_api/queue/join", headers=headers, json={})
    assert answer.status_code != 403


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/info",
        "/gradio_api/call/ask",
        "/gradio_api/run/predict",
        "/gradio_api/run/ask",
        "/gradio_api/file=https://example.org/",
        "/gradio_api/proxy=https://example.org/",
        "/gradio_api/component_server",
        "/gradio_api/deep_link",
        "/gradio_api/mcp/sse",
        "/monitoring",
        "/login",
        "/openapi.json",
        "/docs",
    ],
)
def test_the_page_is_not_an_api(client: TestClient, path: str) -> None:
    """What Gradio could serve beside the page is not there, for reading or for writing."""
    assert client.get(path).status_code == 404
    assert client.post(path, json={"data": []}).status_code == 404


def test_other_addresses_check_only_the_origin(tmp_path: Path) -> None:
    """Behind a gateway the Host is the gateway's affair; another site's Origin is still refused."""
    settings = Settings.model_validate({"home": tmp_path, "serve": {"host": "0.0.0.0"}})
    with TestClient(create_app(Double(), settings), base_url="http://chat.example") as client:
        assert client.get("/").status_code == 200
        headers = {"origin": "https://evil.test"}
        assert client.post("/gradio_api/upload", headers=headers).status_code == 403


@pytest.mark.parametrize(
    ("host", "ours"),
    [("localhost", True), ("127.9.9.9", True), ("::1", True), ("0.0.0.0", False), ("a.b", False)],
)
def test_loopback_is_recognised(host: str, ours: bool) -> None:
    """Names and addresses of this computer, and no others."""
    assert is_loopback(host) is ours


def test_a_taken_port_says_what_to_do(tmp_path: Path) -> None:
    """The message names the port and the setting to change."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = Settings.model_validate({"home": tmp_path, "serve": {"port": port}})
        with pytest.raises(ConfigError, match=rf"port {port} .* serve\.port"):
            serve(Double(), settings, lambda address: None)
