"""What one update learns from: the answers drawn, as tensors, with their advantages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlhf import objectives
from rlhf.actors import Actor, TaskT, World
from rlhf.config import PPOSettings
from rlhf.errors import Diverged, TrainingError
from rlhf.schema import Rollout

#: Rows of one forward pass; of these, a minibatch; of these, a pass over the batch.
Part = list[int]
Minibatch = list[Part]


@dataclass(frozen=True, slots=True)
class Batch:
    """The answers of an update and what was made of them.

    Tensors are (rows, length) float32, 0 where there is no action, unless another shape is named.

    Attributes:
        rollouts: one a row.
        mask: bool, True where there are actions.
        old: log-probs by the training forward, before the update.
        reference: the same by the reference.
        values: before the update.
        entropies: of what was chosen from, before the update.
        advantages: whitened where the settings say so.
        returns: what values are taught.
        weights: importance of each action; None where no sampler of its own drew the answers.
        scores: (rows,) what was rewarded, after replacement and clip.
        ended: (rows,) bool, whether the answer ended by itself.
        clipped: scalar, share of scores that were held.
        sampler_gap: scalar, mean difference of the log-probs of sampler and training forward, nats.
    """

    rollouts: Sequence[Rollout]
    mask: Tensor
    old: Tensor
    reference: Tensor
    values: Tensor
    entropies: Tensor
    advantages: Tensor
    returns: Tensor
    weights: Tensor | None
    scores: Tensor
    ended: Tensor
    clipped: Tensor
    sampler_gap: Tensor


def passes(
    rollouts: Sequence[Rollout], settings: PPOSettings, generator: torch.Generator
) -> list[list[Minibatch]]:
    """The epochs of an update: each a shuffle of all tasks, in minibatches, in parts by length.

    The answers to a task stay together; minibatches of an epoch differ by one task at the most.
    """
    each, found = settings.answers, []
    for _ in range(settings.epochs):
        order = torch.randperm(len(rollouts) // each, generator=generator).tolist()
        epoch = []
        for number in range(settings.minibatches):
            tasks = order[number :: settings.minibatches]
            tasks.sort(key=lambda task: _tokens(rollouts[task * each : (task + 1) * each]))
            rows = [row for task in tasks for row in range(task * each, (task + 1) * each)]
            size = max(settings.micro // each, 1) * each
            epoch.append([rows[at : at + size] for at in range(0, len(rows), size)])
        found.append(epoch)
    return found


def _tokens(rollouts: Sequence[Rollout]) -> int:
    """Of the longest answer to a task with its prompt."""
    return max(len(r.prompt) + len(r.completion) for r in rollouts)


def scored(terms: Mapping[str, Sequence[float]], rows: int) -> Tensor:
    """The sum of all terms, (rows,) float32.

    Raises:
        TrainingError: a term has another number of values, or one that is not finite.
    """
    total = np.zeros(rows)
    for name, values in terms.items():
        found = np.asarray(values, dtype=np.float64)
        if found.shape != (rows,) or not np.isfinite(found).all():
            wrong = int((~np.isfinite(found)).sum())
            raise TrainingError(
                f"reward term {name!r} gave {found.size} values for {rows} answers, {wrong} of "
                "them not finite; mend the term or switch it off"
            )
        total += found
    return torch.from_numpy(total.astype(np.float32))


def prepared(
    actor: Actor[TaskT],
    rollouts: Sequence[Rollout],
    scores: Tensor,
    parts: Sequence[Part],
    settings: PPOSettings,
    beta: float,
    world: World,
    potentials: Tensor | None = None,
) -> Batch:
    """Read the rollouts with policy and reference, and estimate advantages.

    Args:
        actor: see `Actor`.
        rollouts: one a row.
        scores: (rows,) the sum of all reward terms.
        parts: the rows of each forward pass. They are those of the first epoch, so that the first
            minibatch is computed the same way twice.
        settings: of the run.
        beta: weight of the KL.
        world: whose rows are whitened together.
        potentials: (rows, length) that rewards are shaped with, see `objectives.shaped`.

    Raises:
        Diverged: a log-prob or value is not finite.
    """
    device = actor.device
    width = max((len(r.completion) for r in rollouts), default=0)
    mask = torch.zeros(len(rollouts), max(width, 1), dtype=torch.bool)
    for row, rollout in enumerate(rollouts):
        mask[row, : len(rollout.actions)] = torch.tensor(rollout.actions, dtype=torch.bool)
    mask = mask.to(device)
    old, reference, values, entropies = _seen(actor, rollouts, parts, mask, settings)
    promised = old.new_zeros(()) if potentials is None else potentials.to(device)
    for name, found, remedy in (
        ("policy", old, "lower the rate"), ("reference", reference, "look at its weights"),
        ("value head", values, "lower the rate"), ("potential", promised, "mend it"),
    ):  # fmt: skip
        if not bool(world.sum((~torch.isfinite(found)).sum()) == 0):
            raise Diverged(f"the {name} gave numbers that are not finite; {remedy}")
    ended = torch.tensor([r.finish == "stop" for r in rollouts], dtype=torch.bool, device=device)
    replaced = objectives.missing_end(scores.to(device), ended, settings.missing_end)
    held, clipped = objectives.clipped_scores(replaced, settings.score_clip)
    rewards = objectives.token_rewards(held, objectives.k1(old, reference), mask, beta)
    if potentials is not None:
        rewards = objectives.shaped(rewards, promised, mask, settings.discount)
    if settings.whiten_rewards:
        rewards = objectives.whiten(rewards, mask, shift=False, total=world.sum)
    advantages, returns = objectives.gae(rewards, values, mask, settings.discount, settings.trace)
    if settings.leave_one_out:
        advantages = objectives.less_others(advantages, mask, settings.answers)
    if settings.whiten_advantages:
        advantages = objectives.whiten(advantages, mask, total=world.sum)
    weights, gap = _importance(rollouts, old, mask, settings.sampler_clip, world)
    return Batch(
        rollouts, mask, old, reference, values, entropies, advantages, returns, weights, held,
        ended, clipped, gap,
    )  # fmt: skip


@torch.no_grad()
def _seen(
    actor: Actor[TaskT],
    rollouts: Sequence[Rollout],
    parts: Sequence[Part],
    mask: Tensor,
    settings: PPOSettings,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probs by policy and reference, values, and entropies, each of the mask's shape."""
    old, reference, values, entropies = (
        torch.zeros(mask.shape, device=mask.device) for _ in "1234"
    )
    for part in parts:
        some = [rollouts[row] for row in part]
        look = actor.look(some, settings.temperature, entropy=True)
        size = look.logprobs.shape[1]
        old[part, :size], values[part, :size] = look.logprobs, look.values
        reference[part, :size] = actor.reference(some, settings.temperature)
        if look.entropies is not None:
            entropies[part, :size] = look.entropies
    return old, reference, values, entropies


def _importance(
    rollouts: Sequence[Rollout], old: Tensor, mask: Tensor, most: float, world: World
) -> tuple[Tensor | None, Tensor]:
    """Weights where every rollout has the sampler's log-probs, and how far those are off."""
    if not all(rollout.logprobs for rollout in rollouts if any(rollout.actions)):
        return None, torch.zeros((), device=old.device)
    sampler = torch.zeros_like(old)
    for row, rollout in enumerate(rollouts):
        sampler[row, : len(rollout.logprobs)] = torch.tensor(rollout.logprobs, device=old.device)
    gap = objectives.masked_mean((old - sampler).abs(), mask, world.sum)
    return objectives.sampler_weights(old, sampler, mask, most), gap
