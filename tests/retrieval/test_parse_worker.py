from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openpyxl
import pytest

from retrieval.config import ParseSettings
from retrieval.errors import ParseError, RetrievalError
from retrieval.parse._wire import LENGTH
from retrieval.parse.base import REASONS
from retrieval.parse.worker import ParserPool, supported_suffixes

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ParseSettings(memory_mb=256, max_bytes=48 * 2**20, max_archive_bytes=20 * 2**20)

WORD_NAMESPACE = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
RELATIONS = (
    '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    f'<Relationship Id="r1" Type="{RELATION}" Target="word/document.xml"/></Relationships>'
)
TYPES = (
    '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="xml" ContentType="application/xml"/></Types>'
)


def docx(body: str, prologue: str = "", extra: bytes = b"") -> bytes:
    """Return a Word file made by hand."""
    packed = io.BytesIO()
    document = (
        f'<?xml version="1.0"?>{prologue}<w:document xmlns:w="{WORD_NAMESPACE}">'
        f"<w:body>{body}</w:body></w:document>"
    )
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", TYPES)
        archive.writestr("_rels/.rels", RELATIONS)
        archive.writestr("word/document.xml", document)
        if extra:
            archive.writestr("word/extra.bin", extra)
    return packed.getvalue()


def paragraph(text: str, style: str = "") -> str:
    """Return a paragraph of a Word file."""
    properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{properties}<w:r><w:t>{text}</w:t></w:r></w:p>"


def zipped(name: str, content: bytes) -> bytes:
    """Return a zip archive of one entry."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return packed.getvalue()


def lying() -> bytes:
    """Return a Word file whose directory declares a part smaller than it is."""
    data = docx(paragraph("x" * 100_000))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        size = archive.getinfo("word/document.xml").file_size
    return data.replace(size.to_bytes(4, "little"), (4096).to_bytes(4, "little"))


LAUGHS = "<!DOCTYPE x [" + "".join(
    f'<!ENTITY a{i} "{f"&a{i - 1};" * 10 if i else "ha"}">' for i in range(12)
)

BAD: dict[str, tuple[str, bytes, str]] = {
    "no bytes": ("a.md", b"", "empty"),
    "white space": ("a.txt", b" \n\t \n", "empty"),
    "much white space": ("a.txt", b" \n" * 9000, "empty"),
    "bom only": ("a.txt", b"\xef\xbb\xbf", "empty"),
    "broken pdf": ("a.pdf", b"%PDF-1.7\n\x00garbage", "broken"),
    "random pdf": ("a.pdf", bytes(range(256)), "broken"),
    "cut docx": ("a.docx", docx(paragraph("text"))[:-100], "broken"),
    "broken json": ("a.json", b"{", "broken"),
    "too large": ("a.txt", b"x" * (48 * 2**20 + 1), "too_large"),
    "pdf as text": ("a.txt", b"%PDF-1.7\n", "disguised"),
    "image as markdown": ("a.md", b"\x89PNG\r\n\x1a\n....", "disguised"),
    "program as csv": ("a.csv", b"\x7fELF\x02\x01", "disguised"),
    "gzip as html": ("a.html", b"\x1f\x8b\x08\x00", "disguised"),
    "text as pdf": ("a.pdf", b"just words", "disguised"),
    "html as docx": ("a.docx", b"<html>not word</html>", "disguised"),
    "zip as docx": ("a.docx", zipped("a.txt", b"x"), "disguised"),
    "binary as text": ("a.txt", bytes(range(256)) * 9, "disguised"),
    "binary without NUL": ("a.txt", bytes(range(1, 256)) * 9, "disguised"),
    "old word as docx": ("a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "disguised"),
    "locked docx": (
        "a.docx",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0" + "EncryptedPackage".encode("utf-16-le"),
        "encrypted",
    ),
    "old word": ("a.doc", b"\xd0\xcf\x11\xe0", "unsupported"),
    "unknown": ("a.xyz", b"x", "unsupported"),
    "no suffix": ("README", b"x", "unsupported"),
    "ratio bomb": ("a.docx", docx(paragraph("x"), extra=b"\0" * 9 * 2**20), "archive_bomb"),
    "sum bomb": ("a.docx", docx("", extra=os.urandom(2**20) * 21), "archive_bomb"),
    "billion laughs": ("a.docx", docx(paragraph("&a11;"), LAUGHS + "]>"), "broken"),
    "outside entity": (
        "a.docx",
        docx(paragraph("&x;"), '<!DOCTYPE x [<!ENTITY x SYSTEM "file:///etc/passwd">]>'),
        "broken",
    ),
    "lying sizes": ("a.docx", lying(), "broken"),
    "deep json": ("a.json", b"[" * 200_000, "broken"),
    "memory": ("a.json", b"[" + b"[]," * 15_000_000 + b"[]]", "memory"),
    "nonsense encoding": ("a.txt", b"\xff\xfea", "encoding"),
}


@pytest.fixture(scope="module")
def pool() -> Iterator[ParserPool]:
    """Share one pool, so that each test also shows that it survived the ones before."""
    with ParserPool(SETTINGS) as made:
        yield made


def reason(pool: ParserPool, path: Path) -> ParseError:
    """Return the error that parsing `path` raises."""
    with pytest.raises(ParseError) as caught:
        pool.parse(path)
    return caught.value


def alive(pool: ParserPool, folder: Path) -> None:
    """Check that the pool still reads a sound file."""
    path = folder / "sound.md"
    path.write_text("# 标题\n\ntext", encoding="utf-8")
    assert pool.parse(path).title == "标题"


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_named_and_the_next_one_is_read(
    pool: ParserPool, tmp_path: Path, case: str
) -> None:
    """Every way to fail has its reason and remedy, and costs nobody else anything."""
    name, content, expected = BAD[case]
    path = tmp_path / name
    path.write_bytes(content)
    error = reason(pool, path)
    assert error.reason == expected, error
    assert error.reason in REASONS
    assert error.path == str(path)
    assert error.detail
    assert error.remedy
    alive(pool, tmp_path)


def test_a_sound_word_file_is_read(pool: ParserPool, tmp_path: Path) -> None:
    """A Word file's text is text, also where it looks like markup."""
    path = tmp_path / "a.docx"
    path.write_bytes(docx(paragraph("List&lt;String&gt; *a* # b") + paragraph("第二段")))
    assert pool.parse(path).text == "List<String> *a* # b\n\n第二段"


