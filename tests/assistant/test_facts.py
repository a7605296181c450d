"""What users say about themselves: off by default, theirs alone, shown, changed and deleted."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

import app
from assistant.commands import facts as command
from assistant.config import load
from assistant.dialogue import Assistant
from assistant.errors import ConfigError, FactNotFound
from assistant.facts import MOST, asks_about_me, stated, told_in_prompt
from assistant.memory import Memory
from assistant.memory_facts import CHARACTERS, Facts
from assistant.schema import Delta, Fact, Prompt
from tests.assistant.embedded import Scripted, small


def same(text: str) -> str:
    """Mask nothing."""
    return text


def answer(prompt: Prompt) -> Iterator[Delta]:
    """Say the first sentence of the best passage."""
    yield Delta(prompt.passages[0].chunk.text.partition(". ")[0] + ". [1]")
    yield Delta("", finish="stop", confidence=0.9)


@pytest.fixture
def policy() -> Scripted:
    """A policy that keeps its prompts."""
    return Scripted(answer)


@pytest.fixture
def minding(tmp_path: Path, policy: Scripted) -> Iterator[Assistant]:
    """An assistant that remembers what users say about themselves."""
    with small(tmp_path, policy, memory__user_facts="true", memory__max_facts="3") as made:
        yield made


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Facts]:
    """An empty table."""
    memory = Memory(tmp_path / "memory.db")
    yield memory.facts
    memory.close()


def texts(facts: list[Fact]) -> list[str]:
    """Return the wording of facts."""
    return [fact.text for fact in facts]


# what counts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "facts"),
    [
        ("My name is Ann.", ["My name is Ann"]),
        ("Hi, my name is Ann and I work in finance.", ["my name is Ann", "I work in finance"]),
        ("I use Windows 11. How do I install it?", ["I use Windows 11"]),
        ("I'm a nurse at the city hospital", ["I'm a nurse at the city hospital"]),
        ("Remember that our fiscal year begins in April.", ["our fiscal year begins in April"]),
        ("My department is Sales; what are its goals?", ["My department is Sales"]),
        ("我叫李雷，我在财务部工作。", ["我叫李雷", "我在财务部工作"]),
        ("请记住：我们的财年从四月开始。", ["我们的财年从四月开始"]),
        ("我用的是麒麟系统。怎么安装？", ["我用的是麒麟系统"]),
        ("我的部门是销售部", ["我的部门是销售部"]),
    ],
)
def test_a_statement_about_oneself_is_found(said: str, facts: list[str]) -> None:
    """As it was worded, clause by clause, in both languages."""
    assert stated(said, same) == facts


@pytest.mark.parametrize(
    "said",
    [
        "What does the widget cost?",
        "Should I use Windows?",
        "Do I live in a flood zone?",
        "I am a bit confused.",
        "The manual says: my name is Widget",
        "She works in finance.",
        "How do I use it and where do I work?",
        "我在哪里工作？",
        "我用的是什么系统",
        "他叫李雷",
        "Remember that?",
        "I use Windows. " * 80,
        "",
    ],
)
def test_what_is_asked_or_said_of_others_is_none(said: str) -> None:
    """Questions, moods, quotations, other people, and long texts to work on."""
    assert stated(said, same) == []


def test_a_message_states_so_much_and_no_more() -> None:
    """One message cannot fill the memory."""
    said = " ".join(f"Remember that fact {n} holds." for n in range(20))
    assert len(stated(said, same)) == MOST


@pytest.mark.parametrize(
    ("said", "asks"),
    [
        ("What do you know about me?", True),
        ("What is my name?", True),
        ("你知道我的什么？", True),
        ("你记得我的名字吗？", True),
        ("我叫什么名字？", True),
        ("What do you know about widgets?", False),
        ("What is my name badge for?", False),
        ("你知道我的部门的电话吗？", False),
    ],
)
def test_being_asked_about_the_user_is_seen(said: str, asks: bool) -> None:
    """Only the question itself, not one that opens likewise."""
    assert asks_about_me(said) is asks


def test_what_a_prompt_holds_fits() -> None:
    """The newest facts first, whole ones, and nothing where none fits."""
    facts = [Fact(str(n), "ann", f"I use tool {n}", "", 0.0) for n in range(9)]
    found = told_in_prompt(facts, "en", 60, len)
    assert found.splitlines()[1:] == ["- I use tool 0", "- I use tool 1"]
    assert told_in_prompt(facts, "en", 10, len) == told_in_prompt([], "zh", 99, len) == ""


# what is kept -------------------------------------------------------------------------------------


def test_facts_are_shown_changed_and_deleted(kept: Facts) -> None:
    """The one stated last comes first; what is said again is not kept twice."""
    for text in ("I use vi", "I live in Lyon", "I  use\nvi"):
        kept.add("ann", text)
    assert texts(kept.list("ann")) == ["I use vi", "I live in Lyon"]
    first, second = kept.list("ann")
    kept.change(second.id, "I live in Porto", "ann")
    kept.delete(first.id, "ann")
    assert texts(kept.list("ann")) == ["I live in Porto"]
    kept.add("ann", "x" * 999)
    kept.change(second.id, "x" * 999, "ann")
    assert [len(text) for text in texts(kept.list("ann"))] == [CHARACTERS]
    with pytest.raises(ValueError, match="a fact is empty"):
        kept.change(second.id, " \n", "ann")


def test_the_oldest_give_way(kept: Facts) -> None:
    """A user's facts are bounded, and another user's are not touched by that."""
    kept.add("bob", "I use ed")
    for n in range(9):
        kept.add("ann", f"I use tool {n}", most=3)
    assert texts(kept.list("ann")) == [f"I use tool {n}" for n in (8, 7, 6)]
    assert texts(kept.list("bob")) == ["I use ed"]


def test_anothers_facts_stay_theirs(kept: Facts) -> None:
    """Every method answers somebody else's ids as if there were no such fact."""
    kept.add("ann", "I use vi")
    (fact,) = kept.list("ann")
    calls: list[Callable[[], object]] = [
        lambda: kept.change(fact.id, "I use ed", "bob"),
        lambda: kept.delete(fact.id, "bob"),
        lambda: kept.delete("none", "ann"),
    ]
    for call in calls:
        with pytest.raises(FactNotFound):
            call()
    assert (kept.list("bob"), kept.clear("bob"), kept.list("ann")) == ([], 0, [fact])


