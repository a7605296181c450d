"""/v1/embeddings: the vectors that documents are found by."""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from assistant.server.base import EMBED, server_of, worked
from assistant.server.errors import ApiError
from assistant.server.principal import Needs, Principal
from assistant.server.reading import CHARACTERS, QUESTION

router = APIRouter()
#: Texts of one request at most.
TEXTS = 256
_Tokens = Annotated[list[int], Field(max_length=8192)]


class EmbeddingRequest(BaseModel):
    """The body. `kind` is this server's own: what is searched with, or what is found."""

    model_config = ConfigDict(strict=True, extra="ignore")

    model: str = Field(max_length=256)
    input: (
        str
        | Annotated[list[str], Field(max_length=TEXTS)]
        | _Tokens
        | Annotated[list[_Tokens], Field(max_length=TEXTS)]
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1, le=65_536)
    kind: Literal["query", "passage"] | None = None


@router.post("/v1/embeddings", response_class=JSONResponse)
async def embed(
    body: EmbeddingRequest, request: Request, who: Annotated[Principal, Depends(Needs("embed"))]
) -> Response:
    """Turn texts into unit vectors."""
    server = server_of(request)
    if server.model(body.model) != EMBED and body.model not in server.settings.server.models:
        raise ApiError(
            404, f"That model makes no embeddings; use {EMBED!r}.", "model_not_found", "model"
        )
    texts = _texts(body)
    embedder = server.assistant.parts.knowledge.embedder
    if body.dimensions not in (None, embedder.dim):
        raise ApiError(
            400, f"The vectors have {embedder.dim} dimensions.", "invalid_value", "dimensions"
        )
    count = server.assistant.parts.policy.count_tokens
    size = sum(map(len, texts)) // CHARACTERS + 1

    def work() -> bytes:
        vectors = embedder.embed(texts, body.kind or "passage").astype("<f4")
        tokens = sum(map(count, texts))
        return _whole(body, vectors, {"prompt_tokens": tokens, "total_tokens": tokens})

    made, ticket = await worked(request, who, size, work)
    return Response(made, headers=ticket.headers, media_type="application/json")


def _texts(body: EmbeddingRequest) -> list[str]:
    given = [body.input] if isinstance(body.input, str) else body.input
    texts = [text for text in given if isinstance(text, str)]
    if len(texts) != len(given):
        raise ApiError(
            400,
            "Tokens of another vocabulary cannot be read; send text "
            "(in LangChain: check_embedding_ctx_length=False).",
            "unsupported_value",
            "input",
        )
    if not texts or not all(text.strip() for text in texts):
        raise ApiError(400, "A text to embed must not be empty.", "invalid_value", "input")
    if max(map(len, texts)) > QUESTION:
        raise ApiError(
            400, f"A text has at most {QUESTION} characters.", "context_length_exceeded", "input"
        )
    return [text.encode(errors="replace").decode() for text in texts]


def _whole(body: EmbeddingRequest, vectors: np.ndarray[Any, Any], usage: dict[str, int]) -> bytes:
    """The answer's body, written in the worker and vector by vector.

    A hundred thousand numbers at once would stop everybody else's answers for a moment.
    """
    coded = body.encoding_format == "base64"
    data = ", ".join(_written(n, vector, coded) for n, vector in enumerate(vectors))
    head = json.dumps({"object": "list", "model": body.model, "usage": usage}, ensure_ascii=False)
    return f'{head[:-1]}, "data": [{data}]}}'.encode()


def _written(index: int, vector: np.ndarray[Any, Any], coded: bool) -> str:
    numbers = base64.b64encode(vector.tobytes()).decode() if coded else vector.tolist()
    return json.dumps({"object": "embedding", "index": index, "embedding": numbers})
