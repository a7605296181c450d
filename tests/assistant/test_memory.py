from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from assistant.errors import ConversationNotFound, TurnNotFound
from assistant.memory import MILE, Memory, split, window
from assistant.schema import Message, Outcome, PolicyCard, Reply, Turn, Understanding


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where conversations are kept."""
    return tmp_path / "deep" / "conversations.db"


@pytest.fixture
def memory(path: Path) -> Iterator[Memory]:
    """An empty memory."""
    opened = Memory(path)
    yield opened
    opened.close()


def answer(
    turn_id: str, conversation: str, text: str = "An answer. [1]", outcome: Outcome = "answered"
) -> Reply:
    """Make a reply whose candidate is called after the turn and the text."""
    return Reply(
        turn_id=turn_id,
        candidate_id=f"{turn_id}/{text}",
        conversation_id=conversation,
        text=text,
        outcome=outcome,
        language="en",
        citations=(),
        passages=(),
        verdicts=(),
        steps=(),
        understanding=Understanding("question", "q", False, "en", "because"),
        policy=PolicyCard("double", "double"),
        confidence=0.5,
        seconds=0.1,
    )


def turn(
    turn_id: str,
    conversation: str,
    said: str = "A question?",
    text: str = "An answer. [1]",
    outcome: Outcome = "answered",
) -> Turn:
    """Make a turn."""
    return Turn(turn_id, conversation, said, answer(turn_id, conversation, text, outcome), 1.0)


def test_conversations_survive_reopening(memory: Memory, path: Path) -> None:
    """What was stored is read back equal, by another process or after a restart."""
    conversation = memory.open(None, "ann", "Wie hoch ist der Turm？ 塔多高")
    first = turn("t1", conversation, "塔多高？", "三百米。[1]")
    memory.add(first, "ann")
    memory.close()
    again = Memory(path)
    assert again.turns(conversation, "ann") == [first]
    again.close()


def test_another_user_finds_nothing(memory: Memory) -> None:
    """Every method answers somebody else's ids as if there were no such conversation or turn."""
    conversation = memory.open(None, "ann", "mine")
    memory.add(turn("t1", conversation), "ann")
    calls: list[tuple[type[Exception], Callable[[], object]]] = [
        (ConversationNotFound, lambda: memory.open(conversation, "bob", "")),
        (ConversationNotFound, lambda: memory.add(turn("t2", conversation), "bob")),
        (ConversationNotFound, lambda: memory.turns(conversation, "bob")),
        (ConversationNotFound, lambda: memory.rename(conversation, "his", "bob")),
        (ConversationNotFound, lambda: memory.delete(conversation, "bob")),
        (TurnNotFound, lambda: memory.turn("t1", "bob")),
        (TurnNotFound, lambda: memory.candidates("t1", "bob")),
        (TurnNotFound, lambda: memory.rate("t1", 1, "bob")),
        (TurnNotFound, lambda: memory.choose("t1", "t1/An answer. [1]", "bob")),
    ]
    for error, call in calls:
        with pytest.raises(error):
            call()
    left = (memory.conversations("bob"), memory.delete_user("bob"))
    kept = [(c.title, c.turns) for c in memory.conversations("ann")]
    assert (left, kept, memory.turn("t1", "ann").rating) == (([], 0), [("mine", 1)], 0)


def test_what_does_not_exist_is_not_found(memory: Memory) -> None:
    """Ids nobody gave out are answered like ids of others."""
    with pytest.raises(ConversationNotFound, match="no conversation 'none'"):
        memory.open("none", "ann", "")
    with pytest.raises(TurnNotFound, match="no turn 'none'"):
        memory.turn("none", "ann")


def test_turns_come_in_the_order_they_were_added(memory: Memory) -> None:
    """Oldest first, whatever their own clock says."""
    conversation = memory.open(None, "ann", "x")
    for n in range(12):
        memory.add(replace(turn(f"t{n}", conversation), created=100.0 - n), "ann")
    assert [t.id for t in memory.turns(conversation, "ann")] == [f"t{n}" for n in range(12)]


def test_the_conversation_used_last_comes_first(memory: Memory) -> None:
    """A new turn moves its conversation to the top of the list."""
    ids = [memory.open(None, "ann", name) for name in ("one", "two")]
    for n, conversation in enumerate([*ids, ids[0]]):
        memory.add(turn(f"t{n}", conversation), "ann")
    listed = [(c.title, c.turns) for c in memory.conversations("ann")]
    assert listed == [("one", 2), ("two", 1)]


