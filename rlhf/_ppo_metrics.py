"""What an update of PPO came to, and when a run has to be stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from rlhf import objectives
from rlhf._ppo_batch import Batch
from rlhf.actors import World
from rlhf.config import PPOSettings


@dataclass(frozen=True, slots=True)
class Steps:
    """What the optimiser steps of an update came to, as means over the tokens they read.

    `moved` is the largest KL (k3) of new and old policy of a minibatch, nats a token; norms are
    means over the steps, before the clip.
    """

    taken: int
    stopped: bool
    policy_loss: float
    value_loss: float
    pretraining_loss: float
    clip_fraction: float
    value_clip_fraction: float
    moved: float
    policy_norm: float
    pretraining_norm: float


@dataclass(frozen=True, slots=True)
class Update:
    """One update. KL and entropy are of the policy that drew the answers, before the update.

    Attributes:
        update: its number, from 0.
        episodes: answers drawn, in all processes.
        terms: mean of each reward term, by name.
        score: mean of their sum, after replacement of answers that were cut off, and the clip.
        reward: mean of `score - beta * kl`.
        kl: k1 of policy and reference, nats an answer; of either sign.
        kl3: k3, nats an answer; never negative.
        root_kl: square root of `kl`, 0 where that is negative.
        beta: weight of the KL in this update.
        entropy: of what tokens were chosen from, nats a token.
        explained: explained variance of the values.
        length: tokens of an answer; `actions` of them were chosen.
        ended: share of answers that ended by themselves.
        score_clipped: share of scores that were held.
        sampler_gap: mean difference of sampler's and training forward's log-probs, nats.
        warm: whether the value head alone was trained.
        rate: of the policy.
        steps: see `Steps`.
        seconds: it took; no part of what makes two updates equal.
    """

    update: int
    episodes: int
    terms: tuple[tuple[str, float], ...]
    score: float
    reward: float
    kl: float
    kl3: float
    root_kl: float
    beta: float
    entropy: float
    explained: float
    length: float
    actions: float
    ended: float
    score_clipped: float
    sampler_gap: float
    warm: bool
    rate: float
    steps: Steps
    seconds: float = field(compare=False)

    def row(self) -> dict[str, object]:
        """As a flat JSON object; numbers that are not finite become None."""
        found = asdict(self)
        found |= found.pop("steps")
        found["terms"] = {name: _finite(value) for name, value in self.terms}
        return {name: _finite(value) for name, value in found.items()}


def measured(
    batch: Batch,
    terms: Mapping[str, Sequence[float]],
    steps: Steps,
    settings: PPOSettings,
    world: World,
    *,
    number: int,
    beta: float,
    warm: bool,
    rate: float,
    seconds: float,
) -> Update:
    """Add up a batch over all processes."""
    mask = batch.mask
    rows = world.sum(torch.tensor(float(len(batch.rollouts)), device=mask.device))

    def mean(values: Tensor) -> float:
        return float(world.sum(values.float().sum()) / rows)

    def listed(values: Sequence[float]) -> Tensor:
        return torch.tensor([float(value) for value in values], device=mask.device)

    kl = mean(objectives.k1(batch.old, batch.reference) * mask)
    score = mean(batch.scores)
    return Update(
        update=number,
        episodes=int(rows),
        terms=tuple((name, mean(listed(values))) for name, values in terms.items()),
        score=score,
        reward=score - beta * kl,
        kl=kl,
        kl3=mean(objectives.k3(batch.old, batch.reference) * mask),
        root_kl=math.sqrt(max(kl, 0.0)),
        beta=beta,
        entropy=float(objectives.masked_mean(batch.entropies, mask, world.sum)),
        explained=float(
            objectives.explained_variance(batch.values, batch.returns, mask, world.sum)
        ),
        length=mean(listed([len(r.completion) for r in batch.rollouts])),
        actions=mean(mask),
        ended=mean(batch.ended),
        score_clipped=float(world.sum(batch.clipped) / world.size),
        sampler_gap=float(batch.sampler_gap),
        warm=warm,
        rate=rate,
        steps=steps,
        seconds=seconds,
    )


def alarm(update: Update, settings: PPOSettings) -> str:
    """Why the run has to stop, "" where it need not."""
    numbers = [value for value in update.row().values() if isinstance(value, float)]
    if len(numbers) < sum(isinstance(v, float) or v is None for v in update.row().values()):
        return "a measure is not finite; lower the rate, or look for a broken reward term"
    if update.kl > settings.most_kl:
        return (
            f"the KL from the reference rose to {update.kl:.1f} nats an answer, more than "
            f"most_kl = {settings.most_kl:g}; raise beta, or lower the rate"
        )
    if update.kl < settings.least_kl:
        return (
            f"the mean KL is {update.kl:.2f} nats an answer, below least_kl = "
            f"{settings.least_kl:g}: what is drawn is not the policy's whole distribution, or "
            "policy and reference are read in two ways; mend the sampler"
        )
    if update.actions > 0 and update.entropy < settings.least_entropy:
        return (
            f"the entropy fell to {update.entropy:.2g} nats a token, below least_entropy = "
            f"{settings.least_entropy:g}; raise beta, or lower the rate"
        )
    return ""


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
