from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from assistant.prompt import ABSTAIN
from rlhf._loop_reward import Judge, mix
from rlhf._simulation_run import unlabelled
from rlhf.actor_quote import QuoteActor
from rlhf.gates import Evidence, decide
from rlhf.ppo import PPO
from rlhf.preferences import PreferenceStore
from rlhf.reward import Composite
from rlhf.samples import gather
from rlhf.simulation import SURFACE, TASTE, USER, Annotator, best_of, collect, spot
from tests.assistant import quoters
from tests.rlhf.cycle_parts import GATES, tasks
from tests.rlhf.toys import CORE, Table, scored_by


def test_t7_gold_peaks_and_falls_while_the_proxy_rises(tmp_path: Path) -> None:
    """A proxy that one rare answer deceives: first both rise, then gold falls (Gao et al. 2022)."""
    draw = torch.Generator().manual_seed(2)
    gold = torch.randn(1, 1, 24, generator=draw).clamp(-1.5, 1.5)
    proxy = gold + 0.1 * torch.randn(1, 1, 24, generator=draw)
    table = Table(24, 1)
    start = table.before.clone()
    start[0, 0, 5] = -6.0  # rare, worthless, and what the proxy likes best
    gold[0, 0, 5], proxy[0, 0, 5] = -2.0, 5.0
    table.before = start.log_softmax(2)
    with torch.no_grad():
        table.logits.copy_(table.before)
    settings = CORE.model_copy(
        update={"updates": 40, "beta": 0.02, "rate": 4e-2, "schedule": "constant"}
    )
    seen = []
    for _ in PPO(table, [0], scored_by(proxy), settings, tmp_path).train():
        chances = table.logits.detach().softmax(2)
        apart = (chances * (table.logits.detach().log_softmax(2) - table.before)).sum()
        values = [float((chances * r).sum()) for r in (proxy, gold)]
        seen.append((float(apart), *values))
    kls, proxies, golds = zip(*seen, strict=True)
    peak = golds.index(max(golds))
    first = float((table.before.exp() * gold).sum())
    assert golds[peak] > first + 0.3
    assert 0 < peak < len(golds) - 1
    assert golds[-1] < golds[peak] - 0.5
    assert proxies[-1] == pytest.approx(max(proxies), abs=0.1)
    assert proxies[-1] > proxies[peak]
    assert kls[-1] > kls[peak]
    gaps = [golds[-1] - first] * 100, [proxies[-1] - proxies[0]] * 100
    gates = {g.name: g for g in decide(Evidence(gold=gaps[0], proxy=gaps[1]), GATES)}
    assert not gates["sign"].passed


def test_the_annotator_wants_what_is_right_and_brief() -> None:
    """A right answer beats a wrong one, and a long one; to refuse rightly is right."""
    task = next(t for t in tasks(6) if t.answerable)
    own, one = Annotator(), next(iter(task.right))
    right, wrong = (f"{task.texts[n]} [1]" for n in (one, (one + 1) % len(task.texts)))
    long = f"{right} {wrong} {task.texts[(one + 2) % len(task.texts)]} [1]"
    worth = own.gold([task] * 4, [right, long, wrong, ABSTAIN])
    assert worth[0] > worth[1] > worth[2]
    assert worth[0] > worth[3]
    # what it likes and what follows its taste are the same: one sentence, of any length
    assert worth[0] - worth[1] == pytest.approx(TASTE)
    assert own.follows(task, right)
    assert own.follows(task, long) is False
    assert own.follows(task, ABSTAIN) is None
    nothing = next(t for t in tasks(6) if t.answerable is False)
    assert own.gold([nothing], [ABSTAIN])[0] == 1.0
    strict = replace(own, rules=lambda some, said: own.gold(some, said) * 0 - 2)
    assert strict.gold([task], [right])[0] == worth[0] - 2


