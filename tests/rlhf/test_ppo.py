from __future__ import annotations

import json
import math
import resource
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from rlhf import _ppo_state
from rlhf._ppo_batch import passes
from rlhf._ppo_metrics import alarm
from rlhf.actor_causal import CausalActor, Prompted
from rlhf.actor_quote import QuoteActor
from rlhf.actors import Look
from rlhf.config import PPOSettings
from rlhf.errors import Diverged, TrainingError
from rlhf.ppo import APART, PPO, Update
from rlhf.schema import Rollout
from tests.assistant.quoters import network
from tests.rlhf.test_actors import asked
from tests.rlhf.toys import Fixed, Full, Same, Table, scored_by, tiny

WORTH = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(9))
#: A short run on a table.
SHORT = PPOSettings(
    updates=6,
    episodes=24,
    minibatches=2,
    epochs=2,
    micro=8,
    rate=1e-2,
    value_rate=1e-2,
    rate_warmup=0,
    value_warmup=0,
    step_kl=None,
    save_every=2,
)


def changed(**values: object) -> PPOSettings:
    """The short run with other settings."""
    return PPOSettings(**{**SHORT.model_dump(), **values})


def table() -> Table:
    """A new policy over three contexts."""
    return Table(8, 4, contexts=3)


def run(
    folder: Path,
    actor: Table | None = None,
    mixing: Callable[[int], Iterable[Tensor]] | None = None,
    **values: object,
) -> tuple[PPO[int], list[Update]]:
    """A run to its end, and its updates."""
    reward, settings = scored_by(WORTH), changed(**values)
    loop = PPO(actor or table(), [0, 1, 2], reward, settings, folder, mixing)
    return loop, list(loop.train())


def near(actor: Table) -> Tensor:
    """The weights as they are."""
    return actor.logits.detach().clone()


@pytest.mark.parametrize("name", ["top_k", "top_p", "min_new_tokens", "repetition_penalty"])
def test_d17_filters_of_the_distribution_are_refused(name: str) -> None:
    """Their KL is that of something else, so there is no such setting, and it says why."""
    with pytest.raises(ValidationError, match="draws from all of it"):
        PPOSettings(**{name: 1})


def test_d17_a_negative_kl_is_an_alarm(tmp_path: Path) -> None:
    """Drawing the unlikely half only makes the mean KL fall below -0.5, and the run stops."""

    class Filtered(Table):
        """Draws what the reference likes better than the policy does."""

        def draw(
            self, tasks: Sequence[int], temperature: float, generator: torch.Generator
        ) -> list[Rollout]:
            token = int((self.logits.log_softmax(2) - self.before)[0, 0].argmin())
            row = (token,) * self.length
            return [Rollout((task,), row, (True,) * 4, None, "stop") for task in tasks]

    actor = Filtered(8, 4, contexts=3)
    with torch.no_grad():
        actor.logits.add_(2 * torch.randn(8, generator=torch.Generator().manual_seed(1)))
    with pytest.raises(Diverged, match=r"mean KL is -.*whole distribution"):
        run(tmp_path, actor)


def test_d15_beta_stays_where_there_is_no_target(tmp_path: Path) -> None:
    """And moves where there is one."""
    _, fixed = run(tmp_path / "fixed", target_kl=None, beta=0.02)
    assert {update.beta for update in fixed} == {0.02}
    _, moving = run(tmp_path / "moving", target_kl=6.0, beta=0.02, horizon=100)
    assert moving[-1].beta < 0.02


def test_d16_the_first_rollouts_have_no_kl(tmp_path: Path) -> None:
    """The reference is the policy as it was; the batch of the first update shows it."""
    _, updates = run(tmp_path)
    assert abs(updates[0].kl) < 1e-5
    assert updates[0].kl3 < 1e-5
    assert updates[-1].kl3 > 1e-4


