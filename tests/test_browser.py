"""The chat in a real Chromium: every request is ours, the console is clean, everything works."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn

from assistant.build import build_assistant
from assistant.config import Settings
from assistant.errors import AssistantError, TrainerError
from assistant.schema import Feedback
from assistant.training import Trainer
from assistant.ui.app import create_app
from assistant.ui.base import AssistantLike
from tests.assistant.trainer_double import WAITING, TrainerDouble, points
from tests.assistant.ui_double import Double

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    (
        path
        for path in ("/usr/bin/chromium", shutil.which("chromium"), shutil.which("google-chrome"))
        if path and Path(path).exists()
    ),
    None,
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this computer"),
]

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
PATIENCE_MS = 30_000
HANDBOOK = """# Travel handbook

## Hotels

Hotel costs are reimbursed up to 150 euros per night. Breakfast is included in this amount.

## 年假

员工每年享有十五天年假。年假须提前两周申请。
"""
HOSTILE = """# <img src=x onerror=window.PWN=1> Zebra notes

## <script>window.PWN=1</script> Stripes

The zebra <script>window.PWN=1</script> has <img src="https://evil.test/a.png"> stripes, too.

Zebra [link](javascript:window.PWN=1) ![x](https://evil.test/b.png) hooves are hard.

Zebra herds <iframe src="https://evil.test"></iframe> graze <svg onload=window.PWN=1></svg> daily.
"""


@dataclass
class Site:
    """A running chat."""

    address: str
    assistant: AssistantLike
    feedback: list[Feedback]


@dataclass
class Watch:
    """What a page asked for, and what it complained of."""

    host: str
    foreign: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    aborted: bool = False

    def on_request(self, request: Any) -> None:
        """Note a request that is not ours."""
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob", "about") and parts.netloc != self.host:
            self.foreign.append(request.url)

    def on_console(self, message: Any) -> None:
        """Note an error."""
        if message.type == "error":
            self.note(message.text)

    def note(self, words: str) -> None:
        """Keep an error, unless Gradio only reports requests it aborted when a page was left."""
        self.aborted = self.aborted or "AbortError" in words
        if not self.aborted or not ("AbortError" in words or "errored out" in words):
            self.errors.append(words)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for the module."""
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield chromium
        chromium.close()


def _run(
    assistant: AssistantLike,
    home: Path,
    feedback: list[Feedback],
    trainer: Trainer | None = None,
) -> Generator[Site, None, None]:
    settings = Settings(home=home)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(create_app(assistant, settings, trainer), log_level="warning", lifespan="on")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.05)
    yield Site(f"http://127.0.0.1:{listener.getsockname()[1]}/", assistant, feedback)
    server.should_exit = True
    server.force_exit = True
    thread.join(10)
    listener.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The chat over the double, which answers at once and the same every time."""
    double = Double.with_guide(delay=0.01)
    yield from _run(double, tmp_path_factory.mktemp("home"), double.feedback)


@pytest.fixture(scope="module", params=["double", "real"])
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """The chat over the double, then over the real assistant."""
    home = tmp_path_factory.mktemp("home")
    if request.param == "double":
        double = Double.with_guide()
        yield from _run(double, home, double.feedback)
        return
    feedback: list[Feedback] = []
    try:
        assistant = build_assistant(Settings(home=home), on_feedback=feedback.append)
    except AssistantError as error:
        pytest.skip(f"the real assistant cannot be built here: {error}")
    with assistant:
        yield from _run(assistant, home, feedback)


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open pages; each must have asked only us, and have kept its console clean."""
    opened: list[tuple[Any, Watch]] = []

    def open_page(site: Site, path: str = "", **options: Any) -> Any:
        context = browser.new_context(
            **{"viewport": {"width": 1360, "height": 860}, "locale": "en-US", **options}
        )
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        watch = Watch(urlsplit(site.address).netloc)
        page.on("request", watch.on_request)
        page.on("console", watch.on_console)
        page.on("pageerror", lambda error: watch.note(str(error)))
        opened.append((context, watch))
        page.goto(site.address + path)
        if "p=train" in path:
            page.wait_for_selector(".pl-ready #pl-train .pl-train")
        else:
            _settled(page)
        return page

    yield open_page
    for context, watch in opened:
        context.close()
        assert watch.foreign == []
        assert watch.errors == []


