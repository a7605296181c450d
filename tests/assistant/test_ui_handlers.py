"""The handlers behind the page, driven without a browser."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import gradio as gr
import pytest

from assistant.config import Settings
from assistant.errors import PolicyUnavailable
from assistant.ui import layout
from assistant.ui.actions import Actions, read
from assistant.ui.desk import Desk, guarded
from assistant.ui.layout import Updates
from assistant.ui.shelf import Shelf
from assistant.ui.state import View
from assistant.ui.turns import Turns
from safety.audit import AuditLog, Entry
from safety.rates import RateReader
from tests.assistant.trainer_double import TrainerDouble
from tests.assistant.ui_double import Double


class _Request:
    """As much of a request as the handlers look at."""

    session_hash = "page"


REQUEST = cast(gr.Request, _Request())


class Rig:
    """A page without a browser: handlers, and the last value of everything they changed."""

    def __init__(self, home: Path, *, folders: bool = True) -> None:
        self.double = Double.with_guide()
        with gr.Blocks(analytics_enabled=False):
            self.page = layout.build("en", folders=folders)
        audit = RateReader(home / "audit.jsonl")
        self.desk = Desk(self.double, Settings(home=home), self.page, folders, audit=audit)
        self.turns = Turns(self.desk)
        self.shelf = Shelf(self.desk)
        self.actions = Actions(self.desk, self.turns, self.shelf)
        self.shown: Updates = {self.page.view: View()}

    @property
    def view(self) -> View:
        """The page's state."""
        return cast(View, self.shown[self.page.view])

    def play(self, updates: Iterator[Updates]) -> None:
        """Let a handler run to its end."""
        for update in updates:
            self.shown.update(update)

    def ask(self, question: str, *, consent: bool = False) -> None:
        """Type a question."""
        ask = guarded(self.turns.ask, self.turns.failed)
        self.play(ask(question, self.view, consent, REQUEST))

    def press(self, action: str, **given: Any) -> None:
        """Press a button of ours."""
        run = guarded(self.actions.run, self.actions.failed)
        self.play(run(json.dumps({"action": action, **given}), self.view, False, REQUEST))

    def text(self, part: str) -> str:
        """The HTML of a region."""
        return str(self.shown.get(getattr(self.page, part), ""))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A fresh page."""
    return Rig(tmp_path)


def test_a_question_is_answered_with_its_source(rig: Rig) -> None:
    """The answer, its card and the chat in the list appear; the live turn is gone."""
    rig.ask("How do I add documents?")
    assert "drop files under Documents" in rig.text("history")
    assert "<mark>To add documents" in rig.text("panel")
    assert "How do I add documents?" in rig.text("sessions")
    assert rig.text("live") == ""
    assert rig.view.turn_ids == (rig.view.selected,)


def test_consent_is_what_the_box_says(rig: Rig) -> None:
    """Unticked means no training, ticked means training; never publication."""
    rig.ask("How do I add documents?")
    rig.ask("Which formats are supported?", consent=True)
    assert [c.train for c in rig.double.consents] == [False, True]
    assert not any(c.publish for c in rig.double.consents)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (lambda: RuntimeError("/etc/secret SELECT * FROM users"), "Something went wrong"),
        (lambda: PolicyUnavailable("http://10.0.0.1:8000"), "cannot be reached"),
    ],
)
def test_a_failing_turn_shows_a_sentence_and_an_id(
    rig: Rig, error: Callable[[], BaseException], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No path, no SQL, no trace on the page; the id is in the log, the question can be resent."""
    rig.double.fail_with = error
    with caplog.at_level(logging.ERROR):
        rig.ask("my secret question")
    shown = rig.text("live")
    assert words in shown
    assert 'data-text="my secret question"' in shown
    for leak in ("/etc", "SELECT", "10.0.0.1", "Traceback", ".py"):
        assert leak not in shown
    request_id = shown.split("Request ")[1][:8]
    assert request_id in caplog.text
    assert "my secret question" not in caplog.text
    assert "SELECT" not in caplog.text


def test_stop_closes_the_assistants_stream(rig: Rig) -> None:
    """The words so far stay on the page, the stream behind them is closed."""
    rig.double.delay = 0.05
    threading.Timer(0.7, lambda: rig.turns.stop(REQUEST)).start()
    rig.ask("How do I add documents?")
    assert "Stopped." in rig.text("live")
    for _ in range(100):
        if rig.double.closed:
            break
        time.sleep(0.02)
    assert rig.double.closed == 1
    assert rig.double.chats == {}


