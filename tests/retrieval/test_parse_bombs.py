"""PDF files that are made to keep a reader busy: each ends, by name, and the next one is read."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from retrieval.config import ParseSettings
from retrieval.errors import ParseError
from retrieval.parse.worker import ParserPool

SECONDS = 20.0
SETTINGS = ParseSettings(memory_mb=384, seconds=SECONDS, max_characters=1_000_000)
CATALOG = b"<< /Type /Catalog /Pages 2 0 R >>"
PAGE = (
    b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << %s >> /Contents 4 0 R >>"
)
FONT = b"/Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >>"


def written(objects: Sequence[bytes], size: int = 0, table: bytes | None = None) -> bytes:
    """A PDF of these objects, the first one its catalog; `size` entries are declared."""
    data, rows = b"%PDF-1.4\n", [b"0000000000 65535 f \n"]
    for number, body in enumerate(objects, 1):
        rows.append(b"%010d 00000 n \n" % len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    told = size or len(rows)
    start = len(data)
    data += b"xref\n0 %d\n" % told + (table if table is not None else b"".join(rows))
    return data + b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (told, start)


def stream(content: bytes, about: bytes = b"") -> bytes:
    """An object of a stream."""
    return b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(content), about, content)


def packed(content: bytes, times: int = 1) -> bytes:
    """A stream packed so often."""
    for _ in range(times):
        content = zlib.compress(content, 9)
    return stream(content, b"/Filter [" + b"/FlateDecode " * times + b"]")


def page_loop() -> bytes:
    """A tree of pages that is its own child, a thousand million pages large by its own word."""
    return written([CATALOG, b"<< /Type /Pages /Count 1000000000 /Kids [2 0 R 2 0 R] >>"])


def parents_loop() -> bytes:
    """Two nodes of the tree that are each other's children and parents."""
    one = b"<< /Type /Pages /Count 9 /Parent 3 0 R /Kids [3 0 R 3 0 R] >>"
    return written([CATALOG, one, one.replace(b"3 0 R", b"2 0 R")])


def long_table() -> bytes:
    """A table of a million references, all to one place."""
    pages = b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>"
    table = b"0000000009 00000 n \n" * 1_000_000
    return written([CATALOG, pages, PAGE % FONT, stream(b"")], 1_000_000, table)


def one_page_often() -> bytes:
    """One page that is listed five thousand times."""
    text = stream(b"BT /F1 12 Tf 1 0 0 1 50 700 Tm (The widget costs 40 euros.) Tj ET")
    kids = b"<< /Type /Pages /Count 5000 /Kids [%s] >>" % (b"3 0 R " * 5_000)
    return written([CATALOG, kids, PAGE % FONT, text])


def flate_bomb() -> bytes:
    """A page of 128 MiB of nothing, packed three times."""
    pages = b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>"
    return written([CATALOG, pages, PAGE % FONT, packed(b" " * 128 * 2**20, 3)])


def form_loop() -> bytes:
    """A drawing that draws itself twice."""
    pages = b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>"
    about = (
        b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X 4 0 R >> >>"
    )
    itself = stream(b"/X Do /X Do", about)
    return written([CATALOG, pages, PAGE % b"/XObject << /X 4 0 R >>", itself])


def length_loop() -> bytes:
    """A stream whose length is the stream itself."""
    pages = b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>"
    return written([CATALOG, pages, PAGE % FONT, b"<< /Length 4 0 R >>\nstream\nBT ET\nendstream"])


#: Each bomb, and the reason of its refusal.
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "page loop": (page_loop, "broken"),
    "parents loop": (parents_loop, "broken"),
    "long table": (long_table, "no_text"),
    "flate bomb": (flate_bomb, "no_text"),
    "form loop": (form_loop, "broken"),
    "length loop": (length_loop, "no_text"),
}


@pytest.fixture(scope="module")
def pool() -> Iterator[ParserPool]:
    """One pool for all, which outlives them."""
    with ParserPool(SETTINGS) as made:
        yield made


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_costs_a_bounded_time_and_nobody_else(
    pool: ParserPool, tmp_path: Path, kind: str
) -> None:
    """It is refused in time with its reason and the file's name; the next file is read as ever."""
    make, reason = BOMBS[kind]
    path, sound = tmp_path / "bomb.pdf", tmp_path / "sound.md"
    path.write_bytes(make())
    sound.write_text("# Sound\n\nText.\n", encoding="utf-8")
    began = time.monotonic()
    with pytest.raises(ParseError) as caught:
        pool.parse(path)
    assert time.monotonic() - began < SECONDS + 15
    assert (caught.value.reason, caught.value.path) == (reason, str(path))
    assert caught.value.remedy
    assert pool.parse(sound).title == "Sound"


def test_a_page_that_is_listed_often_is_read_as_often(pool: ParserPool, tmp_path: Path) -> None:
    """Many pages of few bytes are pages: their text is bounded by the setting, as any."""
    path = tmp_path / "often.pdf"
    path.write_bytes(one_page_often())
    assert 0 < len(pool.parse(path).text) <= SETTINGS.max_characters