def _settled(page: Any) -> None:
    page.wait_for_selector(".pl-ready #pl-history .pl-transcript")
    page.wait_for_selector("#pl-composer .submit-button")


def _turns(page: Any) -> int:
    return int(page.locator("#pl-history .pl-turn").count())


def _ask(page: Any, question: str) -> Any:
    """Type a question, press Enter, wait; returns the answer's element."""
    before = _turns(page)
    page.fill("#pl-composer textarea", question)
    page.press("#pl-composer textarea", "Enter")
    page.wait_for_selector(f"#pl-history .pl-turn >> nth={before}")
    page.wait_for_selector("#pl-composer .submit-button")
    return page.locator("#pl-history .pl-turn").nth(before)


def _wait(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def _wide(page: Any) -> tuple[int, int]:
    sizes = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    return cast(tuple[int, int], tuple(sizes))


def _upload(page: Any, *files: Path) -> None:
    page.set_input_files("#pl-files input[type=file]", [str(file) for file in files])
    page.wait_for_selector("#pl-progress .pl-done")


def test_a_whole_visit(both: Site, visit: Callable[..., Any], tmp_path: Path) -> None:
    """Upload, ask in two languages, check the source, judge, correct, rename, come back."""
    expect = playwright.expect
    page = visit(both)
    handbook = tmp_path / "travel.md"
    handbook.write_text(HANDBOOK, encoding="utf-8")
    _upload(page, handbook)
    expect(page.locator("#pl-progress")).to_contain_text("1 added")

    english = _ask(page, "How much are hotel costs reimbursed per night?")
    expect(english).to_contain_text("150 euros")
    chinese = _ask(page, "员工每年有多少天年假？")
    expect(chinese).to_contain_text("十五天")

    chinese.locator("a.pl-cite").first.click()
    expect(page.locator("#pl-panel .pl-card").first).to_contain_text("十五天年假")
    english.locator("a.pl-cite").first.click()
    expect(page.locator("#pl-panel .pl-card.pl-flash")).to_contain_text("150 euros")
    expect(page.locator("#pl-panel mark").first).to_contain_text("Hotel costs")
    page.click("#pl-panel .pl-why summary")
    expect(page.locator("#pl-panel .pl-why")).to_contain_text("ms")

    chinese.locator('[data-action="vote"][data-value="-1"]').click()
    chinese.locator('[data-form="reasons"] .pl-tag').nth(2).click()
    chinese.locator('[data-form="reasons"] textarea').fill("太旧")
    chinese.locator('[data-action="reasons"]').click()
    expect(chinese.locator(".pl-note")).to_be_visible()
    last = both.feedback[-1]
    assert (last.kind, last.value, last.reasons, last.text) == ("thumb", -1, ("outdated",), "太旧")

    _compare(page, english, both)
    english.locator('[data-action="open-edit"]').click()
    english.locator('[data-form="edit"] textarea').fill("Up to 150 euros.")
    english.locator('[data-action="edit"]').click()
    expect(english.locator(".pl-note")).to_contain_text("correction is saved")
    assert (both.feedback[-1].kind, both.feedback[-1].text) == ("edit", "Up to 150 euros.")

    _rename(page, "Hotels <b>and</b> 年假")
    page.reload()
    _settled(page)
    expect(page.locator("#pl-history .pl-turn")).to_have_count(2)
    expect(page.locator(".pl-current .pl-open")).to_have_text("Hotels <b>and</b> 年假")
    expect(
        page.locator("#pl-history .pl-turn").nth(1).locator('[aria-pressed="true"]')
    ).to_have_count(1)

    page.click("#pl-language label:has-text('中文')")
    expect(page.locator("#pl-new")).to_have_text("新对话")
    expect(page.locator("#pl-history .pl-turn").first).to_contain_text("有帮助")
    page.reload()
    _settled(page)
    expect(page.locator("#pl-new")).to_have_text("新对话")
    expect(page.locator("#pl-composer textarea")).to_have_attribute(
        "placeholder", "就您的文档提问…"
    )


def _compare(page: Any, answer: Any, site: Site) -> None:
    """Ask for another answer; where there is one, pick the first shown."""
    answer.locator('[data-action="another"]').click()
    page.wait_for_selector("#pl-history :is(.pl-compare, .pl-note:has-text('no other'))")
    if answer.locator(".pl-compare").count():
        answer.locator('[data-action="pick"][data-value="0"]').click()
        playwright.expect(answer.locator(".pl-note")).to_contain_text("choice is saved")
        pick = site.feedback[-1]
        assert (pick.kind, pick.value, pick.order_randomised) == ("ab_pick", 0, True)
        assert len(set(pick.candidate_ids)) == 2


def _rename(page: Any, title: str) -> None:
    page.hover(".pl-current")
    page.click('.pl-current [data-action="open-rename"]')
    page.fill(".pl-current input[type=text]", title)
    page.press(".pl-current input[type=text]", "Enter")
    playwright.expect(page.locator(".pl-current .pl-open")).to_have_text(title)


def test_an_example_starts_a_chat(site: Site, visit: Callable[..., Any]) -> None:
    """A click on an example of the first screen sends it."""
    page = visit(site, locale="zh-CN")
    page.click("#pl-history .pl-example >> nth=0")
    page.wait_for_selector("#pl-history .pl-turn")
    playwright.expect(page.locator("#pl-history")).to_contain_text("请把文件拖到")
    playwright.expect(page).to_have_url(re.compile(r"\?c="))


def test_the_keyboard_is_enough(site: Site, visit: Callable[..., Any]) -> None:
    """Type, Shift+Enter for a line, Enter to send; then Tab to a thumb and press it."""
    page = visit(site)
    playwright.expect(page.locator("#pl-composer textarea")).to_be_focused()
    page.keyboard.type("How do I")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("add documents?")
    assert page.input_value("#pl-composer textarea") == "How do I\nadd documents?"
    page.keyboard.press("Enter")
    page.wait_for_selector("#pl-history .pl-turn")
    page.wait_for_selector("#pl-composer .submit-button")
    playwright.expect(page.locator("#pl-composer textarea")).to_be_focused()
    for _ in range(20):
        page.keyboard.press("Shift+Tab")
        name = page.evaluate("document.activeElement.title")
        if name == "Helpful":
            break
    page.keyboard.press("Enter")
    page.wait_for_selector('#pl-history [data-value="0"][aria-pressed="true"]')
    _wait(lambda: page.evaluate("document.activeElement.title") == "Helpful")


def test_stop_stops(visit: Callable[..., Any], tmp_path: Path) -> None:
    """Stop closes the assistant's stream, keeps the words so far and gives the box back."""
    double = Double.with_guide(delay=0.15)
    running = _run(double, tmp_path / "home", double.feedback)
    site = next(running)
    page = visit(site)
    page.fill("#pl-composer textarea", "How do I add documents?")
    page.press("#pl-composer textarea", "Enter")
    playwright.expect(page.locator("#pl-live .pl-text")).to_contain_text("To add")
    page.click("#pl-composer .stop-button")
    playwright.expect(page.locator("#pl-live")).to_contain_text("Stopped.")
    page.wait_for_selector("#pl-composer .submit-button")
    _wait(lambda: double.closed == 1)
    double.delay = 0.0
    page.click('#pl-live [data-action="say"]')
    page.wait_for_selector("#pl-history .pl-turn")
    page.context.close()
    running.close()


def test_leaving_the_page_stops_the_work(visit: Callable[..., Any], tmp_path: Path) -> None:
    """A tab closed in the middle of an answer closes the assistant's stream."""
    double = Double.with_guide(delay=0.15)
    running = _run(double, tmp_path / "home", double.feedback)
    page = visit(next(running))
    page.fill("#pl-composer textarea", "How do I add documents?")
    page.press("#pl-composer textarea", "Enter")
    playwright.expect(page.locator("#pl-live .pl-text")).to_contain_text("To")
    page.close()
    _wait(lambda: double.closed == 1)
    running.close()


def test_a_failing_turn_can_be_repeated(visit: Callable[..., Any], tmp_path: Path) -> None:
    """A friendly sentence with a request id; Try again sends the same words."""
    double = Double.with_guide()
    double.fail_with = lambda: RuntimeError("/etc/passwd is on fire")
    running = _run(double, tmp_path / "home", double.feedback)
    page = visit(next(running))
    page.fill("#pl-composer textarea", "How do I add documents?")
    page.press("#pl-composer textarea", "Enter")
    live = page.locator("#pl-live")
    playwright.expect(live).to_contain_text(re.compile(r"Request [0-9a-f]{8}"))
    assert "/etc" not in live.inner_text()
    double.fail_with = None
    page.wait_for_selector("#pl-composer .submit-button")
    page.click('#pl-live [data-action="say"]')
    page.wait_for_selector("#pl-history .pl-turn")
    running.close()


def test_hostile_documents_reach_nothing(
    both: Site, visit: Callable[..., Any], tmp_path: Path
) -> None:
    """Markup in text, title, heading, file name, question and chat title is only ever words."""
    page = visit(both)
    evil = tmp_path / "<img src=x onerror=window.PWN=1>.md"
    evil.write_text(HOSTILE, encoding="utf-8")
    bad = tmp_path / "<svg onload=window.PWN=1>.txt"
    bad.write_bytes(b"\xff\xfe\x00\xd8\x00")
    _upload(page, evil, bad)
    for question in (
        "What stripes has the zebra?",
        "Where do zebra herds graze? <img src=https://evil.test/q.png onerror=window.PWN=1>",
    ):
        _ask(page, question)
    _rename(page, "<img src=https://evil.test/t.png onerror=window.PWN=1>")
    page.reload()
    _settled(page)
    page.wait_for_timeout(500)
    assert page.evaluate("typeof window.PWN") == "undefined"
    assert page.locator(".md :is(img, script, iframe, svg, form, object, embed)").count() == 0
    hrefs = page.eval_on_selector_all(".md a", "links => links.map(a => a.getAttribute('href'))")
    assert all(href.startswith("#cite-") for href in hrefs)


@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_a_phone_shows_all_of_it(
    site: Site, visit: Callable[..., Any], locale: str, tmp_path: Path
) -> None:
    """At 390 pixels nothing is wider than the screen, and the sources lie below."""
    page = visit(site, locale=locale, viewport={"width": 390, "height": 844}, has_touch=True)
    assert _wide(page)[0] <= 390
    answer = _ask(page, "如何添加文档？" if locale == "zh-CN" else "How do I add documents?")
    assert _wide(page)[0] <= 390
    answer.locator('[data-action="vote"][data-value="-1"]').click()
    page.wait_for_selector('[data-form="reasons"]:not([hidden])')
    assert _wide(page)[0] <= 390
    card, composer = page.locator(".pl-card").first, page.locator("#pl-composer")
    answer.locator("a.pl-cite").first.click()
    playwright.expect(card).to_be_in_viewport()
    assert card.bounding_box()["width"] <= 390
    assert composer.bounding_box()["width"] <= 390
    shot = page.screenshot(path=str(tmp_path / "phone.png"), full_page=True)
    assert len(shot) > 10_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_systems_colours(
    site: Site, visit: Callable[..., Any], scheme: str
) -> None:
    """Dark where the system is dark, light where it is light."""
    page = visit(site, color_scheme=scheme)
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(n) for n in re.findall(r"\d+", colour)[:3]) / 3
    assert (brightness < 80) == (scheme == "dark")


