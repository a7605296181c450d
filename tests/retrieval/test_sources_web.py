from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from retrieval.config import EmbedSettings, RetrievalSettings, SearchSettings, SourceSettings
from retrieval.embed.hashing import Hashing
from retrieval.errors import SourceError
from retrieval.intake import guess
from retrieval.knowledge import KnowledgeBase
from retrieval.schema import IngestSummary, Scope
from retrieval.sources.memory import Given
from tests.retrieval.web_double import Net, net, page, xml

SETTINGS = RetrievalSettings(
    embed=EmbedSettings(backend="hashing"),
    search=SearchSettings(index="exact"),
    sources=SourceSettings(network=True),
)
SITE = "http://site.example"
FUTURE, PAST = "Tue, 01 Jan 2199 00:00:00 GMT", "Sat, 01 Jan 2000 00:00:00 GMT"
Open = Callable[[], KnowledgeBase]


@pytest.fixture
def world() -> Iterator[Net]:
    """A site without pages."""
    with net({}) as found:
        yield found


@pytest.fixture
def base(world: Net, tmp_path: Path) -> Iterator[KnowledgeBase]:
    """A knowledge base in that net."""
    base = KnowledgeBase(tmp_path / "kb", SETTINGS, Hashing(), world.fetcher())
    yield base
    base.close()


def take(base: KnowledgeBase, address: str, kind: str = "") -> IngestSummary:
    """Ingest to the end."""
    *_, last = base.ingest([address], kind=kind)
    assert isinstance(last, IngestSummary)
    return last


def sources(base: KnowledgeBase, term: str) -> set[str]:
    """The sources that hold a term."""
    return {passage.source for passage in base.search(term, 50, mode="lexical")}


def day(moment: float) -> str:
    """A date, UTC."""
    return datetime.fromtimestamp(moment, UTC).date().isoformat()


def sitemap(*pages: str, lastmod: str = "") -> str:
    """A sitemap of these pages."""
    dated = f"<lastmod>{lastmod}</lastmod>" if lastmod else ""
    rows = "".join(f"<url><loc>{SITE}{p}</loc>{dated}</url>" for p in pages)
    return f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{rows}</urlset>'


def entry(number: int, text: str, date: str, link: str = "") -> str:
    """One entry of an RSS feed."""
    dated = f"<pubDate>{date}</pubDate>" if date else ""
    where = f"<link>{link}</link>" if link else ""
    return (
        f"<item><guid>id{number}</guid><title>Entry {number}</title>{where}{dated}"
        f"<description>{text}</description></item>"
    )


def rss(*entries: str) -> str:
    """An RSS feed."""
    return f'<rss version="2.0"><channel><title>News</title>{"".join(entries)}</channel></rss>'


def test_a_page(base: KnowledgeBase, world: Net) -> None:
    """A page is found under its address, with its date; unchanged it is neither sent nor read."""
    world.site.routes["/a"] = page(
        "<title>Animals</title><p>Quokkas eat leaves.", ETag='"1"', Last_Modified=PAST
    )
    assert take(base, f"{SITE}/a").added == 1
    [passage] = base.search("quokkas", 1)
    assert (passage.source, passage.title) == (f"{SITE}/a", "Animals")
    assert day(passage.modified) == "2000-01-01"
    again = take(base, f"{SITE}/a")
    assert (again.unchanged, again.embedded) == (1, 0)
    assert world.site.hits[-1][1]["if-none-match"] == '"1"'
    world.site.routes["/a"] = page("<title>Animals</title><p>Wombats eat grass.", ETag='"2"')
    assert take(base, f"{SITE}/a").updated == 1
    assert (sources(base, "quokkas"), sources(base, "wombats")) == (set(), {f"{SITE}/a"})


def test_a_page_without_validators(base: KnowledgeBase, world: Net) -> None:
    """Where a server gives no date and no tag, the content decides."""
    world.site.routes["/a"] = page("<p>Quokkas eat leaves.")
    assert take(base, f"{SITE}/a").added == 1
    again = take(base, f"{SITE}/a")
    assert (again.unchanged, again.embedded) == (1, 0)


