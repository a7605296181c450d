from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.config import SourceSettings
from retrieval.errors import SourceError
from retrieval.sources._address import forbidden, parse
from retrieval.sources._fetch import Fetcher
from tests.retrieval.web_double import PUBLIC, Net, Route, Site, net, packed, page, serve

HTML = frozenset({"text/html"})
GZIP = {"Content-Type": "text/html", "Content-Encoding": "gzip"}
#: Ways to write an address that must not be asked; `{port}` is the canary's.
SPELLINGS = (
    "http://127.0.0.1:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST:{port}/",
    "http://localhost.:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://2130706433:{port}/",
    "http://017700000001:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7f.0.0.1:{port}/",
    "http://0x7f.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://0177.0.0.01:{port}/",
    "http://127.0.0.0x1:{port}/",
    "http://00000127.0.0.1:{port}/",
    "http://127.000.000.001:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://4294967295:{port}/",
    "http://127.0.0.1%00.site.example:{port}/",
    "http://127%2e0%2e0%2e1:{port}/",
    "http://%31%32%37.0.0.1:{port}/",
    "http://１２７.0.0.1:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://127。0。0。1:{port}/",
    "http://127．0．0．1:{port}/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/",
    "http://loc\u00adalhost:{port}/",
    "http://[::1]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[::]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[0:0:0:0:0:ffff:7f00:0001]:{port}/",
    "http://[::ffff:0:127.0.0.1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[64:ff9b::7f00:1]:{port}/",
    "http://[64:ff9b::127.0.0.1]:{port}/",
    "http://[64:ff9b:1::7f00:1]:{port}/",
    "http://[2001:0:7f00:1::]:{port}/",
    "http://[2001:0:5db8:d822::80ff:fffe]:{port}/",
    "http://[fe80::1]:{port}/",
    "http://[fe80::1%25lo]:{port}/",
    "http://[::1%25lo]:{port}/",
    "http://[::1%lo]:{port}/",
    "http://[fd00::5efe:7f00:1]:{port}/",
    "http://[2606:2800::5efe:7f00:1]:{port}/",
    "http://[::1:{port}/",
    "http://::1:{port}/",
    "http://[127.0.0.1]:{port}/",
    "http://site.example@127.0.0.1:{port}/",
    "http://site.example:80@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}@site.example/",
    "http://@127.0.0.1:{port}/",
    "http://site.example%40127.0.0.1:{port}/",
    "http://site.example\\@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@site.example/",
    "http:\\\\127.0.0.1:{port}/",
    "http:/\\127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\t/",
    "http://127.0.\n0.1:{port}/",
    "http://127.0.0.1 :{port}/",
    "http://127.0.0.1\x00:{port}/",
    "http://inside.example:{port}/",
    "http://mixed.example:{port}/",
    "http://mapped.example:{port}/",
    "http://scoped.example:{port}/",
    "http://metadata.example/latest/",
    "http://169.254.169.254/latest/",
    "http://[::ffff:169.254.169.254]/latest/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.0.1/",
    "http://100.64.0.1/",
    "http://192.0.0.8/",
    "http://192.0.0.192/",
    "http://198.18.0.1/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://site.example:22/",
    "http://site.example:99999/",
    "http://site.example:-80/",
    "ftp://127.0.0.1:{port}/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/_GET",
    "data:text/html,x",
    "javascript:alert(1)",
    "jar:http://127.0.0.1:{port}/!/",
    "http://",
    "http://./",
    "http://a..example/",
    "http://-site.example/",
    "http://xn--a.example:{port}/",
    "",
)
INSIDE = {
    "localhost": [["127.0.0.1"]],
    "inside.example": [["127.0.0.1"]],
    "mixed.example": [[PUBLIC, "127.0.0.1"]],
    "mapped.example": [["::ffff:127.0.0.1"]],
    "scoped.example": [["fe80::1%lo"]],
    "metadata.example": [["169.254.169.254"]],
    "xn--a.example": [["127.0.0.1"]],
}


@pytest.fixture
def canary() -> Iterator[Site]:
    """A server on loopback that nobody may reach."""
    with serve(Site({"/": page("secret")})) as site:
        yield site


