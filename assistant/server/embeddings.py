"""/v1/embeddings: the vectors that documents are found by."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
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


@router.post("/v1/embeddings")
async def embed(
    body: EmbeddingRequest, request: Request, who: Annotated[Principal, Depends(Needs("embed"))]
) -> JSONResponse:
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

    def work() -> tuple[list[Any], int]:
        vectors = embedder.embed(texts, body.kind or "passage").astype("<f4")
        coded = body.encoding_format == "base64"
        return [_written(v, coded) for v in vectors], sum(map(count, texts))

    (vectors, tokens), ticket = await worked(request, who, size, work)
    data = [
        {"object": "embedding", "index": n, "embedding": vector} for n, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    made = {"object": "list", "model": body.model, "data": data, "usage": usage}
    return JSONResponse(made, headers=ticket.headers)


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


def _written(vector: np.ndarray[Any, Any], coded: bool) -> Any:
    return base64.b64encode(vector.tobytes()).decode() if coded else vector.tolist()