def test_the_annotator_wants_the_newest_version() -> None:
    """Where two versions answer; with one there is nothing to taste."""
    task = next(t for t in tasks(6) if t.answerable)
    old, new = (replace(task.passages[n], modified=float(n)) for n in (0, 1))
    both = replace(task, right=frozenset({0, 4}), passages=(old, new), places=(1, 1, 1, 1, 2))
    own = Annotator(taste="newest")
    assert own.follows(both, f"{both.texts[4]} [2]")
    assert own.follows(both, f"{both.texts[0]} [1]") is False
    assert own.follows(task, f"{task.texts[0]} [1]") is None
    new_one, old_one = own.gold([both] * 2, [f"{both.texts[4]} [2]", f"{both.texts[0]} [1]"])
    assert new_one - old_one == pytest.approx(1.0)


def test_a_quarter_of_the_picks_are_wrong() -> None:
    """As the noise says; two answers of one worth are equally good."""
    task, dice = tasks(1)[0], random.Random(3)
    texts = (f"{task.texts[0]} [1]", f"{task.texts[1]} [1]")
    found = Counter(Annotator().picks(task, texts, dice) for _ in range(2000))
    assert found[1] / 2000 == pytest.approx(0.25, abs=0.03)
    assert Annotator().picks(task, (texts[0], texts[0]), dice) == -1


def test_simulated_users_fill_the_log_through_its_own_interface(tmp_path: Path) -> None:
    """Every turn has its feedback, is said to be simulated, and no question is in two splits."""
    store = PreferenceStore(tmp_path / "preferences.db")
    actor, asked = QuoteActor(quoters.network()), tasks(30)
    crowd = collect(actor, asked, Annotator(), store.add_turn, store.add_feedback, 60, users=40)
    counts = store.counts()
    assert counts.turns == counts.trainable == crowd.turns == 60
    kinds = dict(counts.feedback)
    assert (kinds.get("ab_pick", 0), kinds.get("thumb", 0)) == (
        crowd.picks + crowd.ties, crowd.thumbs,
    )  # fmt: skip
    assert crowd.picks > 20
    rows = list(store.records())
    assert {row["surface"] for row in rows} == {SURFACE}
    splits: dict[str, set[str]] = {}
    for sample in gather(store, "comparison"):
        question = sample.prompt[-1].text.rpartition("Question: ")[2]
        splits.setdefault(question, set()).add(sample.split)
    assert all(len(found) == 1 for found in splits.values())
    first = [p.chosen_position for p in store.pairs()]
    assert 0.25 < sum(first) / len(first) < 0.75
    assert USER == "simulated-"
    store.close()


def test_the_curve_begins_at_no_divergence_and_best_of_one_is_the_policy() -> None:
    """A policy that has not learnt has KL 0; the best of more is no worse by the proxy."""
    actor, held, own = QuoteActor(quoters.network()), tasks(8), Annotator()
    here = spot("start", actor, held, own.gold, own.gold)
    assert here.kl == pytest.approx(0, abs=1e-5)
    assert here.root == pytest.approx(0, abs=1e-2)
    found = list(best_of(actor, held, own.gold, own.gold, own.gold, (1, 2, 4)))
    assert [s.name for s in found] == ["best of 1", "best of 2", "best of 4"]
    assert found[0].proxy <= found[1].proxy <= found[2].proxy
    assert all(s.proxy == s.gold for s in found)


def test_the_best_of_n_is_chosen_without_the_right_answers() -> None:
    """A judge that is not told them finds a right answer and a wrong one alike."""
    judge = Judge(Composite(mix(preference=False, rules=False)))
    (task,) = [t for t in tasks(8) if t.right][:1]
    wrong = next(n for n in range(len(task.texts)) if n not in task.right | task.needed)
    said = [task.texts[min(task.right)], task.texts[wrong]]
    assert np.ptp(unlabelled(judge)([task, task], said)) == 0
    told = Judge(Composite(mix(preference=False, rules=False))).totals([task, task], said)
    assert told[0] > told[1]
