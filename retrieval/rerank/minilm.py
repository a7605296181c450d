"""Our cross-encoder: the embedded encoder's network, changed to read question and text as one.

The extended network (English and Chinese token rows) with a further low-rank change and a linear
score on its first token, from models/rerank. Scores are probabilities of relevance: a logistic fit
on held-out labelled pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from retrieval.config import RerankSettings
from retrieval.embed import _weights
from retrieval.embed._runtime import Network, network, rows
from retrieval.errors import ModelNotFound, ModelUntrusted
from retrieval.rerank.base import Scores

WEIGHTS = _weights.EXTENSION.parent / "rerank" / "rerank.safetensors"
#: Tokens of the question, and of question and text together, that are read.
QUESTION_TOKENS, MAX_TOKENS = 64, 320
#: Beyond this a probability in float32 would be 0 or 1.
EDGE = 13.0


class MiniLMReranker:
    """Probabilities that a text answers a question."""

    calibrated = True

    def __init__(
        self, runner: Network, tokenizer: Tokenizer, line: tuple[float, float], name: str, size: int
    ) -> None:
        """Wrap a loaded network.

        Args:
            runner: gives a logit for each text.
            tokenizer: reads both languages.
            line: slope and offset of the logistic fit.
            name: name and revision of the weights.
            size: texts per forward pass.
        """
        self.id = name
        self._runner, self._tokenizer, self._line, self._size = runner, tokenizer, line, size

    def rank(self, query: str, texts: Sequence[str]) -> Scores:
        """Return (len(texts),) float32 in (0, 1); a text is cut where 320 tokens are full."""
        if not texts:
            return np.zeros(0, dtype=np.float32)
        pairs = joined(self._tokenizer, query, texts, MAX_TOKENS)
        logits = rows(self._runner, pairs, self._size, 1)[:, 0].astype(np.float64)
        slope, offset = self._line
        value = np.clip(slope * logits + offset, -EDGE, EDGE)
        return np.asarray(1 / (1 + np.exp(-value)), dtype=np.float32)


def build(options: RerankSettings) -> MiniLMReranker:
    """Load the shipped weights.

    Raises:
        ModelNotFound: there are none in this installation.
        ModelUntrusted: they were made for another encoder than the one in models/encoder.
    """
    return load(WEIGHTS, _weights.extension(), options)


def load(
    path: Path, extension: _weights.Extension | None, options: RerankSettings
) -> MiniLMReranker:
    """Load weights made for `extension`; see `build`."""
    if extension is None or not path.exists():
        raise ModelNotFound(
            f"no reranker at {path}; take models/ from the repository, or set "
            "retrieval.rerank.backend to none"
        )
    with safe_open(path, "numpy") as file:
        made_for = (file.metadata() or {}).get("encoder", "")
    if made_for != extension.revision:
        raise ModelUntrusted(
            f"{path} was made for encoder {made_for!r}, models/encoder is {extension.revision!r}; "
            "take both from one version, or run `train rerank`"
        )
    found = load_file(path)
    head = found.pop("head").astype(np.float32)
    slope, offset = (float(value) for value in found.pop("line"))
    weights = _weights.changed(_weights.chinese(extension), _weights.merge(found))
    runner = network(
        weights, head, runtime=options.runtime, device=options.device, dtype=options.dtype
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    tokenizer = _weights.tokenizer(extension.spellings)
    return MiniLMReranker(
        runner, tokenizer, (slope, offset), f"minilm-rerank@{digest}", options.batch_size
    )


def joined(tokenizer: Tokenizer, query: str, texts: Sequence[str], limit: int) -> list[list[int]]:
    """Token ids of question and text as one, each at most `limit` long."""
    plain = [t.encode("utf-8", "replace").decode("utf-8") for t in (query, *texts)]
    found = [list(encoded.ids) for encoded in tokenizer.encode_batch(plain)]
    end = found[0][-1]
    question = [*found[0][:-1][:QUESTION_TOKENS], end]
    return [[*question, *ids[1:-1][: limit - len(question) - 1], end] for ids in found[1:]]