def test_what_is_no_file_is_unreadable(pool: ParserPool, tmp_path: Path) -> None:
    """A missing path, a folder and a pipe are named, and never waited for."""
    (tmp_path / "folder.md").mkdir()
    os.mkfifo(tmp_path / "pipe.md")
    for name in ("folder.md", "pipe.md", "missing.md"):
        assert reason(pool, tmp_path / name).reason == "unreadable"


def test_a_sheet_that_claims_to_be_huge_is_read_as_it_is(pool: ParserPool, tmp_path: Path) -> None:
    """The declared size of a sheet is not believed."""
    made, path = io.BytesIO(), tmp_path / "a.xlsx"
    book = openpyxl.Workbook()
    book.active.append(["甲", 1])
    book.save(made)
    with zipfile.ZipFile(made) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            data = old.read(entry).replace(b'ref="A1:B1"', b'ref="A1:XFD1048576"')
            new.writestr(entry.filename, data)
    assert "甲 | 1" in pool.parse(path).text


def test_a_slow_file_is_ended_in_time(tmp_path: Path) -> None:
    """The clock is the parent's: a file that takes too long is a timeout, and the next is read."""
    path = tmp_path / "slow.txt"
    path.write_text("some words that fill a line of text quite well, and so on\n" * 400_000)
    with ParserPool(ParseSettings(seconds=1.5, max_characters=10**9)) as pool:
        alive(pool, tmp_path)
        started = time.monotonic()
        assert reason(pool, path).reason == "timeout"
        assert time.monotonic() - started < 6
        alive(pool, tmp_path)


def test_too_much_text_is_named(tmp_path: Path) -> None:
    """A file that gives more text than allowed is refused."""
    path = tmp_path / "a.md"
    path.write_text("word " * 100)
    with ParserPool(ParseSettings(max_characters=100)) as pool:
        assert reason(pool, path).reason == "output"