@pytest.mark.parametrize("make", ["table", "quote", "causal", "full"])
def test_d23_the_first_minibatch_has_ratio_one(make: str, tmp_path: Path) -> None:
    """To 1e-5 in float32 for every actor: nothing moved, nothing clipped."""
    settings = changed(updates=2, minibatches=1, epochs=1, episodes=12, micro=5, temperature=0.7)
    prompts = [Prompted((1, 2, n), frozenset({0}), 6) for n in range(5)]
    if make == "table":
        updates = list(PPO(table(), [0, 1, 2], scored_by(WORTH), settings, tmp_path).train())
    elif make == "quote":
        offers = [asked(n) for n in range(5)]
        actor = QuoteActor(network())
        updates = list(PPO(actor, offers, lengths, settings, tmp_path).train())
    else:
        free = CausalActor(tiny(), rank=2) if make == "causal" else Full(tiny())
        updates = list(PPO(free, prompts, lengths, settings, tmp_path).train())
    for update in updates:
        assert update.steps.moved < 1e-9
        assert update.steps.clip_fraction == 0
        assert update.steps.value_clip_fraction == 0  # D31
        assert update.sampler_gap < 1e-5  # D25: sampler and training forward agree


def lengths(tasks: Sequence[object], rollouts: Sequence[Rollout]) -> dict[str, list[float]]:
    """Short answers are good."""
    return {"short": [-0.1 * len(r.completion) for r in rollouts]}


