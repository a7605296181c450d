"""/livez and /readyz: for whoever starts, stops and chooses servers. They answer without a key.

Both say what was last seen, and look at nothing themselves, so that asking often costs nothing.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from assistant.server.base import server_of

router = APIRouter(include_in_schema=False)


@router.get("/livez")
async def live(request: Request) -> JSONResponse:
    """200 while answers can be made at all; else a restart helps."""
    stuck = server_of(request).operation.stuck()
    return _said("stuck" if stuck else "alive", [stuck] if stuck else [])


@router.get("/readyz")
async def ready(request: Request) -> JSONResponse:
    """200 while requests should be sent here; else 503 and why not."""
    reasons = server_of(request).operation.unready()
    return _said("unready" if reasons else "ready", reasons)


def _said(status: str, reasons: list[str]) -> JSONResponse:
    return JSONResponse({"status": status, "reasons": reasons}, 503 if reasons else 200)