def test_a_page_that_is_gone(base: KnowledgeBase, world: Net) -> None:
    """A page that the server says is gone leaves the store; one that is out of order stays."""
    world.site.routes["/a"] = page("<p>Quokkas eat leaves.")
    take(base, f"{SITE}/a")
    world.site.routes["/a"] = (503, {}, b"")
    summary = take(base, f"{SITE}/a")
    assert [f.reason for f in summary.failures] == ["http_status"]
    assert sources(base, "quokkas") == {f"{SITE}/a"}
    world.site.routes["/a"] = (410, {}, b"")
    assert take(base, f"{SITE}/a").removed == 1
    assert sources(base, "quokkas") == set()


def test_a_site_that_leads_inside(base: KnowledgeBase, world: Net) -> None:
    """A redirect to loopback is a report by name, and status tells it; the rest goes on."""
    world.site.routes["/a"] = page("<p>Quokkas eat leaves.")
    world.site.routes["/in"] = (302, {"Location": "http://127.0.0.1/"}, b"")
    *_, summary = base.ingest([f"{SITE}/in", f"{SITE}/a"])
    assert isinstance(summary, IngestSummary)
    assert [(f.source, f.reason) for f in summary.failures] == [(f"{SITE}/in", "refused")]
    assert sources(base, "quokkas") == {f"{SITE}/a"}
    errors = {root.root: root.error.reason for root in base.status().roots if root.error}
    assert errors == {f"{SITE}/in": "refused"}


def test_the_network_is_off(world: Net, tmp_path: Path) -> None:
    """Without the setting a page is a failure that names the setting, and nothing is asked."""
    base = KnowledgeBase(tmp_path / "off", SETTINGS, Hashing(), world.fetcher(network=False))
    [failure] = take(base, f"{SITE}/a").failures
    base.close()
    assert (failure.reason, world.dialled) == ("network_off", [])
    assert "retrieval.sources.network" in failure.remedy


def test_an_encoding_that_only_the_server_names(base: KnowledgeBase, world: Net) -> None:
    """The server's word on the encoding of a text counts."""
    body = "袋熊吃草。袋鼠吃树叶。".encode("gbk")
    world.site.routes["/a"] = (200, {"Content-Type": "text/plain; charset=GBK"}, body)
    take(base, f"{SITE}/a")
    assert sources(base, "袋熊") == {f"{SITE}/a"}


def test_a_sitemap(base: KnowledgeBase, world: Net) -> None:
    """Every page listed is found; one that is no longer listed is gone."""
    world.site.routes |= {
        "/sitemap.xml": xml(sitemap("/a", "/b", "/a")),
        "/a": page("<p>Quokkas eat leaves."),
        "/b": page("<p>Wombats eat grass."),
    }
    summary = take(base, f"{SITE}/sitemap.xml")
    assert (summary.added, sources(base, "eat")) == (2, {f"{SITE}/a", f"{SITE}/b"})
    world.site.routes["/sitemap.xml"] = xml(sitemap("/a"))
    summary = take(base, f"{SITE}/sitemap.xml")
    assert (summary.removed, summary.unchanged, sources(base, "eat")) == (1, 1, {f"{SITE}/a"})
    [root] = base.status().roots
    assert (root.kind, root.documents, root.chunks) == ("sitemap", 1, 1)


def test_lastmod_spares_the_page(base: KnowledgeBase, world: Net) -> None:
    """A page listed with the same date is not asked again; with a date to come it is."""
    world.site.routes |= {"/a": page("<p>Quokkas eat leaves.")}
    for lastmod, asked in (("2025-01-01", 1), ("2199-01-01", 3)):
        world.site.hits.clear()
        world.site.routes["/sitemap.xml"] = xml(sitemap("/a", lastmod=lastmod))
        for _ in range(3):
            take(base, f"{SITE}/sitemap.xml")
        assert world.site.paths().count("/a") == asked
    [passage] = base.search("quokkas", 1)
    assert passage.modified <= datetime.now(UTC).timestamp()


def test_a_sitemap_of_sitemaps(base: KnowledgeBase, world: Net) -> None:
    """Index files are followed; where one part cannot be read, nothing is removed."""
    parts = "".join(f"<sitemap><loc>{SITE}/{n}.xml</loc></sitemap>" for n in "12")
    world.site.routes |= {
        "/sitemap.xml": xml(f"<sitemapindex>{parts}</sitemapindex>"),
        "/1.xml": xml(sitemap("/a")),
        "/2.xml": xml(sitemap("/b")),
        "/a": page("<p>Quokkas eat leaves."),
        "/b": page("<p>Wombats eat grass."),
    }
    assert take(base, f"{SITE}/sitemap.xml").added == 2
    world.site.routes["/2.xml"] = (500, {}, b"")
    summary = take(base, f"{SITE}/sitemap.xml")
    assert (summary.removed, [f.source for f in summary.failures]) == (0, [f"{SITE}/2.xml"])
    assert len(sources(base, "eat")) == 2


