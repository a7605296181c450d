"""Tiny random checkpoints of the architectures that people name, written by the tests."""

from __future__ import annotations

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLMRobertaModel,
)

TEXTS = [
    "How do I change the port of the server? The port is set in the file server.toml.",
    "我们如何在文档里查找这个问题的答案？請說明檢索系統怎樣處理繁體中文。服务器的端口写在文件里。",
    "query: passage: Instruct: Given a web search query, retrieve relevant passages yes no",
]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
WORDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "yes", "no"]


def xlm_roberta(folder: Path, *, chinese: bool = True, labels: int = 0) -> Path:
    """Write an XLM-RoBERTa as bge-m3, e5 and bge-reranker-v2-m3 are; `labels` > 0: a classifier."""
    tokenizer = _unigram(TEXTS if chinese else TEXTS[:1])
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=130,
        type_vocab_size=1,
        pad_token_id=1,
        initializer_range=0.5,
    )
    config.num_labels = labels or 2
    kind = XLMRobertaForSequenceClassification if labels else XLMRobertaModel
    kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def qwen3(folder: Path, *, causal: bool = False, english: bool = False) -> Path:
    """Write a Qwen3 as Qwen3-Embedding and (causal) Qwen3-Reranker are."""
    tokenizer = _bytes(TEXTS[:1] if english else TEXTS)
    if not causal:  # the embedding models pool a token of their own, put at the end
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
        )
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=64,
        max_position_embeddings=1024,
        initializer_range=0.5,
    )
    kind = Qwen3ForCausalLM if causal else Qwen3Model
    kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def encoder(folder: Path, base: Path, pooling: str, prompts: dict[str, str] | None = None) -> Path:
    """Write a sentence-transformers model over a transformers one."""
    body = modules.Transformer(str(base), max_seq_length=128)
    parts = [body, modules.Pooling(32, pooling_mode=pooling), modules.Normalize()]
    model = SentenceTransformer(modules=parts, prompts=prompts or {}, device="cpu")
    model.save(str(folder))
    return folder


def _unigram(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(texts * 5, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token="<mask>",
        model_max_length=128,
    )


def _bytes(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=WORDS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts * 5, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        model_max_length=1024,
    )
