"""What the routes share: the parts of one server, and how a request reaches them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import anyio
from fastapi import Query, Request
from fastapi.responses import JSONResponse

from assistant.config import Settings
from assistant.dialogue import Assistant
from assistant.server.admission import Admission, Ticket
from assistant.server.engine import Engine
from assistant.server.errors import ApiError
from assistant.server.keys import KeyStore
from assistant.server.operation import Operation
from assistant.server.principal import Needs, Principal
from assistant.server.records import Records
from assistant.server.shelf import Shelf

T = TypeVar("T")

#: Listed at once at most, and where nothing is said; the rest comes `after` the last one.
LISTED = 1000
Limit = Annotated[int, Query(ge=1, le=LISTED)]
After = Annotated[str | None, Query(max_length=128)]

#: The names under which the parts of this server are models.
CHAT, SOURCES, TASKS = "plumbline", "plumbline-sources", "plumbline-tasks"
EMBED, MODERATE = "plumbline-embed", "plumbline-moderation"
MODELS = (CHAT, SOURCES, TASKS, EMBED, MODERATE)


@dataclass(frozen=True, slots=True)
class Server:
    """One server's parts."""

    assistant: Assistant
    settings: Settings
    keys: KeyStore
    records: Records
    shelf: Shelf
    admission: Admission
    engine: Engine
    operation: Operation
    started: int

    def model(self, name: str) -> str:
        """A model's name, where there is one.

        Raises:
            ApiError: there is none.
        """
        if name not in (*MODELS, *self.settings.server.models):
            raise ApiError(
                404,
                f"The model {name[:80]!r} does not exist; /v1/models lists those that do.",
                "model_not_found",
                "model",
            )
        return name


def server_of(request: Request) -> Server:
    """The server that a request came to."""
    server = request.app.state.server
    assert isinstance(server, Server)
    return server


def base_of(request: Request) -> str:
    """The address below which this server is reached, without a slash at its end."""
    return server_of(request).settings.server.url.rstrip("/") or str(request.base_url).rstrip("/")


class Light(Needs):
    """A dependency as `Needs`, for what no worker is needed for; it counts as a request."""

    async def __call__(self, request: Request) -> Principal:
        """The principal."""
        principal = await super().__call__(request)
        server_of(request).admission.tap(principal)
        return principal


def missing(what: str, param: str = "id") -> ApiError:
    """The answer for what is not there, and for what is somebody else's."""
    return ApiError(404, f"There is no such {what}.", f"{what}_not_found", param)


def page_of(found: list[dict[str, Any]], limit: int) -> JSONResponse:
    """The first so many of a list; one more says that there are more.

    It is written where it was made, in a thread: a long one does not stop the event loop.
    """
    more = len(found) > limit
    return JSONResponse({"object": "list", "data": found[:limit], "has_more": more})


async def present(request: Request, work: Awaitable[T]) -> T:
    """The outcome of `work`, which is cancelled as soon as the client has gone.

    Raises:
        ApiError: the client has gone; nobody reads this.
    """
    found: list[T] = []

    async def watch(cancel: Callable[[], None]) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        cancel()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(watch, group.cancel_scope.cancel)
            found.append(await work)
            group.cancel_scope.cancel()
    except BaseExceptionGroup as errors:
        raise _only(errors) from None
    if not found:
        raise ApiError(408, "The client has gone.")
    return found[0]


async def worked(
    request: Request, who: Principal, tokens: int, work: Callable[[], T]
) -> tuple[T, Ticket]:
    """What `work` returns, made by a worker like an answer is; ends early with its client."""
    server = server_of(request)

    def once(_stopped: Callable[[], bool]) -> Iterator[T]:
        yield work()

    async def run() -> tuple[T, Ticket]:
        ticket = await server.admission.enter(who, tokens)
        job = server.engine.start(once, ticket)
        found = [item async for item in job.items()]
        return found[0], ticket

    return await present(request, run())


def _only(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    first = errors.exceptions[0]
    return _only(first) if isinstance(first, BaseExceptionGroup) else first
