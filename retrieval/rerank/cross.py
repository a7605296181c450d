"""Any cross-encoder of sentence-transformers, by folder or hub name.

A classifier over pairs with one output (bge-reranker-v2-m3, ms-marco-MiniLM) or a causal model that
answers yes or no (Qwen3-Reranker). Scores are the logistic function of its logit: in (0, 1) and
rising with relevance, but not fitted to anything of ours, so not probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from sentence_transformers import CrossEncoder
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging

from retrieval import hub
from retrieval.config import RerankSettings
from retrieval.embed.sentence import check_device, precision
from retrieval.errors import ModelNotFound
from retrieval.rerank.base import Scores

#: How Qwen3-Reranker was trained to be asked (its model card), for checkpoints whose chat template
#: knows no query and document.
YES_NO = """<|im_start|>system
Judge whether the Document meets the requirements based on the Query and the Instruct provided. \
Note that the answer can only be "yes" or "no".<|im_end|>
<|im_start|>user
<Instruct>: Given a web search query, retrieve relevant passages that answer the query
<Query>: {{ messages | selectattr("role", "eq", "query") | map(attribute="content") | first }}
<Document>: {{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first \
}}<|im_end|>
<|im_start|>assistant
<think>

</think>


"""
#: Scores stay inside (0, 1) by this much, where float32 would round to the ends.
EDGE = 1e-6


class CrossReranker:
    """Scores of one loaded cross-encoder."""

    calibrated = False

    def __init__(self, model: CrossEncoder, name: str, batch_size: int) -> None:
        self.id = name
        self._model = model.eval()
        self._batch = batch_size

    def rank(self, query: str, texts: Sequence[str]) -> Scores:
        """Return (len(texts),) float32 in (0, 1)."""
        if not texts:
            return np.zeros(0, dtype=np.float32)
        plain = [text.encode("utf-8", "replace").decode("utf-8") for text in (query, *texts)]
        logits = self._model.predict(
            [(plain[0], text) for text in plain[1:]],
            batch_size=self._batch,
            show_progress_bar=False,
            activation_fn=torch.nn.Identity(),
            convert_to_numpy=True,
        )
        scores = 1 / (1 + np.exp(-np.asarray(logits, dtype=np.float64)))
        return np.clip(scores, EDGE, 1 - EDGE).astype(np.float32)


def build(options: RerankSettings) -> CrossReranker:
    """Load `options.model`.

    Raises:
        ModelNotFound: no such folder or cached model, it does not load, or has several outputs.
        ModelUntrusted: pickled weights, or a checkpoint that brings code.
        BackendMissing: the device is not there.
    """
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # a bar in every command
    folder, name = hub.find(options.model, options.revision, options.download, "retrieval.rerank")
    check_device(options.device, "retrieval.rerank.device")
    try:
        model = CrossEncoder(
            str(folder),
            device=options.device,
            local_files_only=True,
            processor_kwargs=_template(folder),
            model_kwargs={
                "dtype": precision(options.dtype, options.device),
                "use_safetensors": True,
            },
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelNotFound(
            f"{folder} could not be loaded as a cross-encoder ({error}); fetch or save it again"
        ) from error
    if model.num_labels != 1:
        raise ModelNotFound(
            f"{folder} gives {model.num_labels} scores a pair; choose a reranker that gives one"
        )
    own = model.max_seq_length
    model.max_seq_length = min(own, options.max_tokens) if own else options.max_tokens
    return CrossReranker(model, f"{name}+{model.max_seq_length}", options.batch_size)


def _template(folder: Path) -> dict[str, Any]:
    """The chat template to lay over a causal reranker that has none for pairs."""
    architectures = AutoConfig.from_pretrained(folder, local_files_only=True).architectures or [""]
    if not architectures[0].endswith("ForCausalLM"):
        return {}
    own = AutoTokenizer.from_pretrained(folder, local_files_only=True).chat_template or ""
    return {} if '"document"' in str(own) or "'document'" in str(own) else {"chat_template": YES_NO}
