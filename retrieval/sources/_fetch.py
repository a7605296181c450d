"""The one way to the network: fetch a page without being led to where nobody may look.

A URL is parsed once, strictly; its host is resolved once and every address vetted; the connection
goes to the vetted address itself (Host and SNI keep the name), so that neither a second parser nor
a second lookup can disagree. Redirects are followed here, each vetted like the first. No proxy, no
cookies, no credentials; a cap on bytes before and after unpacking, and a deadline on the whole.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import httpcore
from protego import Protego

from retrieval.config import SourceSettings
from retrieval.errors import SourceError
from retrieval.sources._address import USUAL, Url, forbidden, parse

Resolve = Callable[[str, int], Sequence[str]]
Dial = Callable[[str, int, float], httpcore.NetworkStream]

REDIRECTS = 3
_MOVED = (301, 302, 303, 307, 308)
#: robots.txt is asked for again after this many seconds (RFC 9309 allows a day at most).
_ROBOTS_AGE = 3600.0
_ROBOTS_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class Page:
    """An answer: `body` is unpacked; `status` is 200, or 304 with an empty body."""

    url: str
    status: int
    body: bytes
    media: str
    charset: str
    etag: str
    modified: str


def resolve(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def dial(address: str, port: int, seconds: float) -> httpcore.NetworkStream:
    """Connect to an address."""
    return httpcore.SyncBackend().connect_tcp(address, port, timeout=seconds)


def inflate(data: bytes, limit: int) -> bytes:
    """Unpack gzip or zlib data; at most `limit` + 1 bytes, so that the caller can tell.

    Raises:
        zlib.error: neither.
    """
    return zlib.decompressobj(wbits=47).decompress(data, limit + 1)


class Fetcher:
    """Fetches by the rules above, politely: robots.txt, and a pause between pages of one host.

    Safe for several threads. `resolve` and `dial` are the only two ways out.
    """

    def __init__(
        self, settings: SourceSettings, resolve: Resolve = resolve, dial: Dial = dial
    ) -> None:
        self.settings = settings
        self._resolve = resolve
        self._dial = dial
        self._tls: Any = None
        self._lock = threading.Lock()
        self._next: dict[str, float] = {}
        self._robots: dict[str, tuple[float, Protego | None]] = {}

    def get(self, text: str, media: frozenset[str], *, etag: str = "", modified: str = "") -> Page:
        """Fetch `text`; 304 comes back only where `etag` or `modified` was given.

        Raises:
            SourceError: the network is off, or the page was refused, unreachable or unfit; the
                reason says which.
        """
        if not self.settings.network:
            raise SourceError(
                text,
                "network_off",
                "fetching from the network is off",
                "Set retrieval.sources.network to true to allow it.",
            )
        ends = time.monotonic() + self.settings.seconds
        conditions = {"If-None-Match": etag, "If-Modified-Since": modified}
        headers = {name: value for name, value in conditions.items() if value}
        url = parse(text, self.settings.ports)
        for _ in range(REDIRECTS + 1):
            ends += self._polite(url)
            answer = self._once(url, headers, ends, self.settings.max_bytes)
            if isinstance(answer, str):
                url = parse(urljoin(str(url), answer), self.settings.ports)
                continue
            if answer.status == 200 and answer.media not in media:
                raise _bad(
                    url,
                    "content_type",
                    f"the answer is {answer.media or 'of no named type'}",
                    "Give the address of a page, a document or a feed.",
                )
            return answer
        raise _bad(url, "redirects", f"more than {REDIRECTS} redirects", "Give the last address.")

    def vet(self, url: Url) -> list[str]:
        """The addresses of a host that may be asked.

        Raises:
            SourceError: the host is not on the list, unknown, or has an address that is forbidden.
        """
        hosts = self.settings.hosts
        if hosts and not any(url.host == h or url.host.endswith("." + h) for h in hosts):
            raise SourceError(
                str(url),
                "refused",
                f"{url.host} is not an allowed host",
                "Name it in retrieval.sources.hosts.",
            )
        try:
            literal = str(ipaddress.ip_address(url.host))
            found: Sequence[str] = [literal]
        except ValueError:
            try:
                found = self._resolve(url.host, url.port)
            except OSError as error:
                raise _bad(url, "unreachable", f"{url.host} is unknown ({error})", "") from error
        for address in found:
            why = forbidden(address, self.settings.allow_private)
            if why:
                remedy = "If the host is yours, set retrieval.sources.allow_private to true."
                raise SourceError(str(url), "refused", why, remedy)
        if not found:
            raise _bad(url, "unreachable", f"{url.host} has no address", "")
        return list(found)

    def _once(self, url: Url, headers: dict[str, str], ends: float, limit: int) -> Page | str:
        """One exchange: a page, or where it moved to."""
        given = [
            (b"Host", url.bracketed.encode() + (b"" if _usual(url) else b":%d" % url.port)),
            (b"User-Agent", self.settings.agent.encode("ascii", "replace")),
            (b"Accept-Encoding", b"gzip"),
            (b"Connection", b"close"),
            *((k.encode(), v.encode("ascii", "replace")) for k, v in headers.items()),
        ]
        backend = _Pinned(self.vet(url), self._dial, ends)
        target = httpcore.URL(
            scheme=url.scheme.encode(),
            host=url.host.encode(),
            port=url.port,
            target=url.target.encode("ascii"),
        )
        self._tls = self._tls or httpcore.default_ssl_context()  # reads a file of certificates
        with (
            _named(url, self.settings.seconds),
            httpcore.ConnectionPool(ssl_context=self._tls, network_backend=backend) as pool,
            pool.stream("GET", target, headers=given) as response,
        ):
            fields = {k.decode().lower(): v.decode("latin-1") for k, v in response.headers}
            if response.status in _MOVED and fields.get("location"):
                return fields["location"]
            if response.status not in (200, 304):
                raise _bad(
                    url,
                    "gone" if response.status in (404, 410) else "http_status",
                    f"the server answered {response.status}",
                    "Check the address in a browser.",
                )
            body = _read(url, response, fields.get("content-encoding", ""), limit)
        media, _, rest = fields.get("content-type", "").partition(";")
        charset = re.search(r"charset\s*=\s*\"?([\w.:-]+)", rest, re.IGNORECASE)
        return Page(
            str(url),
            response.status,
            body,
            media.strip().lower(),
            charset[1].lower() if charset else "",
            fields.get("etag", ""),
            fields.get("last-modified", ""),
        )

    def _polite(self, url: Url) -> float:
        """Ask robots.txt, then wait for this host's turn; returns the seconds waited."""
        pause = self.settings.pause_seconds
        if self.settings.robots:
            rules = self._rules(url)
            agent = self.settings.agent
            if rules is not None and not rules.can_fetch(str(url), agent):
                raise _bad(
                    url,
                    "robots",
                    "the site's robots.txt asks not to fetch this page",
                    "Ask the site's owner, or set retrieval.sources.robots to false.",
                )
            delay = rules.crawl_delay(agent) if rules is not None else None
            pause = max(pause, min(float(delay or 0.0), 10.0))
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next.get(url.host, 0.0))
            self._next[url.host] = turn + pause
        time.sleep(turn - now)
        return turn - now

    def _rules(self, url: Url) -> Protego | None:
        """The site's rules; a site without any allows all, one that is out of order nothing."""
        with self._lock:
            age, rules = self._robots.get(url.origin, (0.0, None))
        if age and time.monotonic() - age < _ROBOTS_AGE:
            return rules
        ends = time.monotonic() + self.settings.seconds
        at = Url(url.scheme, url.host, url.port, "/robots.txt")
        text: bytes | None = None
        try:
            for _ in range(REDIRECTS + 1):
                answer = self._once(at, {}, ends, _ROBOTS_BYTES)
                if not isinstance(answer, str):
                    text = answer.body
                    break
                at = parse(urljoin(str(at), answer), self.settings.ports)
        except SourceError as error:
            if error.reason != "gone" and not re.search(r"answered 4", error.detail):
                raise
        rules = Protego.parse(text.decode("utf-8", "replace")) if text is not None else None
        with self._lock:
            self._robots[url.origin] = (time.monotonic(), rules)
        return rules


