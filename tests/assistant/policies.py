"""Tiny checkpoints of real architectures, and prompts, for the tests of policies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from assistant.config import PolicySettings
from assistant.policy._chat import encode
from assistant.policy.base import Policy, Resources
from assistant.policy.local import build
from assistant.prompt import render
from assistant.schema import Delta, Message, Prompt, Sampling
from retrieval.embed.base import Embedder, Kind, Vectors
from retrieval.schema import Chunk, Passage

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = ["The quick brown fox answers questions. 中国的首都是北京。资料没有回答这个问题。"] * 8
PLACES = 256


class NoEmbedder:
    """An embedder for policies that need none; using it is an error."""

    id = "none"
    dim = 1

    def embed(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """Fail."""
        raise AssertionError("this policy embeds nothing")

    def reads(self, text: str) -> bool:
        """Read nothing."""
        return False


#: The mark of every prompt made here.
MARK = "bcdfghjk"


def resources() -> Resources:
    """Lend an embedder that must not be used."""
    embedder: Embedder = NoEmbedder()
    return Resources(embedder, lambda terms: [1.0] * len(terms))


def passage(text: str, number: int = 1) -> Passage:
    """Make a passage that says `text`."""
    chunk = Chunk(number, number, text, 0, len(text), (), 0)
    return Passage(chunk, f"{number}.md", "Doc", "en", "v", 0.0, 0.0, 1.0, ())


def ask(question: str = "What?", *texts: str, history: Sequence[Message] = ()) -> Prompt:
    """Render a question with passages."""
    found = [passage(text, n) for n, text in enumerate(texts, start=1)]
    return render(question, found, history, "en", mark=MARK)


def short(question: str = "?") -> Prompt:
    """Make a prompt of a few tokens."""
    return Prompt((Message("user", question),), question, (), "en")


def make_tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on a few sentences, so that many characters take several tokens."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(CORPUS, trainer)
    wrap: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = wrap(
        tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    made.chat_template = template
    return made


def make_random(folder: Path, architecture: str, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Save a random 2-layer model of a real architecture."""
    torch.manual_seed(7)
    size: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 2048,
        "initializer_range": 0.4,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model: Any
    if architecture == "llama":
        model = LlamaForCausalLM(LlamaConfig(num_key_value_heads=2, **size))
    elif architecture == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(num_key_value_heads=2, **size))
    else:
        del size["intermediate_size"]
        model = GPT2LMHeadModel(GPT2Config(**size))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_speaker(
    folder: Path, text: str, prompt: Prompt, tokenizer: PreTrainedTokenizerFast
) -> Path:
    """Save a GPT-2 that answers `prompt` with `text`: its next token depends on the place alone.

    Position embeddings are one-hot, all else is zero, and the head maps a place to its token.
    """
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    start = len(encode(tokenizer, prompt.messages)) - 1
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=PLACES,
        n_positions=PLACES,
        n_layer=1,
        n_head=1,
        n_inner=1,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.transformer.ln_f.weight.fill_(1)
        model.transformer.wpe.weight.copy_(torch.eye(PLACES))
        for place, token in enumerate(ids, start=start):
            model.lm_head.weight[token, place] = 1.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load(folder: Path | str, **settings: Any) -> Policy:
    """Build the local policy of a folder."""
    return build(PolicySettings(backend="local", model=str(folder), **settings), resources())


def run(policy: Policy, prompt: Prompt, **sampling: Any) -> list[Delta]:
    """Collect a whole answer."""
    return list(policy.stream(prompt, Sampling(**sampling)))


def said(deltas: Iterable[Delta]) -> str:
    """Join the text of an answer."""
    return "".join(d.text for d in deltas)
