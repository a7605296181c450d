from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from rlhf._actor_network import Ids, Network
from rlhf.actor_causal import Prompted
from rlhf.config import PPOSettings
from rlhf.ppo import PPO, Update
from rlhf.schema import Rollout
from tests.rlhf.toys import CORE, Fixed, Full, Table, scored_by, tiny

STOP = 0


def changed(settings: PPOSettings, **values: object) -> PPOSettings:
    """Some settings with other values."""
    return PPOSettings(**{**settings.model_dump(), **values})


def rewards_of(table: Table, seed: int) -> torch.Tensor:
    """What each token is worth at each place."""
    return torch.randn(table.before.shape, generator=torch.Generator().manual_seed(100 + seed))


def trained(
    table: Table, rewards: torch.Tensor, settings: PPOSettings, folder: Path
) -> list[Update]:
    """All updates of a run."""
    tasks = [*range(len(rewards))]
    return list(PPO(table, tasks, scored_by(rewards), settings, folder).train())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_t1_one_token_finds_the_best_policy(seed: int, tmp_path: Path) -> None:
    """The reference times e^(reward / beta), whose worth is known: KL and gap below 1e-3."""
    table = Table(8, 1, seed=seed)
    rewards = rewards_of(table, seed)
    trained(table, rewards, changed(CORE, seed=seed, updates=40), tmp_path)
    assert table.distance(rewards, 0.5) < 1e-3
    assert abs(table.worth(rewards, 0.5) - table.most(rewards, 0.5)) < 1e-3


def test_t1_whitened_rewards_find_it_too(tmp_path: Path) -> None:
    """What scales reward and KL together changes no optimum."""
    table = Table(8, 1)
    rewards = rewards_of(table, 0)
    settings = changed(CORE, whiten_rewards=True, whiten_advantages=False, updates=40)
    trained(table, rewards, settings, tmp_path)
    assert table.distance(rewards, 0.5) < 1e-3


@pytest.mark.parametrize(("trace", "most"), [(0.95, 0.08), (1.0, 0.005)])
def test_t2_five_tokens_rewarded_at_the_end(trace: float, most: float, tmp_path: Path) -> None:
    """Each place finds its own best distribution from the sum alone; lambda < 1 is biased."""
    table = Table(8, 5)
    rewards = rewards_of(table, 0)
    settings = changed(CORE, trace=trace, updates=60, episodes=1024)
    trained(table, rewards, settings, tmp_path)
    assert table.distance(rewards, 0.5) < most


#: Of a tiny transformer.
SMALL = changed(
    CORE, episodes=256, minibatches=4, epochs=2, micro=256, rate=3e-3, value_rate=1e-2, updates=40
)


def test_t3_a_transformer_counts_a_token(tmp_path: Path) -> None:
    """Each step's chance of x is p e^(1/beta) / (p e^(1/beta) + 1 - p), p the reference's."""
    wanted, beta = 5, 1.0
    actor = Full(tiny())
    before = Network(tiny(), 8)

    def count(tasks: Sequence[Prompted], rollouts: Sequence[Rollout]) -> dict[str, list[float]]:
        return {"count": [float(r.completion.count(wanted)) for r in rollouts]}

    task = Fixed((1, 2), frozenset(), 3)
    settings = changed(SMALL, beta=beta)
    updates = list(PPO(actor, [task], count, settings, tmp_path).train())
    assert updates[-1].terms[0][1] > updates[0].terms[0][1] + 0.3
    drawn = actor.draw([task] * 256, 1.0, torch.Generator().manual_seed(1))
    with torch.no_grad():
        mine, theirs = (_chances(m, drawn, wanted) for m in (actor.model, before.model))
    raised = theirs * torch.tensor(1 / beta).exp()
    assert float((mine - raised / (raised + 1 - theirs)).abs().mean()) < 0.03


