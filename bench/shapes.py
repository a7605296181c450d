"""Checkpoints with random weights: what a model costs, without the model.

The tokenizer is the embedded policy's, filled up with words that no text gives, so that every id
that random weights can choose has letters.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from assistant.policy.local import DTYPES

TOKENIZER = Path(__file__).resolve().parent.parent / "models" / "policy"
#: Tokens of a prompt and an answer.
CONTEXT = 4096

_QWEN3: dict[str, Any] = {
    "vocab_size": 151_936,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40_960,
    "rope_theta": 1_000_000.0,
    "tie_word_embeddings": True,
}
#: Name -> architecture and sizes; without a vocabulary it has the tokenizer's.
SHAPES: dict[str, tuple[type[PretrainedConfig], dict[str, Any]]] = {
    "tiny": (
        LlamaConfig,
        {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": CONTEXT,
            "tie_word_embeddings": True,
        },
    ),
    "embedded": (
        LlamaConfig,
        {
            "hidden_size": 320,
            "intermediate_size": 640,
            "num_hidden_layers": 5,
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "max_position_embeddings": CONTEXT,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3-0.6b": (
        Qwen3Config,
        {
            **_QWEN3,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
        },
    ),
    "qwen3-4b": (
        Qwen3Config,
        {
            **_QWEN3,
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
        },
    ),
}


def make(shape: str, folder: Path, device: str, dtype: str) -> Path:
    """Save a checkpoint of a shape with random weights and a tokenizer; returns its folder.

    Args:
        shape: a name of SHAPES.
        folder: where; made if it is not there.
        device: where the weights are drawn.
        dtype: a name of the policy's dtypes, in which they are stored.

    Raises:
        SystemExit: no such shape.
    """
    if shape not in SHAPES:
        raise SystemExit(f"no shape {shape!r}; there are: {', '.join(SHAPES)}")
    folder.mkdir(parents=True, exist_ok=True)
    architecture, sizes = SHAPES[shape]
    tokenizer = _tokenizer(folder, sizes.get("vocab_size", 0))
    config = architecture(
        **{
            "vocab_size": len(tokenizer),
            **sizes,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
    )
    torch.manual_seed(0)
    with torch.device(device):
        building: Any = AutoModelForCausalLM.from_config
        model = building(config, dtype=precision(dtype, device))
    model.save_pretrained(folder)
    return folder


def precision(dtype: str, device: str) -> torch.dtype:
    """The dtype of a name; "auto" is bfloat16 on a graphics card, else float32."""
    half = device.startswith("cuda")
    return DTYPES.get(dtype, torch.bfloat16 if half else torch.float32)


def _tokenizer(folder: Path, size: int) -> Any:
    """The embedded policy's tokenizer with at least `size` tokens, saved to `folder`."""
    loading: Any = PreTrainedTokenizerFast.from_pretrained
    known = loading(TOKENIZER)
    known.model_max_length = CONTEXT
    known.save_pretrained(folder)
    if size <= len(known):
        return known
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    for number in range(len(known), size):
        values["model"]["vocab"][f"w{number}"] = number
    path.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
    return loading(folder)
