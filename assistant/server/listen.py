"""A socket that listens, and a server that says when it answers."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import uvicorn

from assistant.errors import ConfigError


def listen(
    host: str, port: int, *, named: str = "server", setting: str = "", backlog: int = 512
) -> tuple[socket.socket, str]:
    """A listening socket, and its address as a URL that ends in a slash.

    Args:
        host: address.
        port: TCP port, 0 for any free one.
        named: the section of the settings that host and port come from.
        setting: name of the port's setting, where it is not `port` of that section.
        backlog: connections that may wait to be taken.

    Raises:
        ConfigError: the address or the port cannot be used.
    """
    or_any = "" if setting else ", or to 0 for any free one"
    setting = setting or f"{named}.port"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's delay off only where the protocol is named, and each piece of a
    # stream would wait 40 ms for an acknowledgement
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} on {host} is taken by another program; "
                f"set {setting} to another number{or_any}"
            ) from error
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror}); check {named}.host and {setting}"
        ) from error
    name = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    port = listener.getsockname()[1]
    return listener, f"http://[{name}]:{port}/" if ":" in name else f"http://{name}:{port}/"


def run(config: uvicorn.Config, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until interrupted."""
    Announcing(config, on_ready).run(sockets=[listener])


class Announcing(uvicorn.Server):
    """A server that calls `on_ready` once it answers."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()
