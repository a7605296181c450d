"""Embeddings of an OpenAI-compatible endpoint: vLLM, Ollama, TEI, llama.cpp, a hosted service.

Texts go to `retrieval.embed.url` and nowhere else: proxies and keys from the environment are
ignored, redirects are not followed. The key is in the Authorization header and in no message.
Requests that may pass later are repeated by the client (pauses doubled, Retry-After honoured).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from urllib.parse import urlsplit

import httpx2
import numpy as np
import openai

from retrieval.config import EmbedSettings
from retrieval.embed.base import Kind, Vectors
from retrieval.errors import EndpointError
from retrieval.text import language

REMEDY = {
    400: "check retrieval.embed.model, dimensions and batch_size against the endpoint",
    401: "check retrieval.embed.api_key (PLUMBLINE_RETRIEVAL__EMBED__API_KEY)",
    403: "check what retrieval.embed.api_key is allowed to use",
    404: "check retrieval.embed.model and retrieval.embed.url (it usually ends in /v1)",
    413: "lower retrieval.embed.batch_size or retrieval.chunk.max_tokens",
    429: "wait, lower retrieval.embed.batch_size, or raise retrieval.embed.retries",
}


class RemoteEmbedder:
    """A model behind an endpoint. Safe to use from several threads."""

    def __init__(self, options: EmbedSettings) -> None:
        address = urlsplit(options.url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise EndpointError(
                f"retrieval.embed.url={options.url!r} is no http(s) address; give the base URL of "
                "an OpenAI-compatible endpoint, such as http://127.0.0.1:8000/v1"
            )
        if not options.model:
            raise EndpointError("retrieval.embed.model is empty; name the endpoint's model")
        self._options = options
        self._place = f"{address.hostname}:{address.port or ''}".rstrip(":")
        key = options.api_key.get_secret_value()
        self._client = openai.OpenAI(
            api_key=key or "none",
            base_url=options.url,
            max_retries=options.retries,
            timeout=options.seconds,
            http_client=httpx2.Client(trust_env=False, follow_redirects=False),
        )
        self._prompts: dict[Kind, str] = {
            "query": "" if options.query_prompt == "auto" else options.query_prompt,
            "passage": "" if options.passage_prompt == "auto" else options.passage_prompt,
        }
        self.dim = options.dimensions or self._ask(["dimension"]).shape[1]
        made = hashlib.sha256(repr((self._prompts, self.dim)).encode()).hexdigest()[:8]
        self.id = f"{options.model}@{self._place}+{made}"

    def embed(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """Return (len(texts), dim) float32 of unit length.

        Raises:
            EndpointError: the endpoint refused, is unreachable, or answered other vectors.
        """
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        prompt, size = self._prompts[kind], self._options.batch_size
        for first in range(0, len(texts), size):
            plain = [t.encode("utf-8", "replace").decode() for t in texts[first : first + size]]
            # an empty input is an error to most endpoints
            found = self._ask([prompt + text if text.strip() else prompt + "." for text in plain])
            if found.shape != (len(plain), self.dim):
                raise self._wrong(
                    f"{found.shape[0]} vectors of {found.shape[1]} numbers for {len(plain)} texts, "
                    f"expected {self.dim} numbers each"
                )
            vectors[first : first + len(plain)] = found
        return vectors

    def reads(self, text: str) -> bool:
        """Everything, unless `retrieval.embed.languages` says English only."""
        return self._options.languages != "en" or language(text) != "zh"

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def _ask(self, texts: list[str]) -> Vectors:
        """One request: (len(texts), d) of unit length, in the order asked."""
        options = self._options
        try:
            reply = self._client.embeddings.create(
                model=options.model,
                input=texts,
                encoding_format="float",
                dimensions=options.dimensions or openai.omit,
            )
        except openai.APIStatusError as error:
            raise self._status(error.status_code) from error
        except openai.APITimeoutError as error:
            raise EndpointError(
                f"the embedding endpoint {self._place} did not answer in {options.seconds:g} s; "
                "raise retrieval.embed.seconds or lower retrieval.embed.batch_size",
                retryable=True,
            ) from error
        except openai.APIConnectionError as error:
            raise EndpointError(
                f"the embedding endpoint {self._place} cannot be reached; check that it runs and "
                "retrieval.embed.url",
                retryable=True,
            ) from error
        except (openai.OpenAIError, ValueError) as error:
            raise self._wrong(f"no embeddings ({type(error).__name__})") from error
        return self._vectors(reply)

    def _vectors(self, reply: openai.types.CreateEmbeddingResponse) -> Vectors:
        try:
            rows = sorted(reply.data, key=lambda row: row.index)
            vectors = np.array([row.embedding for row in rows], dtype=np.float32)
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        except (AttributeError, TypeError, ValueError) as error:
            raise self._wrong("something else than lists of equally many numbers") from error
        if not np.isfinite(vectors).all() or not lengths.all():
            raise self._wrong("vectors with nothing in them, or with numbers that are none")
        normal: Vectors = vectors / lengths
        return normal

    def _status(self, status: int) -> EndpointError:
        remedy = REMEDY.get(status, "look at the endpoint's own log")
        return EndpointError(
            f"the embedding endpoint {self._place} answered HTTP {status} for model "
            f"{self._options.model!r}; {remedy}",
            retryable=status in (408, 409, 429) or status >= 500,
        )

    def _wrong(self, what: str) -> EndpointError:
        return EndpointError(
            f"the embedding endpoint {self._place} answered {what}; check that "
            f"{self._options.model!r} is an embedding model, and retrieval.embed.dimensions"
        )


def build(options: EmbedSettings) -> RemoteEmbedder:
    """Connect; without `dimensions`, one text is embedded to learn the length of a vector."""
    return RemoteEmbedder(options)