def test_a_conversation_without_a_turn_is_not_listed(memory: Memory) -> None:
    """A first question that was stopped leaves no empty entry."""
    memory.open(None, "ann", "stopped")
    assert memory.conversations("ann") == []


@pytest.mark.parametrize(
    ("words", "title"),
    [
        ("  How\n tall?  ", "How tall?"),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 59 + "…"),
        ("塔" * 80, "塔" * 59 + "…"),
    ],
)
def test_a_title_is_one_short_line(words: str, title: str, memory: Memory) -> None:
    """The first words name a conversation, cut to the width of the list."""
    conversation = memory.open(None, "ann", words)
    memory.add(turn("t", conversation), "ann")
    assert [c.title for c in memory.conversations("ann")] == [title]


@pytest.mark.parametrize(("title", "expected"), [("New name", "New name"), ("  ", "first words")])
def test_renaming(title: str, expected: str, memory: Memory) -> None:
    """A title can be changed, but not to nothing."""
    conversation = memory.open(None, "ann", "first words")
    memory.add(turn("t", conversation), "ann")
    memory.rename(conversation, title, "ann")
    assert [c.title for c in memory.conversations("ann")] == [expected]


def test_a_chosen_candidate_is_the_turns_answer(memory: Memory) -> None:
    """Choosing changes what the history shows and loses no candidate."""
    conversation = memory.open(None, "ann", "x")
    memory.add(turn("t", conversation), "ann")
    other = answer("t", conversation, "Another answer.")
    memory.add_candidate(other)
    shown = [memory.turn("t", "ann").reply.text]
    chosen = memory.choose("t", other.candidate_id, "ann")
    shown += [chosen.reply.text, memory.turns(conversation, "ann")[0].reply.text]
    kept = [r.text for r in memory.candidates("t", "ann")]
    expected = ["An answer. [1]", "Another answer.", "Another answer."]
    assert (shown, kept) == (expected, ["An answer. [1]", "Another answer."])


def test_a_candidate_of_another_turn_cannot_be_chosen(memory: Memory) -> None:
    """An answer belongs to its question."""
    conversation = memory.open(None, "ann", "x")
    for name in ("one", "two"):
        memory.add(turn(name, conversation), "ann")
    with pytest.raises(TurnNotFound, match="turn one has no candidate"):
        memory.choose("one", "two/An answer. [1]", "ann")
    assert memory.turn("one", "ann").reply.turn_id == "one"


def test_the_last_rating_counts(memory: Memory) -> None:
    """A thumb is kept beside its turn until it is changed or taken back."""
    conversation = memory.open(None, "ann", "x")
    memory.add(turn("t", conversation), "ann")
    seen = []
    for value in (1, -1, 0):
        memory.rate("t", value, "ann")
        seen.append(memory.turns(conversation, "ann")[0].rating)
    assert seen == [1, -1, 0]


def on_disk(path: Path) -> bytes:
    """Read every file of the database."""
    return b"".join(file.read_bytes() for file in sorted(path.parent.iterdir()))


@pytest.mark.parametrize("whole_user", [False, True])
def test_deleting_leaves_no_text_on_disk(whole_user: bool, memory: Memory, path: Path) -> None:
    """After deletion no byte of question, answer or title stands in any of the files."""
    conversation = memory.open(None, "ann", "marzipan title")
    for n in range(30):
        told = turn(f"t{n}", conversation, "marzipan question " * 40, "marzipan answer " * 200)
        memory.add(told, "ann")
        memory.add_candidate(answer(f"t{n}", conversation, "marzipan again " * 200))
    before = b"marzipan" in on_disk(path)
    if whole_user:
        memory.delete_user("ann")
    else:
        memory.delete(conversation, "ann")
    memory.close()
    assert (before, b"marzipan" in on_disk(path)) == (True, False)


def test_deleting_one_conversation_keeps_the_others(memory: Memory) -> None:
    """Turns and answers go with their conversation, and only with it."""
    ids = [memory.open(None, user, user) for user in ("ann", "ann", "bob")]
    for n, (conversation, user) in enumerate(zip(ids, ("ann", "ann", "bob"), strict=True)):
        memory.add(turn(f"t{n}", conversation), user)
    memory.delete(ids[0], "ann")
    with pytest.raises(ConversationNotFound):
        memory.turns(ids[0], "ann")
    with pytest.raises(TurnNotFound):
        memory.turn("t0", "ann")
    assert (memory.delete_user("ann"), len(memory.turns(ids[2], "bob"))) == (1, 1)