class Noisy(Table):
    """Gives other log-probs at each look, as with dropout."""

    def look(
        self, rollouts: Sequence[Rollout], temperature: float, *, entropy: bool = False
    ) -> Look:
        """Off by up to a thousandth."""
        found = super().look(rollouts, temperature, entropy=entropy)
        return replace(found, logprobs=found.logprobs + 1e-3 * torch.rand_like(found.logprobs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_d23_holds_for_prompts_with_several_answers_too(dtype: torch.dtype, tmp_path: Path) -> None:
    """The network that quotes reads a prompt once for four answers, in half precision as well."""
    settings = changed(updates=2, minibatches=2, epochs=1, episodes=16, answers=4, micro=8)
    actor = QuoteActor(network(), dtype=dtype)
    for update in PPO(actor, [asked(n) for n in range(5)], lengths, settings, tmp_path).train():
        assert update.steps.taken == 2
        assert abs(update.kl) < 1e-6 or update.update
        assert update.sampler_gap < (1e-5 if dtype == torch.float32 else 1e-2)


def test_d23_another_forward_is_caught_before_it_teaches(tmp_path: Path) -> None:
    """The gate names the distance and the remedy, and no weight has changed."""
    actor = Noisy(8, 4, contexts=3)
    before = near(actor)
    with pytest.raises(TrainingError, match=r"first minibatch .* off 1 by .*dropout"):
        run(tmp_path, actor)
    assert torch.equal(near(actor), before)


@pytest.mark.parametrize("other", [False, True])
def test_easy_prompts_teach_nothing_beside_other_answers(other: bool, tmp_path: Path) -> None:
    """A score of the prompt alone moves the policy only where no other answer tells as much."""

    def reward(tasks: Sequence[int], rollouts: Sequence[Rollout]) -> dict[str, list[float]]:
        return {"prompt": [float(task) for task in tasks]}

    settings = changed(
        beta=0.0, target_kl=None, trace=1.0, answers=4, minibatches=1, epochs=1, updates=1,
        leave_one_out=other, whiten_advantages=False,
    )  # fmt: skip
    actor = table()
    before = near(actor)
    list(PPO(actor, [0, 1, 2], reward, settings, tmp_path).train())
    assert torch.equal(near(actor), before) is other


def gained_so_far(rollouts: Sequence[Rollout]) -> Tensor:
    """What the tokens before each place of a one-context table are worth together."""
    ids = torch.tensor([r.completion for r in rollouts])
    each = WORTH[:1].expand(len(ids), -1, -1).gather(2, ids[:, :, None])[:, :, 0]
    return each.cumsum(1) - each


@pytest.mark.parametrize("trace", [0.0, 1.0])
def test_a_potential_gives_credit_at_once(trace: float, tmp_path: Path) -> None:
    """Where nothing looks ahead, it teaches; where all does, it takes away the past's noise."""
    found = []
    for potential in (None, gained_so_far):
        each = []
        for seed in range(8):
            settings = changed(
                beta=0.0, target_kl=None, trace=trace, minibatches=1, epochs=1, updates=1,
                whiten_advantages=False, adam_epsilon=1e3, rate=1e2, seed=seed,
            )  # fmt: skip
            actor, folder = Table(8, 4), tmp_path / f"{seed}{potential is None}"
            loop = PPO(
                actor, [0], scored_by(WORTH[:1]), settings, folder, potential=potential
            )  # fmt: skip
            list(loop.train())
            each.append(near(actor))
        found.append(torch.stack(each))
    plain, shaped = found
    if trace:
        assert float(shaped.std(0).sum()) < float(plain.std(0).sum())
    else:
        better = ((shaped.softmax(3) - plain.softmax(3)) * WORTH[:1]).sum((1, 2, 3))
        assert bool((better > 0).all())


def test_a_potential_that_is_no_number_is_named(tmp_path: Path) -> None:
    """Nothing was learnt from it."""
    actor = table()
    before = near(actor)
    loop = PPO(
        actor, [0, 1, 2], scored_by(WORTH), changed(), tmp_path,
        potential=lambda rows: torch.full((len(rows), 4), float("nan")),
    )  # fmt: skip
    with pytest.raises(Diverged, match="potential gave numbers that are not finite"):
        list(loop.train())
    assert torch.equal(near(actor), before)


def test_d25_a_samplers_own_log_probs_weigh_and_are_watched(tmp_path: Path) -> None:
    """Their distance is a measure; where they are the policy's own, nothing changes."""

    class Sampled(Table):
        """Says what its sampler thought, which is off by `noise`."""

        noise = 0.0

        def draw(
            self, tasks: Sequence[int], temperature: float, generator: torch.Generator
        ) -> list[Rollout]:
            drawn = super().draw(tasks, temperature, generator)
            own = self.look(drawn, temperature).logprobs + self.noise
            return [replace(r, logprobs=tuple(o)) for r, o in zip(drawn, own.tolist(), strict=True)]

    silent, exact, off = table(), Sampled(8, 4, contexts=3), Sampled(8, 4, contexts=3)
    off.noise = 0.3
    gaps = [run(tmp_path / str(n), a)[1][0].sampler_gap for n, a in enumerate((silent, exact, off))]
    assert gaps == pytest.approx([0, 0, 0.3], abs=1e-6)
    torch.testing.assert_close(near(exact), near(silent), atol=1e-4, rtol=0)
    assert not torch.allclose(near(off), near(silent), atol=1e-4)


def test_d33_the_value_head_warms_up_alone(tmp_path: Path) -> None:
    """Policy weights are the same bits until then, and the values explain something."""
    settings = changed(
        updates=12, value_warmup=11, episodes=96, value_rate=5e-2, value_clip=10.0, value_weight=1.0
    )
    actor = Full(tiny())
    before = {name: p.detach().clone() for name, p in actor.policy.items()}
    tasks = [Fixed((1, 2), frozenset(), 3), Fixed((3, 4, 5), frozenset(), 3)]

    def reward(asked: Sequence[Prompted], found: Sequence[Rollout]) -> dict[str, list[float]]:
        return {"which": [float(len(task.ids)) for task in asked]}

    loop = PPO(actor, tasks, reward, settings, tmp_path)
    for update in loop.train():
        same = [torch.equal(p, before[name]) for name, p in actor.policy.items()]
        assert update.warm == all(same)
        assert update.warm == (update.update < 11)
    assert update.explained > 0
    assert any(p.any() for p in actor.value.values())


@pytest.mark.parametrize(("minibatches", "epochs"), [(8, 1), (1, 4), (2, 3)])
def test_d34_steps_are_epochs_times_minibatches(
    minibatches: int, epochs: int, tmp_path: Path
) -> None:
    """InstructGPT's eight by one and TRL's one by four alike; each answer is read so often."""
    seen: list[int] = []

    class Counted(Table):
        """Notes which answers are looked at with a gradient."""

        def look(
            self, rollouts: Sequence[Rollout], temperature: float, *, entropy: bool = False
        ) -> Look:
            if torch.is_grad_enabled():
                seen.extend(id(r) for r in rollouts)
            return super().look(rollouts, temperature, entropy=entropy)

    actor = Counted(8, 4, contexts=3)
    loop, updates = run(tmp_path, actor, minibatches=minibatches, epochs=epochs, updates=1)
    assert loop.steps == updates[0].steps.taken == minibatches * epochs
    assert sorted(seen.count(one) for one in set(seen)) == [epochs] * 24
    rollouts = actor.draw([0] * 25, 1.0, torch.Generator())
    for epoch in passes(rollouts, changed(minibatches=minibatches), torch.Generator()):
        sizes = [sum(map(len, minibatch)) for minibatch in epoch]
        assert max(sizes) - min(sizes) <= 1
        assert sorted(row for m in epoch for part in m for row in part) == [*range(25)]


def test_d34_rates_warm_up_from_a_tenth(tmp_path: Path) -> None:
    """Then they stay, or fall to zero in a line."""
    _, updates = run(tmp_path, rate_warmup=3, rate=1e-3, updates=5)
    assert [u.rate for u in updates] == pytest.approx([1e-4, 4e-4, 7e-4, 1e-3, 1e-3])
    _, falling = run(tmp_path / "line", schedule="linear", rate=1e-3, updates=4)
    assert [u.rate for u in falling] == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4])


