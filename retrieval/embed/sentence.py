"""Any sentence-transformers model, by folder or hub name: bge-m3, multilingual-e5, Qwen3-Embedding.

Prompts, pooling and length come from the checkpoint; where it does not name its prompts they come
from the table below (the models' own cards). Text past `max_tokens` is not read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from transformers.utils import logging

from retrieval import hub
from retrieval.config import EmbedSettings
from retrieval.embed.base import Kind, Vectors
from retrieval.errors import BackendMissing, ModelNotFound
from retrieval.text import language

TASK = "Instruct: Given a web search query, retrieve relevant passages that answer the query"
#: Prompts (query, passage) of models whose checkpoints do not carry them, by name.
PROMPTS: tuple[tuple[str, str, str], ...] = (
    (
        "*e5-*-instruct*",
        "Instruct: Given a question, retrieve passages that answer it\nQuery: ",
        "",
    ),
    ("*e5-*", "query: ", "passage: "),
    ("*bge-*-en-v1.5*", "Represent this sentence for searching relevant passages: ", ""),
    ("*bge-*-zh-v1.5*", "为这个句子生成表示以用于检索相关文章：", ""),
    ("*qwen3-embedding*", f"{TASK}\nQuery:", ""),
)
#: Common characters, simplified and traditional, that a vocabulary for Chinese knows.
PROBE = "我们如何在文档里查找这个问题的答案？請說明檢索系統怎樣處理繁體中文。"


class SentenceEncoder:
    """Vectors of one loaded model. One thread embeds at a time per call; calls may overlap."""

    def __init__(self, model: SentenceTransformer, name: str, options: EmbedSettings) -> None:
        """Take a loaded model.

        Args:
            model: on its device.
            name: `name@revision`.
            options: prompts, length, languages and batch size.
        """
        self._model = model.eval()
        own = model.get_max_seq_length()
        length = min(own, options.max_tokens) if own else options.max_tokens
        model.max_seq_length = length
        self._prompts: dict[Kind, str] = {
            "query": _prompt(model, name, "query", options.query_prompt),
            "passage": _prompt(model, name, "passage", options.passage_prompt),
        }
        made = hashlib.sha256(repr((sorted(self._prompts.items()), length)).encode()).hexdigest()
        self.id = f"{name}+{made[:8]}"
        self._batch = options.batch_size
        self._chinese = options.languages == "all" or (
            options.languages == "auto" and _knows_chinese(model)
        )
        self.dim = self.embed(["dimension"], "passage").shape[1]

    def embed(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """Return (len(texts), dim) float32 of unit length."""
        if not texts:
            return np.zeros((0, self.dim), dtype=np.float32)
        # half a surrogate pair (JSON can carry one) is no text to the tokenizer, and some models
        # fail over no token at all
        plain = [(text.encode("utf-8", "replace").decode("utf-8")).strip() or "." for text in texts]
        found = self._model.encode(
            plain,
            prompt=self._prompts[kind],
            batch_size=self._batch,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        vectors = np.asarray(found, dtype=np.float32)
        # in float32 and here: not every checkpoint normalises, and bfloat16 is not unit length
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: Vectors = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
        return unit

    def reads(self, text: str) -> bool:
        """Everything where the vocabulary knows Chinese, else what is not Chinese."""
        return self._chinese or language(text) != "zh"


def build(options: EmbedSettings) -> SentenceEncoder:
    """Load `options.model`.

    Raises:
        ModelNotFound: no such folder or cached model, or it does not load.
        ModelUntrusted: pickled weights, or a checkpoint that brings code.
        BackendMissing: the device is not there.
    """
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # a bar in every command
    folder, name = hub.find(options.model, options.revision, options.download, "retrieval.embed")
    check_device(options.device, "retrieval.embed.device")
    try:
        model = SentenceTransformer(
            str(folder),
            device=options.device,
            local_files_only=True,
            model_kwargs={
                "dtype": precision(options.dtype, options.device),
                "use_safetensors": True,
            },
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelNotFound(
            f"{folder} could not be loaded as an encoder ({error}); fetch or save the model again"
        ) from error
    return SentenceEncoder(model, name, options)


def check_device(device: str, setting: str) -> None:
    """Say early that a device is not there.

    Raises:
        BackendMissing: torch does not know it, or the machine does not have it.
    """
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BackendMissing(f"{setting}={device} cannot be used ({reason}); set cpu") from error


def precision(name: str, device: str) -> torch.dtype:
    """The type asked for; "auto" is bfloat16 on a GPU and on a processor with AMX tiles."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    if torch.device(device).type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    else:
        fast = bool(torch.cpu.get_capabilities().get("amx_bf16", False))
    return torch.bfloat16 if fast else torch.float32


def _prompt(model: SentenceTransformer, name: str, kind: Kind, asked: str) -> str:
    """The prompt asked for, else the checkpoint's, else the table's, else none."""
    if asked != "auto":
        return asked
    own = model.prompts or {}
    names = ("query",) if kind == "query" else ("passage", "document")
    if any(own.values()):
        return next((own[n] or "" for n in names if n in own), "")
    known = Path(name.split("@")[0]).name.lower()
    for pattern, query, passage in PROMPTS:
        if fnmatch(known, pattern):
            return query if kind == "query" else passage
    return ""


def _knows_chinese(model: SentenceTransformer) -> bool:
    """Whether the tokenizer has the probe's characters: none unknown, not byte by byte."""
    tokenizer = model.tokenizer
    tokens = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
    return tokenizer.unk_token_id not in tokens and len(tokens) < 1.5 * len(PROBE)
