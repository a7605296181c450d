"""Policies that are causal networks of transformers: draw in batches, and look again to train.

Prompts are padded on the left while an answer is drawn, with positions of their own, and on the
right while it is looked at, where a causal network sees nothing of what follows. Padding is token 0
and masked; no pad token reaches the embedding. Only the hidden states at actions meet the output
layer, in one product, and their log-probs are float32.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rlhf import _actor_shared, objectives
from rlhf.actors import Look
from rlhf.errors import TrainingError
from rlhf.schema import Rollout

Ids = tuple[int, ...]


class Laid(Protocol):
    """A prompt as ids, and what may follow it."""

    @property
    def ids(self) -> Ids:
        """Of the prompt."""

    def allowed(self, path: Sequence[int]) -> Ids | None:
        """What may follow `path`: None for any token, () for nothing; one token is forced."""

    def ended(self, path: Sequence[int]) -> bool:
        """Whether a path that nothing follows ended by itself."""


@dataclass(slots=True, eq=False)
class _Row:
    """An answer as it grows; `new` tokens are not read yet."""

    task: Laid
    dice: random.Random
    new: list[int]
    path: list[int] = field(default_factory=list)
    actions: list[bool] = field(default_factory=list)
    allowed: list[Ids | None] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    #: What the next token is chosen from.
    choice: Ids | None = ()

    def add(self, token: int, logprob: float, *, action: bool) -> None:
        """Take a token."""
        self.path.append(token)
        self.new.append(token)
        self.actions.append(action)
        self.allowed.append(self.choice)
        self.logprobs.append(logprob)

    def advance(self) -> bool:
        """Take what is forced; False where the answer is whole."""
        while (choice := self.task.allowed(self.path)) is not None and len(choice) == 1:
            self.choice = choice
            self.add(choice[0], 0.0, action=False)
        self.choice = choice
        return choice != ()

    def rollout(self) -> Rollout:
        """The answer."""
        free = all(choice is None for choice in self.allowed)
        return Rollout(
            self.task.ids,
            tuple(self.path),
            tuple(self.actions),
            None if free else tuple(self.allowed),
            "stop" if self.task.ended(self.path) else "length",
            tuple(self.logprobs),
        )


class Network:
    """A network with a value head on its trunk.

    Args:
        model: a causal language model of transformers, on its device; dropout is switched off.
        at_once: prompts that are drawn to side by side.
        dtype: of the matrix products; float32 leaves the model's own.
        critic: a network of its own for the values (of transformers, for the classification of
            sequences, with one label), where its trunk is not to be the policy's. It begins with
            the values it has: those of a reward model are a good start.

    Raises:
        TrainingError: the model does something between its trunk and its logits, or the critic has
            no head of one number.
    """

    def __init__(
        self,
        model: Any,
        at_once: int,
        dtype: torch.dtype = torch.float32,
        critic: Any | None = None,
    ) -> None:
        self.model, self._at_once, self._dtype = model, at_once, dtype
        without_dropout(model)
        self._critic = critic
        if critic is None:
            width = model.get_output_embeddings().in_features
            #: The value of a state is 0 until it is learnt.
            self.head = nn.Linear(width, 1, device=model.device)
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
        else:
            if getattr(getattr(critic, "score", None), "out_features", 0) != 1:
                raise TrainingError(
                    f"{type(critic).__name__} has no head `score` of one number; load it for the "
                    "classification of sequences, with num_labels=1"
                )
            without_dropout(critic)
            self.head = critic.score
        _same_logits(model)

    @property
    def device(self) -> torch.device:
        """The model's."""
        found: torch.device = self.model.device
        return found

    @property
    def value(self) -> Mapping[str, nn.Parameter]:
        """Of the head, or of the whole critic."""
        found = self.head if self._critic is None else self._critic
        return {f"value.{name}": p for name, p in found.named_parameters()}

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Of the policy, by the names of a checkpoint, for a sampler of its own."""
        yield from self.model.state_dict().items()

    def drawn(
        self, tasks: Sequence[Laid], temperature: float, generator: torch.Generator
    ) -> list[Rollout]:
        """One answer each; the same however many are drawn side by side, but for rounding."""
        seeds = torch.randint(2**62, (len(tasks),), generator=generator).tolist()
        order = sorted(range(len(tasks)), key=lambda i: (len(tasks[i].ids), tuple(tasks[i].ids)))
        found: dict[int, Rollout] = {}
        for at in range(0, len(order), self._at_once):
            part = order[at : at + self._at_once]
            rows = [_Row(tasks[i], random.Random(seeds[i]), [*tasks[i].ids]) for i in part]
            self._grow(rows, temperature)
            found |= {i: row.rollout() for i, row in zip(part, rows, strict=True)}
        return [found[i] for i in range(len(tasks))]

    def look(
        self, rollouts: Sequence[Rollout], temperature: float, *, entropy: bool = False
    ) -> Look:
        """See `rlhf.actors.Actor`."""
        return self.read(self.model, rollouts, temperature, entropy=entropy)

    def read(
        self,
        model: Any,
        rollouts: Sequence[Rollout],
        temperature: float,
        *,
        entropy: bool = False,
        valued: bool = True,
    ) -> Look:
        """What `model`, and where `valued` the value head or the critic, make of rollouts."""
        size = max((len(r.completion) for r in rollouts), default=0)
        places = [(n, at) for n, r in enumerate(rollouts) for at, a in enumerate(r.actions) if a]
        zeros = torch.zeros(len(rollouts), size, device=self.device)
        if not places:
            return Look(zeros, zeros, zeros if entropy else None)
        hidden = self._hidden(model, rollouts, places)
        where = torch.tensor(places, device=self.device).unbind(1)
        tokens = [rollouts[n].completion[at] for n, at in places]
        choices = [None if (a := rollouts[n].allowed) is None else a[at] for n, at in places]
        ids = torch.tensor(tokens, device=self.device)
        logprobs, entropies = torch.zeros(2, len(places), device=self.device)
        with self._precision():
            logits = model.get_output_embeddings()(hidden)
        for some, allowed in _kinds(choices, self.device):
            mine = logits if len(some) == len(places) else logits[some]
            found = objectives.logprobs(mine, ids[some], allowed, temperature)
            logprobs = logprobs.index_put((some,), found)
            if entropy:
                with torch.no_grad():
                    entropies[some] = objectives.entropies(mine, allowed, temperature)
        values = torch.zeros_like(logprobs)
        if valued:
            trunk = hidden
            if self._critic is not None:
                trunk = self._hidden(self._critic, rollouts, places)
            values = self.head(trunk.float())[:, 0].float()
        return Look(
            zeros.index_put(where, logprobs),
            zeros.index_put(where, values),
            zeros.index_put(where, entropies) if entropy else None,
        )

    def _hidden(
        self, model: Any, rollouts: Sequence[Rollout], places: Sequence[tuple[int, int]]
    ) -> Tensor:
        """States in which the tokens at `places` (row, token) were chosen, (places, width)."""
        if _actor_shared.shares(rollouts):
            with self._precision():
                shared = _actor_shared.states(model, rollouts, places)
            if shared is not None:
                return shared
        whole = [(*r.prompt, *r.completion[:-1]) for r in rollouts]
        longest = max(map(len, whole))
        ids = torch.tensor([(*row, *[0] * (longest - len(row))) for row in whole])
        with self._precision():
            states = model.base_model(input_ids=ids.to(self.device), use_cache=False)
        rows = torch.tensor([n for n, _ in places], device=self.device)
        at = torch.tensor([len(rollouts[n].prompt) + t - 1 for n, t in places], device=self.device)
        found: Tensor = states.last_hidden_state[rows, at]
        return found

    def _precision(self) -> torch.autocast:
        reduced = self._dtype != torch.float32
        return torch.autocast(self.device.type, self._dtype, enabled=reduced)

    @torch.no_grad()
    def _grow(self, rows: Sequence[_Row], temperature: float) -> None:
        """Draw the rest of all rows together; a prompt that several rows have is read once."""
        live = [row for row in rows if row.advance()]
        cache: Any = None
        kept = live  # the rows that the cache holds, in its order
        spread: list[int] | None = None  # where each row's reading is, until the cache is theirs
        if len(firsts := [*dict.fromkeys(tuple(row.new) for row in live)]) < len(live):
            spread = [firsts.index(tuple(row.new)) for row in live]
        mask = torch.zeros(len(firsts), 0, dtype=torch.long)
        while live:
            if len(live) <= len(kept) // 2:  # a copy of the cache is worth it
                index = [n for n, row in enumerate(kept) if row in live]
                cache.batch_select_indices(torch.tensor(index, device=self.device))
                mask, kept = mask[index], live
            unread = [tuple(row.new) for row in kept] if spread is None else firsts
            width = max(map(len, unread)) or 1
            ids = torch.tensor([(*[0] * (width - len(new)), *new) for new in unread])
            fresh = torch.tensor([[n >= width - len(new) for n in range(width)] for new in unread])
            mask = torch.cat((mask, fresh.long()), 1)
            places = (mask.cumsum(1) - mask)[:, -width:]
            with self._precision():
                out = self.model.base_model(
                    input_ids=ids.to(self.device),
                    attention_mask=mask.to(self.device),
                    position_ids=places.to(self.device),
                    past_key_values=cache,
                    use_cache=True,
                )
                cache = out.past_key_values
                index = [n for n, row in enumerate(kept) if row in live]
                if spread is not None:
                    cache.batch_select_indices(torch.tensor(spread, device=self.device))
                    mask, index, spread = mask[spread], spread, None
                logits = self.model.get_output_embeddings()(out.last_hidden_state[index, -1])
            for row in kept:
                row.new.clear()
            _choose(live, logits, temperature)
            live = [row for row in live if row.advance()]


def without_dropout(model: nn.Module) -> None:
    """Switch every dropout of a network off, also for when it is in training mode."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout", "attn_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    model.eval()


