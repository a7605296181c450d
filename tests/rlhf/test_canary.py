"""The trial with a share of the chats: its statistics by simulation, its votes by the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import app
from assistant.config import CanarySettings, load
from assistant.schema import Consent, Feedback
from rlhf import canary
from rlhf.canary import covers, judge, sequence
from rlhf.errors import StoreError
from rlhf.preferences import PreferenceStore
from rlhf.preferences_votes import Tally, votes
from rlhf.registry import Registry

#: Votes after which the sequence is looked at, in a simulation.
LOOKS = [*range(1, 40), *range(40, 400, 10), *range(400, 1600, 40)]


def runs(rates: tuple[float, float], share: float, count: int, seed: int) -> Sequence[list[Any]]:
    """Simulated trials: at each look, the tallies of both sides."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        mine = draw.random(LOOKS[-1]) < share
        up = draw.random(LOOKS[-1]) < np.where(mine, rates[1], rates[0])
        sums = [np.cumsum(side) for side in (up & ~mine, ~up & ~mine, up & mine, ~up & mine)]
        at = [[int(s[n - 1]) for s in sums] for n in LOOKS]
        made.append([(Tally(a, b), Tally(c, d)) for a, b, c, d in at])
    return made


@pytest.mark.parametrize(
    ("rates", "share"),
    [((0.5, 0.5), 0.5), ((0.8, 0.8), 0.2), ((0.9, 0.8), 0.2), ((0.05, 0.02), 0.5)],
)
def test_the_truth_is_never_left_but_with_probability_alpha(
    rates: tuple[float, float], share: float
) -> None:
    """Looked at after almost every vote, the sequence ever loses the true difference below 10 %."""
    gap = rates[1] - rates[0]
    lost = [
        any(not covers(live, mine, gap, alpha=0.1) for live, mine in run)
        for run in runs(rates, share, 150, seed=1)
    ]
    assert np.mean(lost) < 0.1


def test_a_fixed_interval_would_not_hold() -> None:
    """The same looks with an ordinary 90 % interval lose the truth several times as often."""
    lost = []
    for run in runs((0.5, 0.5), 0.5, 150, seed=1):
        gaps = [
            abs(mine.share - live.share) / np.sqrt(0.25 / live.count + 0.25 / mine.count)
            for live, mine in run
            if min(live.count, mine.count) > 5
        ]
        lost.append(max(gaps) > 1.645)
    assert np.mean(lost) > 0.3


def ended(rates: tuple[float, float], seed: int, count: int = 30) -> tuple[list[str], list[int]]:
    """How simulated trials end under `judge`, and after how many votes."""
    settings = CanarySettings(alpha=0.05, margin=0.1, least=20, most=10**6)
    ends: list[str] = []
    lengths: list[int] = []
    for run in runs(rates, 0.5, count, seed):
        for at, (live, mine) in zip(LOOKS, run, strict=True):
            if at < 40 or at % 40:  # a wrong decision may come at any look; few are enough here
                continue
            found = judge(live, mine, settings)
            if found.action != "continue":
                break
        ends.append(found.action)
        lengths.append(at)
    return ends, lengths


def test_decisions_are_right_and_come_in_time() -> None:
    """Much worse is taken back, much better promoted, and neither ever wrongly."""
    worse, after = ended((0.8, 0.5), seed=2)
    assert worse.count("promote") == 0
    assert worse.count("rollback") == len(worse)
    assert np.median(after) <= 240
    better, after = ended((0.5, 0.7), seed=3)
    assert better.count("rollback") == 0
    assert better.count("promote") >= 0.95 * len(better)
    same, _ = ended((0.7, 0.7), seed=4)
    assert same.count("rollback") <= 0.05 * len(same)
    barely, _ = ended((0.7, 0.6), seed=5)  # worse by just the margin
    assert barely.count("promote") <= 0.05 * len(barely)