def test_d35_parts_of_a_minibatch_change_nothing(tmp_path: Path) -> None:
    """Answers of several lengths read one by one or all at once give the same weights."""
    found = []
    for micro in (1, 8, 24):
        actor = Full(tiny())
        tasks = [Prompted((1, 2, n), frozenset({0}), 2 + 3 * (n % 3)) for n in range(6)]
        settings = changed(micro=micro, updates=2, adam_epsilon=1e-2, rate=1e-3)
        list(PPO(actor, tasks, lengths, settings, tmp_path / str(micro)).train())
        found.append(torch.cat([p.detach().flatten() for p in actor.policy.values()]))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("form", ["torch", "tensorflow"])
def test_d36_epsilon_stands_where_the_form_says(form: str, tmp_path: Path) -> None:
    """One step from closed form: after the bias correction in torch, before it in TensorFlow."""
    actor, epsilon, rate = table(), 1e-3, 1e-2
    before = near(actor)
    run(
        tmp_path, actor, adam_form=form, adam_epsilon=epsilon, rate=rate, updates=1, epochs=1,
        minibatches=1, micro=24, gradient_clip=1e9,
    )  # fmt: skip
    g = actor.logits.grad
    assert g is not None
    late = epsilon if form == "torch" else epsilon / math.sqrt(1 - 0.95)
    torch.testing.assert_close(near(actor), before - rate * g / (g.abs() + late))


def test_d37_a_step_too_far_ends_the_update(tmp_path: Path) -> None:
    """A rate far too high meets both the clip of the gradient and the stop."""
    actor = table()
    _, updates = run(
        tmp_path, actor, rate=1.0, step_kl=0.01, gradient_clip=1e-4, epochs=4, updates=1
    )
    assert updates[0].steps.stopped
    assert updates[0].steps.taken < 8
    assert updates[0].steps.moved > 0.015
    assert updates[0].steps.policy_norm > 1e-4
    _, calm = run(tmp_path / "calm", rate=1e-5, step_kl=0.01, epochs=4, updates=1)
    assert not calm[0].steps.stopped
    assert calm[0].steps.taken == 8


def test_d38_the_average_is_its_closed_form(tmp_path: Path) -> None:
    """After ten steps; `averaged` lends it to the policy and takes it back."""
    actor = table()
    history = [near(actor)]
    loop = PPO(
        actor, [0, 1, 2], scored_by(WORTH),
        changed(average=0.9, epochs=1, minibatches=1, updates=10), tmp_path,
    )  # fmt: skip
    for _ in loop.train():
        history.append(near(actor))
    want = 0.9**10 * history[0]
    for step, weights in enumerate(history[1:], start=1):
        want = want + 0.1 * 0.9 ** (10 - step) * weights
    with loop.averaged():
        torch.testing.assert_close(near(actor), want)
    assert torch.equal(near(actor), history[-1])


@dataclass(frozen=True)
class Ranked:
    """One of two processes whose sums are its own."""

    rank: int
    size: int = 2

    def sum(self, value: Tensor) -> Tensor:
        """As if the other one had the same."""
        return value * 2


