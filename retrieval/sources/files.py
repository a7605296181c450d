"""Files and folders of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from retrieval.errors import SourceNotFound
from retrieval.sources.base import Item, storable

#: Folders nobody means when they name the folder above: version control, packages, caches.
SKIPPED = frozenset({"node_modules", "__pycache__", "venv", "site-packages"})


def root(path: Path) -> str:
    """The name of `path` as a root: its absolute path, links resolved.

    Raises:
        SourceNotFound: nothing lies there.
    """
    if not os.path.exists(path):
        raise SourceNotFound(f"{path}: no such file or folder; check the spelling and the drive")
    return storable(str(path.resolve()))


def walk(path: Path) -> Iterator[Item]:
    """Every file under `path`, in sorted order, or `path` itself when it is a file.

    Hidden files and folders are left out, and so is a link that leads out of `path`. A folder that
    cannot be listed comes last, as an item of its own: ingestion reports it and removes nothing
    below it.
    """
    top = path.resolve()
    if not top.is_dir():
        yield Item(storable(str(top)), top, named=True)
        return
    yield from _below(top, top)


def touched(top: Path, paths: Iterable[str]) -> tuple[list[Item], list[str]]:
    """What is to be read and what is gone after changes at these paths below the folder `top`.

    The same files are left out as in `walk`. A folder stands for all that lies in it, and is among
    both: of what was known below it, the rest may be gone.
    """
    items: dict[str, Item] = {}
    gone: list[str] = []
    for name in sorted(set(paths)):
        path = Path(name)
        if not path.is_relative_to(top) or _left_out(path.relative_to(top).parts):
            continue
        if path.is_dir():
            if path.is_symlink():  # never followed
                continue
            gone.append(storable(name))
            items.update((item.source, item) for item in _below(path, top))
        elif os.path.lexists(path) and not (path.is_symlink() and not _inside(path, top)):
            items[storable(name)] = Item(storable(name), path)
        else:
            gone.append(storable(name))
    return list(items.values()), gone


def _left_out(parts: Sequence[str]) -> bool:
    return any(p.startswith(".") for p in parts) or any(p in SKIPPED for p in parts[:-1])


def _below(start: Path, top: Path) -> Iterator[Item]:
    closed: list[OSError] = []
    for folder, folders, files in os.walk(start, onerror=closed.append):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in SKIPPED)
        for name in sorted(files):
            file = Path(folder, name)
            if name.startswith(".") or (file.is_symlink() and not _inside(file, top)):
                continue
            yield Item(storable(str(file)), file)
    for error in closed:
        if not isinstance(error, FileNotFoundError):
            yield Item(storable(error.filename), Path(error.filename), named=True)


def _inside(link: Path, top: Path) -> bool:
    # not Path.resolve, which raises where links form a ring
    return Path(os.path.realpath(link)).is_relative_to(top)
