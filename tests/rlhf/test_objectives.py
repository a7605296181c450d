from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from rlhf import objectives as o
from rlhf._actor_network import cut


def dice(seed: int = 0) -> torch.Generator:
    """A source of chance."""
    return torch.Generator().manual_seed(seed)


def ragged(seed: int = 0, rows: int = 6, length: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, values, and which of them are actions: at least one in each row."""
    mask = torch.rand(rows, length, generator=dice(seed)) < 0.6
    mask[:, 0] = True
    rewards, values = torch.randn(2, rows, length, generator=dice(seed + 1))
    return rewards, values, mask


def oracle(
    rewards: Sequence[float], values: Sequence[float], discount: float, trace: float
) -> list[float]:
    """GAE as the sum that it is defined by."""
    size = len(rewards)
    following = [*values[1:], 0.0]
    errors = [rewards[t] + discount * following[t] - values[t] for t in range(size)]
    return [
        sum((discount * trace) ** (s - t) * errors[s] for s in range(t, size)) for t in range(size)
    ]


def test_d1_the_score_is_on_the_last_action() -> None:
    """Rewards add up to score less beta times KL, and with V = 0 so does each advantage."""
    kl, values, mask = ragged()
    scores = torch.arange(6.0) + 5
    rewards = o.token_rewards(scores, kl, mask, 0.3)
    place = (rewards + 0.3 * kl * mask).argmax(1)
    assert place.tolist() == [max(row.nonzero()).item() for row in mask]
    torch.testing.assert_close(rewards.sum(1), scores - 0.3 * (kl * mask).sum(1))
    found, _ = o.gae(rewards, torch.zeros_like(values), mask, 1.0, 1.0)
    later = (kl * mask).flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(found, (scores[:, None] - 0.3 * later) * mask)


def test_d1_a_row_without_an_action_gets_nothing() -> None:
    """There is no token that the policy could be rewarded for."""
    mask = torch.tensor([[False, False], [True, False]])
    rewards = o.token_rewards(torch.ones(2), torch.zeros(2, 2), mask, 0.1)
    assert rewards.tolist() == [[0, 0], [1, 0]]


@pytest.mark.parametrize(
    ("ids", "stops", "found"),
    [
        ((5, 6), {2}, ((5, 6), False)),
        ((5, 6, 2), {2}, ((5, 6, 2), True)),
        ((5, 9, 2), {2, 9}, ((5, 9), True)),
        ((), {2}, ((), False)),
    ],
)
def test_d2_an_answer_ends_at_a_stop_of_its_own(
    ids: tuple[int, ...], stops: set[int], found: tuple[tuple[int, ...], bool]
) -> None:
    """In the last place too, and at any of several stops; none of them is a pad."""
    assert cut(ids, frozenset(stops)) == found


def test_d2_an_answer_without_an_end_has_its_score_replaced() -> None:
    """Not lowered: a good beginning earns nothing."""
    found = o.missing_end(torch.tensor([3.0, 3.0, -4.0]), torch.tensor([True, False, False]), -1)
    assert found.tolist() == [3, -1, -1]


def test_d3_what_stands_behind_the_stop_is_cut() -> None:
    """The same answer comes out whatever a batched sampler wrote after its end."""
    assert {cut((5, 6, 2, *garbage), frozenset({2})) for garbage in ((), (7, 7), (2, 1))} == {
        ((5, 6, 2), True)
    }


def test_d9_a_clip_that_never_binds_changes_nothing() -> None:
    """The share that was held is counted."""
    scores = torch.tensor([1.0, -12.0, 9.0, 11.0])
    held, share = o.clipped_scores(scores, 10.0)
    assert held.tolist() == [1, -10, 9, 10]
    assert share == 0.5
    held, share = o.clipped_scores(scores, 20.0)
    assert torch.equal(held, scores)
    assert share == 0


def test_d11_advantages_are_those_of_the_actions_alone() -> None:
    """Evidence between two actions changes nothing, whatever numbers stand at it."""
    rewards, values, mask = ragged(3)
    found, returns = o.gae(rewards, values, mask, 0.97, 0.9)
    for row in range(len(mask)):
        here = mask[row]
        want = oracle(rewards[row][here].tolist(), values[row][here].tolist(), 0.97, 0.9)
        torch.testing.assert_close(found[row][here], torch.tensor(want))
        torch.testing.assert_close(returns[row][here], torch.tensor(want) + values[row][here])
    assert not found[~mask].any()
    assert not returns[~mask].any()


def test_d11_no_gradient_reaches_evidence() -> None:
    """Neither from the policy's loss nor from the values'."""
    advantages, old, mask = ragged(5)
    new = (old + 0.1).requires_grad_()
    values = old.clone().requires_grad_()
    loss = o.policy_loss(new, old, advantages, mask, 0.2).total
    (loss + o.value_loss(values, old, advantages, mask, 0.2).total).backward()  # type: ignore[no-untyped-call]
    assert new.grad is not None
    assert values.grad is not None
    assert not new.grad[~mask].any()
    assert not values.grad[~mask].any()
    assert new.grad[mask].any()


def test_d12_kl_in_the_reward_is_k1() -> None:
    """The difference of log-probs itself, of either sign, at each action."""
    policy, reference, mask = ragged(7)
    rewards = o.token_rewards(torch.zeros(6), o.k1(policy, reference), mask, 0.5)
    torch.testing.assert_close(rewards, -0.5 * (policy - reference) * mask)


def test_d13_k1_and_k3_estimate_the_kl() -> None:
    """Within three standard errors of the exact one; k3 is never negative, k2 is half a square."""
    ours, theirs = torch.randn(2, 8, generator=dice(2)).log_softmax(1)
    exact = float((ours.exp() * (ours - theirs)).sum())
    drawn = torch.multinomial(ours.exp(), 20_000, replacement=True, generator=dice(3))
    for estimate in (o.k1, o.k3):
        values = estimate(ours[drawn], theirs[drawn]).double()
        error = float(values.std() / len(values) ** 0.5)
        assert abs(float(values.mean()) - exact) < 3 * error
    assert (o.k3(ours[drawn], theirs[drawn]) >= -1e-6).all()
    torch.testing.assert_close(o.k2(ours, theirs), (ours - theirs) ** 2 / 2)


def test_d14_beta_follows_the_kl() -> None:
    """It rests at the target, rises with the KL, and a step stays within a fifth."""
    assert o.adapted(0.15, 6.0, 6.0, 10_000, 64) == 0.15
    steps = [o.adapted(1.0, kl, 6.0, 100, 100) for kl in (0.0, 5.0, 6.0, 7.0, 60.0)]
    assert steps == sorted(steps)
    assert steps[0] == pytest.approx(0.8)
    assert steps[-1] == pytest.approx(1.2)
    assert o.adapted(1.0, 12.0, 6.0, 10_000, 512) == pytest.approx(1 + 0.2 * 512 / 10_000)


def test_d18_the_temperature_divides_the_logits() -> None:
    """Of log-probs and entropies alike, over the allowed tokens."""
    logits = torch.randn(5, 7, generator=dice(1))
    ids = torch.tensor([0, 3, 6, 2, 1])
    want = (logits / 0.7).log_softmax(1)
    torch.testing.assert_close(
        o.logprobs(logits, ids, temperature=0.7), want.gather(1, ids[:, None])[:, 0]
    )
    torch.testing.assert_close(o.entropies(logits, temperature=0.7), -(want.exp() * want).sum(1))
    allowed = torch.tensor([[0, 2, -1], [3, 4, 5], [6, -1, -1], [1, 2, -1], [0, 1, -1]])
    found = o.logprobs(logits, ids, allowed, 0.7)
    for row, some in enumerate(allowed.tolist()):
        few = [token for token in some if token >= 0]
        mine = (logits[row, few] / 0.7).log_softmax(0)
        assert found[row] == pytest.approx(float(mine[few.index(int(ids[row]))]), abs=1e-6)
    assert found[2] == 0
    assert o.entropies(logits, allowed, 0.7)[2] == 0


def test_d19_extreme_log_ratios_stay_finite() -> None:
    """Values and gradients, in the loss and in the estimates."""
    new = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    old, mask = torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool)
    found = o.policy_loss(new, old, torch.tensor([[-1.0, 1.0, 1.0]]), mask, 0.2)
    found.total.backward()  # type: ignore[no-untyped-call]
    assert new.grad is not None
    for value in (found.total, found.moved, new.grad, o.k3(new, old), o.k3(old, new)):
        assert torch.isfinite(value).all()


def test_d25_weights_undo_a_samplers_noise() -> None:
    """What another distribution drew, weighted, has the mean of ours."""
    logits = torch.randn(50, generator=dice(4))
    noisy = logits * (1 + 0.05 * torch.randn(50, generator=dice(5)))
    ours, theirs = logits.log_softmax(0), noisy.log_softmax(0)
    worth = torch.randn(50, generator=dice(6)).double()
    drawn = torch.multinomial(theirs.exp(), 200_000, replacement=True, generator=dice(7))[None]
    mask = torch.ones_like(drawn, dtype=torch.bool)
    weights = o.sampler_weights(ours[drawn], theirs[drawn], mask, 2.0).double()
    each = (weights * worth[drawn])[0]
    exact = float((ours.double().exp() * worth).sum())
    assert abs(float(each.mean()) - exact) < 2 * float(each.std()) / len(each) ** 0.5
    assert o.sampler_weights(torch.ones(1, 2) * 9, torch.zeros(1, 2), mask[:, :2], 2.0).max() == 2


@pytest.mark.parametrize(("discount", "trace"), [(1.0, 0.95), (1.0, 1.0), (0.9, 0.0)])
def test_d27_gae_is_its_sum(discount: float, trace: float) -> None:
    """The recursion over a padded batch equals the quadratic sum over each row."""
    rewards, values, _ = ragged(11)
    lengths = torch.tensor([9, 1, 4, 7, 2, 9])
    mask = torch.arange(9)[None] < lengths[:, None]
    found, _ = o.gae(rewards, values, mask, discount, trace)
    for row, size in enumerate(lengths.tolist()):
        want = oracle(rewards[row, :size].tolist(), values[row, :size].tolist(), discount, trace)
        torch.testing.assert_close(found[row, :size], torch.tensor(want))


@pytest.mark.parametrize(("discount", "trace"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0)])
def test_a_potential_gives_the_advantages_of_values_that_hold_it(
    discount: float, trace: float
) -> None:
    """Shaped rewards, and plain ones with the potential in the values: alike, holes or none."""
    rewards, values, mask = ragged(11)
    dice = torch.Generator().manual_seed(3)
    potentials = torch.randn(rewards.shape, generator=dice) * mask
    shaped = o.shaped(rewards * mask, potentials, mask, discount)
    found, returns = o.gae(shaped, values * mask, mask, discount, trace)
    want, whole = o.gae(rewards * mask, (values + potentials) * mask, mask, discount, trace)
    torch.testing.assert_close(found, want)
    torch.testing.assert_close(returns, whole - potentials)


def test_a_potential_changes_no_answers_rewards_but_by_its_beginning() -> None:
    """So the best policy stays the best one (Ng et al. 1999): all answers begin alike."""
    mask = torch.tensor([[0, 1, 0, 1, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]).bool()
    rewards, potentials = torch.ones(3, 5) * mask, torch.arange(15.0).view(3, 5)
    found = o.shaped(rewards, potentials, mask, 1.0)
    assert found.sum(1).tolist() == [3 - 1, 1 - 5, 0]
    assert found.tolist()[0] == [0, 1 + 3 - 1, 0, 1 + 4 - 3, 1 - 4]


def test_what_all_answers_to_a_prompt_share_is_no_advantage() -> None:
    """Of two prompts with two answers each: by hand, and a wrong value of a prompt is gone."""
    mask = torch.tensor([[0, 1, 1], [0, 1, 0], [1, 1, 0], [1, 0, 0]]).bool()
    values = torch.tensor([[0.0, 1, 2], [0, 3, 0], [5, 1, 0], [1, 0, 0]])
    found = o.less_others(values, mask, 2)
    assert found.tolist() == [[0, -2, -1], [0, 2, 0], [4, 0, 0], [-4, 0, 0]]
    assert torch.equal(o.less_others(values, mask, 1), values)
    off = values + torch.tensor([[7.0], [7], [-3], [-3]]) * mask
    assert torch.allclose(o.less_others(off, mask, 2), found)
    assert o.less_others(torch.full((4, 3), 0.7) * mask, mask, 4).abs().max() < 1e-6


def test_d28_nothing_is_worth_anything_after_the_end() -> None:
    """Numbers in the padding change neither advantages nor returns."""
    rewards, values, _ = ragged(13)
    mask = torch.arange(9)[None] < torch.tensor([[9], [1], [4], [7], [2], [5]])
    clean = o.gae(rewards * mask, values * mask, mask, 1.0, 0.95)
    dirty = o.gae(rewards, torch.where(mask, values, 1e6), mask, 1.0, 0.95)
    for one, two in zip(clean, dirty, strict=True):
        assert torch.equal(one, two)


def test_d29_whitening_is_over_all_actions() -> None:
    """Mean 0, variance 1 of the population; neither padding nor sharding changes it."""
    values, _, mask = ragged(17, rows=8)
    values = values * 5 + 3
    found = o.whiten(values, mask)
    assert float(found[mask].mean()) == pytest.approx(0, abs=1e-6)
    assert float(found[mask].var(correction=0)) == pytest.approx(1, abs=1e-5)
    wide = torch.nn.functional.pad(values, (0, 5), value=99.0)
    padded = o.whiten(wide, torch.nn.functional.pad(mask, (0, 5)))
    torch.testing.assert_close(padded[:, :9], found)
    for shards in (2, 4):
        parts = [*zip(values.chunk(shards), mask.chunk(shards), strict=True)]
        rows = _together(parts)
        torch.testing.assert_close(torch.cat(rows), found)


def _together(parts: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Whiten shards, each asking the others for what its sums lack."""
    count = sum(mask.sum() for _, mask in parts)
    mean = sum(((v * m).sum() for v, m in parts), torch.zeros(())) / count
    spread = sum(((((v - mean) ** 2) * m).sum() for v, m in parts), torch.zeros(()))
    found = []
    for values, mask in parts:
        answers = iter([mean * count, count, mean * count, count, spread, count])
        found.append(o.whiten(values, mask, total=lambda _, a=answers: next(a)))  # type: ignore[misc]
    return found


def test_d30_rewards_keep_their_mean() -> None:
    """Scaled to variance 1, not shifted."""
    values, _, mask = ragged(19)
    found = o.whiten(values * 4 + 2, mask, shift=False)
    assert float(found[mask].mean()) == pytest.approx(
        float((values * 4 + 2)[mask].mean()), abs=1e-5
    )
    assert float(found[mask].var(correction=0)) == pytest.approx(1, abs=1e-5)


def test_d31_the_value_loss_takes_the_worse_of_two() -> None:
    """By hand: free, held, and a token that is no action; unchanged values are never held."""
    old, returns = torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.1, 9.0]])
    new, mask = torch.tensor([[0.5, 0.1, 0.3]]), torch.tensor([[True, True, False]])
    found = o.value_loss(new, old, returns, mask, 0.2)
    # held at 0.2: (0.2 - 1)^2 = 0.64 against 0.25; 0.1 is within the clip and right
    assert float(found.total) == pytest.approx(0.5 * 0.64)
    assert found.clipped == 1
    same = o.value_loss(old, old, returns, mask, 0.2)
    assert same.clipped == 0
    assert float(same.total) == pytest.approx(0.5 * (1 + 0.01))


