"""A policy is promoted, tried and rolled back while people chat; the policies are doubles."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from assistant.config import Settings, load
from assistant.dialogue import Assistant
from assistant.errors import ModelNotFound, PolicyUnavailable
from assistant.live import REFUSED, Live
from assistant.memory import Memory
from assistant.policy._promoted import Ref, Trial, read_pointer, verify
from assistant.policy.base import Policy
from assistant.schema import Delta, PolicyCard, Prompt, Reply, Sampling, TurnRecord
from assistant.support import Supporter
from retrieval.knowledge import open_knowledge
from rlhf.registry import Registry
from safety import Guard
from safety.moderator.rules import build as build_rules

QUESTION = "How much does the widget cost?"
PASSAGE = "# Widget\n\nThe widget costs 40 euros. It was made in Lyon.\n"


class Numbered:
    """Quotes the first sentence of the best passage; its only token is its own number."""

    writes = False

    def __init__(self, number: int) -> None:
        self.number = number
        self.card = PolicyCard("numbered", str(number))
        self.closed = False
        self.gate: threading.Event | None = None

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Delta]:
        """Answer, slowly where a gate is set; fail once closed."""
        if self.gate is not None and sampling.max_tokens > 8:
            assert self.gate.wait(30)
        if self.closed:
            raise PolicyUnavailable("the policy was closed")
        if self.number < 0:
            raise PolicyUnavailable("the network gives NaN")
        text = prompt.passages[0].chunk.text
        end = (text.find(". ") + 1) or (text.find("。") + 1)
        yield Delta(text[:end], quote=(1, 0, end), token_ids=(self.number,), logprobs=(-1.0,))
        yield Delta("", finish="stop", confidence=0.9)

    def count_tokens(self, text: str) -> int:
        """One a character."""
        return len(text)

    def close(self) -> None:
        """Remember it."""
        self.closed = True


class World:
    """A home with one document, a registry, and policies made by their folder's number."""

    def __init__(self, home: Path) -> None:
        overrides = {
            "home": str(home),
            "docs": "false",
            "retrieval.embed.backend": "hashing",
            "retrieval.rerank.backend": "none",
            "safety.audit": "false",
            "policy.backend": "echo",
        }
        self.settings = load(overrides=overrides)
        self.registry = Registry(home)
        self.turns: list[TurnRecord] = []
        self.made: dict[int, Numbered] = {}
        self.numbers: dict[str, int] = {"": 0}
        document = home.parent / "widget.md"
        document.write_text(PASSAGE, encoding="utf-8")
        self._document = document

    def load(self, own: Settings) -> tuple[Policy, Supporter | None]:
        """Make the policy of a folder: the settings' own is number 0; "broken" breaks."""
        text = "0"
        if own.policy.model:
            text = (Path(own.policy.model) / "number.txt").read_text(encoding="utf-8")
        if text == "broken":
            raise ZeroDivisionError("weights of another planet")
        made = self.made[int(text)] = Numbered(int(text))
        return made, None

    def candidate(self, text: str) -> str:
        """Put a candidate into the registry."""
        source = self.settings.home / f"trained-{text}"
        source.mkdir(parents=True)
        (source / "number.txt").write_text(text, encoding="utf-8")
        policy = {"backend": "quote", "model": "."}
        name = self.registry.add(source, policy=policy, data_sha256="", config={}, seeds=[7]).id
        if text.lstrip("-").isdigit():
            self.numbers[name] = int(text)
        return name

    def promote(self, name: str) -> None:
        """Let it answer, whatever its gates say."""
        self.registry.promote(name, who="test", force=True)

    def assistant(self) -> tuple[Assistant, Live]:
        """Make an assistant that follows the registry."""
        live = Live.open(self.settings, self.load)
        assistant = Assistant(
            self.settings,
            open_knowledge(self.settings.home, self.settings.retrieval),
            Guard([build_rules(self.settings.safety)], self.settings.safety),
            live,
            Memory(self.settings.home / "conversations.db"),
            self.turns.append,
        )
        for _ in assistant.ingest([self._document]):
            pass
        return assistant, live

    def true(self, replies: Sequence[Reply]) -> bool:
        """Whether each reply was made by the version that it and its record name."""
        records = {r.candidate_id: r for r in self.turns}
        return all(
            reply.outcome == "answered"
            and records[reply.candidate_id].token_ids == (self.numbers[reply.policy.version],)
            and records[reply.candidate_id].reply.policy == reply.policy
            for reply in replies
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    """An empty home."""
    home = tmp_path / "answers"
    home.mkdir()
    return World(home)


def test_a_promoted_policy_answers_from_the_next_turn_on(world: World) -> None:
    """The running chat sees promotion and rollback by itself, and each reply says who made it."""
    name = world.candidate("1")
    assistant, live = world.assistant()
    with assistant:
        first = assistant.reply(QUESTION)
        world.promote(name)
        live.settle()
        second = assistant.reply(QUESTION, conversation_id=first.conversation_id)
        health = assistant.health()
        world.registry.rollback(who="test")
        live.settle()
        third = assistant.reply(QUESTION, conversation_id=first.conversation_id)
    got = [reply.policy.version for reply in (first, second, third)]
    assert (got, health.policy.version, health.refused) == (["", name, ""], name, "")
    assert world.true([first, second, third])


def test_a_running_reply_keeps_its_policy_to_its_end(world: World) -> None:
    """The old policy is closed when its last reply has ended, no sooner, and then at once."""
    name = world.candidate("1")
    assistant, live = world.assistant()
    old = world.made[0]
    old.gate = threading.Event()
    with assistant, ThreadPoolExecutor(1) as pool:
        running = pool.submit(assistant.reply, QUESTION)
        while not world.made or live._held[""].users == 0:
            time.sleep(0.01)
        world.promote(name)
        live.settle()
        beside = assistant.reply(QUESTION)
        still_open = not old.closed, live.versions
        old.gate.set()
        slow = running.result(30)
        assert (still_open, old.closed) == ((True, ("", name)), True)
        assert live.versions == (name,)
    assert [slow.policy.version, beside.policy.version] == ["", name]
    assert world.true([slow, beside])


def test_a_reader_who_leaves_gives_the_policy_back(world: World) -> None:
    """A stream that is closed early holds no policy open."""
    name = world.candidate("1")
    assistant, live = world.assistant()
    with assistant:
        events = assistant.stream(QUESTION)
        next(events)
        world.promote(name)
        live.settle()
        before = live.versions
        events.close()
        assert (before, live.versions, world.made[0].closed) == (("", name), (name,), True)


def test_hot_swap_under_eight_chats(world: World) -> None:
    """Promoted, tried and rolled back under 8 chats, no reply fails and each names one version."""
    names = [world.candidate(str(number)) for number in (1, 2, 3)]
    assistant, live = world.assistant()
    replies: list[Reply] = []
    over = threading.Event()

    def chat() -> int:
        conversation, turns = None, 0
        while not over.is_set() or turns < 3:
            reply = assistant.reply(QUESTION, conversation_id=conversation)
            conversation = reply.conversation_id if turns % 4 else None
            replies.append(reply)
            turns += 1
        return turns

    with assistant, ThreadPoolExecutor(8) as pool:
        chats = [pool.submit(chat) for _ in range(8)]
        for change in (
            lambda: world.promote(names[0]),
            lambda: world.registry.begin_trial(names[1], 0.5, who="test", force=True),
            lambda: world.promote(names[1]),
            lambda: world.registry.rollback(who="test"),
            lambda: world.promote(names[2]),
        ):
            change()
            live.settle()
            enough = len(replies) + 8
            while len(replies) < enough:
                time.sleep(0.005)
        over.set()
        turns = sum(c.result(60) for c in chats)
        last = live.versions
    assert (turns, last) == (len(replies), (names[2],))
    assert world.true(replies)
    assert {r.policy.version for r in replies} >= {names[0], names[1], names[2]}
    assert len(world.turns) == len(replies)


@pytest.mark.parametrize(
    ("text", "said"),
    [("broken", "weights of another planet"), ("-1", "the network gives NaN")],
)
def test_a_broken_policy_is_refused_and_the_old_one_goes_on(
    text: str, said: str, world: World
) -> None:
    """What cannot be loaded or asked is named with its reason; nobody's chat notices."""
    name = world.candidate(text)
    assistant, live = world.assistant()
    with assistant:
        world.promote(name)
        live.settle()
        reply = assistant.reply(QUESTION)
        refused = assistant.health().refused
    assert (reply.policy.version, reply.outcome) == ("", "answered")
    assert (name in refused, said in refused) == (True, True)
    line = json.loads((world.registry.root / REFUSED).read_text(encoding="utf-8"))
    assert (line["id"], said in line["reason"]) == (name, True)


def test_a_changed_file_is_refused_by_the_chat(world: World) -> None:
    """A byte that was changed after the promotion is found before anything is loaded."""
    name = world.candidate("1")
    world.promote(name)
    (world.registry.folder(name) / "number.txt").write_text("2", encoding="utf-8")
    assistant, _ = world.assistant()
    with assistant:
        reply = assistant.reply(QUESTION)
        refused = assistant.health().refused
    assert (reply.policy.version, "is not what its manifest says" in refused) == ("", True)
    assert set(world.made) == {0}


def test_a_chat_opens_with_who_answered_before_a_broken_one(world: World) -> None:
    """Where the live candidate was damaged, the one before it answers, and then the settings'."""
    first, second = world.candidate("1"), world.candidate("2")
    world.promote(first)
    world.promote(second)
    (world.registry.folder(second) / "number.txt").unlink()
    assistant, _ = world.assistant()
    with assistant:
        reply = assistant.reply(QUESTION)
        assert (reply.policy.version, second in assistant.health().refused) == (first, True)


def test_a_broken_pointer_stops_no_chat(world: World) -> None:
    """A pointer file that cannot be read leaves who answers as it is."""
    assistant, live = world.assistant()
    with assistant:
        (world.registry.root).mkdir(exist_ok=True)
        (world.registry.root / "live.json").write_text('{"sequence": ', encoding="utf-8")
        live.settle()
        reply = assistant.reply(QUESTION)
        assert (reply.outcome, "cannot read" in assistant.health().refused) == ("answered", True)


def test_a_conversation_stays_on_its_side_of_a_trial(world: World) -> None:
    """The share is kept, and one conversation never changes sides."""
    trial = Trial(Ref("a", ""), 0.3, 0.0)
    taken = [trial.takes(f"conversation {n}") for n in range(4000)]
    assert abs(sum(taken) / 4000 - 0.3) < 0.03
    name = world.candidate("1")
    assistant, live = world.assistant()
    with assistant:
        world.registry.begin_trial(name, 0.5, who="test", force=True)
        live.settle()
        seen = []
        for _ in range(8):
            one = assistant.reply(QUESTION)
            two = assistant.reply(QUESTION, conversation_id=one.conversation_id)
            *_, other = assistant.alternative(one.turn_id)
            assert other.reply is not None
            seen.append({r.policy.version for r in (one, two, other.reply)})
        assert all(len(versions) == 1 for versions in seen)
        assert set.union(*seen) == {"", name}


def test_who_is_named_answers_whatever_was_promoted(world: World) -> None:
    """With `policy.follow` off, as `--policy` sets it, the pointer is not looked at."""
    world.promote(world.candidate("1"))
    assert load(policy="extract").policy.follow is False
    named = world.settings.policy.model_copy(update={"follow": False})
    world.settings = world.settings.model_copy(update={"policy": named})
    assistant, live = world.assistant()
    with assistant:
        live.settle()
        assert assistant.reply(QUESTION).policy.version == ""


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"backend": "quote", "api_key": "x"}, "policy.api_key"),
        ({"backend": "quote", "beans": 1}, "policy.beans"),
        ({"model": "."}, "no policy.backend"),
        ({"backend": "quote", "model": "./../../x"}, "leaves its folder"),
        ({"backend": "quote", "temperature": 9}, "temperature"),
    ],
)
def test_a_manifest_sets_only_who_answers(
    policy: dict[str, object], said: str, world: World, tmp_path: Path
) -> None:
    """Keys, addresses and devices are the machine's; anything else is refused by name."""
    source = tmp_path / "trained"
    source.mkdir()
    made = world.registry.add(source, policy=policy, data_sha256="", config={}, seeds=[])
    world.promote(made.id)
    assistant, _ = world.assistant()
    with assistant:
        assert said in assistant.health().refused


def test_a_candidate_is_checked_to_the_last_byte(world: World) -> None:
    """A missing, changed, added or linked file and a changed manifest are each named."""
    name = world.candidate("1")
    root = world.registry.root
    world.promote(name)
    ref = read_pointer(root).live
    assert ref is not None
    verify(root, name, ref.manifest_sha256)
    file, manifest = root / name / "number.txt", root / name / "manifest.json"
    whole, text = file.read_bytes(), manifest.read_bytes()

    def said() -> str:
        with pytest.raises(ModelNotFound) as caught:
            verify(root, name, ref.manifest_sha256)
        return str(caught.value)

    file.write_bytes(b"2")
    assert "number.txt is not what its manifest says" in said()
    file.unlink()
    assert "lacks number.txt" in said()
    file.symlink_to("/etc/hostname")
    assert "is a link" in said()
    file.unlink()
    file.write_bytes(whole)
    (root / name / "more.txt").touch()
    assert "has more.txt" in said()
    (root / name / "more.txt").unlink()
    manifest.write_bytes(text.replace(b'"seeds"', b'"Seeds"'))
    assert "is not the manifest that was promoted" in said()
    manifest.write_bytes(text)
    verify(root, name, ref.manifest_sha256)