@pytest.fixture
def world(canary: Site) -> Iterator[Net]:
    """A public site, and names that lead inside."""
    routes: dict[str, Route] = {
        "/": page("hello"),
        "/in": (302, {"Location": f"http://127.0.0.1:{canary.port}/"}, b""),
        "/in6": (307, {"Location": f"http://[::ffff:7f00:1]:{canary.port}/"}, b""),
        "/name": (301, {"Location": f"http://inside.example:{canary.port}/"}, b""),
        "/file": (302, {"Location": "file:///etc/passwd"}, b""),
        "/scheme": (302, {"Location": f"//127.0.0.1:{canary.port}/"}, b""),
        "/ring": (302, {"Location": "/ring"}, b""),
        "/far": (302, {"Location": "/"}, b""),
        "/bomb": (200, GZIP, packed(b"\0" * 20_000_000)),
        "/packed": (200, GZIP, packed(b"hello")),
        "/torn": (200, GZIP, b"\x1f\x8b not gzip"),
        "/brotli": page("", Content_Encoding="br"),
        "/large": page("x" * 5000),
        "/slow": page(""),
        "/tag": page("hello", ETag='"1"', Last_Modified="Sat, 01 Nov 2025 00:00:00 GMT"),
        "/image": (200, {"Content-Type": "image/png"}, b"x"),
        "/untyped": (200, {}, b"x"),
        "/gone": (410, {}, b""),
        "/down": (503, {}, b""),
    }
    with net(routes) as found:
        found.names |= {name: list(answers) for name, answers in INSIDE.items()}
        yield found


def reason(fetcher: Fetcher, url: str) -> str:
    """Why a page was not fetched."""
    with pytest.raises(SourceError) as error:
        fetcher.get(url, HTML)
    assert error.value.detail
    assert error.value.remedy
    return error.value.reason


def test_no_spelling_leads_inside(world: Net, canary: Site) -> None:
    """However an inner address is written, it is refused, and nobody is asked."""
    assert len(SPELLINGS) >= 60
    fetcher = world.fetcher(ports=(80, 443, canary.port))
    for spelling in SPELLINGS:
        url = spelling.replace("{port}", str(canary.port))
        assert reason(fetcher, url) in ("refused", "unreachable"), url
    assert canary.hits == []
    assert {address for address, _ in world.dialled} <= {PUBLIC}


@pytest.mark.parametrize("mark", ["#", "?", "/"])
def test_what_follows_the_host_is_no_host(mark: str, world: Net, canary: Site) -> None:
    """An address that stands in the path, the query or the fragment is not asked."""
    fetcher = world.fetcher(ports=(80, canary.port))
    world.site.routes |= {p: page("hello") for p in ("/@127.0.0.1/", "/?@127.0.0.1/")}
    assert fetcher.get(f"http://site.example{mark}@127.0.0.1/", HTML).body == b"hello"
    assert canary.hits == []


@pytest.mark.parametrize("path", ["/in", "/in6", "/name", "/file", "/scheme"])
def test_a_redirect_inside_is_refused(path: str, world: Net, canary: Site) -> None:
    """Each hop is vetted like the first."""
    fetcher = world.fetcher(ports=(80, canary.port))
    assert (reason(fetcher, f"http://site.example{path}"), canary.hits) == ("refused", [])


def test_redirects_end(world: Net) -> None:
    """A redirect is followed, a ring of them is not."""
    fetcher = world.fetcher()
    assert fetcher.get("http://site.example/far", HTML).url == "http://site.example/"
    assert reason(fetcher, "http://site.example/ring") == "redirects"
    assert world.site.paths().count("/ring") == 4


def test_a_name_that_changes_its_mind(world: Net, canary: Site) -> None:
    """The address that was vetted is the one that is dialled; the next lookup is vetted anew."""
    world.names["rebind.example"] = [[PUBLIC], ["127.0.0.1"]]
    fetcher = world.fetcher(ports=(80, canary.port))
    url = f"http://rebind.example:{canary.port}/"
    assert fetcher.get(url, HTML).body == b"hello"
    assert reason(fetcher, url) == "refused"
    assert canary.hits == []
    assert world.site.hits[0][1]["host"] == f"rebind.example:{canary.port}"


def test_off_until_allowed(world: Net) -> None:
    """Without the setting nothing is resolved and nothing dialled."""
    fetcher = Fetcher(SourceSettings(), world.resolve, world.dial)
    assert (reason(fetcher, "http://site.example/"), world.dialled) == ("network_off", [])


