"""An embedder that remembers: what is asked for again is not computed again.

Sentences of a passage that many people ask about are embedded for every answer, and do not depend
on the question. The texts themselves are not kept, only hashes of them, so that nothing of a
deleted document stays. Vectors equal the embedder's but for the last digits, as texts are read in
other company.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from retrieval.embed.base import Embedder, Kind, Vectors

#: Vectors that are kept, those unasked for longest go first; 1.5 KiB each at 384 numbers.
MOST = 8192


class Remembered:
    """Wraps an embedder; thread-safe where it is.

    Args:
        embedder: computes what is new.
        most: vectors that are kept.
    """

    def __init__(self, embedder: Embedder, most: int = MOST) -> None:
        self._embedder, self._most = embedder, most
        self._known: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()
        self.id, self.dim = embedder.id, embedder.dim

    def reads(self, text: str) -> bool:
        """As the embedder does."""
        return self._embedder.reads(text)

    def embed(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """As the embedder does."""
        keys = [blake2b(f"{kind} {text}".encode(errors="surrogatepass")).digest() for text in texts]
        with self._lock:
            known = {key: self._known[key] for key in keys if key in self._known}
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if new:
            made = self._embedder.embed([*new.values()], kind)
            known |= {key: row.copy() for key, row in zip(new, made, strict=True)}
        with self._lock:
            self._known |= known
            for key in known:
                self._known.move_to_end(key)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
        return np.array([known[key] for key in keys], dtype=np.float32).reshape(-1, self.dim)
