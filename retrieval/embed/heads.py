"""Linear heads on the embedded encoder's network, changed for them: texts in, logits out.

A file holds a low-rank change to every matrix of the extended network (English and Chinese token
rows) and a head (384, n). Whoever has labels of texts may have such a file trained; what the
columns mean is the file's owner's business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from retrieval.embed import _weights
from retrieval.embed._runtime import Network, network, rows
from retrieval.embed._weights import Array
from retrieval.errors import ModelNotFound, ModelUntrusted

#: Tokens of a text that are read; longer texts are the caller's to cut.
MAX_TOKENS = 128
HEAD = "head"


class Heads:
    """Logits of texts. Safe for several threads."""

    def __init__(
        self, runner: Network, tokenizer: Tokenizer, width: int, name: str, size: int
    ) -> None:
        """Wrap a loaded network that gives `width` logits for a text."""
        self.id = name
        self.width = width
        self._runner, self._tokenizer, self._size = runner, tokenizer, size
        self._tokenizer.enable_truncation(MAX_TOKENS)

    def __call__(self, texts: Sequence[str]) -> Array:
        """Return (len(texts), width) float32."""
        plain = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
        ids = [encoded.ids for encoded in self._tokenizer.encode_batch(plain)]
        return rows(self._runner, ids, self._size, self.width)


def load(
    path: Path,
    *,
    runtime: str = "auto",
    device: str = "cpu",
    dtype: str = "auto",
    size: int = 32,
    head: Array | None = None,
) -> Heads:
    """Load a file of heads.

    Args:
        path: a safetensors file; its metadata name the encoder it was made for.
        runtime: torch, openvino or auto.
        device: a torch device.
        dtype: auto, float32 or bfloat16.
        size: texts per forward pass.
        head: (384, n) in place of the file's own; the identity gives the vectors.

    Raises:
        ModelNotFound: there is no such file, or no Chinese extension.
        ModelUntrusted: it was made for another encoder than the one in models/encoder.
    """
    extension = _weights.extension()
    if extension is None or not path.exists():
        raise ModelNotFound(f"no heads at {path}; take models/ from the repository")
    with safe_open(path, "numpy") as file:
        made_for = (file.metadata() or {}).get("encoder", "")
    if made_for != extension.revision:
        raise ModelUntrusted(
            f"{path} was made for encoder {made_for!r}, models/encoder is {extension.revision!r}; "
            "take both from one version, or train it again"
        )
    found = load_file(path)
    own = found.pop(HEAD).astype(np.float32)
    head = own if head is None else head
    weights = _weights.changed(_weights.chinese(extension), _weights.merge(found))
    runner = network(weights, head, runtime=runtime, device=device, dtype=dtype)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    tokenizer = _weights.tokenizer(extension.spellings)
    return Heads(runner, tokenizer, head.shape[1], f"minilm-heads@{digest}", size)
