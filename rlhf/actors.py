"""The seam between PPO and whatever draws and scores answers.

An actor holds a policy, its reference (the policy as it was before PPO) and a value head. The loop
(`rlhf.ppo`) sees nothing else of a model, so it drives networks of any kind, and tables. Built in:
`actor_quote` (the small GPT that quotes) and `actor_causal` (any causal language model with LoRA).

Contract: `look` is the training forward. It is the same function whether gradients are on or off,
and log-probs of policy, reference and sampler all come after the same temperature and over the
same allowed tokens, so that a fresh policy has ratio 1 and KL 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from rlhf.schema import Rollout

TaskT = TypeVar("TaskT")
_Task = TypeVar("_Task", contravariant=True)


@dataclass(frozen=True, slots=True)
class Look:
    """What policy and value head make of rollouts; each (rows, longest completion) float32.

    Numbers stand at the places of actions and are 0 elsewhere.

    Attributes:
        logprobs: of the tokens that were chosen.
        values: of the states in which they were.
        entropies: of what they were chosen from, without a gradient; None where not asked for.
    """

    logprobs: Tensor
    values: Tensor
    entropies: Tensor | None


class Actor(Protocol[_Task]):
    """A policy with its reference and its value head."""

    @property
    def device(self) -> torch.device:
        """Where tensors are."""

    @property
    def policy(self) -> Mapping[str, nn.Parameter]:
        """What PPO changes, by name, in an order that stays."""

    @property
    def value(self) -> Mapping[str, nn.Parameter]:
        """What belongs to the value head alone; names differ from the policy's."""

    def draw(
        self, tasks: Sequence[_Task], temperature: float, generator: torch.Generator
    ) -> list[Rollout]:
        """One answer to each task, drawn from the whole distribution; `generator` is a CPU one."""

    def look(
        self, rollouts: Sequence[Rollout], temperature: float, *, entropy: bool = False
    ) -> Look:
        """The training forward; gradients flow where they are on."""

    def reference(self, rollouts: Sequence[Rollout], temperature: float) -> Tensor:
        """Log-probs under the reference, as `Look.logprobs`, without a gradient."""


class World(Protocol):
    """The processes that share a run."""

    @property
    def rank(self) -> int:
        """Which of them this is, from 0."""

    @property
    def size(self) -> int:
        """How many there are."""

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all of them, given to each."""


@dataclass(frozen=True, slots=True)
class Alone:
    """One process."""

    rank: int = 0
    size: int = 1

    def sum(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value