@pytest.mark.parametrize(
    "body",
    [
        "<html><body>no sitemap</body></html>",
        "not xml at all",
        '<!DOCTYPE x [<!ENTITY a "b"><!ENTITY c "&a;&a;">]><urlset>&c;</urlset>',
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><urlset>&a;</urlset>',
    ],
)
def test_what_is_no_sitemap(body: str, base: KnowledgeBase, world: Net) -> None:
    """Another page, or one with entities, is reported as what it is."""
    world.site.routes["/sitemap.xml"] = xml(body)
    [failure] = take(base, f"{SITE}/sitemap.xml").failures
    assert (failure.source, failure.reason) == (f"{SITE}/sitemap.xml", "sitemap")


def test_pages_of_other_hosts_are_not_listed(base: KnowledgeBase, world: Net) -> None:
    """A sitemap speaks for its own host only."""
    other = sitemap("/a").replace(f"{SITE}/a", "http://other.example/a")
    world.site.routes["/sitemap.xml"] = xml(other)
    [failure] = take(base, f"{SITE}/sitemap.xml").failures
    assert (failure.source, failure.reason) == ("http://other.example/a", "refused")


def test_a_feed(base: KnowledgeBase, world: Net) -> None:
    """Every entry is a document; what scrolls off the feed stays, what changes is replaced."""
    link = f"{SITE}/posts/1"
    world.site.routes["/feed.xml"] = xml(
        rss(entry(1, "Quokkas eat leaves.", PAST, link), entry(2, "Wombats eat grass.", PAST)),
        ETag='"1"',
    )
    assert take(base, f"{SITE}/feed.xml").added == 2
    assert sources(base, "eat") == {link, f"{SITE}/feed.xml:id2"}
    assert take(base, f"{SITE}/feed.xml").embedded == 0
    assert world.site.hits[-1][1]["if-none-match"] == '"1"'
    world.site.routes["/feed.xml"] = xml(rss(entry(2, "Numbats eat ants.", PAST)), ETag='"2"')
    summary = take(base, f"{SITE}/feed.xml")
    assert (summary.updated, summary.removed) == (1, 0)
    assert (sources(base, "wombats"), sources(base, "quokkas")) == (set(), {link})


@pytest.mark.parametrize("date", ["", FUTURE, "yesterday, more or less", "0000-00-00"])
def test_a_feed_that_lies_about_dates(date: str, base: KnowledgeBase, world: Net) -> None:
    """With no date, a date to come or nonsense: the content decides, and the date is a real one."""
    world.site.routes["/feed.xml"] = xml(rss(entry(1, "Quokkas eat leaves.", date)))
    first = take(base, f"{SITE}/feed.xml")
    assert (first.added, len(first.remarks)) == (1, date == FUTURE)
    assert take(base, f"{SITE}/feed.xml").embedded == 0
    world.site.routes["/feed.xml"] = xml(rss(entry(1, "Wombats eat grass.", date)))
    assert take(base, f"{SITE}/feed.xml").updated == 1
    assert sources(base, "quokkas") == set()
    [passage] = base.search("wombats", 1)
    assert day(passage.modified) == datetime.now(UTC).date().isoformat()


def test_a_feed_that_goes_back(base: KnowledgeBase, world: Net) -> None:
    """A change that is dated before what it replaces is taken in, with the later date."""
    for text, date in (("Quokkas eat leaves.", "Sat, 01 Nov 2025 00:00:00 GMT"), ("Wombats", PAST)):
        world.site.routes["/feed.xml"] = xml(rss(entry(1, text, date)))
        summary = take(base, f"{SITE}/feed.xml")
    [remark] = summary.remarks
    assert "dated back from 2025-11-01 to 2000-01-01" in remark.detail
    [passage] = base.search("wombats", 1)
    assert day(passage.modified) == "2025-11-01"


