"""The seam between an actor that learns and a sampler that draws with a copy of its weights.

Before each batch the sampler wakes, takes the weights, draws, and sleeps. The log-probs that it
gives with its answers are its own; PPO reads the answers again with the training forward, and
corrects for the difference (truncated importance sampling: `PPOSettings.sampler_clip`). A sampler
that did not take the weights is found out at once: after every hand-over the first answers are
read by the training forward, and log-probs that differ by more than rounding stop the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from rlhf.actors import Actor, Look, TaskT
from rlhf.errors import TrainingError
from rlhf.schema import Rollout

#: Of a whole model, by the names of its checkpoint; adapters are merged into it.
Weights = Iterable[tuple[str, Tensor]]
_Task = TypeVar("_Task", contravariant=True)

#: Mean difference of log-probs that is rounding, nats a token, by how many bytes a weight has.
ROUNDING = {4: 1e-3, 2: 3e-2}
#: Answers that are read again after a hand-over.
PROBED = 8


class Sampler(Protocol[_Task]):
    """Draws answers. Made asleep or awake; `wake`, `update_weights`, `generate`, `sleep`, again."""

    def generate(
        self, tasks: Sequence[_Task], temperature: float, generator: torch.Generator
    ) -> list[Rollout]:
        """One answer to each task, from the whole distribution, with the sampler's log-probs."""

    def update_weights(self, weights: Weights) -> None:
        """Take the policy's weights; what was kept of earlier prompts is forgotten."""

    def sleep(self) -> None:
        """Give memory back; the weights may go too."""

    def wake(self) -> None:
        """Make room for weights again."""


class Learner(Actor[_Task], Protocol[_Task]):
    """An actor that can hand its weights over."""

    def weights(self) -> Weights:
        """All of them, as they are now."""


class Sampled(Generic[TaskT]):
    """An actor whose answers a sampler draws.

    Args:
        actor: what learns.
        sampler: what draws.
        rounding: mean difference of log-probs that is put down to numerics, nats a token; see
            `ROUNDING` for precisions.
    """

    def __init__(
        self, actor: Learner[TaskT], sampler: Sampler[TaskT], rounding: float = ROUNDING[4]
    ) -> None:
        self._actor, self._sampler, self._rounding = actor, sampler, rounding
        #: Mean difference of log-probs that the last hand-over left, nats a token.
        self.gap = 0.0

    @property
    def device(self) -> torch.device:
        """The actor's."""
        return self._actor.device

    @property
    def policy(self) -> Mapping[str, nn.Parameter]:
        """The actor's."""
        return self._actor.policy

    @property
    def value(self) -> Mapping[str, nn.Parameter]:
        """The actor's."""
        return self._actor.value

    def draw(
        self, tasks: Sequence[TaskT], temperature: float, generator: torch.Generator
    ) -> list[Rollout]:
        """By the sampler, with the actor's weights as they are.

        Raises:
            TrainingError: it gave no log-probs, or they are another policy's.
        """
        self._sampler.wake()
        try:
            self._sampler.update_weights(self._actor.weights())
            found = self._sampler.generate(tasks, temperature, generator)
        finally:
            self._sampler.sleep()
        self._check(found, temperature)
        return found

    def look(
        self, rollouts: Sequence[Rollout], temperature: float, *, entropy: bool = False
    ) -> Look:
        """The actor's."""
        return self._actor.look(rollouts, temperature, entropy=entropy)

    def reference(self, rollouts: Sequence[Rollout], temperature: float) -> Tensor:
        """The actor's."""
        return self._actor.reference(rollouts, temperature)

    @torch.no_grad()
    def _check(self, rollouts: Sequence[Rollout], temperature: float) -> None:
        """Sampler and training forward have to be one policy, but for rounding."""
        chosen = [rollout for rollout in rollouts if any(rollout.actions)]
        silent = sum(not rollout.logprobs for rollout in chosen)
        if silent:
            raise TrainingError(
                f"the sampler gave {silent} of {len(chosen)} answers without its log-probs; "
                "without them nobody can tell which policy it drew from"
            )
        apart = []
        some = chosen[:PROBED]
        ours = self._actor.look(some, temperature).logprobs if some else torch.zeros(0, 0)
        for row, rollout in zip(ours.tolist(), some, strict=True):
            each = zip(row, rollout.logprobs, rollout.actions, strict=False)
            apart += [abs(mine - theirs) for mine, theirs, action in each if action]
        self.gap = sum(apart) / max(len(apart), 1)
        if not self.gap <= self._rounding:
            raise TrainingError(
                f"after the weights were handed over the sampler's log-probs are off the policy's "
                f"by {self.gap:.2g} nats a token, more than rounding = {self._rounding:g}: it drew "
                "from other weights, another temperature or a filtered distribution"
            )
