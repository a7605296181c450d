from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rlhf import _loop_status as status
from rlhf._loop_gates import Measured
from rlhf._loop_reward import Judge
from rlhf._loop_tasks import Asked
from rlhf._loop_watch import Watch, alarmed, compared, said
from rlhf.actor_quote import QuoteActor
from rlhf.gates import Gate
from rlhf.reward import Composite, Mix, Values
from tests.assistant import quoters
from tests.rlhf.cycle_parts import FAST, cycle, parts, tasks

NOTHING = Judge(Composite(Mix({"format": -0.5})))


class Proxy(Judge):
    """A reward that rises by one at every reading, whatever is said."""

    def __init__(self) -> None:
        super().__init__(Composite(Mix({"format": -0.5})))
        self.now = 0.0

    def totals(self, tasks: Sequence[Asked], replies: Sequence[str]) -> Values:
        """The number of the reading."""
        self.now += 1
        return super().totals(tasks, replies) * 0 + self.now


def taught(actor: QuoteActor, right: bool, steps: int = 30) -> None:
    """Make the network say the right answers of the tasks more often, or the others."""
    rows = [t for t in tasks(24) if t.answerable]
    optimizer = torch.optim.Adam(actor.policy.values(), lr=1e-2)
    for _ in range(steps):
        said_ = []
        for task in rows:
            wanted = [n for n in range(len(task.texts)) if (n in task.right) == right]
            rollout = task.rollout(f"{task.texts[wanted[0]]} [{task.places[wanted[0]]}]")
            assert rollout is not None
            said_.append(rollout)
        optimizer.zero_grad()
        torch.autograd.backward(-actor.look(said_, 1.0).logprobs.sum() / len(rows))
        optimizer.step()


def test_right_answers_and_refusals_are_counted_on_prompts_that_nothing_learns_on() -> None:
    """Each share by itself, the mean of both as one number, and only when it is due."""
    actor = QuoteActor(quoters.network())
    watch = Watch(tasks(24), (), 12, 3)
    first = watch(-1, actor, NOTHING)
    assert first is not None
    assert first["n"] == 24
    assert first["gold"] == pytest.approx((first["right"] + first["refused"]) / 2)
    assert watch(-1, actor, NOTHING) == first
    assert [n for n in range(12) if watch(n, actor, NOTHING) is not None] == [4, 9, 11]
    taught(actor, right=True)
    later = watch(4, actor, NOTHING)
    assert later is not None
    assert later["right"] > first["right"] + 0.2
    assert first["win_rate"] == 0.5
    gained = [later[name] - first[name] for name in ("right", "refused")]
    assert later["win_rate"] == pytest.approx(0.5 + (16 * gained[0] + 8 * gained[1]) / 24 / 2)
    assert later["win_rate"] > 0.5
    assert "right" in said(later)


def test_a_reward_that_rises_while_answers_get_worse_is_an_alarm() -> None:
    """It is said, it stays out while the fall is not certain, and the gate on the two fails."""
    actor = QuoteActor(quoters.network())
    taught(actor, right=True)
    watch = Watch([t for t in tasks(48) if t.answerable], (), 50, 3)
    proxy = Proxy()
    assert not (watch(-1, actor, proxy) or {}).get("overdone")
    assert not (watch(4, actor, proxy) or {}).get("overdone")
    taught(actor, right=False)
    row = watch(9, actor, proxy)
    assert row is not None
    assert row["overdone"] == 1.0
    assert "over-optimised" in said(row)
    sign = Gate("sign", 0.1, None, (0, None), True, "they agree", 48)
    found = alarmed(Measured((sign, replace(sign, name="kl")), {}, (), ()), [row])
    assert [gate.passed for gate in found.gates] == [False, True]
    assert alarmed(found, [{"gold": 1.0}]) is found


def test_without_labels_comparisons_are_read() -> None:
    """The share of them whose better answer has gained on the worse one; none moved is a half."""
    actor = QuoteActor(quoters.network())
    pairs = []
    for task in [t for t in tasks(24) if t.answerable]:
        (good,) = task.right
        bad = (good + 1) % len(task.texts)
        sides = [f"{task.texts[n]} [{task.places[n]}]" for n in (good, bad)]
        pair = compared(task, *sides)
        assert pair is not None
        pairs.append(pair)
    unknown = [replace(t, answerable=None) for t in tasks(4)]
    watch = Watch(unknown, pairs, 10, 3)
    first = watch(-1, actor, NOTHING)
    assert first is not None
    assert first["gold"] == 0.5
    taught(actor, right=True)
    later = watch(4, actor, NOTHING)
    assert later is not None
    assert later["gold"] > 0.75
    assert "win_rate" not in later
    assert "comparisons" in said(later)
    assert Watch(unknown, (), 10, 3)(-1, actor, NOTHING) is None


def test_a_reply_is_read_as_the_tokens_that_say_it() -> None:
    """Also of two quotes; other words, or none at all, cannot be said."""
    task = tasks(1)[0]
    for chosen in ((0,), (2, 1)):
        text = " ".join(f"{task.texts[n]} [{task.places[n]}]" for n in chosen)
        rollout = task.rollout(text)
        assert rollout is not None
        assert task.reply(rollout.completion) == text
    assert task.rollout("Nobody knows.") is None
    assert task.rollout(f"{task.texts[0]} [1] And so on.") is None
    assert compared(task, task.texts[0], task.texts[0]) is None


def test_a_run_writes_its_second_readings_beside_its_updates(tmp_path: Path) -> None:
    """The Train page draws them; the first one is from before the run."""
    watch = Watch(tasks(9, 200), (), FAST.updates, 3)
    made, board, _, _ = cycle(tmp_path / "data", parts(tmp_path, reward=True, watch=watch))
    lines = list(made.run())
    rows = status.lines(board.folder / status.GOLD)
    assert [row["update"] for row in rows] == [-1, FAST.updates - 1]
    assert all({"gold", "proxy", "n", "win_rate"} <= row.keys() for row in rows)
    assert sum("held-out prompts:" in line for line in lines) == 2
