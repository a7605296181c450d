"""A double that ships: hashed term counts as vectors. No weights, deterministic, any language."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from retrieval.config import EmbedSettings
from retrieval.embed.base import Kind, Vectors
from retrieval.text import is_stop, terms

DIM = 256


class Hashing:
    """Feature hashing of search terms (Weinberger et al. 2009), square-root counts."""

    id = "hashing-256"
    dim = DIM

    def embed(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """Return (len(texts), 256) float32 of unit length; a text without terms points at 0."""
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for term in terms(text):
                if not is_stop(term):
                    digest = hashlib.blake2b(term.encode(), digest_size=8).digest()
                    value = int.from_bytes(digest, "little")
                    row[value % self.dim] += 1.0 if value >> 63 else -1.0
            norm = float(np.linalg.norm(row))
            if norm > 0:
                row /= norm
            else:
                row[0] = 1.0
        return vectors

    def reads(self, text: str) -> bool:
        """Every script."""
        return True


def build(options: EmbedSettings) -> Hashing:
    """Nothing to set."""
    return Hashing()