def test_the_policy_loss_is_pessimistic() -> None:
    """A ratio beyond the clip earns nothing more, and costs what it costs."""
    new = torch.tensor([[1.5, 0.5, 1.5, 0.5]]).log()
    advantages, mask = torch.tensor([[1.0, 1.0, -1.0, -1.0]]), torch.ones(1, 4, dtype=torch.bool)
    each = [
        float(o.policy_loss(new[:, i, None], new[:, i, None] * 0, advantages[:, i, None],
                            mask[:, i, None], 0.2).total)
        for i in range(4)
    ]  # fmt: skip
    assert each == pytest.approx([-1.2, -0.5, 1.5, 0.8])
    assert o.policy_loss(new, new * 0, advantages, mask, 0.2).clipped == 2


def test_explained_variance() -> None:
    """1 for the returns themselves, 0 for their mean, below 0 for worse; 0 without variance."""
    returns, noise, mask = ragged(23)
    assert float(o.explained_variance(returns, returns, mask)) == pytest.approx(1)
    constant = torch.full_like(returns, 3.0)
    assert float(o.explained_variance(constant, returns, mask)) == pytest.approx(0, abs=1e-6)
    assert o.explained_variance(returns + 9 * noise, returns, mask) < 0
    assert o.explained_variance(noise, constant, mask) == 0