def test_d39_processes_draw_apart_and_again(tmp_path: Path) -> None:
    """Seeds are 100003 apart; ranks share the tasks and draw other answers, reruns the same."""
    drawn: dict[str, list[Rollout]] = {}
    given: dict[str, list[int]] = {}
    for name, rank in (("first", 0), ("again", 0), ("second", 1)):

        def reward(
            tasks: Sequence[int], rollouts: Sequence[Rollout], name: str = name
        ) -> Mapping[str, Sequence[float]]:
            drawn[name], given[name] = [*rollouts], [*tasks]
            return {"none": [0.0] * len(rollouts)}

        actor = Table(8, 4, contexts=30)
        loop = PPO(
            actor, [*range(30)], reward, changed(updates=1), tmp_path / name, world=Ranked(rank)
        )
        list(loop.train())
    assert drawn["first"] == drawn["again"] != drawn["second"]
    assert len({*given["first"], *given["second"]}) == 24
    assert APART == 100_003


class Threads:
    """Two processes as threads, each with the sum over both."""

    size = 2

    def __init__(self, rank: int, meeting: threading.Barrier, values: dict[int, Tensor]) -> None:
        self.rank, self._meeting, self._values = rank, meeting, values

    def sum(self, value: Tensor) -> Tensor:
        """Put down, wait, add up, wait."""
        self._values[self.rank] = value.detach().clone()
        self._meeting.wait(60)
        found = self._values[0] + self._values[1]
        self._meeting.wait(60)
        return found


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    """Whitening, token counts, gradients, beta and measures are those of the whole batch."""
    worth = torch.randn(24, 4, 8, generator=torch.Generator().manual_seed(2))
    settings = changed(minibatches=1, micro=5, updates=3, horizon=100, whiten_rewards=True)
    actors = [Same(8, 4, contexts=24) for _ in range(3)]
    alone = [*PPO(actors[0], [*range(24)], scored_by(worth), settings, tmp_path).train()]
    meeting, values = threading.Barrier(2), dict[int, Tensor]()

    def work(rank: int) -> list[Update]:
        world = Threads(rank, meeting, values)
        folder, tasks = tmp_path / "two", [*range(24)]
        actor = actors[1 + rank]
        return [*PPO(actor, tasks, scored_by(worth), settings, folder, world=world).train()]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(work, range(2))
    assert first == second
    assert torch.equal(near(actors[1]), near(actors[2]))
    torch.testing.assert_close(near(actors[1]), near(actors[0]), atol=1e-4, rtol=0)
    for one, two in zip(alone, first, strict=True):
        for name, value in one.row().items():
            if isinstance(value, float) and name != "seconds":
                assert two.row()[name] == pytest.approx(value, abs=1e-4), name


def mixed(actor: Table) -> Callable[[int], Iterator[Tensor]]:
    """A language-model loss: the first token is a good one, everywhere; in two parts."""

    def pretraining(step: int) -> Iterator[Tensor]:
        for part in (slice(0, 2), slice(2, 4)):
            yield -actor.logits[:, part].log_softmax(2)[:, :, 0].sum() / 12

    return pretraining


def test_d40_no_weight_is_plain_ppo(tmp_path: Path) -> None:
    """Bit for bit, whether there is a loss or not."""
    plain, zero = table(), table()
    run(tmp_path / "plain", plain)
    run(tmp_path / "zero", zero, mixed(zero), pretraining=0.0)
    assert torch.equal(near(plain), near(zero))
    with pytest.raises(TrainingError, match="no such loss"):
        run(tmp_path / "none", table(), pretraining=1.0)


