"""Files and folders that are there whole or not at all, also after a power cut."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

PART = ".part-"
GONE = ".gone-"


def write(path: Path, content: bytes) -> None:
    """Replace a file in one step: written aside, brought to the disk, renamed.

    Raises:
        OSError: it cannot be written; the old file stands.
    """
    part = path.with_name(f"{PART}{path.name}")
    try:
        _put(part, content)
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync(path.parent)


def append(path: Path, line: bytes) -> None:
    """Add a line to a file and bring it to the disk."""
    new = not path.exists()
    with path.open("ab") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    if new:
        sync(path.parent)


def place(folder: Path, files: Mapping[str, Path], texts: Mapping[str, bytes]) -> None:
    """Make a folder of copies of `files` and of `texts`, by their names in it, in one step.

    Raises:
        OSError: it cannot be made; nothing of it is left.
    """
    part = folder.with_name(PART + folder.name)
    try:
        part.mkdir()
        for name, source in files.items():
            target = part / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            sync(target)
        for name, content in texts.items():
            _put(part / name, content)
        for below in (*(p for p in part.rglob("*") if p.is_dir()), part):
            sync(below)
        part.rename(folder)
    except OSError:
        shutil.rmtree(part, ignore_errors=True)
        raise
    sync(folder.parent)


def remove(folder: Path) -> None:
    """Remove a folder; at no time is half of it there under its name."""
    gone = folder.with_name(GONE + folder.name)
    folder.rename(gone)
    shutil.rmtree(gone)


def sweep(root: Path) -> None:
    """Clear away what an interrupted process has left; nobody may be writing."""
    for left in root.iterdir():
        if left.name.startswith((PART, GONE)):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()


def sync(path: Path) -> None:
    """Bring a file or a folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
