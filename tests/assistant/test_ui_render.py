from __future__ import annotations

import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from typing import cast

import pytest

from assistant.schema import Citation, Conversation, Excerpt, Outcome, Reply, Turn
from assistant.ui import render, render_chat, render_panel, render_safety, render_side
from assistant.ui.state import Comparison, Live, View
from assistant.ui.strings import Language
from retrieval.schema import FileReport, IndexStatus, IngestProgress, IngestSummary, RootStatus
from safety.config import SafetySettings
from safety.hazards import HAZARDS
from safety.rates import Rate, Rates
from safety.schema import Verdict
from tests.assistant.ui_double import Double

BY_ID = {hazard.id: hazard for hazard in HAZARDS}
HOSTILE = (
    "<script>window.PWN=1</script>",
    "<ScRiPt src=//evil.test/x.js></sCrIpT>",
    "<img src=x onerror=window.PWN=1>",
    "<img src='https://evil.test/a.png'>",
    "<svg onload=window.PWN=1><a xlink:href='javascript:1'>x</a></svg>",
    "<math><mtext><table><mglyph><style><img src=x onerror=window.PWN=1>",
    "<iframe src='https://evil.test'></iframe>",
    "<iframe srcdoc='<script>parent.PWN=1</script>'></iframe>",
    "<form action='https://evil.test'><input name=a><button formaction='//evil.test'>go</form>",
    "<meta http-equiv=refresh content='0;url=https://evil.test'>",
    "<base href='https://evil.test/'>",
    "<link rel=stylesheet href='https://evil.test/x.css'>",
    "<style>body{background:url(https://evil.test/x.png)}</style>",
    "<div style='background:url(https://evil.test/x.png)'>x</div>",
    "<a href='javascript:window.PWN=1'>x</a>",
    "<a href='data:text/html,<script>1</script>'>x</a>",
    "<object data='https://evil.test'></object><embed src='https://evil.test'>",
    "<video src='https://evil.test/x'></video><audio src='//evil.test/x'></audio>",
    "<button data-action='delete' data-conversation='1'>x</button>",
    "![x](https://evil.test/a.png)",
    "![x][r]\n\n[r]: https://evil.test/a.png",
    "[x](https://evil.test)",
    "[x](javascript:window.PWN=1)",
    "[x][r]\n\n[r]: https://evil.test",
    "<https://evil.test>",
    "[1]: https://evil.test\n\n[1]",
    "```html\n<script>window.PWN=1</script>\n```",
    '"><script>window.PWN=1</script>',
    "'\"><img src=x onerror=window.PWN=1>",
    "</textarea><script>window.PWN=1</script>",
    "&lt;script&gt;window.PWN=1&lt;/script&gt;",
    "[x](#cite-a-1)",
    "<p id=pl-bus class=pl-card>x</p>",
)
LOADS = {"src", "srcset", "srcdoc", "action", "formaction", "style", "background", "poster", "data"}
FORBIDDEN = set(
    "script img svg math iframe form meta base link style object embed video audio".split()
)