def test_threads_share_a_pool(tmp_path: Path) -> None:
    """Answers are not mixed up between threads, whatever fails meanwhile."""
    paths = []
    for number in range(40):
        path = tmp_path / f"{number}.{'json' if number % 5 == 4 else 'md'}"
        path.write_text(f"# page {number}")
        paths.append(path)
    with ParserPool(ParseSettings(workers=2)) as pool, ThreadPoolExecutor(6) as threads:

        def read(path: Path) -> str:
            try:
                return pool.parse(path).title
            except ParseError as error:
                return error.reason

        titles = list(threads.map(read, paths))
    assert titles == ["broken" if n % 5 == 4 else f"page {n}" for n in range(40)]


def test_a_child_is_used_again(tmp_path: Path) -> None:
    """Two hundred Markdown files take seconds, because the interpreter starts once."""
    for number in range(200):
        (tmp_path / f"{number}.md").write_text(f"# {number}\n\n" + "text **bold**\n\n" * 40)
    started = time.monotonic()
    with ParserPool(ParseSettings()) as pool:
        for number in range(200):
            pool.parse(tmp_path / f"{number}.md")
    assert time.monotonic() - started < 15


def test_a_closed_pool_says_so(tmp_path: Path) -> None:
    """A closed pool starts nothing; closing twice is fine."""
    (tmp_path / "a.md").write_text("x")
    pool = ParserPool(ParseSettings())
    pool.close()
    pool.close()
    with pytest.raises(RetrievalError, match="closed"):
        pool.parse(tmp_path / "a.md")


def test_suffixes_come_from_the_folder() -> None:
    """What can be read is what the parsers' files say."""
    suffixes = supported_suffixes()
    assert list(suffixes) == sorted(set(suffixes))
    assert {".md", ".html", ".pdf", ".docx", ".csv", ".json", ".rst", ".txt"} <= set(suffixes)


def run_child(code: str) -> subprocess.CompletedProcess[bytes]:
    """Run code in a fresh interpreter, as a child of the pool is one."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=60, check=False
    )


def test_noise_never_reaches_the_answers() -> None:
    """What a library prints, to Python's or to C's standard output, is not an answer."""
    done = run_child(
        "import os, sys\nfrom retrieval.parse import _child\n"
        "_, answers = _child._take_pipes()\n"
        "sys.stdout.write('noise'); sys.stdout.flush(); os.write(1, b'noise'); os.write(2, b'x')\n"
        "_child._send(answers, {'a': '中'})\n"
    )
    (length,) = LENGTH.unpack(done.stdout[: LENGTH.size])
    assert done.stdout[LENGTH.size :].decode() == '{"a": "中"}'
    assert length == len(done.stdout) - LENGTH.size
    assert not done.stderr


def test_a_child_has_no_sockets_and_cannot_write() -> None:
    """A parser can neither call somebody nor fill the disk nor dump its core."""
    done = run_child(
        "import resource, socket, tempfile\nfrom retrieval.config import ParseSettings\n"
        "from retrieval.parse import _child\n"
        "_child._limit_process(ParseSettings())\nsocket.socket = _child._NoSocket\n"
        "def fails(do):\n"
        "    try: do()\n"
        "    except OSError: return True\n"
        "assert fails(lambda: socket.create_connection(('127.0.0.1', 9)))\n"
        "assert fails(lambda: socket.socket())\n"
        "assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)\n"
        "file = tempfile.TemporaryFile(buffering=0)\n"
        "assert fails(lambda: [file.write(b'x' * 2**20) for _ in range(3)])\n"
    )
    assert done.returncode == 0, done.stderr


def children() -> set[int]:
    """Return the processes whose parent is this one."""
    listed = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
    return {int(number) for number in listed.split()}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_child_that_dies_is_replaced(tmp_path: Path) -> None:
    """A child killed while idle costs no file anything, and closing leaves no process behind."""
    before = children()
    with ParserPool(ParseSettings()) as pool:
        alive(pool, tmp_path)
        (child,) = children() - before
        os.kill(child, signal.SIGKILL)
        time.sleep(0.2)
        alive(pool, tmp_path)
    assert children() <= before