def _chances(model: LlamaForCausalLM, rollouts: Sequence[Rollout], token: int) -> torch.Tensor:
    """Of a token at each place of the answers, (rows, 3)."""
    ids = torch.tensor([[*r.prompt, *r.completion[:-1]] for r in rollouts])
    chances: torch.Tensor = model(input_ids=ids).logits[:, -3:].softmax(2)
    return chances[:, :, token]


def test_t4_answers_get_the_length_that_is_rewarded(tmp_path: Path) -> None:
    """Minus the distance from five tokens: five is the mode, and nearly all answers end."""

    def near_five(tasks: Sequence[Prompted], found: Sequence[Rollout]) -> dict[str, list[float]]:
        return {"length": [-abs(len(r.completion) - 5.0) for r in found]}

    settings = changed(SMALL, beta=0.02, missing_end=-7.0, updates=40, rate=1e-2)
    task = Prompted((1, 2), frozenset({STOP}), 12)
    actor = Full(tiny())
    updates = list(PPO(actor, [task], near_five, settings, tmp_path).train())
    drawn = actor.draw([task] * 512, 1.0, torch.Generator().manual_seed(1))
    assert Counter(len(r.completion) for r in drawn).most_common(1)[0][0] == 5
    assert sum(r.finish == "stop" for r in drawn) > 0.98 * len(drawn)
    assert updates[-1].ended > 0.95 > updates[0].ended


def test_t5_an_adaptive_beta_settles_at_its_target(tmp_path: Path) -> None:
    """The KL of the last updates is within a fifth of the target, from a beta far too high."""
    table = Table(8, 3)
    rewards = rewards_of(table, 0) * 3
    settings = changed(
        CORE, beta=8.0, target_kl=1.0, horizon=3000, updates=120, episodes=256, minibatches=2,
        epochs=2, schedule="constant",
    )  # fmt: skip
    updates = trained(table, rewards, settings, tmp_path)
    last = [u.kl for u in updates[-20:]]
    assert sum(last) / len(last) == pytest.approx(1.0, rel=0.2)
    assert updates[-1].beta < 0.5 * updates[0].beta


@dataclass(frozen=True)
class Question(Prompted):
    """May be answered at once or after a search, whose evidence is put in."""

    needs: bool = False

    def allowed(self, path: Sequence[int]) -> Ids | None:
        """Search (5) or not (1); then evidence; then one token and the end."""
        if not path:
            return (1, 5)
        if path[0] == 5 and len(path) < 3:
            return (6,) if len(path) == 1 else (7,)
        size = 3 if path[0] == 5 else 1
        return (2, 3) if len(path) == size else ((STOP,) if len(path) == size + 1 else ())

    def ended(self, path: Sequence[int]) -> bool:
        """It always does."""
        return True


@pytest.mark.parametrize("cost", [0.3, 0.7])
def test_t8_searching_flips_at_its_cost(cost: float, tmp_path: Path) -> None:
    """Three of four such questions need a search: it pays below a cost of a half, not above."""
    tasks = [Question((1, 3), frozenset({STOP}), 9, needs=n < 3) for n in range(4)]

    def reward(asked: Sequence[Question], found: Sequence[Rollout]) -> dict[str, list[float]]:
        searched = [r.completion[0] == 5 for r in found]
        right = [float(s == t.needs) for s, t in zip(searched, asked, strict=True)]
        return {"right": right, "search": [-cost * s for s in searched]}

    settings = changed(SMALL, beta=0.02, updates=25, episodes=128, minibatches=2, rate=1e-2)
    actor = Full(tiny())
    updates = list(PPO(actor, tasks, reward, settings, tmp_path).train())
    drawn = actor.draw(tasks * 64, 1.0, torch.Generator().manual_seed(1))
    share = sum(r.completion[0] == 5 for r in drawn) / len(drawn)
    assert share > 0.9 if cost < 0.5 else share < 0.1
    assert dict(updates[0].terms).keys() == {"right", "search"}
