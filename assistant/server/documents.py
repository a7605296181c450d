"""/v1/documents: a tenant's files, in and out."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Request, UploadFile
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from assistant.server.base import LISTED, After, Light, Limit, missing, page_of, server_of
from assistant.server.errors import ApiError
from assistant.server.principal import NAME, Principal
from assistant.server.shelf import Kept
from retrieval.sources.base import storable

router = APIRouter()
Reader = Annotated[Principal, Depends(Light("documents"))]
Writer = Annotated[Principal, Depends(Light("ingest"))]
#: Fields of a form are words; these are the ones that programs write.
Said = Literal["true", "false", "True", "False", "1", "0"]
YES = ("true", "True", "1")


@router.post("/v1/documents", status_code=202)
async def put(
    file: UploadFile,
    request: Request,
    who: Writer,
    groups: Annotated[str, Form(max_length=2000)] = "",
    private: Annotated[Said, Form()] = "false",
) -> dict[str, Any]:
    """Take a file in, or the next version of one.

    `groups` may read it, or with `private` the caller alone; without either, all of the tenant.
    Ask for its id until the status is ready.
    """
    name = name_of(file.filename or "")
    readers = _readers(who, groups, private in YES)
    content = await file.read()
    server = server_of(request)
    return _shown(await run_in_threadpool(server.shelf.put, who, name, content, readers))


@router.get("/v1/documents")
def listed(
    request: Request,
    who: Reader,
    limit: Limit = LISTED,
    after: After = None,
) -> JSONResponse:
    """The documents that the caller may read, by name; `after` the one of this id."""
    shelf = server_of(request).shelf
    last = None
    if after is not None:
        last = shelf.get(who, after)
        if last is None:
            raise missing("document", "after")
    found = [_shown(kept) for kept in shelf.all(who, last, limit + 1)]
    return page_of(found, limit)


@router.get("/v1/documents/{document_id}")
def shown(document_id: str, request: Request, who: Reader) -> dict[str, Any]:
    """One document: how far it has come, and its versions."""
    found = server_of(request).shelf.get(who, document_id)
    if found is None:
        raise missing("document")
    return _shown(found)


@router.delete("/v1/documents/{document_id}")
def deleted(document_id: str, request: Request, who: Writer) -> dict[str, Any]:
    """Delete a document; no answer is made of it from now on."""
    if server_of(request).shelf.delete(who, document_id) is None:
        raise missing("document")
    return {"id": document_id, "object": "document.deleted", "deleted": True}


def name_of(given: str) -> str:
    """The name under which a file of this name is kept: the last part of it.

    Raises:
        ApiError: it is none.
    """
    name = storable(PurePath(given.replace("\\", "/")).name).strip()
    if not name or len(name) > 200 or not name.isprintable():
        raise ApiError(
            400, "Send the file with a name of 200 characters or less.", "invalid_value", "file"
        )
    return name


def _readers(who: Principal, groups: str, private: bool) -> list[str]:
    if private:
        return [f"{who.tenant}/{who.user}"]
    named = [name.strip() for name in groups.split(",") if name.strip()]
    for name in named:
        if not NAME.fullmatch(name):
            raise ApiError(
                400,
                "A group's name has letters, digits and . @ + - _ only.",
                "invalid_value",
                "groups",
            )
    return [f"{who.tenant}/{name}" for name in named] or [who.everybody]


def _shown(kept: Kept) -> dict[str, Any]:
    return {
        "id": kept.id,
        "object": "document",
        "name": kept.name,
        "status": kept.status,
        "error": kept.error or None,
        "bytes": kept.size,
        "readers": [reader.split("/", 1)[-1] for reader in kept.readers],
        "versions": [{"sha256": sha, "created": int(at)} for sha, at in kept.versions],
        "created": int(kept.created),
        "updated": int(kept.updated),
    }
