"""HTML: the article without the page around it. No network, no entities, no scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lxml.etree
import lxml.html

from retrieval.config import ParseSettings
from retrieval.parse._decode import decode
from retrieval.parse._grid import Cell, append_grid
from retrieval.parse._lines import join_lines
from retrieval.parse.base import TextBuilder, one_line, refuse, tidy
from retrieval.parse.table import record
from retrieval.schema import BlockKind, Parsed

SUFFIXES: tuple[str, ...] = (".html", ".htm", ".xhtml")


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_DROPPED = _names(
    "script style noscript template svg canvas iframe object embed audio video map head title "
    "button select input textarea datalist dialog nav menu"
)
_CHROME = frozenset(["header", "footer", "aside"])
_HOLDERS = _names("div section ul ol p form span aside")
_CHROME_ROLES = frozenset(["navigation", "banner", "contentinfo", "search", "complementary"])
_HIDDEN_CLASSES = _names(
    "sr-only visually-hidden screen-reader-text headerlink header-anchor hash-link anchor- "
    "link breadcrumb breadcrumbs skip-link"
)
_BLOCKS = _names(
    "html body main article section div p ul ol dl dt dd li form fieldset figure figcaption "
    "address hr center details summary header footer aside hgroup caption tr td th tbody "
    "thead tfoot table"
)
#: Parts of a page that are no part of its text, wherever they stand.
_FURNITURE_CLASSES = _names(
    "toc table-of-contents pagination pager navbar share social-share share-buttons newsletter "
    "advertisement site-header site-footer related-posts edit-this-page skip-to-content"
)
_CONSENT = re.compile(
    r"cookie[-_]?(?:banner|notice|bar|consent|popup|modal|overlay|message|alert|law|dialog)"
    r"|consent[-_]?(?:banner|bar|popup|modal|dialog)|(?:^|\s)(?:cc-window|onetrust\S*|gdpr[-_]\w+)",
    re.I,
)
#: A notice is short; a longer text of that name is what the page is about.
_NOTICE_LENGTH = 2_000
#: What keeps a definition from being one sentence.
_STRUCTURE = _names("pre ul ol dl table blockquote h1 h2 h3 h4 h5 h6")
_DEFINITION_LENGTH = 600
_HIDING_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.I)
_NOTE_TAGS = _names("li p div dd aside section")
_NOTE_LINK = re.compile(r"#(?:footnote|endnote|fn|cite_note|cite_ref)", re.I)
_CHARSET = re.compile(
    rb"<(?:meta[^>]{0,200}?charset|\?xml[^>]{0,100}?encoding)\s*=\s*[\"']?\s*([\w:.-]+)", re.I
)
_BLANKS = re.compile(r"\s+")
#: A line break in the source, which is only white space; a real one is a plain newline.
_SOFT = "\x1e"


def parse(path: Path, settings: ParseSettings) -> Parsed:
    """Read an HTML page; see `retrieval.parse.base` for the contract."""
    data = path.read_bytes()
    declared = _CHARSET.search(data[:4096])
    charset = declared.group(1).decode("ascii") if declared else ""
    builder = TextBuilder(path, settings)
    root = _tree(decode(path, data, charset, builder.notes))
    if root is None:
        raise refuse(path, "empty", "the page has no elements")
    _Walker(builder).block(_article(root))
    title = root.find(".//title")
    return builder.build("" if title is None else title.text_content())


def append_fragment(builder: TextBuilder, source: str) -> None:
    """Append the text of an HTML fragment (raw HTML in Markdown, a converted Word file)."""
    root = _tree(f"<!doctype html><body>{source}</body>")
    if root is not None:
        _Walker(builder).block(root)


def _tree(text: str) -> Any:
    parser = lxml.html.HTMLParser(
        encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True, huge_tree=False
    )
    data = text.encode("utf-8", errors="replace")
    try:
        return lxml.html.document_fromstring(data, parser=parser)
    except lxml.etree.ParserError:
        return None


def _article(root: Any) -> Any:
    """Find the element that holds the page's own text: main, a single article, or everything."""
    body = root.find("body")
    whole = root if body is None else body
    for query in (".//main", ".//*[@role='main']", ".//article"):
        found = whole.xpath(query)
        if len(found) == 1:
            inside, outside = len(found[0].text_content()), len(whole.text_content())
            if inside >= 200 or inside * 4 >= outside:
                return found[0]
    return whole