class _Page(HTMLParser):
    """Every element and attribute of a piece of HTML."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        self.elements.append((tag, {k: v or "" for k, v in attrs}))

    def handle_data(self, data: str) -> None:
        """Note the words."""
        self.words += data


def _harmless(markup: str) -> _Page:
    page = _Page(markup)
    for tag, attributes in page.elements:
        assert tag not in FORBIDDEN, tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in LOADS, (tag, name)
            if name == "href":
                assert re.fullmatch(r"#cite-[\w-]+", value), value
    return page


def _reply(text: str = "Fine.[1]", **changes: object) -> Reply:
    double = Double.with_guide()
    reply = list(double.stream("How do I add documents?"))[-1].reply
    assert reply is not None
    return replace(reply, text=text, **changes)  # type: ignore[arg-type]


def _hostile_citation(word: str, number: int = 1) -> Citation:
    return replace(
        _reply().citations[0],
        number=number,
        source=f"/docs/{word}.md",
        title=word,
        headings=(word, word),
        quote=word,
        verbatim=False,
    )


@pytest.mark.parametrize("word", HOSTILE)
def test_hostile_answers_stay_words(word: str) -> None:
    """An answer can hold no element that loads, runs or submits, whatever is written in it."""
    for text in (
        word,
        f"Before {word} after",
        f"- {word}\n- two",
        f"> {word}",
        f"| a |\n|-|\n| {word} |",
    ):
        page = _harmless(render.answer(text, citations=[_hostile_citation(word)], turn_id="t"))
        assert not any(a.get("data-action") for _, a in page.elements)


@pytest.mark.parametrize("word", HOSTILE)
def test_hostile_words_anywhere_stay_words(word: str) -> None:
    """Titles, file names, headings, excerpts, questions, names, reasons: all escaped."""
    citation = _hostile_citation(word)
    reply = _reply(f"{word} [1]", citations=(citation,), candidate_id=word, language=word)
    turn = Turn(word, word, word, reply, time.time())
    view = View(conversation_id=word, turn_ids=(word,), selected=word, note=(word, "thanks"))
    excerpt = Excerpt(citation, word, word, word, current=False)
    report = FileReport(word, "failed", 0, 0, word, word, word)
    root = RootStatus(word, 1, 1, 1.0, 1.0, (report,))
    comparison = Comparison(word, word, (reply, reply))
    regions = [
        render_chat.transcript([turn], view, documents=1),
        render_chat.transcript([turn], replace(view, comparison=comparison), documents=1),
        render_chat.live(Live(word, (word,), word, "error", word), "en"),
        render_panel.panel(reply, {1: excerpt}, "zh"),
        render_panel.panel(reply, {1: None}, "en"),
        render_side.sessions([Conversation(word, "u", word, 1.0, 1.0, 1)], word, "en"),
        render_side.shelf(IndexStatus(1, 1, 2, 1, word, (root,)), "en", word),
        render_side.progress(IngestProgress(1, 2, 1, 1, 0.5, report), [report], "en"),
        render_side.ingested(
            IngestSummary(1, 1, 0, 0, 0, 1, 1, 0.5, (report,), ((word, 2),)), "en"
        ),
        render_side.notice(word, word),
    ]
    for region in regions:
        _harmless(region)


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        (
            "en",
            [
                "feed",
                "2 documents",
                "3 passages",
                "only for ann, bob",
                "checked 2 hours ago",
                "changed yesterday",
                "1 change waiting",
                "check overdue by 90 min",
                "The server cannot be reached.",
                "Check the address and the connection.",
            ],
        ),
        ("zh", ["订阅源", "2 小时前检查", "检查已迟 90 分钟", "无法连接服务器。"]),
    ],
)
def test_a_source_shows_its_lag(language: Language, expected: list[str]) -> None:
    """Kind, counts, readers, the last check and change, the lag, and the last error's remedy."""
    now = time.time()
    url = "https://a.example/feed"
    error = FileReport(url, "failed", reason="unreachable", detail="x", remedy="y")
    root = RootStatus(
        url,
        2,
        3,
        now,
        now,
        (error,),
        kind="feed",
        readers=("ann", "bob"),
        every_minutes=30.0,
        checked=now - 7300,
        changed=now - 90_000,
        lag=5400.0,
        pending=1,
        error=error,
    )
    shown = render_side.shelf(IndexStatus(2, 3, 1, 1, "e", (root,)), language)
    assert [words for words in expected if words not in _Page(shown).words] == []
    assert shown.count("<li>") == 1  # the error is told once


def test_regions_are_one_line_of_html() -> None:
    """A region begins with a block and holds no line break, so Markdown leaves it alone."""
    turn = Turn("t", "c", "two\n\nlines", _reply("a\n\n```\nb\n\nc\n```"), time.time())
    for region in (
        render_chat.transcript([turn], View(turn_ids=("t",)), documents=1),
        render_chat.transcript([], View(), documents=0),
        render_panel.panel(turn.reply, {}, "en"),
        render_side.sessions([], "", "zh"),
    ):
        assert "\n" not in region
        assert re.match(r"<(div|p|section|nav|ul)[ >]", region)


def test_marks_of_known_citations_become_links() -> None:
    """`[n]` links to its card where it is cited; an unknown number stays as written."""
    page = _Page(render.answer("One [1]. Two [7].", citations=_reply().citations, turn_id="t-1"))
    links = [a["href"] for tag, a in page.elements if tag == "a"]
    assert links == ["#cite-t_1-1"]
    assert "[7]" in page.words
    assert "[1]" not in page.words


