from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import SourceNotFound
from retrieval.sources import files
from retrieval.sources.base import Item, belongs, storable


def write(path: Path, text: str = "text") -> Path:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def names(top: Path) -> list[str]:
    """Return what is found, relative to `top`."""
    return [str(item.path.relative_to(top.resolve())) for item in files.walk(top)]


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A folder of documents."""
    return write(tmp_path / "docs" / "a.md").parent


def test_every_file_in_order(top: Path) -> None:
    """Every file below the folder comes once, in sorted order, under its absolute path."""
    for name in ("b.md", "中文/说明.md", "sub/deep/c.txt", "sub/b.md"):
        write(top / name)
    found = names(top)
    assert found == ["a.md", "b.md", "sub/b.md", "sub/deep/c.txt", "中文/说明.md"]
    assert [item.source for item in files.walk(top)] == [str(top.resolve() / n) for n in found]
    assert not any(item.named for item in files.walk(top))


def test_what_nobody_means_is_left_out(top: Path) -> None:
    """Hidden files and folders, packages and caches are not read."""
    for name in (".git/x.md", ".hidden.md", "node_modules/p/x.md", "__pycache__/x.md", "venv/x.md"):
        write(top / name)
    assert names(top) == ["a.md"]


def test_links_stay_inside(top: Path) -> None:
    """A link out of the folder is not followed, nor is one to a folder or to itself."""
    outside = write(top.parent / "outside" / "secret.md")
    (top / "out.md").symlink_to(outside)
    (top / "folder").symlink_to(outside.parent)
    (top / "round.md").symlink_to("round.md")
    (top / "up").symlink_to(top)
    (top / "same.md").symlink_to("a.md")
    assert [n for n in names(top) if n != "round.md"] == ["a.md", "same.md"]


def test_a_file_is_its_own_root(top: Path) -> None:
    """A named file is one item, whatever it is called."""
    hidden = write(top / ".hidden.md")
    assert list(files.walk(hidden)) == [Item(str(hidden.resolve()), hidden.resolve(), named=True)]
    assert files.root(hidden) == str(hidden.resolve())


@pytest.mark.parametrize("name", ["missing", "a\0b", "x" * 300, "a.md/below"])
def test_nothing_there(top: Path, name: str) -> None:
    """A path that leads nowhere is refused, whatever is wrong with it."""
    with pytest.raises(SourceNotFound, match="no such file or folder"):
        files.root(top / name)


def test_a_root_has_one_name(top: Path) -> None:
    """However a folder is written, it is the same root."""
    (top.parent / "link").symlink_to(top)
    ways = [top, top / ".", top / ".." / "docs", top.parent / "link", Path("docs")]
    os.chdir(top.parent)
    assert {files.root(way) for way in ways} == {str(top.resolve())}


def too_deep(top: Path) -> Iterator[str]:
    """Make folders below `top` until their path is too long for the system; yield their names."""
    home = os.getcwd()
    os.chdir(top)
    for _ in range(18):
        os.mkdir("d" * 250)
        os.chdir("d" * 250)
        yield "d" * 250
    os.chdir(home)


def test_a_folder_that_cannot_be_listed_is_an_item(top: Path) -> None:
    """A folder that cannot be opened is handed on, last, to be reported."""
    depth = list(too_deep(top))
    write(top / "z.md")
    *rest, last = files.walk(top)
    assert [item.path.name for item in rest] == ["a.md", "z.md"]
    assert last.named
    assert last.path.is_relative_to(top.resolve() / depth[0])


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_a_name_that_is_not_text(top: Path) -> None:
    """A file name that is not UTF-8 can be stored, and its file still be opened."""
    path = Path(os.fsdecode(os.fsencode(top) + b"/caf\xe9.md"))
    write(path)
    [item] = [item for item in files.walk(top) if item.path.name != "a.md"]
    assert (item.source, item.stem) == (f"{top.resolve()}/caf\\udce9.md", "caf\\udce9")
    assert item.path.read_text() == "text"


@given(st.text(st.characters(codec=None)))
def test_storable_is_utf8(name: str) -> None:
    """Any name can be stored; names that could be before stay as they are."""
    stored = storable(name)
    assert stored.encode("utf-8").decode("utf-8") == stored == storable(stored)


@pytest.mark.parametrize(
    ("source", "root", "expected"),
    [
        ("/docs/a.md", "/docs", True),
        ("/docs", "/docs", True),
        ("/docs/sub/a.md", "/docs/sub", True),
        ("/docs2/a.md", "/docs", False),
        ("/docs:old/a.md", "/docs", False),
        ("/docs/a.md:2", "/docs/a.md", False),
        ("/a.md", "/", True),
        ("upload:a.md", "upload", True),
        ("upload", "upload", True),
        ("uploads:a.md", "upload", False),
    ],
)
def test_belongs(source: str, root: str, expected: bool) -> None:
    """A source belongs to what it is or lies below, not to what its name begins with."""
    assert belongs(source, root) == expected


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (Item("s", Path("/x/报告.v2.md")), "报告.v2"),
        (Item("s", Path("/x/3fa9.md"), True, "My notes.md"), "My notes"),
        (Item("s", Path("/x/README")), "README"),
    ],
)
def test_stem(item: Item, expected: str) -> None:
    """Without a title of its own, a document is called as people call its file."""
    assert item.stem == expected
