from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from retrieval.sqlite import journal_mode
from rlhf.config import PreferenceSettings
from rlhf.errors import SecretMismatch, StoreBusy, StoreError, StoreTooNew
from rlhf.preferences import PreferenceStore
from rlhf.tables import SCHEMA_VERSION

MakeRecord = Any
MakeFeedback = Any


def test_two_threads_lose_nothing(
    store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback
) -> None:
    """Turns and feedback written side by side, while a reader pages, are all there."""

    def write(name: str) -> None:
        for n in range(25):
            store.add_turn(record(f"{name}{n}", f"{name}c{n}"))
            store.add_feedback(feedback(turn=f"{name}{n}", value=1))

    threads = [threading.Thread(target=write, args=(name,)) for name in "xy"]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert len(list(store.thumbs())) <= 50
    for thread in threads:
        thread.join()
    assert len(list(store.thumbs())) == 50


def test_a_slow_reader_holds_up_no_writer(
    tmp_path: Path, record: MakeRecord, feedback: MakeFeedback
) -> None:
    """An iterator left half-read has no transaction open."""
    quick = PreferenceSettings(page=1, busy_seconds=0.2)
    store = PreferenceStore(tmp_path / "log.db", settings=quick)
    for n in range(3):
        store.add_turn(record(f"t{n}", f"c{n}"))
        store.add_feedback(feedback(turn=f"t{n}", value=1))
    reader = store.thumbs()
    next(reader)
    store.add_turn(record("t9", "c9"))
    assert len(list(reader)) == 2
    store.close()


def test_a_lasting_lock_is_busy(tmp_path: Path, record: MakeRecord) -> None:
    """Another process that keeps the lock gives a retryable error, and nothing is written."""
    store = PreferenceStore(tmp_path / "log.db", settings=PreferenceSettings(busy_seconds=0.1))
    holder = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy) as caught:
        store.add_turn(record())
    assert caught.value.retryable
    holder.execute("ROLLBACK")
    holder.close()
    store.add_turn(record())
    store.close()


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from conftest import make_record
from rlhf.preferences import PreferenceStore
store = PreferenceStore(Path(sys.argv[1]))
for n in range(100_000):
    store.add_turn(make_record(f"t{n}", f"c{n}", question="问题 " * 500))
    sys.stdout.write(f"{n}\\n")
    sys.stdout.flush()
"""


def test_an_acknowledged_turn_survives_kill_9(tmp_path: Path) -> None:
    """A writer killed mid-write leaves a sound file with every turn it had acknowledged."""
    here = Path(__file__).resolve()
    path = tmp_path / "log.db"
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(here.parent)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=here.parents[2],
        env={**os.environ, "PYTHONPATH": str(here.parents[2])},
    )
    assert child.stdout is not None
    acknowledged = [int(child.stdout.readline()) for _ in range(20)]
    child.kill()
    acknowledged += [int(line) for line in child.stdout if line.endswith("\n")]
    child.wait()
    child.stdout.close()
    store = PreferenceStore(path)
    kept = {line["turn_id"] for line in store.records()}
    assert {f"t{n}" for n in acknowledged} <= kept
    store.close()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_durability_is_set(tmp_path: Path, store: PreferenceStore) -> None:
    """The journal is the one this SQLite resets safely, and every commit reaches the disk."""
    assert journal_mode((3, 51, 2)) == "TRUNCATE"
    assert journal_mode((3, 51, 3)) == "WAL"
    with store._file.engine.connect() as db:
        assert db.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        mode = db.exec_driver_sql("PRAGMA journal_mode").scalar()
        assert str(mode).upper() == journal_mode(sqlite3.sqlite_version_info)


def test_a_newer_log_is_refused(tmp_path: Path) -> None:
    """A file of a later schema version is named, with the remedy, and left alone."""
    PreferenceStore(tmp_path / "log.db").close()
    with sqlite3.connect(tmp_path / "log.db") as db:
        db.execute("UPDATE schema_version SET version = ?", (SCHEMA_VERSION + 1,))
    with pytest.raises(StoreTooNew, match="upgrade plumbline"):
        PreferenceStore(tmp_path / "log.db")


def test_a_foreign_secret_is_refused(tmp_path: Path) -> None:
    """With a lost secret the store says so instead of giving users new names."""
    PreferenceStore(tmp_path / "log.db").close()
    (tmp_path / "log.key").unlink()
    with pytest.raises(SecretMismatch, match="put back"):
        PreferenceStore(tmp_path / "log.db")


def test_a_broken_file_is_a_store_error(tmp_path: Path) -> None:
    """A file that is no database, or a secret that is none, is named."""
    (tmp_path / "log.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match=r"log\.db"):
        PreferenceStore(tmp_path / "log.db")
    (tmp_path / "log.key").write_text("zz")
    with pytest.raises(StoreError, match=r"log\.key"):
        PreferenceStore(tmp_path / "log.db")
