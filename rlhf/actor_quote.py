"""The small GPT that quotes, as an actor: all of its weights learn, a frozen copy is the reference.

A task is a prompt that is laid out (`assistant.policy._quoting.Offer`): ids, and the tree of the
answers there are. Answers are drawn as when someone asks, token by token over what the tree allows;
forced tokens are read but are no actions.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from assistant.policy._trie import Paths
from rlhf._actor_network import Ids, Laid, Network
from rlhf.fit._network import export
from rlhf.schema import Rollout


class Offered(Protocol):
    """What a policy that quotes is asked."""

    @property
    def ids(self) -> Ids:
        """Of the prompt."""

    @property
    def paths(self) -> Paths:
        """The answers there are."""


@dataclass(frozen=True, slots=True)
class _Quotes:
    """An offer as the network's sampler reads it; every path of a tree ends by itself."""

    ids: Ids
    paths: Paths

    def allowed(self, path: Sequence[int]) -> Ids:
        return self.paths.allowed(path)

    def ended(self, path: Sequence[int]) -> bool:
        return True


def laid(tasks: Sequence[Offered]) -> list[Laid]:
    """Offers as a network draws to them."""
    return [_Quotes(tuple(task.ids), task.paths) for task in tasks]


class QuoteActor(Network):
    """See the module's text.

    Args:
        model: LlamaForCausalLM in float32, on its device; it is changed in place.
        at_once: prompts that are drawn to side by side.
        dtype: of the matrix products.
    """

    def __init__(self, model: Any, at_once: int = 32, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(model, at_once, dtype)
        self._before = copy.deepcopy(model).requires_grad_(False)

    @property
    def policy(self) -> Mapping[str, nn.Parameter]:
        """All weights of the network."""
        return dict(self.model.named_parameters())

    def draw(
        self, tasks: Sequence[Offered], temperature: float, generator: torch.Generator
    ) -> list[Rollout]:
        """One path through each tree."""
        return self.drawn(laid(tasks), temperature, generator)

    @torch.no_grad()
    def reference(self, rollouts: Sequence[Rollout], temperature: float) -> Tensor:
        """Log-probs by the copy."""
        return self.read(self._before, rollouts, temperature, valued=False).logprobs

    def save(self, folder: Path) -> None:
        """Write config.json, generation_config.json and model.safetensors in float16."""
        export(self.model, folder)