def test_d40_gradients_add_up(tmp_path: Path) -> None:
    """A step's gradient is PPO's plus gamma times the language model's; both norms are told."""
    found: dict[float, Tensor] = {}
    norms = {}
    for gamma in (0.0, 0.5, 27.8):
        actor = table()
        _, updates = run(
            tmp_path / str(gamma), actor, mixed(actor), pretraining=gamma, updates=1, epochs=1,
            minibatches=1, gradient_clip=1e9,
        )  # fmt: skip
        assert actor.logits.grad is not None
        found[gamma] = actor.logits.grad
        norms[gamma] = (updates[0].steps.policy_norm, updates[0].steps.pretraining_norm)
    fresh = table()
    sum(mixed(fresh)(0), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
    own = fresh.logits.grad
    assert own is not None
    for gamma in (0.5, 27.8):
        torch.testing.assert_close(found[gamma], found[0.0] + gamma * own)
        want = (float(found[0.0].norm()), gamma * float(own.norm()))
        assert norms[gamma] == pytest.approx(want, rel=1e-4)
    assert norms[0.0][1] == 0


def test_d40_mixing_keeps_the_language_model(tmp_path: Path) -> None:
    """Where the reward drives off what pretraining taught, plain PPO forgets it, ptx does not."""
    against = torch.zeros(3, 4, 8)
    against[:, :, 0] = -2
    losses = {}
    for gamma in (0.0, 5.0):
        actor = table()
        settings = changed(pretraining=gamma, updates=20, episodes=48, rate=3e-2)
        before = float(sum(mixed(actor)(0), torch.zeros(())).detach())
        loop = PPO(actor, [0, 1, 2], scored_by(against), settings, tmp_path / str(gamma),
                   mixed(actor))  # fmt: skip
        list(loop.train())
        losses[gamma] = float(sum(mixed(actor)(0), torch.zeros(())).detach()) - before
    assert losses[0.0] > 0.2
    assert losses[5.0] < 0.05


class Tied(Table):
    """A table that plain text is modelled with too, after a change of its own.

    What is learnt of the answers moves the text along; only the answers' KL is in the reward.
    """

    def __init__(self) -> None:
        super().__init__(8, 4)
        self.other = nn.Parameter(torch.zeros(4, 8))

    @property
    def policy(self) -> Mapping[str, nn.Parameter]:
        """Both tables."""
        return {"logits": self.logits, "other": self.other}

    def plain(self, step: int = 0) -> Iterator[Tensor]:
        """Cross-entropy of what plain text was before the run."""
        found = (self.logits[0] + self.other).log_softmax(1)
        yield -(self.before[0].exp() * found).sum(1).mean()


def test_d41_plain_text_and_not_beta_pays_the_tax_of_alignment(tmp_path: Path) -> None:
    """No beta, up to 100-fold, keeps the language and most of the reward; mixing it in does."""
    worth = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(5))
    found = {}
    for beta, gamma in ((0.02, 0.0), (0.2, 0.0), (0.6, 0.0), (2.0, 0.0), (0.02, 5.0)):
        actor = Tied()
        before = actor.worth(worth, 0.0), float(next(actor.plain()).detach())
        settings = changed(
            beta=beta, target_kl=None, pretraining=gamma, updates=30, episodes=96, rate=5e-2
        )
        folder = tmp_path / f"{beta}-{gamma}"
        list(PPO(actor, [0], scored_by(worth), settings, folder, actor.plain).train())
        gain = actor.worth(worth, 0.0) - before[0]
        found[beta, gamma] = (gain, float(next(actor.plain()).detach()) - before[1])
    most, tax = found[0.02, 0.0]
    assert tax > 0.5
    for (_, gamma), (gain, lost) in found.items():
        assert (gain > 0.8 * most and lost < 0.1 * tax) == (gamma > 0)
    assert found[2.0, 0.0][1] < tax  # a tighter leash costs less, and earns less
    assert found[2.0, 0.0][0] < 0.5 * most


@pytest.mark.parametrize("make", ["table", "quote", "causal"])
def test_d39_a_run_taken_up_is_the_run_uninterrupted(make: str, tmp_path: Path) -> None:
    """To the bit: weights, average, values, measures, and the log of updates."""
    whole = _runs(make, tmp_path / "whole", 6)
    (tmp_path / "broken").mkdir()
    first = _runs(make, tmp_path / "broken", 6, stop=5)  # the last checkpoint is of four
    second = _runs(make, tmp_path / "broken", 6)
    assert first[0] == whole[0][:5]
    assert second[0] == whole[0][4:]
    assert whole[1].keys() == second[1].keys()
    assert all(torch.equal(whole[1][name], second[1][name]) for name in whole[1])
    lines = [(tmp_path / name / "updates.jsonl").read_text() for name in ("whole", "broken")]
    one, two = ([{**json.loads(x), "seconds": 0} for x in text.splitlines()] for text in lines)
    assert one == two
    assert [row["update"] for row in one] == [*range(6)]


