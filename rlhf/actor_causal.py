"""Any causal language model of transformers, as an actor: a low-rank adapter learns (LoRA).

Base, reference, policy and value head share one copy of the weights: the reference is the network
with its adapter switched off. With rank 0 there is no adapter: all weights learn, and the reference
is a frozen copy. Values come from a head on the policy's trunk, or from a critic. A task is a
prompt as ids, the tokens that end an answer, and how long it may become; or anything else of that
shape (`_actor_network.Laid`), which may force tokens, such as what a search brought.
"""

from __future__ import annotations

import copy
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

#: Of the names of an adapter's parameters, and of the weights below one.
_LORA, _BASE, _ADAPTER = "lora_", ".base_layer.weight", "default"


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
        rank: of the adapter; 0 for none.
        alpha: its scale is alpha / rank.
        seed: of the adapter's first weights, which leave the policy as it is.
        targets: names of the layers that get one, as peft takes them.
        at_once: prompts that are drawn to side by side.
        dtype: of the matrix products; float32 leaves the model's own.
        critic: see `_actor_network.Network`.

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
        critic: Any | None = None,
    ) -> None:
        without_dropout(model)
        self._before = copy.deepcopy(model).requires_grad_(False) if not rank else None
        if self._before is not None:
            super().__init__(model, at_once, dtype, critic)
            return
        if peft is None:
            raise TrainingError("PPO with LoRA needs 'peft'; install plumbline[adapters]")
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
        super().__init__(self._peft.get_base_model(), at_once, dtype, critic)

    @property
    def policy(self) -> Mapping[str, nn.Parameter]:
        """The adapter's weights, or all."""
        whole = self._before is not None
        return {n: p for n, p in self.model.named_parameters() if whole or _LORA in n}

    @property
    def frozen(self) -> Any | None:
        """The copy that is the reference where all weights learn; None with an adapter."""
        return self._before

    @torch.no_grad()
    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """As a checkpoint has them, with the adapter merged into the layers that have one."""
        for name, value in super().weights():
            if _LORA in name:
                continue
            if name.endswith(_BASE):
                layer: Any = self.model.get_submodule(name.removesuffix(_BASE))
                value = value + layer.get_delta_weight(_ADAPTER).to(value.dtype)
            yield name.replace(".base_layer.", "."), value

    def draw(
        self, tasks: Sequence[Laid], temperature: float, generator: torch.Generator
    ) -> list[Rollout]:
        """Free text."""
        return self.drawn(tasks, temperature, generator)

    @torch.no_grad()
    def reference(self, rollouts: Sequence[Rollout], temperature: float) -> Tensor:
        """Log-probs with the adapter off, or by the copy."""
        if self._before is not None:
            return self.read(self._before, rollouts, temperature, valued=False).logprobs
        with self.adapter_off():
            return self.read(self.model, rollouts, temperature, valued=False).logprobs

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
        """Write the adapter in peft's format, without the base's embeddings; or the whole model."""
        if self._before is not None:
            self.model.save_pretrained(str(folder))
            return
        self._peft.save_pretrained(str(folder), save_embedding_layers=False)
