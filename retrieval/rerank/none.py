"""No reranker: the fused order stays."""

from __future__ import annotations

from retrieval.config import RerankSettings


def build(options: RerankSettings) -> None:
    """Nothing to rank with."""
    return None