def test_the_sequence_by_hand() -> None:
    """No votes say nothing; more votes say more; swapping the sides turns it round."""
    assert sequence(Tally(), Tally(), 0.05) == (-1.0, 1.0)
    few, many = (sequence(Tally(n, n), Tally(n, n), 0.05) for n in (20, 2000))
    assert few[0] < many[0] < 0 < many[1] < few[1]
    one = sequence(Tally(30, 10), Tally(5, 25), 0.05)
    two = sequence(Tally(5, 25), Tally(30, 10), 0.05)
    assert one == pytest.approx((-two[1], -two[0]), abs=1e-6)
    assert one[1] < 0
    low, high = sequence(Tally(0, 500), Tally(500, 0), 0.05)
    assert (low > 0.9, high) == (True, 1.0)


def test_each_edge_is_where_the_mixture_ratio_is_one_over_alpha() -> None:
    """Just inside an edge the difference is covered, just outside it is not."""
    live, mine = Tally(61, 39), Tally(17, 23)
    low, high = sequence(live, mine, 0.05)
    for edge, out in ((low, -1e-6), (high, 1e-6)):
        assert covers(live, mine, edge - out, 0.05)
        assert not covers(live, mine, edge + out, 0.05)


def test_few_votes_decide_nothing_and_too_many_end_it() -> None:
    """Below `least` it goes on whatever the votes, at `most` an undecided candidate goes."""
    settings = CanarySettings(least=20, most=100)
    assert judge(Tally(200, 0), Tally(0, 19), settings).action == "continue"
    assert judge(Tally(200, 0), Tally(0, 20), settings).action == "rollback"
    found = judge(Tally(50, 50), Tally(50, 50), settings)
    assert (found.action, "not decided by 100 votes" in found.reason) == ("rollback", True)


class World:
    """A preference log with votes, and a registry beside it."""

    def __init__(self, home: Path, store: PreferenceStore, record: Any, feedback: Any) -> None:
        self.now = 1_000.0
        self.path, self.store = store.path, store
        self.registry = Registry(home, clock=lambda: self.now)
        self._record, self._feedback, self._count = record, feedback, 0

    def candidate(self) -> str:
        """Add one, without files."""
        self._count += 1
        source = self.path.parent / f"source{self._count}"
        source.mkdir()
        policy = {"backend": "echo"}
        self.now += 1
        return self.registry.add(source, policy=policy, data_sha256="", config={}, seeds=[]).id

    def vote(self, version: str, value: int, **changed: Any) -> None:
        """One thumb on one answer of a conversation of its own."""
        self._count += 1
        name = f"n{self._count}"
        user = changed.get("user", name)
        made = self._record(
            f"t{name}",
            f"c{name}",
            user,
            created=changed.get("created", self.now),
            consent=changed.get("consent", Consent(train=True)),
            outcome=changed.get("outcome", "answered"),
        )
        card = replace(made.reply.policy, version=version)
        reply = replace(made.reply, policy=card)
        where = changed.get("conversation", name)
        self.store.add_turn(replace(made, conversation_id=where, reply=reply))
        said = self._feedback(turn=f"t{name}", user=user, value=value)
        self.store.add_feedback(replace(said, conversation_id=where))


@pytest.fixture
def world(tmp_path: Path, store: PreferenceStore, record: Any, feedback: Any) -> World:
    """An empty one."""
    return World(tmp_path, store, record, feedback)


def test_which_thumbs_are_votes(world: World) -> None:
    """The first of a conversation, on what a policy wrote, by those who allow it, in time."""
    world.vote("a", 1)
    world.vote("a", -1, consent=Consent(evaluate=True))
    world.vote("a", 1, consent=Consent())  # did not allow it
    world.vote("a", 1, outcome="refused")  # not the policy's words
    world.vote("a", -1, created=10.0)  # before
    world.vote("b", -1)
    world.vote("", 1)
    for _ in range(3):
        world.vote("a", 1, conversation="long", user="ann")
    for _ in range(9):
        world.vote("a", -1, user="bob")
    assert votes(world.path, "a", since=500, per_user=4) == Tally(2, 5)
    assert votes(world.path, "b", since=500) == Tally(0, 1)
    assert votes(world.path, "", since=500) == Tally(1, 0)
    assert votes(world.path, "a", until=500) == Tally(0, 1)


def test_a_log_that_is_not_there_or_none_at_all(tmp_path: Path) -> None:
    """No log has no votes; a file that is no log is named."""
    assert votes(tmp_path / "none.db", "a") == Tally()
    (tmp_path / "bad.db").write_text("no database, " * 99, encoding="utf-8")
    with pytest.raises(StoreError, match="cannot count the votes"):
        votes(tmp_path / "bad.db", "a")


