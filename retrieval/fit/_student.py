"""The Chinese side of the encoder while it is trained.

The English encoder stays as it is. The student is the same network with rows of its own for
Chinese tokens and a low-rank change to every weight matrix of its layers (LoRA, Hu et al. 2021).
The change is added to the matrix before each step, so a step costs what the plain network costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor, nn
from torch.func import functional_call
from transformers import BertConfig, BertModel

from retrieval.embed import _weights


def plain(weights: dict[str, Tensor]) -> BertModel:
    """The network with these weights and without its pooler, in float32, not to be trained."""
    # on a processor the fused attention's backward pass in bfloat16 takes 46 ms where the plain
    # one takes 2.5 (48 texts of 32 tokens, one layer)
    config = BertConfig.from_pretrained(
        _weights.packaged(),
        attn_implementation="eager",
        vocab_size=len(weights[_weights.EMBEDDINGS]),
    )
    model = BertModel(config, add_pooling_layer=False)
    model.load_state_dict({k: v for k, v in weights.items() if "pooler" not in k}, strict=False)
    model.requires_grad_(False)
    model.train(False)
    return model


class LowRank(nn.Module):
    """A low-rank change to each of the matrices: `up @ down`, starting at zero."""

    def __init__(self, matrices: dict[str, Tensor], rank: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.matrices = matrices
        self.down = nn.ParameterDict()
        self.up = nn.ParameterDict()
        for name, matrix in matrices.items():
            out, into = matrix.shape
            start = torch.randn(rank, into, generator=generator) / into**0.5
            self.down[name.replace(".", "/")] = nn.Parameter(start)
            self.up[name.replace(".", "/")] = nn.Parameter(torch.zeros(out, rank))

    def merged(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The changed matrices, whole."""
        return {
            name: (matrix + self.up[key] @ self.down[key]).to(dtype)
            for name, matrix in self.matrices.items()
            for key in (name.replace(".", "/"),)
        }


class Student(nn.Module):
    """Sentence vectors of Chinese text; only the new rows and the low-rank change are trained."""

    def __init__(
        self,
        rows: NDArray[np.float32],
        rank: int,
        seed: int,
        device: str,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        weights = {k: torch.from_numpy(v) for k, v in _weights.english().items()}
        network = plain(weights)
        self.base = weights[_weights.EMBEDDINGS].to(device)
        matrices = {name: weights[name].to(device) for name in _weights.places()}
        self.change = LowRank(matrices, rank, seed)
        self.rows = nn.Parameter(torch.from_numpy(rows))
        self.dtype = dtype
        # in a list, so that it is not among the parameters: it never changes
        self._network = [nn.Module.to(network, device=device, dtype=dtype)]
        self.to(device)

    def forward(self, ids: Tensor, mask: Tensor, weights: dict[str, Tensor]) -> Tensor:
        """Unit vectors (n, width), float32.

        Args:
            ids: token ids (n, length).
            mask: 1 where a token is, (n, length).
            weights: `change.merged(dtype)`, once a step.
        """
        first = len(self.base)
        known = nn.functional.embedding(ids.clamp(max=first - 1), self.base)
        added = nn.functional.embedding((ids - first).clamp(min=0), self.rows)
        embedded = torch.where((ids >= first).unsqueeze(-1), added, known).to(self.dtype)
        found = functional_call(
            self._network[0],
            weights,
            kwargs={"inputs_embeds": embedded, "attention_mask": mask},
        ).last_hidden_state.float()
        weight = mask.unsqueeze(-1).float()
        return nn.functional.normalize((found * weight).sum(1) / weight.sum(1).clamp(min=1), dim=1)


class Scorer(nn.Module):
    """Logits of texts; only the low-rank change and the head are trained."""

    def __init__(
        self,
        extension: _weights.Extension,
        width: int,
        rank: int,
        seed: int,
        device: str,
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        weights = {k: torch.from_numpy(v) for k, v in _weights.chinese(extension).items()}
        network = plain(weights)
        matrices = {name: weights[name].to(device) for name in _weights.places()}
        self.change = LowRank(matrices, rank, seed)
        generator = torch.Generator().manual_seed(seed)
        self.head = nn.Parameter(torch.randn(_weights.DIM, width, generator=generator) * 0.02)
        self.dtype = dtype
        # in a list, so that it is not among the parameters: it never changes
        self._network = [nn.Module.to(network, device=device, dtype=dtype)]
        self.to(device)

    def forward(self, ids: Sequence[Sequence[int]], device: str, parts: int) -> Tensor:
        """Logits (n, width) of token ids, in their order."""
        weights = self.change.merged(self.dtype)

        def logits(tokens: Tensor, mask: Tensor) -> Tensor:
            hidden = functional_call(
                self._network[0], weights, kwargs={"input_ids": tokens, "attention_mask": mask}
            ).last_hidden_state
            return torch.matmul(hidden[:, 0].float(), self.head)

        return by_length(ids, device, parts, logits)


def vectors(student: Student, ids: Sequence[Sequence[int]], device: str, parts: int) -> Tensor:
    """Vectors of texts in their order, (n, width)."""
    weights = student.change.merged(student.dtype)
    return by_length(ids, device, parts, lambda tokens, mask: student(tokens, mask, weights))


def by_length(
    ids: Sequence[Sequence[int]],
    device: str,
    parts: int,
    forward: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """What `forward` makes of (ids, mask), a row a text, in their order.

    Like lengths go together in `parts` forwards, so that little of a batch is padding.
    """
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    size = -(-len(order) // parts)
    found = [
        forward(*batch([ids[i] for i in order[at : at + size]], device))
        for at in range(0, len(order), size)
    ]
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(found)[back.to(device)]


def precision(device: str) -> torch.dtype:
    """bfloat16 on an accelerator or with AMX tiles, else float32."""
    tiles = device != "cpu" or torch.cpu.get_capabilities().get("amx_bf16", False)
    return torch.bfloat16 if tiles else torch.float32


def batch(ids: Sequence[Sequence[int]], device: str) -> tuple[Tensor, Tensor]:
    """(ids, mask) padded to a multiple of 8 tokens, each (n, length)."""
    length = -(-max(map(len, ids)) // 8) * 8
    found = torch.zeros(len(ids), length, dtype=torch.long)
    mask = torch.zeros(len(ids), length, dtype=torch.long)
    for row, tokens in enumerate(ids):
        found[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    return found.to(device), mask.to(device)


def stored(change: LowRank) -> dict[str, NDArray[np.generic]]:
    """The factors of each matrix's change, packed, by the names the shipped files use."""
    found: dict[str, NDArray[np.generic]] = {}
    for key in change.down:
        up, down = (side[key].detach().cpu().float().numpy() for side in (change.up, change.down))
        found |= _weights.packed(key.replace("/", "."), up, down)
    return found


def write(
    found: dict[str, NDArray[np.generic]], path: Path, about: dict[str, str] | None = None
) -> None:
    """Write arrays beside the file and put them in its place at once."""
    part = path.with_suffix(".part")
    # the format knows rows only: an array that lies by columns would come back scrambled
    save_file({name: np.ascontiguousarray(array) for name, array in found.items()}, part, about)
    part.replace(path)