def _dropped(element: Any, in_article: bool) -> bool:
    """Whether nobody reads this element: chrome, controls, or hidden."""
    tag = element.tag
    if not isinstance(tag, str) or tag in _DROPPED:
        return True
    if tag in _CHROME and not in_article:
        return True
    if element.get("role") in _CHROME_ROLES or element.get("aria-hidden") == "true":
        return True
    if tag == "a" and _NOTE_LINK.match(element.get("href", "")):
        return True
    if element.get("hidden") is not None or _HIDING_STYLE.search(element.get("style", "")):
        return True
    classes = element.get("class", "")
    if not _HIDDEN_CLASSES.isdisjoint(classes.split()):
        return True
    return tag in _HOLDERS and _is_furniture(element, classes)


def _is_furniture(element: Any, classes: str) -> bool:
    """Whether a part of the page is named for what is no text: a consent banner, a pager."""
    if not _FURNITURE_CLASSES.isdisjoint(classes.lower().split()):
        return True
    named = f"{classes} {element.get('id', '')}"
    return bool(_CONSENT.search(named)) and len(element.text_content()) < _NOTICE_LENGTH


def _squeeze(text: str) -> str:
    """See white space as a browser sees it; a line break in the source stays recognisable."""
    return _BLANKS.sub(lambda run: _SOFT if "\n" in run.group() else " ", text)


def _settle(pieces: list[str]) -> str:
    """Turn inline pieces into text: real line breaks stay, soft ones are joined."""
    lines = "".join(pieces).split("\n")
    return tidy("\n".join(join_lines(tidy(part) for part in line.split(_SOFT)) for line in lines))