def test_consent_is_remembered(site: Site, visit: Callable[..., Any]) -> None:
    """Off at first; once ticked, still ticked after a reload, and part of the next question."""
    page = visit(site)
    box = page.locator("#pl-consent input")
    playwright.expect(box).not_to_be_checked()
    box.check()
    page.reload()
    _settled(page)
    playwright.expect(box).to_be_checked()
    _ask(page, "Which formats are supported?")
    assert cast(Double, site.assistant).consents[-1].train is True


def test_copying_is_noted_and_changes_nothing(site: Site, visit: Callable[..., Any]) -> None:
    """Copy puts the answer's words on the clipboard and one implicit feedback in the log."""
    page = visit(site, permissions=["clipboard-read", "clipboard-write"])
    answer = _ask(page, "Which formats are supported?")
    answer.locator('[data-action="copy"]').click()
    playwright.expect(answer.locator('[data-action="copy"]')).to_have_text("Copied")
    _wait(lambda: bool(site.feedback) and site.feedback[-1].kind == "copy")
    assert page.evaluate("navigator.clipboard.readText()").startswith("Supported formats")
    page.wait_for_timeout(300)
    assert page.locator(".toast-body").count() == 0
    playwright.expect(answer).to_contain_text("Supported formats")
    playwright.expect(page.locator(".pl-card").first).to_be_visible()


