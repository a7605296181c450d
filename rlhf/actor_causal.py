"""Any causal language model of transformers, as an actor: a low-rank adapter learns (LoRA).

Base, reference, policy and value head share one copy of the weights: the reference is the network
with its adapter switched off. A task is a prompt as ids, the tokens that end an answer, and how
long it may become; or anything else of that shape (`_actor_network.Laid`), which may force tokens,
such as what a search brought.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlhf._actor_network import Ids, Laid, Network, cut, without_dropout
from rlhf.errors import TrainingError
from rlhf.schema import Rollout

try:
    import peft
except ModuleNotFoundError:  # an extra of its own, needed here only
    peft = None  # type: ignore[assignment]

#: Of the names of an adapter's parameters.
_LORA = "lora_"


@dataclass(frozen=True, slots=True)
class Prompted:
    """Ask for free text.

    Attributes:
        ids: of the prompt.
        stops: tokens that end an answer; the same ones inside the prompt end nothing.
        most: tokens of an answer at the most.
    """

    ids: Ids
    stops: frozenset[int]
    most: int

    def allowed(self, path: Sequence[int]) -> Ids | None:
        """Any token, until a stop or the longest answer."""
        return () if len(path) >= self.most or self.ended(path) else None

    def ended(self, path: Sequence[int]) -> bool:
        """Whether the answer came to a stop."""
        return cut(path, self.stops)[1]


class CausalActor(Network):
    """See the module's text.

    Args:
        model: a causal language model, on its device; layers are put into it.
        rank: of the adapter.
        alpha: its scale is alpha / rank.
        seed: of the adapter's first weights, which leave the policy as it is.
        targets: names of the layers that get one, as peft takes them.
        at_once: prompts that are drawn to side by side.
        dtype: of the matrix products; float32 leaves the model's own.

    Raises:
        TrainingError: peft is not installed, or the model's logits are not its output layer's.
    """

    def __init__(
        self,
        model: Any,
        rank: int = 16,
        alpha: int = 32,
        seed: int = 7,
        targets: str | list[str] = "all-linear",
        at_once: int = 32,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if peft is None:
            raise TrainingError("PPO on a hub model needs 'peft'; install plumbline[adapters]")
        without_dropout(model)
        config = peft.LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=0.0,
            target_modules=targets,
            task_type="CAUSAL_LM",
        )
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self._peft = peft.get_peft_model(model, config)
        super().__init__(self._peft.get_base_model(), at_once, dtype)

    @property
    def policy(self) -> Mapping[str, nn.Parameter]:
        """The adapter's weights."""
        return {name: p for name, p in self.model.named_parameters() if _LORA in name}

    def draw(
        self, tasks: Sequence[Laid], temperature: float, generator: torch.Generator
    ) -> list[Rollout]:
        """Free text."""
        return self.drawn(tasks, temperature, generator)

    @torch.no_grad()
    def reference(self, rollouts: Sequence[Rollout], temperature: float) -> Tensor:
        """Log-probs with the adapter off."""
        with self.adapter_off():
            return self.read(self.model, rollouts, temperature).logprobs

    @contextmanager
    def adapter_off(self) -> Iterator[None]:
        """The network as it was; the adapter is on again afterwards, whatever happens."""
        layers: Any = self._peft.base_model
        layers.disable_adapter_layers()
        try:
            yield
        finally:
            layers.enable_adapter_layers()

    def save(self, folder: Path) -> None:
        """Write the adapter in peft's format; the base's embeddings stay as they are."""
        self._peft.save_pretrained(str(folder), save_embedding_layers=False)