def test_private_hosts_by_setting(world: Net, canary: Site) -> None:
    """An intranet can be allowed; link-local addresses, where cloud metadata lies, never are."""
    fetcher = world.fetcher(ports=(80, canary.port), allow_private=True)
    assert fetcher.get(f"http://inside.example:{canary.port}/", HTML).body == b"secret"
    assert reason(fetcher, "http://metadata.example/latest/") == "refused"
    assert reason(fetcher, "http://[::ffff:169.254.169.254]/") == "refused"


def test_a_list_of_hosts(world: Net) -> None:
    """With a list of hosts, only those and the names below them are asked."""
    world.names["docs.site.example"] = [[PUBLIC]]
    fetcher = world.fetcher(hosts=("site.example",))
    assert fetcher.get("http://docs.site.example/", HTML).status == 200
    world.names["evilsite.example"] = [[PUBLIC]]
    assert reason(fetcher, "http://evilsite.example/") == "refused"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/bomb", "oversize"),
        ("/large", "oversize"),
        ("/torn", "unreachable"),
        ("/brotli", "content_type"),
        ("/image", "content_type"),
        ("/untyped", "content_type"),
        ("/gone", "gone"),
        ("/down", "http_status"),
    ],
)
def test_what_is_no_document(path: str, expected: str, world: Net) -> None:
    """A bomb, a page too large, damaged or of another kind: each by its reason."""
    assert reason(world.fetcher(max_bytes=4000), f"http://site.example{path}") == expected


def test_a_slow_page_ends(world: Net) -> None:
    """A byte now and then does not hold the fetcher up beyond the deadline."""
    assert reason(world.fetcher(seconds=0.3), "http://site.example/slow") == "slow"


def test_packed_pages(world: Net) -> None:
    """A page packed by gzip comes unpacked."""
    assert world.fetcher().get("http://site.example/packed", HTML).body == b"hello"


def test_conditional_requests(world: Net) -> None:
    """A page that did not change is not sent again."""
    fetcher = world.fetcher()
    first = fetcher.get("http://site.example/tag", HTML)
    again = fetcher.get("http://site.example/tag", HTML, etag=first.etag, modified=first.modified)
    assert (first.status, again.status, again.body) == (200, 304, b"")
    assert world.site.hits[-1][1]["if-modified-since"] == first.modified


def test_no_proxy_no_cookies_no_credentials(
    world: Net, canary: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment's proxies are not asked, and a request says who asks and no more."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{canary.port}")
    world.fetcher(agent="house-bot").get("http://site.example/", HTML)
    sent = world.site.hits[-1][1]
    assert sent.keys() == {"host", "user-agent", "accept-encoding", "connection"}
    assert (sent["host"], sent["user-agent"], canary.hits) == ("site.example", "house-bot", [])


def test_robots(world: Net) -> None:
    """What robots.txt forbids is not fetched; a site without one allows all."""
    fetcher = world.fetcher(robots=True)
    assert fetcher.get("http://site.example/", HTML).status == 200
    world.site.routes["/robots.txt"] = (
        200,
        {"Content-Type": "text/plain"},
        b"User-agent: *\nDisallow: /tag\nAllow: /\n",
    )
    fetcher = world.fetcher(robots=True)
    assert reason(fetcher, "http://site.example/tag") == "robots"
    assert fetcher.get("http://site.example/far", HTML).status == 200
    assert "/tag" not in world.site.paths()
    world.site.routes["/robots.txt"] = (503, {}, b"")
    assert reason(world.fetcher(robots=True), "http://site.example/") == "http_status"


@given(st.ip_addresses())
def test_what_is_allowed_is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Whatever may be asked is a global unicast address, under Python's rules and ours."""
    if not forbidden(str(address), allow_private=False):
        assert address.is_global
        assert not any((address.is_multicast, address.is_link_local, address.is_loopback))


@given(st.text(max_size=40))
def test_parsing_never_breaks(text: str) -> None:
    """Any text is an address or is refused; an address reads the same when it is read again."""
    for url in (text, f"http://{text}", f"http://site.example/{text}"):
        with suppress(SourceError):
            found = parse(url, (80, 443))
            assert parse(str(found), (80, 443)) == found
