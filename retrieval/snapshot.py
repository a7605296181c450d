"""Indexes on disk, derived from the store: checksummed, swapped whole, replaceable at any time.

`<home>/index/<model>/snap-<sequence>/` holds the files of an index and `manifest.json`; `CURRENT`
beside it names the newest. A snapshot is written under another name, synced, renamed, and only then
named by CURRENT, so a crash leaves the one before. FAISS has no checksum of its own, so every file
is compared with its SHA-256 before it is read. Readers hold a shared lock on the manifest; a
snapshot is deleted only when nobody does.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from retrieval import fault, menu
from retrieval.errors import BackendMissing, StoreBusy
from retrieval.index.base import Index
from retrieval.store_log import Model

_LOG = logging.getLogger(__name__)

FORMAT = 1
MANIFEST, CURRENT = "manifest.json", "CURRENT"
#: Snapshots kept: the newest, and the one before it to fall back on.
KEPT = 2


class Unsynced(OSError):
    """The system could not bring a file to the disk (fsync); not to be tried again."""


class Unsound(Exception):
    """A snapshot does not hold what its manifest says."""


@dataclass(slots=True)
class Snapshot:
    """An opened snapshot. Its files stay until `lease` (a descriptor) is closed."""

    folder: Path
    sequence: int
    created: float
    index: Index
    lease: int

    def __del__(self) -> None:
        os.close(self.lease)


def slug(model: str) -> str:
    """A folder's name for a model id: readable, and different for every id."""
    digest = hashlib.sha256(model.encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9.-]+', '-', model)[:48].strip('-.')}-{digest}"


class Snapshots:
    """The folder of snapshots of one home. Safe for several processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, model: Model) -> Path:
        """Where the snapshots of `model` lie."""
        return self.folder / slug(model.name)

    def open(self, model: Model) -> tuple[Snapshot | None, str]:
        """The newest sound snapshot, and what was wrong with newer ones ("" if nothing).

        Damaged ones are removed, so that nothing is repaired twice; where that is not permitted,
        they stay.
        """
        home = self.of(model)
        problems: list[str] = []
        named = _current(home, problems)
        bad: list[Path] = []
        found: Snapshot | None = None
        for folder in _newest_first(home, named):
            try:
                found = _open(folder, model)
                break
            except FileNotFoundError as error:
                if not folder.exists():  # another process deleted it just now
                    continue
                problems.append(f"{folder.name}: {Path(error.filename or '?').name} is missing")
                bad.append(folder)
            except (OSError, Unsound, BackendMissing) as error:
                problems.append(f"{folder.name}: {error}")
                bad.append(folder)
        if problems:
            self._discard(home, bad, found)
            instead = f"snapshot {found.folder.name}" if found else "the stored vectors"
            return found, f"damaged index ({'; '.join(problems)}): made again from {instead}"
        return found, ""

    def _discard(self, home: Path, bad: list[Path], good: Snapshot | None) -> None:
        """Remove what is damaged and point CURRENT at what is sound."""
        try:
            with self.writing():
                for folder in bad:
                    _delete(folder)
                if good is None:
                    (home / CURRENT).unlink(missing_ok=True)
                else:
                    _point(home, good.folder)
                _sync(home)
        except (OSError, StoreBusy) as error:
            _LOG.warning("%s cannot be tidied up: %s", home, error)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """The right to change the folder, one process at a time.

        Raises:
            StoreBusy: another process has it.
            OSError: the folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                yield
        except Timeout as error:
            raise StoreBusy(f"another process is writing {self.folder}; try again") from error

    @contextmanager
    def scratch(self, model: Model) -> Iterator[Path]:
        """A folder to build a snapshot in; gone afterwards, with those of killed writers."""
        home = self.of(model)
        home.mkdir(parents=True, exist_ok=True)
        for left in [*home.glob("new-*"), *home.glob("gone-*")]:
            shutil.rmtree(left, ignore_errors=True)
        folder = home / f"new-{os.getpid()}-{time.time_ns()}"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(
        self,
        folder: Path,
        model: Model,
        backend: str,
        index: Index,
        sequence: int,
        files: tuple[str, ...],
    ) -> Path:
        """Make the `files` that `index` saved in `folder` the newest snapshot; returns its place.

        A failed sync is not tried again: what the system kept of those pages cannot be known.
        """
        home = self.of(model)
        hashes = {name: _sha256(folder / name) for name in files}
        manifest = {
            "format": FORMAT,
            "model": model.name,
            "dim": model.dim,
            "metric": "inner product",
            "backend": backend,
            "factory": index.factory,
            "engine": index.engine,
            "sequence": sequence,
            "ntotal": index.size,
            "created": time.time(),
            "files": hashes,
        }
        (folder / MANIFEST).write_text(_sealed(manifest), encoding="utf-8")
        for name in (*hashes, MANIFEST):
            _sync(folder / name)
        _sync(folder)
        fault.reached("before-rename")
        target = home / f"snap-{sequence}"
        if target.exists():
            _delete(target)
        os.rename(folder, target)
        fault.reached("after-rename")
        _point(home, target)
        fault.reached("before-directory-sync")
        _sync(home)
        return target

    def prune(self, model: Model) -> int | None:
        """Delete snapshots nobody needs; returns the oldest sequence number still needed."""
        home = self.of(model)
        kept = []
        for place, folder in enumerate(_newest_first(home, None)):
            if place < KEPT or not _free(folder):
                kept.append(_sequence(folder))
            else:
                _delete(folder)
        return min(kept, default=None)

    def forget(self, model: Model) -> None:
        """Delete every snapshot of a model that serves no more, unless a reader holds one."""
        home = self.of(model)
        if all(_free(folder) for folder in _newest_first(home, None)):
            shutil.rmtree(home, ignore_errors=True)


