"""Policies of a few numbers, on which the best policy is known, for the tests of PPO."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from rlhf._actor_network import Ids, Laid, Network
from rlhf.actor_causal import Prompted
from rlhf.actors import Look
from rlhf.config import PPOSettings
from rlhf.schema import Rollout

#: A fast run on a toy: nothing but the core.
CORE = PPOSettings(
    updates=50,
    episodes=512,
    minibatches=4,
    epochs=4,
    micro=512,
    rate=5e-2,
    value_rate=5e-2,
    schedule="linear",
    rate_warmup=0,
    adam_beta2=0.999,
    beta=0.5,
    target_kl=None,
    step_kl=None,
    trace=1.0,
    value_weight=0.5,
    value_clip=10.0,
    value_warmup=0,
    least_entropy=0.0,
    save_every=10_000,
)


class Table:
    """A distribution over tokens for each place, whatever came before, and a value for each.

    Tasks are the numbers of rows of contexts; each context has a table of its own.

    Args:
        size: tokens there are.
        length: of every answer.
        contexts: how many tables there are.
        seed: of the reference.
    """

    device = torch.device("cpu")

    def __init__(self, size: int, length: int, contexts: int = 1, seed: int = 0) -> None:
        start = torch.randn(contexts, length, size, generator=torch.Generator().manual_seed(seed))
        self.before = start.log_softmax(2)
        self.logits = nn.Parameter(start.clone())
        self.values = nn.Parameter(torch.zeros(contexts, length))
        self.length = length

    @property
    def policy(self) -> Mapping[str, nn.Parameter]:
        """The logits."""
        return {"logits": self.logits}

    @property
    def value(self) -> Mapping[str, nn.Parameter]:
        """A number a place."""
        return {"value": self.values}

    def draw(
        self, tasks: Sequence[int], temperature: float, generator: torch.Generator
    ) -> list[Rollout]:
        """All rows at once."""
        chances = (self.logits[list(tasks)] / temperature).softmax(2)
        drawn = torch.multinomial(
            chances.flatten(0, 1), 1, replacement=True, generator=generator
        ).view(len(tasks), self.length)
        every = (True,) * self.length
        return [
            Rollout((task,), tuple(row), every, None, "stop")
            for task, row in zip(tasks, drawn.tolist(), strict=True)
        ]

    def look(
        self, rollouts: Sequence[Rollout], temperature: float, *, entropy: bool = False
    ) -> Look:
        """The tables at the places of the answers."""
        rows = [r.prompt[0] for r in rollouts]
        found, spread = self._read(self.logits, rollouts, temperature)
        return Look(found, self.values[rows], spread.detach() if entropy else None)

    def reference(self, rollouts: Sequence[Rollout], temperature: float) -> Tensor:
        """Of the first table."""
        return self._read(self.before, rollouts, temperature)[0]

    def _read(
        self, logits: Tensor, rollouts: Sequence[Rollout], temperature: float
    ) -> tuple[Tensor, Tensor]:
        ids = torch.tensor([r.completion for r in rollouts])
        found = (logits[[r.prompt[0] for r in rollouts]] / temperature).log_softmax(2)
        return found.gather(2, ids[:, :, None])[:, :, 0], -(found.exp() * found).sum(2)

    def best(self, rewards: Tensor, beta: float) -> Tensor:
        """Log of the best policy, (contexts, length, size), where rewards of places add up."""
        return (self.before + rewards / beta).log_softmax(2)

    def distance(self, rewards: Tensor, beta: float) -> float:
        """KL (nats an answer, a mean over contexts) of the policy from the best one."""
        mine = self.logits.detach().log_softmax(2)
        apart = mine.exp() * (mine - self.best(rewards, beta))
        return float(apart.sum((1, 2)).mean())

    def worth(self, rewards: Tensor, beta: float) -> float:
        """Expected reward less beta times the KL from the reference."""
        mine = self.logits.detach().log_softmax(2)
        gained = (mine.exp() * (rewards - beta * (mine - self.before))).sum((1, 2))
        return float(gained.mean())

    def most(self, rewards: Tensor, beta: float) -> float:
        """The best there is of `worth`."""
        found = beta * (self.before + rewards / beta).logsumexp(2)
        return float(found.sum(1).mean())


class Same(Table):
    """Answers that depend on the task alone."""

    def draw(
        self, tasks: Sequence[int], temperature: float, generator: torch.Generator
    ) -> list[Rollout]:
        """With a generator for each task."""
        each = (super(Same, self).draw([n], 1.0, torch.Generator().manual_seed(n)) for n in tasks)
        return [rollout for (rollout,) in each]


def scored_by(
    rewards: Tensor,
) -> Callable[[Sequence[int], Sequence[Rollout]], dict[str, list[float]]]:
    """A reward that adds up what each token at each place is worth, (contexts, length, size)."""

    def reward(tasks: Sequence[int], rollouts: Sequence[Rollout]) -> dict[str, list[float]]:
        ids = torch.tensor([r.completion for r in rollouts])
        found = rewards[list(tasks)].gather(2, ids[:, :, None])[:, :, 0]
        return {"places": found.sum(1).tolist()}

    return reward


def tiny(size: int = 8, seed: int = 3, width: int = 16) -> LlamaForCausalLM:
    """A transformer of a few thousand weights over `size` tokens, with decided opinions."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        initializer_range=0.15,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    return LlamaForCausalLM(config)


@dataclass(frozen=True)
class Fixed(Prompted):
    """Answers are of `most` tokens, and that ends them."""

    def allowed(self, path: Sequence[int]) -> Ids | None:
        """Anything, so many times."""
        return None if len(path) < self.most else ()

    def ended(self, path: Sequence[int]) -> bool:
        """They are never cut off."""
        return len(path) == self.most


class Full(Network):
    """Free text by a network all of whose weights learn."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        super().__init__(model, 1024)
        self._before = copy.deepcopy(model)

    @property
    def policy(self) -> Mapping[str, nn.Parameter]:
        """All weights."""
        return dict(self.model.named_parameters())

    def draw(
        self, tasks: Sequence[Laid], temperature: float, generator: torch.Generator
    ) -> list[Rollout]:
        """As the network does."""
        return self.drawn(tasks, temperature, generator)

    @torch.no_grad()
    def reference(self, rollouts: Sequence[Rollout], temperature: float) -> Tensor:
        """By the copy."""
        return self.read(self._before, rollouts, temperature).logprobs
