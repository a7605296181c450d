"""How the server goes down: first it says so, then it finishes, then it ends what is left.

Told to end (SIGTERM), it is not ready from then on, and refuses what begins; the port still answers
for a while, so that whoever sends requests here notices. Answers under way go on for their grace.
Those that are not over then end with an error event, which their readers get, and the port closes.
Ctrl-C does the same without the notice. A second signal ends the grace at once.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from assistant.server.config import OperationSettings
from assistant.server.listen import Announcing
from assistant.server.operation import Operation

logger = logging.getLogger(__name__)

#: Seconds for the last error events to go out, and between two looks.
LAST, LOOK = 2.0, 0.05


class Draining(Announcing):
    """A server that ends as above."""

    def __init__(
        self,
        config: uvicorn.Config,
        on_ready: Callable[[], None],
        operation: Operation,
        settings: OperationSettings,
    ) -> None:
        super().__init__(config, on_ready)
        self._operation = operation
        self._settings = settings
        self._ending: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hurry = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and end as above from now on."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; called by the signal, between any two instructions."""
        if self._loop is None or not self.started:
            super().handle_exit(sig, frame)
            return
        self._hurry = self._ending is not None
        if sig == signal.SIGINT and sig not in self._captured_signals:
            self._captured_signals.append(sig)  # raised again at the end: the caller sees Ctrl-C
        self._loop.call_soon_threadsafe(self._begin, sig)

    def _begin(self, sig: int) -> None:
        if self._ending is None:
            notice = self._settings.notice_seconds if sig == signal.SIGTERM else 0.0
            self._ending = asyncio.create_task(self._end(notice))

    async def _end(self, notice: float) -> None:
        operation = self._operation
        logger.warning("draining open=%d", operation.open)
        operation.drain()
        await self._while(lambda: True, notice)
        await self._while(lambda: bool(operation.open), self._settings.drain_seconds)
        if operation.open:
            logger.warning("cut open=%d", operation.open)
            operation.cut()
            self._hurry = False
            await self._while(lambda: bool(operation.open), LAST)
        operation.hang_up()
        self.should_exit = True

    async def _while(self, wanted: Callable[[], bool], seconds: float) -> None:
        ends = asyncio.get_running_loop().time() + seconds
        while wanted() and not self._hurry and asyncio.get_running_loop().time() < ends:
            await asyncio.sleep(LOOK)