def test_thumbs_reasons_and_edits_are_logged(rig: Rig) -> None:
    """Each act is one feedback, bound to the answer's own ids."""
    rig.ask("How do I add documents?")
    turn = rig.view.turn_ids[0]
    rig.press("vote", turn=turn, value=-1)
    assert 'data-form="reasons">' in rig.text("history")
    rig.press("reasons", turn=turn, reasons=["outdated", "bogus"], text="old")
    rig.press("edit", turn=turn, text="Better words.")
    rig.press("copy", turn=turn)
    seen = [(f.kind, f.value, f.reasons, f.text, f.explicit) for f in rig.double.feedback]
    assert seen == [
        ("thumb", -1, (), "", True),
        ("thumb", -1, ("outdated",), "old", True),
        ("edit", 0, (), "Better words.", True),
        ("copy", 0, (), "", False),
    ]
    assert {f.candidate_ids for f in rig.double.feedback} == {(f"{turn}.0",)}
    assert 'aria-pressed="true"' in rig.text("history")


def test_feedback_reaches_an_older_answer(rig: Rig) -> None:
    """A thumb belongs to a turn's id, wherever the turn stands."""
    rig.ask("How do I add documents?")
    rig.ask("Which formats are supported?")
    first, last = rig.view.turn_ids
    rig.press("vote", turn=first, value=1)
    ratings = {t.id: t.rating for t in rig.double.turns(rig.view.conversation_id)}
    assert ratings == {first: 1, last: 0}
    rig.press("select", turn=first)
    assert f'data-turn="{first}"' in rig.text("panel")


def test_answers_of_other_pages_are_out_of_reach(rig: Rig) -> None:
    """An id that is not on the page, or nonsense in the box, does nothing."""
    rig.ask("How do I add documents?")
    rig.press("vote", turn="someone-elses", value=1)
    for message in ("", "[]", "{", '{"action": 3}', '{"action": "drop", "turn": "x"}'):
        rig.play(rig.actions.run(message, rig.view, False, REQUEST))
    assert rig.double.feedback == []


def test_messages_are_read_with_care() -> None:
    """Types are checked, lengths capped, tags limited to the known."""
    call = read(json.dumps({"action": "vote", "turn": 3, "value": 9, "text": "x" * 99_999}))
    assert call is not None
    assert (call.turn, call.value, len(call.text)) == ("", 0, 8000)
    assert read('{"turn": "a"}') is None


@pytest.mark.parametrize("value", [0, 1, -1])
def test_two_answers_are_compared(rig: Rig, value: int) -> None:
    """The pick is logged with both ids in the order shown; a winner becomes the answer."""
    rig.double.learn("docs", "b.md", "# B\n\nAdding documents is done with a folder too.", 1.0)
    rig.ask("How do I add documents?")
    turn = rig.view.turn_ids[0]
    rig.press("another", turn=turn)
    comparison = rig.view.comparison
    assert comparison is not None
    ids = tuple(reply.candidate_id for reply in comparison.replies)
    rig.press("pick", turn=turn, value=value)
    pick = rig.double.feedback[-1]
    assert (pick.kind, pick.candidate_ids, pick.value) == ("ab_pick", ids, value)
    assert pick.order_randomised
    shown = rig.double.turns(rig.view.conversation_id)[0].reply.candidate_id
    assert shown == (ids[value] if value >= 0 else f"{turn}.0")
    assert rig.view.comparison is None


def test_the_order_of_two_answers_is_drawn_by_lot(rig: Rig) -> None:
    """Either can come first."""
    rig.ask("How do I add documents?")
    turn = rig.view.turn_ids[0]
    firsts = set()
    for _ in range(24):
        rig.press("another", turn=turn)
        comparison = rig.view.comparison
        if comparison is not None:
            firsts.add(comparison.replies[0].candidate_id == f"{turn}.0")
    assert firsts == {True, False}


