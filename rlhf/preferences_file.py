"""The file below the preference log: who may write, what its errors mean, how bytes leave it."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DatabaseError, OperationalError

from rlhf.config import PreferenceSettings
from rlhf.errors import StoreBusy, StoreError
from rlhf.identity import keyed_hash
from rlhf.preferences_upgrade import upgrade
from rlhf.tables import open_engine, open_version

logger = logging.getLogger(__name__)


class LogFile:
    """One SQLite file with one writer at a time. Older versions of it are brought up to date.

    Args:
        path: the database; its folder is made where missing.
        key: what its users were hashed with.
        settings: how long to wait for another writer; how an older file's users are split.
        now: seconds since the epoch, written into a new file.

    Raises:
        StoreError: as `rlhf.preferences.PreferenceStore` says.
    """

    def __init__(self, path: Path, key: bytes, settings: PreferenceSettings, now: float) -> None:
        self.path = path
        self._seconds = settings.busy_seconds
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.engine = open_engine(path, settings.busy_seconds)
        except OSError as error:
            raise StoreError(f"cannot open the preference log {path}: {error}") from error
        self._writer = self.engine.execution_options(begin="IMMEDIATE")

        def older(db: Connection, version: int) -> None:
            upgrade(db, version, key, settings)

        try:
            with self.write() as db:
                upgraded = open_version(db, keyed_hash(key, "check", ""), now, older)
            if upgraded:  # pseudonyms of the erased are in no row now, and in no byte
                self.rewrite()
                logger.info("log upgraded")
        except StoreError:
            self.engine.dispose()
            raise

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Hold the writer's lock over one transaction."""
        with self._lock, self.translated(), self._writer.begin() as db:
            yield db

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Read in one transaction."""
        with self.translated(), self.engine.begin() as db:
            yield db

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raise the database's errors as the store's."""
        try:
            yield
        except OperationalError as error:
            if "locked" in str(error.orig) or "busy" in str(error.orig):
                raise StoreBusy(
                    f"another process has been writing {self.path} for over "
                    f"{self._seconds:g} s; try again"
                ) from error
            raise StoreError(f"cannot use the preference log {self.path}: {error.orig}") from error
        except DatabaseError as error:
            raise StoreError(f"cannot use the preference log {self.path}: {error.orig}") from error
        except sqlite3.Error as error:  # from the pragmas of a new connection
            raise StoreError(f"cannot use the preference log {self.path}: {error}") from error

    def rewrite(self) -> None:
        """Leave no erased byte in the file: secure_delete misses copies made by rebalancing."""
        bare = self.engine.execution_options(begin="")
        with self._lock, self.translated(), bare.connect() as db:
            db.exec_driver_sql("VACUUM")
            db.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
