"""The policy's network: LlamaForCausalLM of transformers, small. Loads without code of ours."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from assistant.policy._signs import sign
from assistant.policy.quote import without_bar
from rlhf.fit.tokenizer import CONTEXT

#: Width, layers, heads, and width of the gated part of a layer.
WIDTH, LAYERS, HEADS, INNER = 320, 5, 5, 640
#: Tokens whose logits are held at once.
CHUNK = 512


def configuration(
    made: Tokenizer,
    *,
    width: int = WIDTH,
    layers: int = LAYERS,
    heads: int = HEADS,
    inner: int = INNER,
    context: int = CONTEXT,
) -> LlamaConfig:
    """Rotary positions, RMSNorm, SwiGLU (Touvron et al. 2023), tied embeddings."""
    return LlamaConfig(
        vocab_size=made.get_vocab_size(),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=sign(made, "bos"),
        eos_token_id=[sign(made, "eos"), sign(made, "end")],
        pad_token_id=sign(made, "pad"),
    )


def network(config: LlamaConfig, seed: int, device: str) -> LlamaForCausalLM:
    """A new network in float32; what goes into the residual stream starts smaller (GPT-2, §2.3)."""
    torch.manual_seed(seed)
    chosen = copy.deepcopy(config)
    chosen._attn_implementation = "sdpa"
    made = LlamaForCausalLM(chosen)
    with torch.no_grad():
        for name, matrix in made.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                matrix.mul_((2 * config.num_hidden_layers) ** -0.5)
    nn.Module.to(made, torch.device(device))
    return made


def parts(
    model: nn.Module, rate: float, decay: float
) -> Sequence[tuple[Sequence[nn.Parameter], float, float]]:
    """(parameters, rate, weight decay): matrices decay, gains and embeddings do not."""
    named = dict(model.named_parameters())
    matrices = {k for k, v in named.items() if v.ndim > 1 and "embed" not in k}
    rest = [v for k, v in named.items() if k not in matrices]
    return [([named[k] for k in named if k in matrices], rate, decay), (rest, rate, 0.0)]


def loss(model: LlamaForCausalLM, ids: Tensor, places: Tensor, dtype: torch.dtype) -> Tensor:
    """Sum of the cross-entropies of each next token, for training.

    Args:
        model: the network.
        ids: (rows, length + 1).
        places: of the first `length` tokens in their documents; a token attends to its own
            document only.
        dtype: of the matrix products; weights and the loss stay in float32.
    """
    with torch.autocast(ids.device.type, dtype, enabled=dtype != torch.float32):
        hidden = model.model(input_ids=ids[:, :-1], position_ids=places, use_cache=False)
    flat = hidden.last_hidden_state.flatten(0, 1)
    return _total(flat, model.lm_head.weight, ids[:, 1:].flatten(), dtype)


def losses(model: LlamaForCausalLM, ids: Tensor, places: Tensor, dtype: torch.dtype) -> Tensor:
    """Cross-entropy of each next token, (rows, length) float32, for measuring; as `loss`."""
    found = logits(model, ids[:, :-1], places, dtype).float().flatten(0, 1)
    each = nn.functional.cross_entropy(found, ids[:, 1:].flatten(), reduction="none")
    return each.view(ids.shape[0], -1)


class _Total(torch.autograd.Function):
    """Cross-entropy summed, with its gradient made at once and in chunks.

    The whole logits of a step would be written and read eight times over; a chunk's stay near.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype
    ) -> Tensor:
        matrix, states = weight.to(dtype), hidden.to(dtype)
        to_hidden = torch.empty_like(hidden)
        to_weight = torch.zeros_like(weight)
        total = torch.zeros((), device=hidden.device)
        for at in range(0, len(states), CHUNK):
            part, target = states[at : at + CHUNK], targets[at : at + CHUNK, None]
            scores = (part @ matrix.T).float()
            scores -= torch.logsumexp(scores, dim=1, keepdim=True)
            total -= scores.gather(1, target).sum()
            chances = scores.exp_()
            chances.scatter_add_(1, target, torch.full_like(target, -1, dtype=chances.dtype))
            change = chances.to(dtype)
            to_hidden[at : at + CHUNK] = change @ matrix
            to_weight += change.T @ part
        ctx.save_for_backward(to_hidden, to_weight)
        return total

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor, None, None]:
        to_hidden, to_weight = ctx.saved_tensors
        return to_hidden * given, to_weight * given, None, None


def _total(hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
    found: Tensor = _Total.apply(hidden, weight, targets, dtype)  # type: ignore[no-untyped-call]
    return found


def logits(model: nn.Module, ids: Tensor, places: Tensor, dtype: torch.dtype) -> Tensor:
    """(rows, length, vocabulary)."""
    with torch.autocast(ids.device.type, dtype, enabled=dtype != torch.float32):
        found: Tensor = model(input_ids=ids, position_ids=places, use_cache=False).logits
    return found


def export(model: LlamaForCausalLM, folder: Path) -> None:
    """Write config.json, generation_config.json and model.safetensors in float16."""
    half = copy.deepcopy(model)
    nn.Module.to(half, device=torch.device("cpu"), dtype=torch.float16)
    half.generation_config.do_sample = False
    with without_bar():
        half.save_pretrained(folder)