def cut(ids: Sequence[int], stops: frozenset[int]) -> tuple[Ids, bool]:
    """An answer up to its first stop token, that included, and whether there is one."""
    for at, token in enumerate(ids):
        if token in stops:
            return tuple(ids[: at + 1]), True
    return tuple(ids), False


def _choose(rows: Sequence[_Row], logits: Tensor, temperature: float) -> None:
    """Draw a token for each row by the inverse of its distribution; `logits` (rows, vocabulary)."""
    for some, allowed in _kinds([row.choice for row in rows], logits.device):
        mine = [rows[n] for n in some.tolist()]
        scores = logits[some].float()
        if allowed is not None:
            scores = scores.gather(1, allowed.clamp(min=0)).masked_fill(allowed < 0, -torch.inf)
        logprobs = torch.log_softmax(scores / temperature, 1)
        if not torch.isfinite(logprobs.amax(1)).all():
            raise TrainingError("the policy gave logits that are not finite while it drew answers")
        sums = logprobs.double().exp().cumsum(1)
        dice = torch.tensor([row.dice.random() for row in mine], dtype=torch.float64)
        level = dice.to(sums.device)[:, None] * sums[:, -1:]
        at = (sums <= level).sum(1, keepdim=True).clamp(max=sums.shape[1] - 1)
        tokens = at if allowed is None else allowed.gather(1, at)
        pairs = zip(tokens[:, 0].tolist(), logprobs.gather(1, at)[:, 0].tolist(), strict=True)
        for row, (token, logprob) in zip(mine, pairs, strict=True):
            row.add(token, logprob, action=True)


def _kinds(
    choices: Sequence[Ids | None], device: torch.device
) -> list[tuple[Tensor, Tensor | None]]:
    """Those chosen from the whole vocabulary, and those from a set with the sets, padded by -1."""
    free = [n for n, choice in enumerate(choices) if choice is None]
    bound = [(n, choice) for n, choice in enumerate(choices) if choice is not None]
    found: list[tuple[Tensor, Tensor | None]] = []
    if free:
        found.append((torch.tensor(free, device=device), None))
    if bound:
        most = max(len(choice) for _, choice in bound)
        sets = [(*choice, *[-1] * (most - len(choice))) for _, choice in bound]
        index = torch.tensor([n for n, _ in bound], device=device)
        found.append((index, torch.tensor(sets, device=device)))
    return found


@torch.no_grad()
def _same_logits(model: Any) -> None:
    """The output layer on the trunk has to be the model's logits."""
    ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    whole = model(input_ids=ids, use_cache=False).logits
    ours = model.get_output_embeddings()(
        model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    )
    if not torch.allclose(whole.float(), ours.float(), atol=1e-4, rtol=1e-3):
        raise TrainingError(
            f"{type(model).__name__} changes its logits after the output layer (a cap or a scale), "
            "which this actor does not; choose another model"
        )