def _open(folder: Path, model: Model) -> Snapshot:
    lease = os.open(folder / MANIFEST, os.O_RDONLY)
    try:
        fcntl.flock(lease, fcntl.LOCK_SH)
        manifest = _read(folder)
        expected = (FORMAT, model.name, model.dim)
        if (manifest["format"], manifest["model"], manifest["dim"]) != expected:
            raise Unsound(f"is of {manifest['model']}, {manifest['dim']} columns")
        for name, digest in manifest["files"].items():
            if _sha256(folder / name) != digest:
                raise Unsound(f"{name} is not what was written")
        index: Index = menu.load("retrieval.index", manifest["backend"]).build(model.dim)
        index.load(folder)
        if index.size != manifest["ntotal"]:
            raise Unsound(f"holds {index.size} vectors, expected {manifest['ntotal']}")
        return Snapshot(folder, manifest["sequence"], manifest["created"], index, lease)
    except BaseException:
        os.close(lease)
        raise


def _sealed(manifest: dict[str, Any]) -> str:
    """The manifest with the hash of its own text in the last line."""
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    return text + hashlib.sha256(text.encode()).hexdigest() + "\n"


def _read(folder: Path) -> dict[str, Any]:
    text = (folder / MANIFEST).read_bytes().decode("utf-8", "replace")
    body, end, seal = text[:-1].rpartition("\n")
    if not text.endswith("\n") or hashlib.sha256((body + end).encode()).hexdigest() != seal:
        raise Unsound(f"{MANIFEST} is not what was written")
    found: dict[str, Any] = json.loads(body)
    return found


def _current(home: Path, problems: list[str]) -> Path | None:
    """What CURRENT names, if it is whole; None where there is none."""
    try:
        text = (home / CURRENT).read_bytes().decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        if any(home.glob("snap-*")):
            problems.append(f"{CURRENT} is missing")
        return None
    except OSError as error:
        problems.append(f"{CURRENT} cannot be read ({error.strerror})")
        return None
    name = text.split(" ")[0]
    if text != _pointer(name):
        problems.append(f"{CURRENT} is not what was written")
        return None
    if not (home / name).is_dir():
        problems.append(f"{name} is missing")
    return home / name


def _pointer(name: str) -> str:
    return f"{name} {hashlib.sha256(name.encode()).hexdigest()}\n"


def _point(home: Path, target: Path) -> None:
    part = home / f"{CURRENT}.part"
    part.write_text(_pointer(target.name), encoding="utf-8")
    _sync(part)
    os.replace(part, home / CURRENT)


def _sequence(folder: Path) -> int:
    tail = folder.name.partition("-")[2]
    return int(tail) if tail.isdecimal() else -1


def _newest_first(home: Path, named: Path | None) -> list[Path]:
    """Snapshots, newest first; those newer than what CURRENT names were never finished."""
    found = sorted(home.glob("snap-*"), key=_sequence, reverse=True)
    return [f for f in found if named is None or _sequence(f) <= _sequence(named)]


def _free(folder: Path) -> bool:
    """Whether no reader holds the snapshot."""
    try:
        descriptor = os.open(folder / MANIFEST, os.O_RDONLY)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _delete(folder: Path) -> None:
    """Out of the way at once, then gone: a reader never sees half a snapshot."""
    away = folder.with_name(f"gone-{os.getpid()}-{time.time_ns()}")
    with suppress(FileNotFoundError):
        os.rename(folder, away)
        shutil.rmtree(away, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise Unsynced(f"{path} could not be synced: {error.strerror}") from error
    finally:
        os.close(descriptor)
