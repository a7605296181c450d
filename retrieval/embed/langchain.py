"""Any LangChain `Embeddings` as an embedder.

From settings, `retrieval.embed.model` is "provider:model" as `langchain.embeddings.init_embeddings`
takes it ("ollama:bge-m3"); from Python, any object: `LangChainEmbedder(embeddings, "my-model")`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from langchain.embeddings import init_embeddings
from langchain_core.embeddings import Embeddings

from retrieval.config import EmbedSettings
from retrieval.embed.base import Kind, Vectors
from retrieval.errors import BackendMissing, EndpointError, ModelNotFound
from retrieval.text import language


class LangChainEmbedder:
    """Vectors of a LangChain model, made unit length.

    Args:
        embeddings: the model.
        name: its identity: another model, or another version, needs another name.
        dim: length of a vector; 0 embeds one text to learn it.
        chinese: whether it reads Chinese.
        batch_size: texts per call.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        name: str,
        dim: int = 0,
        chinese: bool = True,
        batch_size: int = 32,
    ) -> None:
        self.embeddings = embeddings
        self._chinese = chinese
        self._batch = batch_size
        self.dim = dim or len(embeddings.embed_query("dimension"))
        self.id = f"langchain:{name}"

    def embed(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """Return (len(texts), dim) float32 of unit length.

        Raises:
            EndpointError: the model gave vectors of another shape, or without content.
        """
        rows: list[list[float]] = []
        if kind == "query":
            rows = [self.embeddings.embed_query(text) for text in texts]
        else:
            for first in range(0, len(texts), self._batch):
                rows += self.embeddings.embed_documents(list(texts[first : first + self._batch]))
        if len(rows) != len(texts) or any(len(row) != self.dim for row in rows):
            lengths = sorted({len(row) for row in rows})
            raise EndpointError(
                f"{self.id} gave {len(rows)} vectors of lengths {lengths} for {len(texts)} texts, "
                f"expected {self.dim} numbers each; check the model"
            )
        vectors = np.array(rows, dtype=np.float32).reshape(len(texts), self.dim)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(vectors).all() or not norms.all():
            raise EndpointError(f"{self.id} gave vectors without content; check the model")
        unit: Vectors = vectors / norms
        return unit

    def reads(self, text: str) -> bool:
        """Everything, unless it was said to read no Chinese."""
        return self._chinese or language(text) != "zh"


def build(options: EmbedSettings) -> LangChainEmbedder:
    """Make the model "provider:model".

    Raises:
        BackendMissing: the provider's package is not installed.
        ModelNotFound: LangChain does not know the provider, or the model does not start.
    """
    try:
        embeddings = init_embeddings(options.model)
    except ImportError as error:
        raise BackendMissing(
            f"retrieval.embed.model={options.model!r}: {error}; install the provider's package"
        ) from error
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelNotFound(
            f"retrieval.embed.model={options.model!r} cannot be made by LangChain ({reason}); "
            "write provider:model, such as ollama:bge-m3, and set what the provider needs"
        ) from error
    assert isinstance(embeddings, Embeddings)
    chinese = options.languages != "en"
    return LangChainEmbedder(
        embeddings, options.model, options.dimensions, chinese, options.batch_size
    )