def decided(ranks: Sequence[int]) -> list[tuple[int, int, float]]:
    """Pairs of ranked replies, the better one first; equal ranks make none."""
    return [
        (i, j, 1.0) for i, j in itertools.permutations(range(len(ranks)), 2) if ranks[i] < ranks[j]
    ]


def test_d8_a_prompt_weighs_the_same_however_many_replies_it_has() -> None:
    """All C(K, 2) pairs share its weight: at equal scores the loss is log 2 for every K."""
    for count in (2, 3, 4, 7, 9):
        made = o.shared(decided(range(count)), 1.5, 3)
        assert sum(p[2] for p in made) == pytest.approx(1.5)
        assert len(made) == math.comb(count, 2)
        loss = o.ranking_loss(torch.zeros(count + 3), made)
        assert float(loss) == pytest.approx(1.5 * math.log(2))
    assert [p[2] for p in o.shared([(0, 1, 1.0), (0, 2, 0.5)], 2.0)] == [1.0, 0.5]


def test_d8_the_loss_is_that_of_the_paper() -> None:
    """`-log sigmoid(better - worse)`, a mean over the pairs of a prompt; ties make none."""
    scores = torch.randn(4, generator=dice(1)).requires_grad_()
    pairs = decided([2, 0, 3, 1])
    want = [-torch.nn.functional.logsigmoid(scores[i] - scores[j]) for i, j, _ in pairs]
    torch.testing.assert_close(
        o.ranking_loss(scores, o.shared(pairs, 1.0)), torch.stack(want).mean()
    )
    by_hand = -math.log(1 / (1 + math.exp(-1.5))) - 0.5 * math.log(1 / (1 + math.exp(-2.5)))
    found = o.ranking_loss(torch.tensor([1.0, -0.5, 2.0]), [(0, 1, 1.0), (2, 1, 0.5)])
    assert float(found) == pytest.approx(by_hand, rel=1e-6)
    loss = o.ranking_loss(scores, [(0, 1, 1.0), (2, 1, 0.5)])
    (gradient,) = torch.autograd.grad(loss, [scores])
    assert float(gradient.sum()) == pytest.approx(0, abs=1e-7)
    assert gradient[3] == 0
    assert decided([0, 0]) == []
    assert o.ranking_loss(torch.zeros(2), []) == 0
    far = o.ranking_loss(torch.tensor([1e4, -1e4]), [(1, 0, 1.0)])
    assert float(far) == pytest.approx(2e4)