def test_links_lead_to_cards_of_the_panel() -> None:
    """Every link of an answer names the id of a card of its panel."""
    reply = _reply()
    links = re.findall(r'href="#([^"]+)"', render.reply_html(reply, "en"))
    cards = re.findall(r'id="(cite-[^"]+)"', render_panel.panel(reply, {}, "en"))
    assert links
    assert set(links) <= set(cards)


def test_quoted_code_is_shown_as_code() -> None:
    """A fence and a tag that grounding marked as code are code on the page, and inert."""
    citation = replace(_reply().citations[0], verbatim=True, number=1)
    text = "Use `<Keep :max='1'>` here: [1]\n\n```\n<img src=x onerror=alert(1)>\n  a  b\n```"
    shown = render.answer(text, citations=[citation], turn_id="t")
    assert "<code>&lt;Keep :max='1'&gt;</code>" in shown
    assert "<pre><code>&lt;img src=x onerror=alert(1)&gt;&#10;  a  b</code></pre>" in shown


def test_verbatim_answers_are_not_markdown() -> None:
    """Words quoted from a document keep their underscores, stars and number signs."""
    text = "# not a heading __init__ 2 * 3 * 4[1]"
    page = _Page(render.answer(text, citations=_reply().citations, turn_id="t"))
    assert "# not a heading __init__ 2 * 3 * 4" in page.words
    assert not {"h1", "h3", "strong", "em"} & {tag for tag, _ in page.elements}


def test_written_answers_may_use_markdown() -> None:
    """Lists, emphasis, code and tables of a writing policy are shown as such."""
    page = _Page(render.answer("**Bold** and `code`\n\n- one\n- two\n\n|a|b|\n|-|-|\n|1|2|"))
    assert {"strong", "code", "li", "table"} <= {tag for tag, _ in page.elements}


def test_code_keeps_its_marks() -> None:
    """`[1]` inside code is code, not a citation."""
    citation = replace(_reply().citations[0], verbatim=False)
    page = _Page(render.answer("Use `a[1]` here [1].", citations=[citation], turn_id="t"))
    assert "a[1]" in page.words
    assert sum(tag == "a" for tag, _ in page.elements) == 1


def test_ratings_are_shown() -> None:
    """The thumb pressed before a reload is pressed after it."""
    turn = Turn("t", "c", "q", _reply(), time.time(), rating=-1)
    page = _Page(render_chat.transcript([turn], View(turn_ids=("t",)), documents=1))
    votes = [a for _, a in page.elements if a.get("data-action") == "vote"]
    assert [(v["aria-pressed"], v["data-value"]) for v in votes] == [("false", "1"), ("true", "0")]


def test_failed_files_are_named_with_reason_and_remedy() -> None:
    """A failure says which file, why and what to do, in the reader's language."""
    report = FileReport("/a/b/报告.txt", "failed", 0, 0, "encoding", "raw", "raw")
    words = _Page(render_side.progress(None, [report], "zh")).words
    assert "报告.txt" in words
    assert "另存为 UTF-8" in words
    assert "/a/b" not in words


def test_progress_says_speed_and_what_remains() -> None:
    """Ten of forty files in five seconds: two a second, fifteen seconds to go."""
    words = _Page(render_side.progress(IngestProgress(10, 40, 9, 9, 5.0, None), [], "en")).words
    assert "10 of 40 files" in words
    assert "2.0 files/s" in words
    assert "15 s left" in words


def test_old_versions_are_marked() -> None:
    """A card says when the document has changed since, and when it is gone."""
    reply = _reply()
    stale = Excerpt(reply.citations[0], "a ", "b", " c", current=False)
    assert "Old version" in render_panel.panel(reply, {1: stale}, "en")
    assert "No longer in your documents" in render_panel.panel(reply, {1: None}, "en")
    fresh = replace(stale, current=True)
    assert "Old version" not in render_panel.panel(reply, {1: fresh}, "en")


