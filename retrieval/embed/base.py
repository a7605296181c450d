"""The seam behind which text becomes vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Kind = Literal["query", "passage"]
Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """Turns text into unit vectors."""

    @property
    def id(self) -> str:
        """Name and revision: two embedders with the same id give the same vectors."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    def embed(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """Return an array (len(texts), dim), float32, each row of unit length."""

    def reads(self, text: str) -> bool:
        """Whether the vocabulary covers this text; where not, its vector says nothing."""


def embedded_text(title: str, headings: Sequence[str], body: str) -> str:
    """What an encoder reads of a chunk: where it stands, then what it says."""
    path = " › ".join(part for part in (title, *headings) if part)
    return f"{path}\n{body}" if path else body
