"""/v1/citations: what stands around a quote, for the one to whom it was given."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from assistant.server.answer import citation_of
from assistant.server.base import Light, base_of, missing, server_of
from assistant.server.principal import Principal

router = APIRouter()
_FORM = re.compile(r"cit-([0-9a-f]{32})-(\d)-(\d{1,4})")


@router.get("/v1/citations/{citation_id}")
def citation(
    citation_id: str, request: Request, who: Annotated[Principal, Depends(Light("search"))]
) -> dict[str, Any]:
    """One citation of an answer of the caller's, with the text before and after its quote.

    `current` is false once the document was replaced, deleted, or closed to the caller; the quote
    then stands alone.
    """
    server = server_of(request)
    form = _FORM.fullmatch(citation_id)
    response = server.records.get(form[1], who.owner) if form else None
    if form is None or response is None or int(form[2]) >= len(response.citations):
        raise missing("citation")
    cited = response.citations[int(form[2])]
    found = next((c for c in cited if c.number == int(form[3])), None)
    if found is None:
        raise missing("citation")
    excerpt = server.assistant.excerpt(found, who.readers)
    return {
        "object": "citation",
        **citation_of(found, f"{form[1]}-{form[2]}", base_of(request)),
        "before": excerpt.before,
        "after": excerpt.after,
        "current": excerpt.current,
        "response_id": f"chatcmpl-{response.id}",
    }