def test_what_is_no_feed(base: KnowledgeBase, world: Net) -> None:
    """A page where a feed should be is reported."""
    world.site.routes["/feed.xml"] = page("<p>no feed")
    [failure] = take(base, f"{SITE}/feed.xml").failures
    assert failure.reason == "feed"


def test_documents_from_a_program(base: KnowledgeBase) -> None:
    """Documents handed over are found; the same again cost nothing; complete means all."""
    given = [
        Given("one", "Quokkas eat leaves.", modified=0.0),
        Given("two.md", b"# Wombats\n\nThey eat grass.", readers=("ann",)),
    ]
    *_, first = base.ingest_documents("notes", given)
    *_, again = base.ingest_documents("notes", given)
    assert isinstance(first, IngestSummary)
    assert isinstance(again, IngestSummary)
    assert (first.added, again.unchanged, again.embedded) == (2, 2, 0)
    assert sources(base, "quokkas") == {"notes:one"}
    *_, last = base.ingest_documents("notes", given[1:], complete=True)
    assert isinstance(last, IngestSummary)
    assert (last.removed, sources(base, "quokkas")) == (1, set())
    assert base.forget("notes") == 1


def seen(base: KnowledgeBase, term: str, *names: str) -> set[str]:
    """The sources that hold a term and that these names may see."""
    scope = Scope(readers=frozenset(names))
    return {p.source for p in base.search(term, 50, mode="lexical", scope=scope)}


def test_readers_of_what_is_fetched(base: KnowledgeBase, world: Net) -> None:
    """Pages of a limited site are limited from the first moment, those listed later too."""
    world.site.routes |= {
        "/sitemap.xml": xml(sitemap("/a")),
        "/a": page("<p>Quokkas eat leaves."),
        "/b": page("<p>Wombats eat grass."),
    }
    list(base.ingest([f"{SITE}/sitemap.xml"], readers=["staff"]))
    assert (seen(base, "eat"), seen(base, "eat", "staff")) == (set(), {f"{SITE}/a"})
    world.site.routes["/sitemap.xml"] = xml(sitemap("/a", "/b"))
    list(base.sync(f"{SITE}/sitemap.xml"))
    assert (seen(base, "eat"), len(seen(base, "eat", "staff"))) == (set(), 2)


def test_readers_of_what_is_handed_over(base: KnowledgeBase) -> None:
    """A document names its own readers, and other readers count though the text is the same."""
    for readers, expected in (((), 1), (("ann",), 0), (("bob",), 0), ((), 1)):
        list(base.ingest_documents("notes", [Given("one", "Quokkas.", readers=readers)]))
        assert len(seen(base, "quokkas")) == expected
        assert all(seen(base, "quokkas", name) for name in readers)


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("https://a.example/x.git", "git"),
        ("https://a.example/sitemap.xml", "sitemap"),
        ("https://a.example/sitemap_index.xml.gz", "sitemap"),
        ("https://a.example/blog/feed/", "feed"),
        ("https://a.example/news.rss", "feed"),
        ("https://a.example/manual.pdf", "web"),
        ("https://a.example/", "web"),
    ],
)
def test_the_kind_of_an_address(address: str, kind: str) -> None:
    """What an address leads to is guessed from its looks."""
    assert guess(address) == kind


def test_an_address_that_is_none(base: KnowledgeBase) -> None:
    """An address that is not valid is refused before anything is read."""
    for address, kind in (("ftp://a.example/x", ""), ("http://a\\b/", ""), ("x", "telex")):
        with pytest.raises(SourceError):
            take(base, address, kind)
    assert base.status().roots == ()


def test_a_source_is_remembered(base: KnowledgeBase, world: Net) -> None:
    """Kind, readers and interval stay as they were given until others are."""
    world.site.routes["/feed.xml"] = xml(rss(entry(1, "Quokkas eat leaves.", PAST)))
    list(base.ingest([f"{SITE}/feed.xml"], readers=["staff"], every=5))
    list(base.sync(f"{SITE}/feed.xml"))
    [root] = base.status().roots
    assert (root.kind, root.readers, root.every_minutes) == ("feed", ("staff",), 5)
    assert (root.lag, root.pending, root.error) == (0.0, 0, None)
    assert root.changed <= root.checked
    assert base.forget(f"{SITE}/feed.xml") == 1
    assert base.status().roots == ()