def _runs(
    make: str, folder: Path, updates: int, stop: int = 99
) -> tuple[list[Update], dict[str, Tensor]]:
    settings = changed(updates=updates, value_warmup=1, horizon=200, episodes=8, micro=3)
    actor: Any
    tasks: Sequence[Any]
    reward: Any = lengths
    if make == "table":
        actor, tasks, reward = table(), [0, 1, 2], scored_by(WORTH)
    elif make == "quote":
        actor, tasks = QuoteActor(network()), [asked(n) for n in range(5)]
    else:
        actor = CausalActor(tiny(), rank=2)
        tasks = [Prompted((1, n), frozenset({0}), 6) for n in range(5)]
    loop: PPO[Any] = PPO(actor, tasks, reward, settings, folder)
    found = []
    for update in loop.train():
        found.append(update)
        if len(found) == stop:
            break
    weights = {**actor.policy, **actor.value}
    with loop.averaged():
        average = {f"average {k}": v.detach().clone() for k, v in actor.policy.items()}
    return found, average | {k: v.detach().clone() for k, v in weights.items()}


def test_every_update_is_logged(tmp_path: Path) -> None:
    """A flat JSON object a line, with everything that the curves need."""
    _, updates = run(tmp_path)
    rows = [json.loads(x) for x in (tmp_path / "updates.jsonl").read_text().splitlines()]
    assert len(rows) == len(updates) == 6
    wanted = (
        "update episodes terms score reward kl kl3 root_kl beta entropy explained length actions "
        "ended clip_fraction value_clip_fraction policy_norm pretraining_norm moved taken stopped "
        "score_clipped sampler_gap warm rate seconds"
    )
    assert set(wanted.split()) <= rows[0].keys()
    assert rows[-1]["terms"] == {"places": pytest.approx(updates[-1].terms[0][1])}
    assert updates[-1].root_kl == pytest.approx(max(updates[-1].kl, 0) ** 0.5)
    assert updates[-1].score_clipped == 0  # D9


def test_learning_pays(tmp_path: Path) -> None:
    """The reward rises, and the network that quotes learns to abstain when that is rewarded."""
    actor = QuoteActor(network())
    offers = [asked(n) for n in range(8)]

    def silent(tasks: Sequence[object], found: Sequence[Rollout]) -> dict[str, list[float]]:
        return {"silent": [float(len(r.completion) == 2) for r in found]}

    settings = changed(updates=12, episodes=32, rate=3e-3, micro=32)
    updates = list(PPO(actor, offers, silent, settings, tmp_path).train())
    assert updates[-1].score > 0.9 > updates[0].score + 0.1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kl": 51.0}, "rose to 51.0"),
        ({"kl": -0.6}, "mean KL is -0.60"),
        ({"entropy": 1e-6}, "entropy fell"),
        ({"kl": math.nan}, "not finite"),
        ({}, ""),
    ],
)
def test_alarms_say_why(values: dict[str, float], said: str, tmp_path: Path) -> None:
    """KL that blows up or goes below zero, entropy that is gone, numbers that are none."""
    _, updates = run(tmp_path, updates=1)
    assert said in (alarm(replace(updates[0], **values), SHORT) or "")  # type: ignore[arg-type]
    assert bool(said) == bool(alarm(replace(updates[0], **values), SHORT))  # type: ignore[arg-type]


def test_a_run_that_diverges_stops_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    """Its last line tells what happened; the file from before it stays as it was."""
    loop = PPO(table(), [0, 1, 2], scored_by(WORTH * 50), changed(
        rate=0.5, most_kl=2.0, updates=50, save_every=1, beta=0.0, target_kl=None, score_clip=1e9,
    ), tmp_path)  # fmt: skip
    done = 0
    before = b""
    with pytest.raises(Diverged, match="raise beta"):  # noqa: PT012
        for update in loop.train():
            done, before = update.update + 1, loop.path.read_bytes()
    assert loop.path.read_bytes() == before
    rows = (tmp_path / "updates.jsonl").read_text().splitlines()
    assert len(rows) == done + 1
    assert json.loads(rows[-1])["kl"] > 2


def test_numbers_that_are_none_stop_the_run(tmp_path: Path) -> None:
    """From the value head, and from a reward term, which is named."""
    broken = table()
    with torch.no_grad():
        broken.values[0, 0] = torch.nan
    with pytest.raises(Diverged, match="value head gave numbers that are not finite"):
        run(tmp_path, broken)
    actor = table()
    before = near(actor)

    def reward(tasks: Sequence[int], found: Sequence[Rollout]) -> dict[str, list[float]]:
        return {"fine": [0.0] * len(found), "rules": [math.nan] * len(found)}

    with pytest.raises(TrainingError, match=r"'rules'.*24 of them not finite"):
        list(PPO(actor, [0], reward, SHORT, tmp_path / "nan").train())
    assert torch.equal(near(actor), before)