def test_d42_best_of_n_is_unbiased() -> None:
    """It equals the mean over all choices of n of five, also where the judge ties; n = 1 is it."""
    worth = [0.3, -1.0, 2.5, 0.7, 0.1]
    for judged in ([0.1, 0.9, 0.5, 0.7, 0.2], [1.0, 1.0, 0.5, 0.5, 0.5], [0.0] * 5):
        for n in range(1, 6):
            expected = []
            for some in itertools.combinations(range(5), n):
                top = max(judged[i] for i in some)
                best = [worth[i] for i in some if judged[i] == top]
                expected.append(sum(best) / len(best))
            found = o.best_of_n(judged, worth, n)
            assert found == pytest.approx(sum(expected) / len(expected)), (judged, n)
        assert o.best_of_n(judged, worth, 1) == pytest.approx(sum(worth) / 5)
    for size, n in ((1, 2), (3, 0), (3, 4)):
        with pytest.raises(ValueError, match="draw more"):
            o.best_of_n([1.0] * size, [1.0] * size, n)


def test_d42_its_kl_is_known() -> None:
    """The log of n less (n - 1) / n, 0 for one answer; drawn from many, the best one has it."""
    assert o.best_of_n_kl(1) == 0
    assert o.best_of_n_kl(4) == pytest.approx(math.log(4) - 0.75)
    size, n = 2000, 4  # of equally likely answers without ties the best of n is the k-th by this
    chances = [(k**n - (k - 1) ** n) / size**n for k in range(1, size + 1)]
    kl = sum(p * math.log(p * size) for p in chances)
    assert kl == pytest.approx(o.best_of_n_kl(n), abs=0.01)
