"""Addresses that may be asked: URLs parsed strictly, IP addresses vetted.

What two parsers could read in two ways is refused, and an IPv6 address is judged by every IPv4
address that a tunnel or translator would take out of it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import idna

from retrieval.errors import SourceError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SHARED = tuple(map(ipaddress.IPv4Network, ("100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24")))
_LABELS = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
USUAL = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Url:
    """A parsed URL: `host` is ASCII lower case or an address without brackets."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def origin(self) -> str:
        """Scheme, host and port, as a key."""
        return f"{self.scheme}://{self.bracketed}:{self.port}"

    @property
    def bracketed(self) -> str:
        """The host as it stands in a URL."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def __str__(self) -> str:
        default = USUAL[self.scheme]
        port = "" if self.port == default else f":{self.port}"
        return f"{self.scheme}://{self.bracketed}{port}{self.target}"


def refused(url: str, detail: str) -> SourceError:
    """The error for an address that is not asked at all."""
    remedy = "Give an http or https address of a public host."
    return SourceError(url, "refused", detail, remedy)


def parse(text: str, ports: Sequence[int]) -> Url:
    """Parse strictly: what two parsers could read in two ways is refused.

    Raises:
        SourceError: reason `refused`.
    """
    url = text.strip()
    if any(c <= " " or c == "\\" or "\x7f" <= c <= "\xa0" for c in url):
        raise refused(text, "the address holds blanks, control characters or backslashes")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise refused(text, f"not a valid address ({error})") from error
    if parts.scheme not in ("http", "https"):
        raise refused(text, f"the scheme {parts.scheme!r} is neither http nor https")
    if "@" in parts.netloc or "%" in parts.netloc:
        raise refused(text, "user names, zone ids and escapes in the host are not taken")
    host = _host(text, parts.netloc, parts.hostname or "")
    port = USUAL[parts.scheme] if port is None else port
    if port not in ports:
        raise SourceError(
            text, "refused", f"port {port} is not allowed", "Name it in retrieval.sources.ports."
        )
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=-._~")
    query = "?" + quote(parts.query, safe="/%:@!$&'()*+,;=-._~?") if parts.query else ""
    return Url(parts.scheme, host, port, path + query)


def _host(text: str, netloc: str, host: str) -> str:
    if netloc.startswith("["):
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError as error:
            raise refused(text, "not an IPv6 address") from error
    try:
        name = host if host.isascii() else idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise refused(text, f"the host name is not valid ({error})") from error
    name = name.lower().removesuffix(".")
    if not _LABELS.fullmatch(name) or len(name) > 253:
        raise refused(text, "the host name is not valid")
    if _NUMBER.fullmatch(name.rsplit(".", 1)[-1]):  # an address, and then in the one usual form
        try:
            return str(ipaddress.IPv4Address(name))
        except ValueError as error:
            raise refused(text, "write an IPv4 address as four decimal numbers") from error
    return name


def inside(address: Address) -> Iterator[Address]:
    """The address and every IPv4 address that a tunnel or translator would take out of it."""
    yield address
    if isinstance(address, ipaddress.IPv4Address):
        return
    number = int(address)
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64 or number < 2**32 or (number >> 32) & 0xFDFFFFFF == 0x5EFE:
        found.append(ipaddress.IPv4Address(number & 0xFFFFFFFF))  # NAT64, compatible, ISATAP
    yield from (a for a in found if a is not None)


def forbidden(text: str, allow_private: bool) -> str:
    """Why this address may not be asked, "" where it may.

    Link-local, unspecified and multicast addresses are never asked: cloud metadata lies there.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return "not an address"
    mapped = getattr(address, "ipv4_mapped", None)
    for each in [mapped] if mapped is not None else inside(address):
        if each.is_link_local or each.is_unspecified or each.is_multicast:
            return f"{text} is a link-local, unspecified or multicast address"
        shared = isinstance(each, ipaddress.IPv4Address) and any(each in n for n in _SHARED)
        private = shared or not each.is_global or each.is_reserved
        if private and not allow_private:
            return f"{text} is not a public address"
    return ""