def test_chats_are_opened_renamed_and_deleted(rig: Rig) -> None:
    """The list acts on the database, and deleting the open chat leaves an empty page."""
    rig.ask("How do I add documents?")
    chat = rig.view.conversation_id
    rig.press("rename", conversation=chat, text="  My   chat ")
    assert rig.double.chats[chat].title == "My chat"
    assert "My chat" in rig.text("sessions")
    rig.play(rig.actions.new_chat(rig.view))
    assert rig.view.turn_ids == ()
    rig.press("open", conversation=chat)
    assert len(rig.view.turn_ids) == 1
    rig.press("delete", conversation=chat)
    assert rig.double.chats == {}
    assert rig.view.conversation_id == ""


def test_a_chat_that_is_gone_opens_an_empty_page(rig: Rig) -> None:
    """The address of a deleted chat is no error."""
    rig.shown.update(rig.desk.start_page(View(conversation_id="gone"), consent=True))
    assert rig.view.conversation_id == ""
    assert rig.shown[rig.page.consent]["value"] is True


def test_uploads_are_read_and_the_temporary_files_go(rig: Rig, tmp_path: Path) -> None:
    """Good files are added, a bad one is named with its reason, nothing is left behind."""
    good, bad = tmp_path / "员工手册.md", tmp_path / "bad.txt"
    good.write_text("# 员工手册\n\n年假为每年十五天。", encoding="utf-8")
    bad.write_bytes(b"\xff\xfe\x00")
    rig.play(rig.shelf.upload([str(good), str(bad)], rig.view, REQUEST))
    assert "1 added" in rig.text("progress")
    assert "bad.txt" in rig.text("progress")
    assert "Save it as UTF-8" in rig.text("progress")
    assert not good.exists()
    assert not bad.exists()
    assert rig.shown[rig.page.files] is None
    rig.ask("年假有几天？")
    assert "年假为每年十五天" in rig.text("history")
    rig.press("remove", root="uploads")
    assert "1 document removed" in rig.text("shelf")


def test_folders_are_added_by_path(rig: Rig, tmp_path: Path) -> None:
    """A folder of this computer is read; a wrong path is a sentence, not an error."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text("# A\n\nBees like thyme.", encoding="utf-8")
    rig.play(rig.shelf.add_folder(str(tmp_path / "notes"), rig.view, REQUEST))
    assert "1 added" in rig.text("progress")
    rig.play(rig.shelf.add_folder(str(tmp_path / "none"), rig.view, REQUEST))
    assert "no folder or file at this path" in rig.text("progress")


def test_web_addresses_are_added_too(rig: Rig) -> None:
    """An address is handed on as it is; whether it may be fetched is not the page's to say."""
    rig.play(rig.shelf.add_folder("https://a.example/feed", rig.view, REQUEST))
    assert "no folder or file" not in rig.text("progress")
    assert "Done in" in rig.text("progress")


def test_folders_of_a_shared_server_are_closed(tmp_path: Path) -> None:
    """Where the chat is served to others, nobody names folders of the server."""
    rig = Rig(tmp_path, folders=False)
    rig.play(rig.shelf.add_folder("/etc", rig.view, REQUEST))
    assert "only be added on the computer" in rig.text("progress")
    assert len(rig.double.papers) == 1


def test_every_word_changes_with_the_language(rig: Rig) -> None:
    """Redrawn in Chinese, no English label is left in what we draw, on either page."""
    rig.ask("如何添加文档？")
    desk = replace(rig.desk, trainer=TrainerDouble.full())
    view = replace(rig.view, place="train")
    english = desk.draw_all(view)
    chinese = desk.draw_all(replace(view, language="zh"))
    assert english.keys() == chinese.keys()
    wordless = (rig.page.live, rig.page.pulse, rig.page.seen)
    same = [k for k in english if english[k] == chinese[k] and k not in wordless]
    assert same == []


def test_the_safety_section_follows_the_log(rig: Rig, tmp_path: Path) -> None:
    """After each turn the sidebar tells of the decisions as the log has them then."""
    rig.ask("How do I add documents?")
    assert "0 texts checked, 0 stopped" in rig.text("safety")
    entry = Entry("d", "input", "refuse", "hate", "r", "rules", "", "t", 1, language="zh")
    AuditLog(tmp_path / "audit.jsonl", sync=False).append([entry], {"input.en": 4})
    rig.ask("Which formats are supported?")
    assert "5 texts checked, 1 stopped" in rig.text("safety")
