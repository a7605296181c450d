"""/v1/models: the names under which this server answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from assistant.server.base import MODELS, Server, server_of
from assistant.server.principal import Principal, asks

router = APIRouter()


class Model(BaseModel):
    """One model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "plumbline"


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/v1/models")
def models(request: Request, _who: Annotated[Principal, Depends(asks)]) -> ModelList:
    """List the models."""
    server = server_of(request)
    names = (*MODELS, *server.settings.server.models)
    return ModelList(data=[_model(server, name) for name in dict.fromkeys(names)])


@router.get("/v1/models/{name:path}")
def model(name: str, request: Request, _who: Annotated[Principal, Depends(asks)]) -> Model:
    """Describe one model; its name may hold slashes."""
    server = server_of(request)
    return _model(server, server.model(name))


def _model(server: Server, name: str) -> Model:
    about: dict[str, Any] = {"id": name, "created": server.started}
    return Model(**about)
