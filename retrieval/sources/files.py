"""Files and folders of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
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
    closed: list[OSError] = []
    for folder, folders, files in os.walk(top, onerror=closed.append):
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
