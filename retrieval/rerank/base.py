"""The seam behind which candidates are read together with the question.

A first stage compares vectors and words that were computed apart; a reranker reads question and
text as one. A backend is one file of this folder with `build(options: RerankSettings)`, which
returns a `Reranker`, or None where there is nothing to rank with (`none`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval.embed.base import embedded_text

Scores = NDArray[np.float32]


class Reranker(Protocol):
    """Scores texts for one question."""

    @property
    def id(self) -> str:
        """Name and revision: two rerankers with the same id give the same scores."""

    @property
    def calibrated(self) -> bool:
        """Whether a score is a probability of relevance in (0, 1), fitted on labelled pairs.

        Where not, a score still lies in (0, 1) and rises with relevance, and no more.
        """

    def rank(self, query: str, texts: Sequence[str]) -> Scores:
        """Return (len(texts),) float32 in (0, 1), comparable across queries.

        Args:
            query: the question, standalone.
            texts: candidates as `presented` writes them; none gives an empty array. A text longer
                than the model reads is cut at its end.
        """


def presented(title: str, headings: Sequence[str], text: str) -> str:
    """The text a reranker is given: heading path, then the passage, as ingestion embeds it."""
    return embedded_text(title, headings, text)