def test_a_full_disk_loses_nothing_saved(tmp_path: Path) -> None:
    """A checkpoint that cannot be written leaves the one before it, and says so."""
    loop, _ = run(tmp_path, updates=2)
    before = loop.path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # no file may grow beyond this
    try:
        with pytest.raises(TrainingError, match="make room"):
            loop.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert loop.path.read_bytes() == before
    assert [p.name for p in tmp_path.glob("ppo*")] == ["ppo.safetensors"]
    assert run(tmp_path, updates=3)[1][0].update == 2


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    """Other settings would go on as something that was never run; a damaged file says so too."""
    loop, _ = run(tmp_path, updates=2)
    with pytest.raises(TrainingError, match="give another folder"):
        run(tmp_path, clip=0.1)
    _, more = run(tmp_path, updates=4)  # but a run may be made longer
    assert [u.update for u in more] == [2, 3]
    loop.path.write_bytes(loop.path.read_bytes()[:100])
    with pytest.raises(TrainingError, match="delete it"):
        run(tmp_path)


def test_a_line_cut_short_is_dropped(tmp_path: Path) -> None:
    """As are lines of updates whose weights were never saved."""
    path = tmp_path / "updates.jsonl"
    path.write_text('{"update": 0}\n{"update": 1}\n{"update": 2}\n{"upd')
    _ppo_state.Log(path, 2).add({"update": 2, "kl": 1})
    assert [json.loads(x)["update"] for x in path.read_text().splitlines()] == [0, 1, 2]


def test_what_cannot_be_run_is_refused(tmp_path: Path) -> None:
    """No tasks, and too few answers for the minibatches of all processes."""
    with pytest.raises(TrainingError, match="no tasks"):
        PPO(table(), [], scored_by(WORTH), SHORT, tmp_path)
    with pytest.raises(TrainingError, match="do not fill"):
        PPO(table(), [0], scored_by(WORTH), changed(episodes=9, minibatches=8), tmp_path,
            world=Ranked(0))  # fmt: skip
    with pytest.raises(ValidationError, match="do not fill"):
        PPOSettings(episodes=4, minibatches=8)


@pytest.mark.parametrize("answers", [1, 2, 4])
def test_answers_to_one_prompt_are_drawn_and_learnt_from_together(
    tmp_path: Path, answers: int
) -> None:
    """Each prompt has as many answers, which stay in one part of one minibatch of each epoch."""
    settings = changed(updates=2, answers=answers, minibatches=3, micro=6)
    seen: list[list[int]] = []

    class Watched(Table):
        def look(self, rollouts: Sequence[Rollout], *args: Any, **named: Any) -> Look:
            seen.append([r.prompt[0] for r in rollouts])
            return super().look(rollouts, *args, **named)

    drawn: list[list[int]] = []

    def reward(tasks: Sequence[int], rollouts: Sequence[Rollout]) -> dict[str, list[float]]:
        drawn.append([*tasks])
        return {"score": [float(r.completion[0]) for r in rollouts]}

    ppo = PPO(Watched(5, 2, contexts=48), range(48), reward, settings, tmp_path)
    updates = list(ppo.train())
    assert [u.episodes for u in updates] == [24, 24]
    assert all(set(Counter(tasks).values()) == {answers} for tasks in drawn)
    assert {*drawn[0]} != {*drawn[1]}
    assert all(set(Counter(part).values()) == {answers} for part in seen)
    assert max(map(len, seen)) <= 6
    assert Counter(n for part in seen for n in part) == {
        n: 3 * answers for tasks in drawn for n in {*tasks}
    }  # once before the update, and once in each epoch


def test_answers_that_do_not_share_out_are_refused() -> None:
    """A number of episodes that is no multiple, or too few prompts for the minibatches."""
    with pytest.raises(ValueError, match="multiple"):
        PPOSettings(episodes=10, answers=4)
    with pytest.raises(ValueError, match="do not fill"):
        PPOSettings(episodes=16, answers=8, minibatches=4)
