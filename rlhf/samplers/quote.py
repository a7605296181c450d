"""Draws what the small GPT quotes, through the trees of its answers, with a copy of its weights.

The copy may be of a lower precision than the policy that learns, and on another device.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from rlhf._actor_network import Network
from rlhf.actor_quote import Offered, laid
from rlhf.samplers.base import Sampler, Weights
from rlhf.samplers.transformers import taken
from rlhf.schema import Rollout


class Quoting:
    """See the module's text.

    Args:
        model: LlamaForCausalLM; a copy is made.
        at_once: prompts that are drawn to side by side.
        dtype: of the copy.
    """

    def __init__(self, model: Any, at_once: int = 64, dtype: torch.dtype = torch.float32) -> None:
        self._model = copy.deepcopy(model).requires_grad_(False).to(dtype)
        self._network = Network(self._model, at_once)

    @torch.no_grad()
    def generate(
        self, tasks: Sequence[Offered], temperature: float, generator: torch.Generator
    ) -> list[Rollout]:
        """One path through each tree."""
        return self._network.drawn(laid(tasks), temperature, generator)

    def update_weights(self, weights: Weights) -> None:
        """See `rlhf.samplers.base.Sampler`."""
        taken(self._model, weights)

    def sleep(self) -> None:
        """Nothing is kept between batches but the weights."""

    def wake(self) -> None:
        """Nothing was given up."""


def build(model: Any, at_once: int = 64, dtype: torch.dtype = torch.float32) -> Sampler[Offered]:
    """See `Quoting`."""
    return Quoting(model, at_once, dtype)