def test_a_thumb_taken_back_is_no_vote(world: World) -> None:
    """Of several thumbs on one answer the last one stands."""
    world.vote("a", 1)
    blank = replace(world._feedback(turn="tn1", user="n1", value=-1), conversation_id="n1")
    world.store.add_feedback(blank)
    assert votes(world.path, "a") == Tally(0, 1)
    world.store.add_feedback(replace(blank, value=0))
    assert votes(world.path, "a") == Tally()


def test_a_bad_candidate_is_taken_back_by_its_thumbs(world: World) -> None:
    """The trial ends by itself, who answers has not changed, and the log has the numbers."""
    name = world.candidate()
    assert canary.consider(world.registry, world.path) is None
    world.registry.begin_trial(name, 0.5, who="test", force=True)
    for number in range(30):
        world.vote("", 1 if number % 5 else -1)
        world.vote(name, -1 if number % 5 else 1)
    canary.heard(world.registry, world.path)
    pointer = world.registry.pointer()
    last = world.registry.decisions()[-1]
    assert (pointer.live, pointer.trial, last.action, last.who) == (
        None,
        None,
        "take back",
        canary.WHO,
    )
    assert (last.facts["candidate_up"], last.facts["live_up"], last.ref and last.ref.id) == (
        6.0,
        24.0,
        name,
    )


def test_a_good_candidate_is_promoted_and_a_sinking_one_rolled_back(world: World) -> None:
    """Votes of the trial promote it; later ones, against those before it, take it down again."""
    name = world.candidate()
    world.registry.begin_trial(name, 0.5, who="test", force=True)
    for number in range(30):
        world.vote("", 1 if number % 2 else -1)
        world.vote(name, 1)
    world.now += 10
    found = canary.consider(world.registry, world.path)
    assert found is not None
    assert (found[0].action, found[1] and found[1].action) == ("promote", "promote")
    live = world.registry.pointer().live
    assert live is not None
    assert live.id == name
    for _ in range(10):
        world.vote(name, -1)
    found = canary.consider(world.registry, world.path)
    assert found is not None
    assert (found[0].action, found[1]) == ("continue", None)
    for _ in range(30):
        world.vote(name, -1)
    canary.heard(world.registry, world.path)
    assert world.registry.pointer().live is None
    assert [d.action for d in world.registry.decisions()] == [
        "trial by force",
        "promote",
        "rollback",
    ]


def test_a_thumb_in_the_chat_ends_a_trial(tmp_path: Path) -> None:
    """As app.py wires it: the candidate answers, replies and votes name it, a thumb decides."""
    home = tmp_path / "answers"
    overrides = {
        "home": str(home),
        "docs": "false",
        "retrieval.embed.backend": "hashing",
        "retrieval.rerank.backend": "none",
        "policy.backend": "extract",
        "policy.support": "words",
        "canary.least": "1",
        "canary.most": "1",
    }
    settings = load(overrides=overrides)
    document, source = tmp_path / "widget.md", tmp_path / "source"
    document.write_text("# Widget\n\nThe widget costs 40 euros.\n", encoding="utf-8")
    source.mkdir()
    registry = Registry(home)
    made = registry.add(source, policy={"backend": "echo"}, data_sha256="", config={}, seeds=[])
    registry.begin_trial(made.id, 0.5, who="test", force=True)
    seen: list[str] = []
    with app._opened(settings) as (assistant, log):
        for _ in assistant.ingest([document]):
            pass
        while len(set(seen)) < 2:
            said = assistant.reply("What does the widget cost?", consent=Consent(train=True))
            if said.policy.version not in seen:
                thumb = Feedback(said.turn_id, said.conversation_id, "local", "thumb", value=1)
                assistant.give_feedback(thumb)
            seen.append(said.policy.version)
            assert said.policy.name == ("echo" if said.policy.version else "extract")
        assert votes(log.path, made.id) == votes(log.path, "") == Tally(1, 0)
        last = registry.decisions()[-1]
        assert (last.action, "not decided by 1 votes" in last.reason) == ("take back", True)