class _Walker:
    """Goes through the tree in reading order; inline text gathers until a block ends it."""

    def __init__(self, builder: TextBuilder) -> None:
        self._builder = builder
        self._inline: list[str] = []
        self._kinds: list[BlockKind] = ["paragraph"]
        self._marker: str | None = None
        self._article = 0
        self._named: dict[str, Any] | None = None
        self._cited: list[str] = []
        self._said: set[str] = set()

    def block(self, element: Any) -> None:
        """Append everything readable in `element`; the first call gives the whole tree."""
        if self._named is None:
            self._named = {one.get("id"): one for one in element.iter() if one.get("id")}
        article = element.tag in ("main", "article") or element.get("role") == "main"
        self._article += article
        self._text(element.text)
        for child in element:
            self._child(child)
            self._text(child.tail)
        self._article -= article
        if element.tag in _BLOCKS:
            self._flush()

    def _text(self, text: str | None) -> None:
        if text:
            self._inline.append(_squeeze(text))

    def _child(self, child: Any) -> None:
        tag = child.tag
        if tag == "a" and _NOTE_LINK.match(child.get("href", "")):
            self._cited.append(child.get("href")[1:])
            return
        if child.get("id") in self._said or _dropped(child, self._article > 0):
            return
        if tag in _HEADINGS:
            self._flush()
            self._builder.heading(_HEADINGS[tag], self._gather(child).rstrip("¶#"))
        elif tag == "br":
            self._inline.append("\n")
        elif tag == "img":
            self._text(child.get("alt"))
        elif tag in ("pre", "listing", "xmp"):
            self._flush()
            self._builder.code("".join(_raw(child)))
        elif tag == "table" and _is_data(child):
            self._flush()
            self._table(child)
        elif tag in ("ul", "ol"):
            self._list(child)
        elif tag == "dl":
            self._flush()
            self._definitions(child)
        elif tag == "blockquote":
            self._flush()
            self._kinds.append("quote")
            self.block(child)
            self._flush()
            self._kinds.pop()
        elif tag in _BLOCKS:
            self._flush()
            self.block(child)
        else:
            self.block(child)

    def _list(self, element: Any) -> None:
        self._flush()
        start = element.get("start", "1")
        number = int(start) if start.isascii() and start.isdigit() and len(start) < 9 else 1
        for child in element:
            if child.tag != "li":
                self._child(child)
            elif child.get("id") not in self._said and not _dropped(child, True):
                self._marker = f"{number}." if element.tag == "ol" else ""
                number += 1
                self._kinds.append("list_item")
                self.block(child)
                self._kinds.pop()
                self._marker = None
            self._text(child.tail)
        self._flush()

    def _definitions(self, element: Any) -> None:
        """Append a list of definitions: each with its term, in one item where it is short."""
        terms: list[str] = []
        defined = True
        for child in element.iter("dt", "dd"):
            if _dropped(child, True) or next(child.iterancestors("dl")) is not element:
                continue
            if child.tag == "dt":
                terms = [] if defined else terms
                terms.append(self._gather(child).rstrip("¶#"))
                defined = False
                continue
            term, defined = one_line(" / ".join(filter(None, terms))), True
            text = self._gather(child)
            plain = not any(one.tag in _STRUCTURE for one in child.iterdescendants())
            if plain and len(text) <= _DEFINITION_LENGTH:
                self._builder.list_item(record([(term, one_line(text))]))
            else:
                self._builder.paragraph(term)
                self.block(child)
                terms = []
        if not defined:
            self._builder.paragraph("\n".join(terms))

    def _table(self, element: Any) -> None:
        for caption in element.iterchildren("caption"):
            self._builder.paragraph(self._gather(caption))
        append_grid(self._builder, map(self._cells, element.iter("tr")))

    def _cells(self, row: Any) -> list[Cell]:
        parent = row.getparent()
        named = parent is not None and parent.tag == "thead"
        return [
            Cell(
                self._gather(cell),
                _count(cell.get("colspan")),
                _count(cell.get("rowspan")),
                named or cell.tag == "th",
            )
            for cell in row
            if cell.tag in ("td", "th") and not _dropped(cell, True)
        ]

    def _gather(self, element: Any) -> str:
        """Return all readable text inside `element`, its blocks as lines."""
        return _settle(list(_pieces(element)))

    def _flush(self) -> None:
        text = _settle(self._inline)
        self._inline = []
        if text and self._marker is not None:
            self._builder.list_item(text, self._marker)
            self._marker = None
        elif text:
            self._builder.paragraph(text, self._kinds[-1])
        if self._cited:
            self._notes()

    def _notes(self) -> None:
        """Append the notes just cited, which are not said again where they stand."""
        cited, self._cited = self._cited, []
        for name in cited:
            note = (self._named or {}).get(name)
            if note is not None and name not in self._said and note.tag in _NOTE_TAGS:
                self._said.add(name)
                self._builder.paragraph(self._gather(note))


def _count(written: str | None) -> int:
    """Read a span; what is no number spans one."""
    written = written or ""
    return int(written) if written.isascii() and written.isdigit() and len(written) < 9 else 1


def _pieces(element: Any) -> Iterator[str]:
    """Yield the readable text inside `element`, blocks set off by line breaks."""
    if element.text:
        yield _squeeze(element.text)
    for child in element:
        if not _dropped(child, True):
            if child.tag == "br":
                yield "\n"
            elif child.tag == "img":
                yield child.get("alt") or ""
            block = child.tag in _BLOCKS or child.tag == "pre"
            yield "\n" if block else ""
            yield from _pieces(child)
            yield "\n" if block else ""
        if child.tail:
            yield _squeeze(child.tail)


def _raw(element: Any) -> Iterator[str]:
    """Yield the text of a <pre>, white space untouched."""
    yield element.text or ""
    for child in element:
        if child.tag == "br":
            yield "\n"
        elif isinstance(child.tag, str) and child.tag not in _DROPPED:
            yield from _raw(child)
        yield child.tail or ""


def _is_data(table: Any) -> bool:
    """Whether a table holds data; one that holds tables or headings is a page layout."""
    return not any(
        element.tag == "table" or element.tag in _HEADINGS
        for element in table.iterdescendants()
        if isinstance(element.tag, str)
    )
