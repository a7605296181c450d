"""The chat on the API's server in a real Chromium: signing in and out, and two tenants at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.assistant.server.conftest import Running, _servers
from tests.assistant.server.test_routes import upload
from tests.test_browser import (
    ARGUMENTS,
    CHROMIUM,
    PATIENCE_MS,
    Watch,
    _ask,
    _settled,
    playwright,
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this computer"),
]
SECRETS = {"acme": "1234 euros", "bolt": "9876 euros"}
QUESTION = "What is the payroll of the zeppelin crew?"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with the chat, and a document of each of two tenants."""
    with _servers(tmp_path_factory.mktemp("server")) as begin:
        running = begin(server__ui="true")
        for tenant, secret in SECRETS.items():
            with running.http(_key(running, tenant, "boss")) as client:
                text = f"# Payroll\n\nThe payroll of the zeppelin crew is {secret}.\n"
                upload(client, f"payroll-{tenant}.md", text)
        yield running


@pytest.fixture(scope="module")
def enter() -> Iterator[Callable[..., Any]]:
    """Open a browser of its own at a server's chat, which leads to the sign-in page."""
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))

        @contextmanager
        def opened(running: Running, **options: Any) -> Iterator[Any]:
            context = chromium.new_context(
                **{"viewport": {"width": 1360, "height": 860}, "locale": "en-US", **options}
            )
            page = context.new_page()
            page.set_default_timeout(PATIENCE_MS)
            watch = Watch(urlsplit(running.url).netloc)
            page.on("request", watch.on_request)
            page.on("console", watch.on_console)
            page.on("pageerror", lambda error: watch.note(str(error)))
            page.goto(f"{running.url}ui")
            yield page
            context.close()
            assert watch.foreign == []
            # a key or a session that was refused is an error of the browser's, not of the page
            assert [e for e in watch.errors if "status of 401" not in e] == []

        yield opened
        chromium.close()


def _key(running: Running, tenant: str, user: str, **about: Any) -> str:
    scopes = ["chat", "search", "documents", "feedback", "ingest"]
    return running.key(tenant=tenant, user=user, **{"scopes": scopes, **about})


def _sign_in(page: Any, key: str) -> None:
    page.fill("#key", key)
    page.press("#key", "Enter")


def test_sign_in_ask_follow_a_citation_and_sign_out(
    running: Running, enter: Callable[..., Any], tmp_path: Path
) -> None:
    """A wrong key is told so; a right one opens the chat, whose words and files are one's own."""
    expect = playwright.expect
    with enter(running) as page:
        expect(page).to_have_url(f"{running.url}ui/sign-in")
        _sign_in(page, "pl-wrong")
        expect(page.locator("[role=alert]")).to_contain_text("opens nothing")
        _sign_in(page, _key(running, "acme", "ann"))
        _settled(page)
        expect(page.locator("#pl-account")).to_contain_text("Signed in as acme/ann")
        expect(page.locator("#pl-shelf")).to_contain_text("payroll-acme.md")
        expect(page.locator(".pl-status")).to_contain_text("4 documents")  # three open to all
        expect(page.locator("#pl-folder")).to_have_count(0)
        assert page.evaluate("document.cookie").find("plumbline_session") == -1

        answer = _ask(page, QUESTION)
        expect(answer).to_contain_text(SECRETS["acme"])
        answer.locator("a.pl-cite").first.click()
        expect(page.locator("#pl-panel .pl-card.pl-flash")).to_contain_text("zeppelin crew")
        answer.locator('[data-action="vote"][data-value="1"]').click()
        expect(answer.locator(".pl-note")).to_be_visible()
        assert running.feedback[-1].user_id == "acme/ann"
        assert running.turns[-1].user_id == "acme/ann"

        file = tmp_path / "kites.md"
        file.write_text("# Kites\n\nA kite of the navy costs 55 euros.\n", encoding="utf-8")
        page.set_input_files("#pl-files input[type=file]", [str(file)])
        expect(page.locator("#pl-progress .pl-done")).to_contain_text("1 added")
        expect(_ask(page, "What does a kite of the navy cost?")).to_contain_text("55 euros")

        page.click('#pl-account [data-action="sign-out"]')
        expect(page).to_have_url(f"{running.url}ui/sign-in")
        page.goto(running.url)
        expect(page).to_have_url(f"{running.url}ui/sign-in")


def test_two_tenants_see_nothing_of_each_other(running: Running, enter: Callable[..., Any]) -> None:
    """Answers, sources, chats and documents of one are nowhere on the other's page, at once."""
    expect = playwright.expect
    with enter(running) as one, enter(running, locale="zh-CN") as two:
        expect(two.locator("button")).to_have_text("登录")
        pages = {"acme": one, "bolt": two}
        for tenant, page in pages.items():
            _sign_in(page, _key(running, tenant, "cat"))
            _settled(page)
        for tenant, page in pages.items():
            expect(_ask(page, QUESTION)).to_contain_text(SECRETS[tenant])
        for tenant, page in pages.items():
            other = next(name for name in SECRETS if name != tenant)
            page.goto(pages[other].url)
            _settled(page)
            page.wait_for_selector("#pl-sessions .pl-session")
            assert page.locator("#pl-history .pl-turn").count() == 0
            for secret in (SECRETS[other], f"payroll-{other}.md", f"{other}/cat"):
                assert secret not in page.content()
            assert page.locator("#pl-sessions .pl-session").count() == 1


def test_a_key_that_is_taken_back_ends_its_page(
    running: Running, enter: Callable[..., Any]
) -> None:
    """What an open page does next leads to the sign-in page, and shows nothing more."""
    key = _key(running, "acme", "dan")
    with enter(running) as page:
        _sign_in(page, key)
        _settled(page)
        running.server.keys.revoke(key.split("-")[1])
        page.fill("#pl-composer textarea", QUESTION)
        page.press("#pl-composer textarea", "Enter")
        playwright.expect(page).to_have_url(f"{running.url}ui/sign-in")


def test_without_a_key_the_computers_own_user_needs_none(
    enter: Callable[..., Any], tmp_path: Path
) -> None:
    """On loopback and with no key made, the page opens as the chat of this computer does."""
    with _servers(tmp_path) as begin:
        running = begin(server__ui="true")
        with enter(running) as page:
            _settled(page)
            playwright.expect(page.locator("#pl-folder")).to_be_visible()
            assert page.locator("#pl-account .pl-account").count() == 0
            answer = _ask(page, "How much does the widget cost?")
            playwright.expect(answer).to_contain_text("40 euros")
        assert running.assistant.conversations("local")