def test_an_action_that_fails_says_so(site: Site, visit: Callable[..., Any]) -> None:
    """The page stays as it was, with a passing message and a request id over it."""
    page = visit(site)
    answer = _ask(page, "Which formats are supported?")
    double = cast(Double, site.assistant)
    chats = dict(double.chats)
    double.chats.clear()
    answer.locator('[data-action="vote"][data-value="1"]').click()
    toast = page.locator(".toast-body").first
    playwright.expect(toast).to_contain_text(re.compile(r"no longer exists.*Request [0-9a-f]{8}"))
    playwright.expect(answer).to_be_visible()
    double.chats.update(chats)


def test_folders_are_added_and_removed(
    site: Site, visit: Callable[..., Any], tmp_path: Path
) -> None:
    """By path: progress, the file that failed with its remedy, and removal after a question."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "bees.md").write_text("# Bees\n\nBees like thyme.", encoding="utf-8")
    (tmp_path / "notes" / "bad.txt").write_bytes(b"\xff\xfe\x00\xd8\x00")
    page = visit(site)
    page.fill("#pl-folder input", str(tmp_path / "nowhere"))
    page.press("#pl-folder input", "Enter")
    playwright.expect(page.locator("#pl-progress")).to_contain_text("no folder or file")
    page.fill("#pl-folder input", str(tmp_path / "notes"))
    page.click("#pl-add")
    page.wait_for_selector("#pl-progress .pl-done")
    page.click("#pl-progress summary")
    playwright.expect(page.locator("#pl-progress")).to_contain_text("bad.txt")
    playwright.expect(page.locator("#pl-progress")).to_contain_text("Save it as UTF-8")
    playwright.expect(_ask(page, "What do bees like?")).to_contain_text("thyme")
    root = page.locator(".pl-root", has_text="notes")
    root.hover()
    root.locator('[data-action="open-remove"]').click()
    root.locator('[data-action="remove"]').click()
    playwright.expect(page.locator("#pl-shelf .pl-note")).to_contain_text("1 document removed")
    playwright.expect(_ask(page, "What do bees like?")).not_to_contain_text("thyme")


def test_chats_are_listed_opened_and_deleted(site: Site, visit: Callable[..., Any]) -> None:
    """New chat, back to the old one by the list, delete it after a second thought."""
    page = visit(site)
    _ask(page, "Which formats are supported?")
    address = page.url
    page.click("#pl-new")
    page.wait_for_selector("#pl-history .pl-welcome")
    playwright.expect(page).not_to_have_url(re.compile(r"\?c="))
    page.click(".pl-session [data-action=open] >> nth=0")
    page.wait_for_selector("#pl-history .pl-turn")
    playwright.expect(page).to_have_url(address)
    page.hover(".pl-current")
    page.click('.pl-current [data-action="open-delete"]')
    page.click('.pl-current [data-action="delete"]')
    page.wait_for_selector("#pl-history .pl-welcome")
    page.goto(address)
    page.wait_for_selector("#pl-history .pl-welcome")


def test_the_server_says_when_it_is_ready_and_ends_when_asked(tmp_path: Path, root: Path) -> None:
    """`serve` takes a free port, calls back once it answers, and stops at an interrupt."""
    code = (
        "from pathlib import Path\n"
        "from assistant.config import Settings\n"
        "from assistant.ui.app import serve\n"
        "from tests.assistant.ui_double import Double\n"
        f"values = {{'home': Path({str(tmp_path)!r}), 'serve': {{'port': 0}}}}\n"
        "settings = Settings.model_validate(values)\n"
        "serve(Double(), settings, lambda address: print(address, flush=True))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert httpx.get(address).status_code == 200
        process.send_signal(signal.SIGINT)
        process.wait(15)


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[tuple[Site, TrainerDouble]]:
    """The chat beside a trainer with everything to show."""
    double, assistant = TrainerDouble.full(), Double.with_guide()
    running = _run(assistant, tmp_path / "home", assistant.feedback, double)
    yield next(running), double
    running.close()


def _to_training(page: Any) -> None:
    page.click('[data-action="show-train"]')
    page.wait_for_selector("#pl-train .pl-train")


def test_training_is_watched_and_steered(
    trainer: tuple[Site, TrainerDouble], visit: Callable[..., Any]
) -> None:
    """Plots that follow the run, a promotion after a second thought, a blind pick, and back."""
    site, double = trainer
    page, expect = visit(site), playwright.expect
    _to_training(page)
    expect(page).to_have_url(re.compile("p=train"))
    expect(page.locator("#pl-composer")).to_be_hidden()
    expect(page.locator("#pl-run svg")).to_have_count(2)
    page.click("#pl-run .pl-fold-numbers summary")
    double.curve = points(33)
    expect(page.locator("#pl-run")).to_contain_text("After 33 updates")
    expect(page.locator("#pl-run .pl-fold-numbers table")).to_be_visible()
    colour = page.eval_on_selector("#pl-run .pl-main-line", "e => getComputedStyle(e).stroke")
    assert colour == "rgb(15, 107, 92)"

    verb = page.locator(f'.pl-candidate:has-text("{WAITING}") [data-action="open-promote"]').first
    verb.click()
    expect(page.locator('[data-form="promote"]:visible [data-action="promote"]')).to_be_focused()
    page.keyboard.press("Escape")
    expect(verb).to_be_focused()
    assert double.calls == []
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(page.locator("#pl-candidates .pl-note")).to_be_focused()
    assert double.calls == [("promote", WAITING, "page")]
    expect(page.locator(".pl-candidate.pl-is-live .pl-code")).to_have_text(WAITING)

    double.found[0] = replace(double.found[0], state="failed", ended=1.0, reason="no room")
    expect(page.locator("#pl-run")).to_contain_text("no room")
    expect(page.locator('.pl-hidden[aria-live="polite"]')).to_have_text("Run failed: Policy")
    page.reload()
    page.wait_for_selector("#pl-train .pl-train")
    page.click('[data-action="show-chat"]')
    expect(page.locator("#pl-composer")).to_be_visible()
    expect(page).not_to_have_url(re.compile("p=train"))


def test_answers_are_picked_blind(
    trainer: tuple[Site, TrainerDouble], visit: Callable[..., Any]
) -> None:
    """By keyboard: a pick, then the next question has the focus; a refusal is said, not hidden."""
    site, double = trainer
    page, expect = visit(site, "?p=train"), playwright.expect
    page.focus('#pl-blind [data-action="judge"][data-value="0"]')
    page.keyboard.press("Enter")
    expect(page.locator("#pl-blind .pl-question")).to_contain_text("年假")
    expect(page.locator("#pl-blind .pl-question")).to_be_focused()
    verb, pair, choice, first, who = double.calls[0]
    assert (verb, pair, who) == ("pick", "pair-1", "page")
    assert choice == first
    double.refuse = TrainerError("pair-2 was judged elsewhere", "gone")
    page.click('#pl-blind [data-action="judge"][data-value="-1"]')
    expect(page.locator("#pl-blind .pl-note")).to_contain_text("judged elsewhere")


@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_training_fits_a_phone(
    trainer: tuple[Site, TrainerDouble], visit: Callable[..., Any], locale: str
) -> None:
    """At 390 pixels only the table of the gates scrolls sideways, by itself."""
    site, _ = trainer
    page = visit(site, "?p=train", locale=locale, viewport={"width": 390, "height": 844})
    assert _wide(page)[0] <= 390
    page.click('[data-action="open-promote"] >> nth=0')
    assert _wide(page)[0] <= 390
    box = page.locator(".pl-wide:visible").first
    assert box.get_attribute("tabindex") == "0"
    assert box.evaluate("e => e.scrollWidth > e.clientWidth")


def test_without_a_trainer_the_page_says_so(site: Site, visit: Callable[..., Any]) -> None:
    """The way to it is there, and behind it stands why nothing can be trained."""
    page = visit(site)
    _to_training(page)
    playwright.expect(page.locator("#pl-train")).to_contain_text("without a trainer")
    page.click("#pl-new")
    playwright.expect(page.locator("#pl-composer")).to_be_visible()
