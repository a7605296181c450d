"""A random network that quotes, its tokenizer, and prompts, for the tests of quoting."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from assistant.config import PolicySettings
from assistant.policy._signs import SPELLINGS
from assistant.policy.base import Resources
from assistant.policy.extract import Fitted, fitted
from assistant.schema import Prompt
from retrieval.config import EmbedSettings
from retrieval.embed import hashing
from tests.assistant.policies import passage

TEXTS = (
    "Cats purr when they are content. Dogs bark at night. The pump is checked every 9 days.",
    "The night crew checks pump 7. Valve 3 was replaced in 1998 by the owner. Birds sing.",
    "猫在满足时会打呼噜。第三号水泵每九天检查一次。夜班人员负责记录。",
)


@functools.cache
def tokenizer() -> Tokenizer:
    """A byte-level BPE with all our signs, which no text becomes."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXTS * 4, trainer)
    learnt = json.loads(made.to_str())["model"]
    vocabulary = learnt["vocab"]
    vocabulary |= {s: len(vocabulary) + n for n, s in enumerate(SPELLINGS.values())}
    made.model = models.BPE(vocabulary, [(a, b) for a, b in learnt["merges"]])
    return made


def network(seed: int = 7) -> LlamaForCausalLM:
    """A random 2-layer Llama with decided opinions."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=tokenizer().get_vocab_size(),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    return LlamaForCausalLM(config)


def save(folder: Path, seed: int = 7) -> Path:
    """Save network and tokenizer as a model folder."""
    network(seed).save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def resources() -> Resources:
    """An embedder without a model, and all words alike."""
    return Resources(hashing.build(EmbedSettings()), lambda terms: [1.0] * len(terms))


def ranker() -> Fitted:
    """The shipped linear ranker."""
    return fitted(resources())


def prompt(question: str = "When was valve 3 replaced?", *texts: str) -> Prompt:
    """A question with passages."""
    found = tuple(passage(text, n) for n, text in enumerate(texts or TEXTS, start=1))
    return Prompt((), question, found, "en")


def options(folder: Path, **values: object) -> PolicySettings:
    """Settings of a quoting policy."""
    chosen: Mapping[str, object] = {"backend": "quote", "model": str(folder), **values}
    return PolicySettings.model_validate(chosen)
