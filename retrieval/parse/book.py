"""EPUB books: the chapters in their reading order, each read as a web page."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import lxml.etree

from retrieval.config import ParseSettings
from retrieval.parse._archive import check_archive
from retrieval.parse._decode import decode
from retrieval.parse.base import TextBuilder, refuse
from retrieval.parse.web import append_fragment
from retrieval.schema import Parsed

SUFFIXES: tuple[str, ...] = (".epub",)

_CONTAINER = "META-INF/container.xml"
_LOCKED = "META-INF/encryption.xml"
_PAGES = (".xhtml", ".html", ".htm", ".xml")


def parse(path: Path, settings: ParseSettings) -> Parsed:
    """Read an EPUB 2 or 3; see `retrieval.parse.base` for the contract."""
    check_archive(path, settings)
    builder = TextBuilder(path, settings)
    with zipfile.ZipFile(path) as archive:
        try:
            title, chapters = _contents(archive)
        except (KeyError, lxml.etree.XMLSyntaxError, IndexError) as error:
            raise refuse(path, "broken", f"its list of contents cannot be read: {error}") from error
        names = set(archive.namelist())
        locked = archive.read(_LOCKED).decode("utf-8", "replace") if _LOCKED in names else ""
        for name in chapters:
            if name not in names:
                builder.notes.append(f"the chapter {name} is missing")
            elif name in locked:
                raise refuse(path, "encrypted", "the book is locked (DRM)")
            else:
                page = decode(path, archive.read(name), notes=builder.notes)
                append_fragment(builder, page)
    return builder.build(title)


def _contents(archive: zipfile.ZipFile) -> tuple[str, list[str]]:
    """Return the title and the names of the chapters in reading order."""
    root = _xml(archive.read(_CONTAINER))
    package = root.xpath("//*[local-name()='rootfile']/@full-path")[0]
    tree = _xml(archive.read(package))
    folder = posixpath.dirname(package)
    items = {item.get("id"): item for item in tree.xpath("//*[local-name()='manifest']/*[@href]")}
    chapters = list(_chapters(tree, items, folder))
    title = "".join(tree.xpath("//*[local-name()='metadata']/*[local-name()='title']/text()")[:1])
    return title, chapters


def _chapters(tree: Any, items: dict[str, Any], folder: str) -> Iterator[str]:
    for reference in tree.xpath("//*[local-name()='spine']/*/@idref"):
        item = items.get(reference)
        if item is None or "nav" in item.get("properties", "").split():
            continue
        name = posixpath.normpath(posixpath.join(folder, unquote(item.get("href"))))
        if name.lower().endswith(_PAGES):
            yield name


def _xml(data: bytes) -> Any:
    parser = lxml.etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    return lxml.etree.fromstring(data, parser)