class _Pinned(httpcore.NetworkBackend):
    """Connects to addresses vetted before, whatever the host's name says by now."""

    def __init__(self, addresses: Sequence[str], dial: Dial, ends: float) -> None:
        self._addresses = addresses
        self._dial = dial
        self._ends = ends

    def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.NetworkStream:
        """Try one address after the other."""
        for last, address in enumerate(self._addresses, start=1):
            try:
                return _Timed(self._dial(address, port, _left(self._ends)), self._ends)
            except (httpcore.NetworkError, OSError):
                if last == len(self._addresses):
                    raise
        raise httpcore.ConnectError("no address")


class _Timed(httpcore.NetworkStream):
    """A connection on which every step ends by the deadline: a byte a second does not help."""

    def __init__(self, inner: httpcore.NetworkStream, ends: float) -> None:
        self._inner = inner
        self._ends = ends

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _left(self._ends))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, _left(self._ends))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        inner = self._inner.start_tls(ssl_context, server_hostname, _left(self._ends))
        return _Timed(inner, self._ends)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _left(ends: float) -> float:
    left = ends - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("deadline")
    return left


def _usual(url: Url) -> bool:
    return url.port == USUAL[url.scheme]


def _read(url: Url, response: httpcore.Response, encoding: str, limit: int) -> bytes:
    packed = encoding.strip().lower()
    if packed not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise _bad(url, "content_type", f"packed as {packed}", "")
    unpack = zlib.decompressobj(wbits=47) if packed not in ("", "identity") else None
    body = bytearray()
    for part in response.iter_stream():
        try:
            body += unpack.decompress(part, limit + 1 - len(body)) if unpack else part
        except zlib.error as error:
            raise _bad(url, "unreachable", f"the packed answer is damaged ({error})", "") from error
        if len(body) > limit:
            raise _bad(
                url, "oversize", f"more than {limit} bytes", "Raise retrieval.sources.max_bytes."
            )
    return bytes(body)


@contextmanager
def _named(url: Url, seconds: float) -> Iterator[None]:
    """Give failures of the connection their name."""
    try:
        yield
    except (httpcore.TimeoutException, TimeoutError) as error:
        raise _bad(
            url,
            "slow",
            f"no whole answer within {seconds:g} s",
            "Raise retrieval.sources.seconds.",
        ) from error
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        raise _bad(url, "unreachable", f"{error or type(error).__name__}", "") from error


def _bad(url: Url, reason: str, detail: str, remedy: str) -> SourceError:
    return SourceError(str(url), reason, detail, remedy or "Check the address and the connection.")
