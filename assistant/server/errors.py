"""What a request can go wrong with, in the form that clients of OpenAI's API read.

Every error body is `{"error": {"message", "type", "param", "code"}}`. A message says what, and what
to do; it never holds a path, a statement or a value's inner form.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

#: Of a place in a body, the kind that a value was tried as.
_BRANCH = re.compile(r"(constrained-)?(str|int)|list\[.*\]")
#: Type and code of an error where its raiser names none.
KINDS = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "insufficient_permissions"),
    404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    408: ("invalid_request_error", "request_timeout"),
    409: ("invalid_request_error", "conflict"),
    411: ("invalid_request_error", "length_required"),
    413: ("invalid_request_error", "request_too_large"),
    415: ("invalid_request_error", "unsupported_media_type"),
    421: ("invalid_request_error", "misdirected_request"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    500: ("server_error", "server_error"),
    503: ("service_unavailable_error", "server_is_overloaded"),
    504: ("server_error", "timeout"),
}


class ErrorDetail(BaseModel):
    """What stands in an error body."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every error."""

    error: ErrorDetail


class ApiError(Exception):
    """An answer that is an error.

    Args:
        status: the HTTP status.
        message: what went wrong, and what to do.
        code: for programs; that of the status where None.
        param: the field that is at fault.
        wait: seconds after which the same request may pass; sent as Retry-After, rounded up.
        again: whether a client should try again by itself; None leaves it to the client.
        more: further headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        wait: float | None = None,
        again: bool | None = None,
        more: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        kind, usual = KINDS.get(status, ("server_error", "server_error"))
        self.status = status
        self.kind = kind
        self.code = code or usual
        self.param = param
        self.wait = wait
        self.again = again
        self.more = more or {}

    def body(self) -> dict[str, Any]:
        """The error body."""
        return {
            "error": {
                "message": str(self),
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }

    def headers(self) -> dict[str, str]:
        """Headers that belong to the error."""
        made = {**self.more}
        if self.wait is not None:
            made["retry-after"] = str(max(1, math.ceil(self.wait)))
        if self.again is not None:
            made["x-should-retry"] = "true" if self.again else "false"
        if self.status == 401:
            made["www-authenticate"] = "Bearer"
        return made

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.body(), self.status, self.headers())


def install(app: FastAPI) -> None:
    """Give every error of the framework the one form."""

    async def ours(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        return error.response()

    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        own = (error.headers or {}).get("Allow")
        allow = own and _allowed(app, request.url.path, own)
        answer = ApiError(error.status_code, _said(error)).response()
        if allow:
            answer.headers["allow"] = allow
        return answer

    async def invalid(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return misread(_plainest(error.errors())).response()

    app.add_exception_handler(ApiError, ours)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, invalid)


def misread(item: Mapping[str, Any]) -> ApiError:
    """A field that is not as it must be, without its value."""
    if item["type"] == "json_invalid":
        return ApiError(400, "The body is not valid JSON; send a JSON object.", "invalid_json")
    path = [part for part in item["loc"] if part not in ("body", "query", "path", "header")]
    name = ".".join(str(p) for p in path[:6] if not _BRANCH.fullmatch(str(p))) or None
    if name is None:
        said = "Send the body as a JSON object, with the header Content-Type: application/json."
        return ApiError(400, said, "invalid_value")
    if "UploadFile" in str(item["msg"]):
        return ApiError(400, f"{name}: Send a file, with its name.", "invalid_value", name)
    missing = item["type"] == "missing"
    code = "missing_required_parameter" if missing else "invalid_value"
    said = str(item["msg"])[:200].removeprefix("Value error, ")
    message = f"{name}: {said}."
    return ApiError(400, message, code, name)


def _plainest(items: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Of what is wrong with the first field, what says most.

    A field that may be of several kinds is tried as each; that it is not of another is no news.
    """
    first = items[0]
    same = [item for item in items if item["loc"][:2] == first["loc"][:2]]
    return next((item for item in same if not item["type"].endswith("_type")), first)


def _allowed(app: FastAPI, path: str, own: str) -> str:
    """Every method of an address; a route by itself only knows its own."""
    methods = {name.strip() for name in own.split(",")}
    for described, operations in app.openapi()["paths"].items():
        if compile_path(described)[0].fullmatch(path):
            methods |= {name.upper() for name in operations}
    return ", ".join(sorted(methods))


def _said(error: HTTPException) -> str:
    if error.status_code == 404:
        return "There is nothing at this address; see /v1/models and the documentation."
    if error.status_code == 405:
        return "This address does not take that method."
    if error.status_code == 400:
        return "The body could not be read; send what the content type says."
    return HTTPStatus(error.status_code).phrase + "."


#: For the OpenAPI description of every route.
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": HTTPStatus(status).phrase}
    for status in (400, 401, 403, 404, 405, 408, 409, 411, 413, 415, 421, 429, 500, 503, 504)
}
