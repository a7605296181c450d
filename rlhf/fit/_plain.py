"""Plain text that a run of PPO goes on learning (PPO-ptx, Ouyang et al. 2022), and is measured on.

The policy that quotes reads what its pretraining did, packed the same way. Any other model reads
documents of the same text/ by its own tokenizer, drawn by name, end to end. A step reads `WINDOWS`
windows, as many of each language; which ones follows from seed and step alone. What is held out of
pretraining measures how well plain text is still modelled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from assistant.policy._signs import LANGUAGES, sign
from retrieval.fit._glossary import share
from rlhf.errors import TrainingError
from rlhf.fit import _network, _pack
from rlhf.fit._text import texts
from rlhf.fit.pretrain import Plan
from rlhf.fit.tokenizer import load, revision

#: Windows of a step, tokens of each, windows that are read at once, windows that measure.
WINDOWS, CONTEXT, AT_ONCE, HELD = 8, 256, 4, 16
#: Tokens of a language that are made ready for a model with a tokenizer of its own.
MOST = 2_000_000
#: Seed of the files that pretraining packs.
PACKED = Plan().seed
Ids = NDArray[Any]
#: Sum of the cross-entropies of windows (rows, length + 1), and of how many targets it is.
Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Plain:
    """The loss that `rlhf.ppo` mixes in.

    Attributes:
        files: ids of each language.
        held: ids that nothing is trained on.
        loss: of the policy.
        seed: of the run.
        device: of the policy.
        context: tokens of a window.
    """

    files: Sequence[Ids]
    held: Sequence[Ids]
    loss: Loss
    seed: int
    device: str
    context: int = CONTEXT

    def __call__(self, step: int) -> Iterator[Tensor]:
        """Parts that add up to the mean loss a token of an optimiser step."""
        drawn = _pack.rows(self.files, self.context, WINDOWS, self.seed, step)
        for part in self._parts(drawn):
            yield self.loss(part) / (len(drawn) * self.context)

    @torch.no_grad()
    def measured(self) -> list[float]:
        """Mean loss a token, nats, of each held-out window; the same windows always."""
        drawn = _pack.rows(self.held, self.context, HELD, 0, 0)
        found = [float(self.loss(row[None])) / self.context for row in self._tensor(drawn)]
        return found

    def _parts(self, drawn: NDArray[np.int64]) -> Iterator[Tensor]:
        for at in range(0, len(drawn), AT_ONCE):
            yield self._tensor(drawn[at : at + AT_ONCE])

    def _tensor(self, drawn: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(drawn).to(self.device)


def quoting(data: Path, work: Path, model: Any, start: Path, seed: int) -> Plain:
    """For the policy that quotes, of the folder `start`: what pretraining packed, or packed now.

    Raises:
        TrainingError: a training file is missing or malformed.
    """
    made = load(start)
    for _ in _pack.pack(data, work, made, revision(start), PACKED):
        pass
    first = sign(made, "bos")

    def loss(ids: Tensor) -> Tensor:
        places = _pack.positions(ids[:, :-1].cpu().numpy(), first)
        where = torch.from_numpy(places).to(ids.device)
        return _network.loss(model, ids, where, torch.float32)

    files, held = ([_pack.mapped(work / f"{kind}{lang}.bin") for lang in LANGUAGES]
                   for kind in ("", "held-"))  # fmt: skip
    return Plain(files, held, loss, seed, str(model.device))


def writing(data: Path, model: Any, tokenizer: Any, context: int, seed: int) -> Plain:
    """For any other causal model, by its own tokenizer.

    Raises:
        TrainingError: there is no text in one of the languages, or a file is malformed.
    """
    kept: dict[str, list[list[int]]] = {lang: [] for lang in LANGUAGES}
    held: dict[str, list[list[int]]] = {lang: [] for lang in LANGUAGES}
    size = dict.fromkeys(LANGUAGES, 0)
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for document in texts(data / "text"):
        lang = document.lang
        if lang not in size or size[lang] >= MOST or share(f"ptx:{document.group}") >= 0.5:
            continue
        ids = tokenizer(document.text, add_special_tokens=False, verbose=False)["input_ids"]
        (held if document.held_out else kept)[lang].append([*ids, *end])
        size[lang] += len(ids)
    empty = [lang for lang in LANGUAGES if not kept[lang] or not held[lang]]
    if empty:
        raise TrainingError(f"too little text in {empty[0]} in {data / 'text'}; give more")

    def loss(ids: Tensor) -> Tensor:
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits.float()
        return nn.functional.cross_entropy(
            logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum"
        )

    files, checks = ([np.array([*chain(*part[lang])], dtype=np.int64) for lang in LANGUAGES]
                     for part in (kept, held))  # fmt: skip
    return Plain(files, checks, loss, seed, str(model.device), min(CONTEXT, context - 1))
