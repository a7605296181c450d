"""Connections on which no request comes are closed, so that nobody holds them for nothing.

Whoever sends nothing, a request's head byte by byte, or a body that was refused already, needs no
key for that; uvicorn by itself waits for the rest without end.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

#: Seconds for a request's head to be there, from the connection or from the last answer on.
HEAD_SECONDS = 20.0


class Timed(H11Protocol):
    """One connection."""

    seconds = HEAD_SECONDS
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Read on; a whole head ends the wait."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Begin to wait for the next one."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        super().connection_lost(exc)
        self._rest()

    def _watch(self) -> None:
        if self._answering():
            self._rest()
        elif self._late is None:
            self._late = self.loop.call_later(self.seconds, self._end)

    def _rest(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _end(self) -> None:
        self._late = None
        if not self._answering():
            self.transport.close()

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete
