"""/v1/search: passages of the documents that the caller may read, without an answer."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from assistant.server.answer import document_of, place_of, title_of
from assistant.server.base import server_of, worked
from assistant.server.principal import Needs, Principal
from assistant.server.reading import CHARACTERS
from retrieval.schema import Scope

router = APIRouter()


class SearchRequest(BaseModel):
    """The body; `since` and `until` bound a document's date, seconds since the epoch."""

    model_config = ConfigDict(strict=True, extra="ignore")

    query: str = Field(min_length=1, max_length=4000)
    limit: int | None = Field(None, ge=1, le=50)
    since: float | None = None
    until: float | None = None


@router.post("/v1/search")
async def search(
    body: SearchRequest, request: Request, who: Annotated[Principal, Depends(Needs("search"))]
) -> JSONResponse:
    """Search; passages with planted instructions are counted, and not shown."""
    server = server_of(request)
    query = body.query.encode(errors="replace").decode()
    scope = Scope(who.readers, body.since, body.until)
    parts = server.assistant.parts

    def work() -> dict[str, Any]:
        found = parts.knowledge.search(query, body.limit or 10, scope=scope)
        verdicts = parts.guard.ahead([p.chunk.text for p in found])
        shown = [p for p, v in zip(found, verdicts, strict=True) if not v.stops]
        hide = parts.guard.unleaked
        data = [
            {
                "object": "passage",
                "document_id": document_of(p.source, p.chunk.document_id),
                "chunk_id": str(p.chunk.id),
                "title": title_of(hide(p.title), place_of(p.source)),
                "source": place_of(p.source),
                "headings": [hide(h) for h in p.chunk.headings],
                "text": hide(p.chunk.text),
                "start": p.chunk.start,
                "end": p.chunk.end,
                "version": p.version,
                "modified": p.modified,
                "score": p.score,
            }
            for p in shown
        ]
        return {"object": "list", "data": data, "withheld": len(found) - len(shown)}

    made, ticket = await worked(request, who, len(query) // CHARACTERS + 1, work)
    return JSONResponse(made, headers=ticket.headers)
