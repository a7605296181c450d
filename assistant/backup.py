"""A copy of everything in a home while it is in use, and a home made of such a copy.

    DEST/backup.json     format, time, and every file with its size and SHA-256
    DEST/home/…          the files

Each SQLite file is one consistent state, made by SQLite's own backup; what refers to another file
is copied before it, so that nothing in a copy points at what came later. What can be made again
(indexes, clones of repositories, runs of training) is left out. Both ways are whole or not there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout

from assistant.errors import BackupError

FORMAT, VERSION = "plumbline-backup", 1
MANIFEST, FILES = "backup.json", "home"
#: Copied in this order, the others after them; `knowledge.db` is what most others point at.
FIRST = ("documents.db", "responses.db", "preferences.db", "conversations.db", "appeals.db")
LAST = ("knowledge.db",)
#: Folders of a home that are made again from the rest, or begun again.
DERIVED = ("index", "sources", "runs")
#: What stands beside files while they are in use, or was left there.
ASIDE = re.compile(r"(-journal|-wal|-shm|\.lock|\.part|\.bak)$|^\.")
#: Locks that writers of plain files hold: whose, and of what.
LOCKS = {"audit.jsonl": "audit.jsonl.lock", "policies": "policies/.lock"}
#: Seconds to wait for those and for writers of a database.
BUSY = 60.0
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Backup:
    """A sound backup: files by their names in the home, with (bytes, SHA-256) each."""

    folder: Path
    created: float
    files: dict[str, tuple[int, str]]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for size, _ in self.files.values())


def back_up(home: Path, folder: Path) -> Backup:
    """Copy a home into a new folder, while it is in use.

    Raises:
        BackupError: there is no data, the folder is taken or lies inside the home, somebody wrote
            for too long, a database is damaged, or there is no room; nothing is left of it.
    """
    home, folder = home.resolve(), folder.resolve()
    if not any(home.glob("*.db")):
        raise BackupError(f"{home} holds no data; name the home with --set home=FOLDER")
    if folder.is_relative_to(home):
        raise BackupError(f"{folder} lies inside {home}; name a folder outside it")
    _must_be_free(folder)
    part = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        (part / FILES).mkdir(parents=True, mode=0o700)
        part.chmod(0o700)
        files = {}
        for name in _names(home):
            with suppress(*(() if name.endswith(".db") else (FileNotFoundError,))):
                files[name] = _copied(home, name, part / FILES)  # else it went meanwhile
        made = Backup(folder, time.time(), files)
        _write(part / MANIFEST, _manifest(made))
        _place(part, folder)
    except (OSError, sqlite3.Error, Timeout) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise BackupError(
            f"{home} could not be copied to {folder} ({_why(error)}); nothing was left there"
        ) from error
    except BackupError:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return made


def check(folder: Path) -> Backup:
    """Read a backup and see that every byte of it is what was written.

    Raises:
        BackupError: it is something else, of a newer version, or damaged.
    """
    made = _read(folder)
    for name, expected in made.files.items():
        _same(name, _measured(folder / FILES / name), expected)
    return made


def restore(folder: Path, home: Path) -> Backup:
    """Make a home of a backup.

    Raises:
        BackupError: as `check`; or there is data in the home already, or no room. The home is as it
            was before.
    """
    made, home = _read(folder), home.resolve()
    _must_be_free(home)
    part = home.with_name(f".{home.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True, mode=0o700)
        for name, expected in made.files.items():
            target = part / name
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _same(name, _plain(folder / FILES / name, target), expected)
            if name.endswith(".db"):
                with closing(sqlite3.connect(target)) as db:
                    _sound(db, name)
        _place(part, home)
    except (OSError, sqlite3.Error) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise BackupError(f"{folder} could not be restored to {home} ({_why(error)})") from error
    except BackupError:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return made


def _names(home: Path) -> Iterator[str]:
    """The files to copy, each when its turn comes: what came meanwhile is seen."""
    databases = {path.name for path in home.glob("*.db")}
    yield from (name for name in FIRST if name in databases)
    yield from sorted(databases - {*FIRST, *LAST})
    yield from (name for name in LAST if name in databases)
    for folder in (home, *(p for p in sorted(home.iterdir()) if p.is_dir())):
        if folder.name in DERIVED or folder.is_symlink():
            continue
        with ExitStack() as stack:
            lock = home / LOCKS.get(folder.name, "")
            if folder != home and lock.is_file():
                stack.enter_context(FileLock(lock, timeout=BUSY))
            for path in sorted(folder.rglob("*") if folder != home else folder.iterdir()):
                name = path.relative_to(home)
                aside = any(ASIDE.search(piece) for piece in name.parts)
                if path.is_symlink() or not path.is_file() or aside:
                    continue
                if folder != home or path.suffix != ".db":
                    yield name.as_posix()


def _copied(home: Path, name: str, into: Path) -> tuple[int, str]:
    source, target = home / name, into / name
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if "/" not in name and name.endswith(".db"):
        with (
            closing(sqlite3.connect(f"{source.as_uri()}?mode=rw", uri=True, timeout=BUSY)) as db,
            closing(sqlite3.connect(target)) as copy,
        ):
            db.backup(copy)  # in one step: one that is taken up again may never end under writes
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, whatever the source's mode
            _sound(copy, name)
        target.chmod(0o600)
        _sync(target)
        return _measured(target)
    with ExitStack() as stack:
        if name in LOCKS:
            stack.enter_context(FileLock(home / LOCKS[name], timeout=BUSY))
        return _plain(source, target)


def _plain(source: Path, target: Path) -> tuple[int, str]:
    """Copy a file, to be read by its owner only; returns what was copied."""
    digest, size = hashlib.sha256(), 0
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with source.open("rb") as given, os.fdopen(handle, "wb") as taken:
        while block := given.read(CHUNK):
            taken.write(block)
            digest.update(block)
            size += len(block)
        taken.flush()
        os.fsync(taken.fileno())
    return size, digest.hexdigest()


def _measured(path: Path) -> tuple[int, str]:
    try:
        with path.open("rb") as file:
            return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BackupError(
            f"{path.name} cannot be read ({_why(error)}); take another copy"
        ) from error


def _same(name: str, found: tuple[int, str], expected: tuple[int, str]) -> None:
    if found != expected:
        raise BackupError(
            f"the backup is damaged: {name} has {found[0]} bytes with SHA-256 {found[1][:12]}…, "
            f"and {expected[0]} with {expected[1][:12]}… were written; take another backup"
        )


def _sound(db: sqlite3.Connection, name: str) -> None:
    (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise BackupError(f"the database {name} is damaged ({found}); restore an older backup")


def _manifest(made: Backup) -> bytes:
    files = {name: {"bytes": b, "sha256": s} for name, (b, s) in made.files.items()}
    values = {"format": FORMAT, "version": VERSION, "created": made.created, "files": files}
    return json.dumps(values, indent=1, ensure_ascii=False).encode()


def _read(folder: Path) -> Backup:
    path = folder / MANIFEST
    foreign = f"{folder} is no backup of plumbline; name the folder that `backup` wrote"
    try:
        values: Any = json.loads(path.read_bytes())
        if values["format"] != FORMAT:
            raise BackupError(foreign)
        if values["version"] != VERSION:
            raise BackupError(
                f"{folder} is a backup of version {values['version']}, this plumbline reads "
                f"{VERSION}; restore it with the plumbline that wrote it"
            )
        files = {n: (int(f["bytes"]), str(f["sha256"])) for n, f in values["files"].items()}
        made = Backup(folder, float(values["created"]), files)
    except OSError as error:
        raise BackupError(f"{foreign} ({_why(error)})") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BackupError(f"{path} is damaged ({type(error).__name__}); {foreign}") from error
    for name in files:
        parts = PurePosixPath(name)
        inside = folder / FILES / name
        if parts.is_absolute() or ".." in parts.parts or "\0" in name or inside.is_symlink():
            raise BackupError(f"{path} names a file outside the home ({name!r}); do not use it")
        if not inside.is_file():
            raise BackupError(f"the backup is damaged: {name} is missing; take another backup")
    return made


def _must_be_free(folder: Path) -> None:
    taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if taken:
        raise BackupError(f"{folder} is there already; name a new folder, or move it away")


def _place(part: Path, folder: Path) -> None:
    """Give a folder that is whole its name, also after a power cut."""
    for below in (*(p for p in part.rglob("*") if p.is_dir()), part):
        _sync(below)
    if folder.exists():
        folder.rmdir()  # empty
    part.rename(folder)
    _sync(folder.parent)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _why(error: Exception) -> str:
    if isinstance(error, Timeout):
        return f"another process has been writing for over {BUSY:g} s"
    return getattr(error, "strerror", None) or str(error)
