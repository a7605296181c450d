"""Draws with `generate` of transformers, for models whose caches the actors' own loop cannot cut.

Each row has its own dice and the chosen token alone is left of the logits, so that answers do not
depend on what is drawn beside them and no logits are kept: only the log-prob of the choice.
"""

from __future__ import annotations

import copy
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rlhf._actor_network import without_dropout
from rlhf.actor_causal import Prompted
from rlhf.errors import TrainingError
from rlhf.samplers.base import Sampler, Weights
from rlhf.schema import Finish, Rollout


class Dice:
    """A logits processor of `generate` that makes the choice itself.

    Args:
        rows: the dice of each row.
        temperature: divides the logits.
    """

    def __init__(self, rows: Sequence[random.Random], temperature: float) -> None:
        self._rows, self._temperature = rows, temperature
        #: Of each step, the log-probs of what was chosen, one a row.
        self.logprobs: list[list[float]] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Leave one token a row; (rows, vocabulary) in and out."""
        logprobs = torch.log_softmax(scores.float() / self._temperature, 1)
        sums = logprobs.double().exp().cumsum(1)
        level = torch.tensor([dice.random() for dice in self._rows], dtype=torch.float64)
        least = level.to(sums.device)[:, None] * sums[:, -1:]
        tokens = (sums <= least).sum(1, keepdim=True).clamp(max=sums.shape[1] - 1)
        self.logprobs.append(logprobs.gather(1, tokens)[:, 0].tolist())
        return torch.full_like(scores, -torch.inf).scatter(1, tokens, 0.0)


class Generating:
    """See the module's text.

    Args:
        model: a causal language model without adapters, on its device; a copy is made.
        at_once: prompts that are drawn to side by side.
        dtype: of the copy.
    """

    def __init__(self, model: Any, at_once: int = 32, dtype: torch.dtype = torch.float32) -> None:
        self._model = copy.deepcopy(model).requires_grad_(False).to(dtype)
        self._at_once = at_once
        without_dropout(self._model)

    @torch.no_grad()
    def generate(
        self, tasks: Sequence[Prompted], temperature: float, generator: torch.Generator
    ) -> list[Rollout]:
        """Free text; tasks of one kind and of like length side by side."""
        seeds = torch.randint(2**62, (len(tasks),), generator=generator).tolist()
        kinds: dict[tuple[frozenset[int], int], list[int]] = defaultdict(list)
        for at in sorted(range(len(tasks)), key=lambda n: len(tasks[n].ids)):
            kinds[tasks[at].stops, tasks[at].most].append(at)
        found: dict[int, Rollout] = {}
        for rows in kinds.values():
            for at in range(0, len(rows), self._at_once):
                part = rows[at : at + self._at_once]
                dice = Dice([random.Random(seeds[n]) for n in part], temperature)
                found |= zip(part, self._drawn([tasks[n] for n in part], dice), strict=True)
        return [found[n] for n in range(len(tasks))]

    def update_weights(self, weights: Weights) -> None:
        """See `rlhf.samplers.base.Sampler`."""
        taken(self._model, weights)

    def sleep(self) -> None:
        """Nothing is kept between batches but the weights."""

    def wake(self) -> None:
        """Nothing was given up."""

    def _drawn(self, tasks: Sequence[Prompted], dice: Dice) -> list[Rollout]:
        width = max(len(task.ids) for task in tasks)
        device, stops = self._model.device, sorted(tasks[0].stops)
        ids = torch.tensor([[*[0] * (width - len(task.ids)), *task.ids] for task in tasks])
        mask = torch.tensor([[n >= width - len(task.ids) for n in range(width)] for task in tasks])
        whole = self._model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.long().to(device),
            generation_config=type(self._model.generation_config)(
                max_new_tokens=tasks[0].most,
                do_sample=False,  # the dice have left one token
                eos_token_id=stops or None,
                pad_token_id=stops[0] if stops else 0,
            ),
            logits_processor=[dice],
        )
        return [
            _rollout(task, answer, logprobs)
            for task, answer, logprobs in zip(
                tasks, whole[:, width:].tolist(), zip(*dice.logprobs, strict=True), strict=True
            )
        ]


def taken(model: Any, weights: Weights) -> None:
    """Copy weights into a model, in its own precision.

    Raises:
        TrainingError: names or shapes are another model's.
    """
    own = dict(model.state_dict())
    with torch.no_grad():
        for name, value in weights:
            if name not in own or own[name].shape != value.shape:
                raise TrainingError(
                    f"the sampler's model has no weight {name} of shape {tuple(value.shape)}; "
                    "build it from the model that learns, before adapters are put into that"
                )
            own.pop(name).copy_(value)
    if own:
        raise TrainingError(f"the sampler got no weights for {', '.join(sorted(own)[:3])}")


def _rollout(task: Prompted, answer: Sequence[int], logprobs: Sequence[float]) -> Rollout:
    """An answer up to its first stop; what `generate` wrote behind that is padding."""
    ends = [at for at, token in enumerate(answer) if token in task.stops]
    size = min(len(answer), ends[0] + 1 if ends else task.most)
    ids = tuple(answer[:size])
    finish: Finish = "stop" if task.ended(ids) else "length"
    return Rollout(task.ids, ids, (True,) * size, None, finish, tuple(logprobs[:size]))


def build(model: Any, at_once: int = 32, dtype: torch.dtype = torch.float32) -> Sampler[Prompted]:
    """See `Generating`."""
    return Generating(model, at_once, dtype)
