"""The mathematics of learning from preferences: pure functions on tensors, no state, no files.

Shapes: `rows` answers of `length` tokens each, `mask` (rows, length) bool is True where the policy
chose the token (an action). Everything else, padding as well as forced tokens and evidence, counts
for nothing. Losses are sums over actions; whoever has the whole minibatch divides by its count, so
that a minibatch read in parts gives the gradient of one read at once.

After Ziegler et al. 2019, Stiennon et al. 2020 and Ouyang et al. 2022 (InstructGPT); Schulman et
al. 2016 (GAE) and 2017 (PPO); the estimators k1, k2, k3 of KL are Schulman's (2020); best-of-n
after Gao et al. 2023.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

#: Log-ratios beyond this are taken for it before `exp`: e^20 is finite, and absurd already.
MOST_LOG_RATIO = 20.0
_SMALL = 1e-8
Total = Callable[[Tensor], Tensor]


def _alone(value: Tensor) -> Tensor:
    """What the sum over one process is."""
    return value


# Probabilities


def logprobs(
    logits: Tensor, ids: Tensor, allowed: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """Log-probabilities of the tokens that were chosen, in float32.

    Args:
        logits: (n, vocabulary), of any dtype.
        ids: (n,) the tokens.
        allowed: (n, k) the tokens each was chosen from, -1 where there are fewer; None for all.
        temperature: that they were drawn with; the same for policy, reference and sampler.

    Returns:
        (n,) float32.
    """
    scores = _scores(logits, allowed, temperature)
    at = ids[:, None] if allowed is None else (allowed == ids[:, None]).int().argmax(1, True)
    return scores.gather(1, at)[:, 0] - scores.logsumexp(1)


def entropies(logits: Tensor, allowed: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """Entropy (n,) in nats of what each token was drawn from; arguments as in `logprobs`."""
    found = torch.log_softmax(_scores(logits, allowed, temperature), 1)
    chances = found.exp()
    return -(chances * found.masked_fill(chances == 0, 0)).sum(1)


def _scores(logits: Tensor, allowed: Tensor | None, temperature: float) -> Tensor:
    if allowed is not None:
        picked = logits.gather(1, allowed.clamp(min=0)).float()
        return (picked / temperature).masked_fill(allowed < 0, -torch.inf)
    return logits.float() / temperature


# Sums over actions


def masked_mean(values: Tensor, mask: Tensor, total: Total = _alone) -> Tensor:
    """Mean over the actions of all processes; 0 where there are none."""
    return total((values * mask).sum()) / total(mask.sum()).clamp(min=1)


def masked_variance(values: Tensor, mask: Tensor, total: Total = _alone) -> Tensor:
    """Variance (of the population, not of a sample) over the actions of all processes."""
    return masked_mean((values - masked_mean(values, mask, total)) ** 2, mask, total)


def whiten(values: Tensor, mask: Tensor, *, shift: bool = True, total: Total = _alone) -> Tensor:
    """Scale to variance 1 over the actions, and to mean 0 where `shift`; 0 elsewhere.

    `total` sums a scalar over processes, so that any sharding gives the same.
    """
    mean = masked_mean(values, mask, total)
    scale = torch.rsqrt(masked_variance(values, mask, total) + _SMALL)
    found = (values - mean) * scale
    return (found if shift else found + mean) * mask


# KL and rewards


def log_ratio(new: Tensor, old: Tensor) -> Tensor:
    """`new - old`, held within ±20 so that its exponential stays finite."""
    return (new - old).clamp(-MOST_LOG_RATIO, MOST_LOG_RATIO)


def k1(policy: Tensor, reference: Tensor) -> Tensor:
    """log(policy / reference): unbiased, of either sign. The one to put in a reward."""
    return policy - reference


def k2(policy: Tensor, reference: Tensor) -> Tensor:
    """Half the square of k1: biased, its gradient is that of the KL on samples of the policy."""
    return 0.5 * (policy - reference) ** 2


def k3(policy: Tensor, reference: Tensor) -> Tensor:
    """With r = reference / policy, r - 1 - log r: unbiased and never negative.

    For reports only. In a reward, or as a loss, it leads to another policy than the one that the
    penalty is meant to have (k1 in the reward does not).
    """
    ratio = log_ratio(reference, policy)
    return ratio.exp() - 1 - ratio


def missing_end(scores: Tensor, ended: Tensor, replacement: float) -> Tensor:
    """The scores (rows,), replaced where the answer was cut off before it `ended` (rows,) bool."""
    return torch.where(ended, scores, torch.full_like(scores, replacement))


def clipped_scores(scores: Tensor, most: float) -> tuple[Tensor, Tensor]:
    """Scores held within ±`most`, and the share (scalar) that was held; 0 in a sound run."""
    held = scores.clamp(-most, most)
    return held, (held != scores).float().mean() if len(scores) else scores.new_zeros(())


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, beta: float) -> Tensor:
    """-beta * KL at each action, and the score on the last one of each row.

    Args:
        scores: (rows,), each for a whole answer.
        kl: (rows, length) k1 of policy and reference, detached.
        mask: (rows, length); a row without an action gets no reward.
        beta: weight of the KL.

    Returns:
        (rows, length), 0 where there is no action.
    """
    places = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    last = torch.where(mask, places, -1).amax(1, keepdim=True)
    return -beta * kl * mask + torch.where((places == last) & mask, scores[:, None], 0.0)


def adapted(beta: float, kl: float, target: float, horizon: float, episodes: int) -> float:
    """The next weight of the KL: higher where `kl` (nats an answer) is above `target`.

    A step's factor stays within 1 ± 0.2 * episodes / horizon (Ziegler et al. 2019, §2.2).
    """
    error = max(-0.2, min(0.2, kl / target - 1))
    return beta * (1 + error * episodes / horizon)


# Advantages and values


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, discount: float, trace: float
) -> tuple[Tensor, Tensor]:
    """Advantages by generalised estimation, and the returns that values are taught.

    Tokens that are no action are passed over: the estimate is that of the actions alone, one
    behind the other. After the last one the value is 0, also where an answer was cut off.

    Args:
        rewards: (rows, length).
        values: (rows, length) of the state in which each action was chosen.
        mask: (rows, length).
        discount: gamma.
        trace: lambda.

    Returns:
        Both (rows, length), 0 where there is no action.
    """
    following = torch.zeros_like(rewards[:, 0])
    gained, found = following.clone(), torch.zeros_like(rewards)
    for at in range(rewards.shape[1] - 1, -1, -1):
        here = mask[:, at]
        error = rewards[:, at] + discount * following - values[:, at]
        advantage = error + discount * trace * gained
        found[:, at] = torch.where(here, advantage, found[:, at])
        gained = torch.where(here, advantage, gained)
        following = torch.where(here, values[:, at], following)
    return found, (found + values) * mask


def shaped(rewards: Tensor, potentials: Tensor, mask: Tensor, discount: float) -> Tensor:
    """Rewards with what each action adds to a potential (Ng et al. 1999): credit at once.

    What is best stays what is best, for over a whole answer the additions come to the potential of
    its beginning alone. Values are those less the potential: `gae` gives the same advantages as it
    gives to the plain rewards with the potentials added to the values.

    Args:
        rewards: (rows, length).
        potentials: (rows, length) of the state in which each action was chosen; after the last one
            it is 0.
        mask: (rows, length).
        discount: gamma.
    """
    following, found = torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards)
    for at in range(rewards.shape[1] - 1, -1, -1):
        here = mask[:, at]
        gained = rewards[:, at] + discount * following - potentials[:, at]
        found[:, at] = torch.where(here, gained, found[:, at])
        following = torch.where(here, potentials[:, at], following)
    return found


def less_others(advantages: Tensor, mask: Tensor, answers: int) -> Tensor:
    """Advantages less what the other answers to the same prompt gained, on average.

    How right the values are on a prompt is noise that all answers to it share: the leave-one-out
    baseline (Kool et al. 2019; Ahmadian et al. 2024) takes it away without bias, since it depends
    on other draws alone. Where all answers are the same and as good, nothing is learnt from them.

    Args:
        advantages: (rows, length); the answers to a prompt stand one behind the other.
        mask: (rows, length).
        answers: to each prompt; with 1 nothing changes.
    """
    if answers < 2:
        return advantages
    first = mask.int().argmax(1, keepdim=True)
    gained = (advantages * mask).gather(1, first).view(-1, answers)
    others = (gained.sum(1, keepdim=True) - gained) / (answers - 1)
    return (advantages - others.view(-1, 1)) * mask


def explained_variance(
    values: Tensor, returns: Tensor, mask: Tensor, total: Total = _alone
) -> Tensor:
    """1 - Var(returns - values) / Var(returns) over the actions; 0 where returns do not vary."""
    spread = masked_variance(returns, mask, total)
    left = masked_variance(returns - values, mask, total)
    return torch.where(spread > _SMALL, 1 - left / spread.clamp(min=_SMALL), 0.0)


# Losses


class PolicyLoss(NamedTuple):
    """Sums over the actions.

    `clipped` counts those whose ratio was held; `moved` is k3 of old and new policy. Neither has a
    gradient.
    """

    total: Tensor
    clipped: Tensor
    moved: Tensor


def policy_loss(
    new: Tensor,
    old: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip: float,
    weights: Tensor | None = None,
) -> PolicyLoss:
    """PPO's clipped objective, to be made small; all (rows, length).

    `weights` are those of `sampler_weights`, where a sampler of its own drew the answers.
    """
    gap = log_ratio(new, old)
    ratio = gap.exp()
    free = -advantages * ratio
    held = -advantages * ratio.clamp(1 - clip, 1 + clip)
    each = torch.maximum(free, held)
    each = each if weights is None else each * weights
    with torch.no_grad():
        clipped, moved = ((held > free) & mask).sum(), ((ratio - 1 - gap) * mask).sum()
    return PolicyLoss(each.masked_fill(~mask, 0).sum(), clipped, moved)


class ValueLoss(NamedTuple):
    """Sums over the actions; `clipped` counts those whose change was held."""

    total: Tensor
    clipped: Tensor


def value_loss(new: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float) -> ValueLoss:
    """Half the squared error, the larger one of free and within `clip` of the old value."""
    free = (new - returns) ** 2
    held = (old + (new - old).clamp(-clip, clip) - returns) ** 2
    total = 0.5 * torch.maximum(free, held).masked_fill(~mask, 0).sum()
    return ValueLoss(total, ((held > free) & mask).sum())


def sampler_weights(old: Tensor, sampler: Tensor, mask: Tensor, most: float) -> Tensor:
    """Importance of each action (rows, length) where a sampler's numerics drew it; 0 elsewhere.

    exp(old - sampler), `old` by the training forward, cut at `most` (truncated importance
    sampling, Ionides 2008).
    """
    return log_ratio(old, sampler).exp().clamp(max=most) * mask


Pairs = Sequence[tuple[int, int, float]]


def ranking_loss(scores: Tensor, pairs: Pairs) -> Tensor:
    """Sum over pairs of `-weight * log sigmoid(score of the better - score of the worse)`.

    Args:
        scores: (n,) by the reward model, of the replies of any number of prompts.
        pairs: (better, worse, weight), places among the scores; a tie makes none. The pairs of one
            prompt share a weight that does not depend on how many replies it has: see `shared`.

    Returns:
        Scalar, 0 where nothing was decided.
    """
    if not pairs:
        return scores.sum() * 0
    better, worse = (torch.tensor([p[i] for p in pairs], device=scores.device) for i in (0, 1))
    weight = torch.tensor([p[2] for p in pairs], device=scores.device, dtype=scores.dtype)
    return (weight * torch.nn.functional.softplus(scores[worse] - scores[better])).sum()


def shared(pairs: Pairs, weight: float, start: int = 0) -> list[tuple[int, int, float]]:
    """The pairs of one prompt, each with its part of the prompt's weight.

    With K ranked replies that is `weight / C(K, 2)` (InstructGPT §3.5); a pair that itself weighs
    less than 1 (an edit, a split vote) takes away from the prompt's weight and gives nothing to
    the others.

    Args:
        pairs: (better, worse, weight in (0, 1]), counted within the prompt.
        weight: of the prompt.
        start: the place of the prompt's first reply among the scores.
    """
    return [(b + start, w + start, own * weight / len(pairs)) for b, w, own in pairs]


# Best of n


def best_of_n(judged: Sequence[float], worth: Sequence[float], n: int) -> float:
    """What the best of `n` answers by `judged` is expected to be worth, from a pool of N >= n.

    Unbiased for every n from one pool (Nakano et al. 2021; Gao et al. 2022, section 2): the mean
    over all choices of n. Where several are judged alike, each of them is as likely to be taken.

    Raises:
        ValueError: the pool is smaller than n, or n < 1.
    """
    size = len(judged)
    if not 1 <= n <= size or len(worth) != size:
        raise ValueError(f"best of {n} from a pool of {size}; draw more answers")
    order = sorted(range(size), key=lambda i: judged[i])
    found, at = 0.0, 0
    while at < size:
        end = at
        while end < size and judged[order[end]] == judged[order[at]]:
            end += 1
        mean = math.fsum(worth[i] for i in order[at:end]) / (end - at)
        # that the best one lies in this group: all n up to its end, but not all below it
        found += mean * (math.comb(end, n) - math.comb(at, n)) / math.comb(size, n)
        at = end
    return found


def best_of_n_kl(n: int) -> float:
    """KL in nats of choosing the best of `n` from drawing one (an upper bound where judges tie)."""
    return math.log(n) - (n - 1) / n