def test_sessions_are_grouped_by_day_newest_first() -> None:
    """Today before yesterday before earlier; a chat without turns is not listed."""
    now = time.mktime((2026, 3, 10, 12, 0, 0, 0, 0, -1))
    chats = [
        Conversation("a", "u", "old", 0, now - 9 * 86_400, 1),
        Conversation("b", "u", "new", 0, now - 60, 1),
        Conversation("c", "u", "void", 0, now, 0),
        Conversation("d", "u", "mid", 0, now - 86_400, 1),
    ]
    words = _Page(render_side.sessions(chats, "b", "en", now)).words
    order = [words.index(w) for w in ("Today", "new", "Yesterday", "mid", "Earlier", "old")]
    assert order == sorted(order)
    assert "void" not in words


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_status_line_tells_what_is_wrong(language: Language) -> None:
    """Sound and current is one state; lagging, being rebuilt and unsound are told apart."""
    sound = IndexStatus(2, 3, 5, 5, "e", ())
    others = (
        replace(sound, served=4),
        replace(sound, switching="new", switched=0.25),
        replace(sound, health='<b>"disk" full</b>'),
    )
    lines = [render_side.summary_line(status, language) for status in (sound, *others)]
    assert len(set(lines)) == 4
    assert ["pl-fresh" in line for line in lines] == [True, False, False, False]
    assert "25%" in lines[2]
    assert "full" in lines[3]
    assert "<b>" not in lines[3]


def test_a_refusal_shows_which_decision_it_was() -> None:
    """A refused turn names the decision to object to; an answer and a crisis reply name none."""
    turn = _refused("refused")
    shown = render_chat.transcript([turn], View(language="en"), documents=1)
    assert "Decision 0123abcd" in shown
    assert "plumbline appeal 0123abcd" in shown
    assert "判定 0123abcd" in render_chat.transcript([turn], View(language="zh"), documents=1)
    for outcome in ("answered", "crisis"):
        quiet = render_chat.transcript([_refused(outcome)], View(language="en"), documents=1)
        assert "0123abcd" not in quiet


def _refused(outcome: str) -> Turn:
    """Make a turn that was stopped, with this outcome."""
    double = Double.with_guide()
    reply = list(double.stream("How do I add documents?"))[-1].reply
    assert reply is not None
    stop = Verdict("refuse", "illicit", 0.9, "input", "rules", decision_id="0123abcd" * 4)
    verdicts = (*reply.verdicts, stop)
    changed = replace(reply, outcome=cast(Outcome, outcome), verdicts=verdicts)
    return Turn("t1", reply.conversation_id, "?", changed, time.time())


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", ("Safety", "10 texts checked, 3 stopped", "hate", "question · Chinese", "30.0%")),
        ("zh", ("安全", "检查 10 段文字，拦下 3 段", "仇恨", "中文", "30.0%")),
    ],
)
def test_the_sidebar_says_how_often_texts_are_stopped(
    language: Language, words: tuple[str, ...]
) -> None:
    """Sums and shares by category and language, in both languages, and no markup of a log's."""
    rates = Rates(7.0, 10, 3, (Rate("input", "zh", "hate", 3, 10),))
    shown = render_safety.safety(rates, SafetySettings(), language)
    assert [word for word in words if word not in shown] == []
    strange = Rates(7.0, 1, 1, (Rate("input", "en", "<script>", 1, 1),))
    assert "<script>" not in render_safety.safety(strange, SafetySettings(), language)
    empty = render_safety.safety(Rates(7.0, 0, 0, ()), SafetySettings(), language)
    assert empty.count("<table>") == 1  # that of the hazards


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_sidebar_lists_what_the_built_in_model_does_not_cover(language: Language) -> None:
    """Folded, with what looks for it here: a guard model that is set up is named, else nothing."""
    number = 0 if language == "en" else 1
    nothing = {"en": "nothing", "zh": "无"}[language]
    guarded = SafetySettings(moderators=("rules", "classifier"), second=("llamaguard",))
    for settings, looks in ((SafetySettings(), nothing), (guarded, "llamaguard")):
        shown = render_safety.silent("safety_off", settings, language)
        listed = re.findall(r"<tr><td>(.*?)<small>.*?</td><td>(.*?)</td></tr>", shown)
        gaps = {h.label[number] for h in HAZARDS if h.trained != "yes"}
        assert {name for name, _ in listed} == gaps
        assert dict(listed)[BY_ID["S14"].label[number]] == looks
        assert dict(listed)[BY_ID["S4"].label[number]].startswith("rules")
    alone = render_safety.silent(
        "safety_off", SafetySettings(moderators=("shieldgemma",)), language
    )
    assert BY_ID["S7"].label[number] in alone  # learnt, but the built-in model is not set up