def test_threads_add_to_one_conversation(memory: Memory) -> None:
    """Turns added side by side are all there, each thread's in its own order."""
    conversation = memory.open(None, "ann", "x")
    together = threading.Barrier(4)
    failures: list[BaseException] = []

    def work(name: int) -> None:
        together.wait()
        try:
            for n in range(15):
                memory.add(turn(f"{name}-{n}", conversation), "ann")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = [t.id for t in memory.turns(conversation, "ann")]
    each = [[i for i in ids if i.startswith(f"{name}-")] for name in range(4)]
    expected = [[f"{name}-{n}" for n in range(15)] for name in range(4)]
    assert (failures, each) == ([], expected)


def test_two_memories_share_one_file(path: Path) -> None:
    """A second opening of the same file sees what the first one wrote."""
    one, two = Memory(path), Memory(path)
    conversation = one.open(None, "ann", "x")
    two.add(turn("t", conversation), "ann")
    assert [t.id for t in one.turns(conversation, "ann")] == ["t"]
    one.close()
    two.close()


def words(text: str) -> int:
    """Count words."""
    return len(text.split())


TOLD = [turn(f"t{n}", "c", f"question {n}", f"answer number {n}") for n in range(5)]


def messages(*numbers: int) -> list[Message]:
    """Return the exchanges of these turns."""
    return [
        m
        for n in numbers
        for m in (Message("user", f"question {n}"), Message("assistant", f"answer number {n}"))
    ]


@pytest.mark.parametrize(
    ("max_turns", "budget", "kept"),
    [
        (12, 100, (0, 1, 2, 3, 4)),
        (2, 100, (3, 4)),
        (0, 100, ()),
        (12, 0, ()),
        (12, 4, ()),
        (12, 5, (4,)),
        (12, 14, (3, 4)),
        (12, 15, (2, 3, 4)),
    ],
)
def test_the_window_is_the_last_turns_that_fit(
    max_turns: int, budget: int, kept: tuple[int, ...]
) -> None:
    """Whole exchanges, oldest first: at most so many, at most so many tokens."""
    assert window(TOLD, max_turns, budget, words) == messages(*kept)


@pytest.mark.parametrize("outcome", ["refused", "failed", "crisis"])
def test_what_was_refused_is_no_context(outcome: Outcome) -> None:
    """Neither a request that was refused nor its refusal is shown to the policy."""
    refused = turn("bad", "c", "bad request", "a refusal", outcome)
    assert window([*TOLD[:2], refused, TOLD[2]], 12, 100, words) == messages(0, 1, 2)


def test_a_turn_too_long_ends_the_window() -> None:
    """History has no holes: what is older than a turn that does not fit stays out too."""
    long = turn("long", "c", "word " * 50, "word")
    assert window([TOLD[0], long, TOLD[1]], 12, 20, words) == messages(1)


@pytest.mark.parametrize("turns", [3, 20, MILE - 1, MILE, 3 * MILE + 5])
@pytest.mark.parametrize(("max_turns", "budget"), [(12, 1000), (100, 60), (3, 16), (0, 50), (5, 0)])
def test_every_turn_is_in_the_window_or_before_it(turns: int, max_turns: int, budget: int) -> None:
    """Nothing is lost between the two, and the window keeps to its bounds."""
    told = [turn(f"t{n}", "c", f"question {n}", f"answer number {n}") for n in range(turns)]
    earlier, recent = split(told, max_turns, budget, words)
    assert earlier + recent == told
    assert len(recent) <= max_turns
    assert len(recent) * 5 <= budget
    assert len(recent) >= min(turns, max_turns - max_turns // 3, (budget - budget // 3) // 5)


def test_the_window_moves_in_steps() -> None:
    """Most turns only add to the history before; the beginning changes once in several turns."""
    told = [turn(f"t{n}", "c", f"question {n}", f"answer number {n}") for n in range(3 * MILE)]
    begins = [split(told[:n], 12, 1000, words)[1][0].id for n in range(1, len(told))]
    changes = sum(a != b for a, b in pairwise(begins))
    assert changes <= len(told) // 4


def test_a_long_conversation_is_not_counted_from_its_beginning() -> None:
    """Finding the window takes the same however long the conversation is."""
    counted = 0

    def count(text: str) -> int:
        nonlocal counted
        counted += 1
        return words(text)

    split([turn(f"t{n}", "c") for n in range(2000)], 12, 1000, count)
    assert counted <= 4 * MILE


def test_time_goes_on(memory: Memory) -> None:
    """A conversation knows when it began and when it was last used."""
    began = time.time()
    conversation = memory.open(None, "ann", "x")
    memory.add(turn("t", conversation), "ann")
    (listed,) = memory.conversations("ann")
    assert began <= listed.created <= listed.updated <= time.time()