# in a conversation --------------------------------------------------------------------------------


def test_nothing_is_remembered_unless_it_is_on(tmp_path: Path) -> None:
    """By default a statement is a message like any other."""
    with small(tmp_path) as assistant:
        assistant.reply("My name is Ann.")
        assert assistant.facts.list("local") == []
        assert assistant.reply("What do you know about me?").outcome != "social"


def test_what_a_user_says_is_known_in_their_next_conversation(
    minding: Assistant, policy: Scripted
) -> None:
    """In the prompt, as what was said before; in no other user's; and in the answer if asked."""
    told = minding.reply("My name is Ann. What does the widget cost?", user_id="ann")
    minding.reply("Where was the widget made?", user_id="ann")
    minding.reply("Where was the widget made?", user_id="bob")
    ann, bob = (" ".join(m.text for m in p.messages) for p in policy.prompts[-2:])
    assert ("My name is Ann" in ann, "Ann" in bob) == (True, False)
    assert minding.facts.list("ann")[0].turn_id == told.turn_id
    shown = minding.reply("What do you know about me?", user_id="ann")
    none = minding.reply("你知道我的什么？", user_id="bob")
    assert (shown.outcome, shown.text.splitlines()[1:]) == ("social", ["- My name is Ann"])
    assert none.text == "你还没有告诉过我关于你自己的事。"


def test_documents_and_answers_teach_nothing(minding: Assistant, tmp_path: Path) -> None:
    """A document that says it of itself, and the answer that quotes it, leave no fact."""
    (tmp_path / "mine.md").write_text("# Robot\n\nMy name is Robbie.\n", encoding="utf-8")
    for _ in minding.ingest([tmp_path / "mine.md"]):
        pass
    reply = minding.reply("What is the robot called, Robbie?")
    assert ("Robbie" in reply.text, minding.facts.list("local")) == (True, [])


def test_what_is_refused_or_secret_is_not_kept(minding: Assistant) -> None:
    """Neither a request that was stopped nor what an answer would mask."""
    minding.reply("My name is Ann. How do I build a pipe bomb?")
    minding.reply("Remember that my key is sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCD")
    assert minding.facts.list("local") == []


def test_a_forgotten_user_leaves_no_facts(minding: Assistant) -> None:
    """What forgets a user's conversations forgets what they said about themselves."""
    minding.reply("My name is Ann.", user_id="ann")
    minding.forget_user("ann")
    assert minding.facts.list("ann") == []


# the command --------------------------------------------------------------------------------------


def run(home: Path, *arguments: str) -> str:
    """Run `facts` and return what it printed."""
    out = io.StringIO()
    settings = load(overrides={"home": str(home)})
    options = app.build_parser().parse_args(["facts", *arguments])
    assert command.run(options, settings, Console(file=out, width=200)) == 0
    return out.getvalue()


def test_the_command_shows_and_deletes(tmp_path: Path) -> None:
    """A line a fact; what is missing is asked for."""
    memory = Memory(tmp_path / "conversations.db")
    memory.facts.add("ann", "I use vi")
    (fact,) = memory.facts.list("ann")
    memory.close()
    assert run(tmp_path, "list", "--user", "ann").splitlines()[0] == f"{fact.id}  I use vi"
    run(tmp_path, "change", fact.id, "I", "use", "ed", "--user", "ann")
    assert "I use ed" in run(tmp_path, "list", "--user", "ann")
    run(tmp_path, "delete", fact.id, "--user", "ann")
    assert run(tmp_path, "clear", "--user", "ann") == "0 facts deleted.\n"
    for wrong in (["delete"], ["change", "x"]):
        with pytest.raises(ConfigError, match="facts"):
            run(tmp_path, *wrong)
