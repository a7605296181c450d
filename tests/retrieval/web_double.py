"""A small web on loopback: public names and addresses that lead to one server, and a canary.

Nothing of ours is patched: the fetcher takes its resolver and its dialler as arguments. The dialler
leads the one public address to the test's server and dials every other address as it stands, so
that a fetcher that is led astray does hit the canary.
"""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpcore

from retrieval.config import SourceSettings
from retrieval.sources import _fetch
from retrieval.sources._fetch import Fetcher

PUBLIC = "93.184.216.34"
Answer = tuple[int, dict[str, str], bytes]
Route = Answer | Callable[[dict[str, str]], Answer]


def page(text: str, **headers: str) -> Answer:
    """An HTML answer."""
    fields = {"Content-Type": "text/html; charset=utf-8"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    return 200, fields, text.encode()


def xml(text: str, **headers: str) -> Answer:
    """An XML answer."""
    status, fields, body = page(text, **headers)
    return status, fields | {"Content-Type": "application/xml"}, body


@dataclass
class Site:
    """A server of routes by path, remembering every request."""

    routes: dict[str, Route] = field(default_factory=dict)
    hits: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    port: int = 0
    slow: threading.Event = field(default_factory=threading.Event)

    def paths(self) -> list[str]:
        """The paths asked for, robots.txt aside."""
        return [path for path, _ in self.hits if path != "/robots.txt"]


@contextmanager
def serve(site: Site) -> Iterator[Site]:
    """Serve a site on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = {k.lower(): v for k, v in self.headers.items()}
            site.hits.append((self.path, given))
            route = site.routes.get(self.path, (404, {}, b""))
            status, fields, body = route(given) if callable(route) else route
            etag = fields.get("ETag")
            if etag and given.get("if-none-match") == etag:
                status, body = 304, b""
            self.send_response(status)
            for name, value in fields.items():
                self.send_header(name, value)
            self.end_headers()
            if self.path == "/slow":  # a byte now and then, until the test is over
                while not site.slow.wait(0.02):
                    try:
                        self.wfile.write(b".")
                        self.wfile.flush()
                    except OSError:
                        return
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        site.slow.set()
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class Net:
    """Names, and where addresses lead."""

    site: Site
    names: dict[str, list[list[str]]] = field(default_factory=dict)
    dialled: list[tuple[str, int]] = field(default_factory=list)

    def resolve(self, host: str, port: int) -> Sequence[str]:
        """The next answer on a name; the last one stays."""
        answers = self.names.get(host)
        if answers is None:
            raise socket.gaierror(-2, "Name or service not known")
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def dial(self, address: str, port: int, seconds: float) -> httpcore.NetworkStream:
        """Lead the public address to the site, any other to itself."""
        self.dialled.append((address, port))
        if address == PUBLIC:
            return _fetch.dial("127.0.0.1", self.site.port, seconds)
        return _fetch.dial(address, port, seconds)

    def fetcher(self, **changes: Any) -> Fetcher:
        """A fetcher in this net; the network is on and nobody waits."""
        given = {"network": True, "pause_seconds": 0.0, "robots": False, "seconds": 10.0} | changes
        return Fetcher(SourceSettings(**given), self.resolve, self.dial)


@contextmanager
def net(routes: dict[str, Route]) -> Iterator[Net]:
    """A site of these routes at http://site.example, on a public address."""
    with serve(Site(routes)) as site:
        yield Net(site, {"site.example": [[PUBLIC]]})


def packed(body: bytes) -> bytes:
    """The body, by gzip."""
    return gzip.compress(body)
