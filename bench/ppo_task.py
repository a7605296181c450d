"""The task of `bench.ppo`: a small policy, a reward model of the same shape, and prompts.

The policy is a GPT-2 with random weights (4 layers of 256 units, 8,192 tokens: 5.3 million). The
reward model is one too, with a taste planted into it: its first head looks at all tokens alike and
adds up how many of them lie on one side of a plane through the policy's embeddings; the rest of the
network adds nothing to the score but takes its time. So the reward is learnt quickly, and whoever
learns it pays KL. Scores have mean 0 and deviation 1 on random text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

#: The token that ends an answer, where answers end by themselves.
END = 1
#: How strongly the planted head writes, and how far the policy's last layer leans towards the end.
LOUD, LEAN = 3.0, 8.0


@dataclass(frozen=True)
class Shape:
    """Sizes of policy, reward model and critic, and of prompts and answers in tokens."""

    layers: int = 4
    width: int = 256
    vocabulary: int = 8192
    shortest: int = 8
    longest: int = 32
    answer: int = 48


def make(folder: Path, shape: Shape, natural: bool, seed: int = 11) -> dict[str, int]:
    """Write the folders `policy`, `reward` and `tokenizer`.

    Args:
        folder: of all three.
        shape: sizes.
        natural: whether answers end by themselves, after half of the longest answer in the mean;
            otherwise no token ends one.
        seed: of the weights.

    Returns:
        Ids of `pad` and `eos`; neither is in the vocabulary where nothing ends an answer.
    """
    torch.manual_seed(seed)
    policy: Any = GPT2LMHeadModel(_config(shape))
    plane = torch.randn(shape.width)
    good = torch.sign(policy.transformer.wte.weight.detach() @ plane)
    if natural:
        lean = torch.nn.functional.normalize(torch.randn(shape.width), dim=0)
        with torch.no_grad():
            policy.transformer.ln_f.bias.copy_(LEAN * lean)
            odds = math.log(2 * shape.vocabulary / shape.answer)
            policy.transformer.wte.weight[END] += odds / LEAN * lean
    policy.save_pretrained(folder / "policy")
    reward = planted(shape, good)
    reward.save_pretrained(folder / "reward")
    pad = shape.vocabulary
    eos = END if natural else pad + 1
    names = {f"t{n}": n for n in range(shape.vocabulary)} | {"<pad>": pad}
    names |= {} if natural else {"<eos>": eos}
    words = Tokenizer(models.WordLevel(names, unk_token="t0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    end = f"t{END}" if natural else "<eos>"
    fast: Any = PreTrainedTokenizerFast
    fast(
        tokenizer_object=words, pad_token="<pad>", eos_token=end, padding_side="left"
    ).save_pretrained(folder / "tokenizer")
    return {"pad": pad, "eos": eos}


def planted(shape: Shape, good: torch.Tensor) -> Any:
    """A reward model with the taste for tokens that are `good` (vocabulary,), 1 or -1."""
    reward: Any = GPT2ForSequenceClassification(_config(shape))
    trunk, first, width = reward.transformer, reward.transformer.h[0].attn, shape.width
    head = width // trunk.config.n_head
    with torch.no_grad():
        trunk.wte.weight[:, 0], trunk.wpe.weight[:, 0] = good, 0.0
        first.c_attn.weight[:, :head] = 0.0  # queries of the first head: it looks everywhere
        first.c_attn.weight[:, 2 * width : 2 * width + head] = 0.0
        first.c_attn.weight[0, 2 * width] = 1 / math.sqrt(width)
        for block in trunk.h:  # nothing else writes where the score is read
            for layer in (block.attn.c_proj, block.mlp.c_proj):
                layer.weight[:, 1] = 0.0
        first.c_proj.weight[0] = 0.0
        first.c_proj.weight[0, 1] = LOUD
        reward.score.weight.zero_()
        reward.score.weight[0, 1] = 1.0
        size = (shape.shortest + shape.longest) // 2 + shape.answer
        dice = torch.Generator().manual_seed(5)
        ids = torch.randint(shape.vocabulary, (256, size), generator=dice)
        scores = reward.score(trunk(ids).last_hidden_state)[:, -1, 0]
        trunk.ln_f.bias[1] = -scores.mean()
        reward.score.weight /= scores.std()
    return reward.eval()


def prompts(shape: Shape, count: int, seed: int) -> list[list[int]]:
    """Prompts of random tokens, the ending one not among them."""
    dice = np.random.default_rng((seed, 3))
    sizes = dice.integers(shape.shortest, shape.longest + 1, count)
    return [dice.integers(2, shape.vocabulary, size).tolist() for size in sizes]


def _config(shape: Shape) -> GPT2Config:
    options: dict[str, Any] = {"num_labels": 1}
    return GPT2Config(
        vocab_size=shape.vocabulary,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=max(1, shape.width // 64),
        n_positions=shape.longest + shape.answer + 8,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        summary_first_dropout=0.0,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        **options,
    )
