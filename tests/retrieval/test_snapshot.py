from __future__ import annotations

import errno
import os
import random
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.crash import EMBEDDER, HARMS, harm_file, killed, lines, look, same, version
from retrieval import compact as command
from retrieval.compact import compact
from retrieval.errors import DiskFull, StoreBusy
from retrieval.index import flat
from retrieval.serving import Serving
from retrieval.snapshot import CURRENT, MANIFEST, Snapshots, Unsynced
from retrieval.store import Store

ROOT = Path(__file__).resolve().parents[2]


class Home:
    """A store, its snapshots and the views."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "knowledge.db", EMBEDDER.id, EMBEDDER.dim)
        self.snapshots = Snapshots(folder / "index")
        self.serving = self.opened()

    def opened(self) -> Serving:
        """The views, as a new process opens them."""
        return Serving(self.store, EMBEDDER, "auto", self.snapshots)

    def put(self, *numbers: int) -> None:
        """Store versions."""
        for number in numbers:
            self.store.put(version(f"s{number % 7}", number))

    def compact(self, index: str = "flat") -> Path:
        """Write a snapshot."""
        return compact(self.store, self.snapshots, self.store.model, index)

    def kept(self) -> list[str]:
        """Names in the folder of snapshots."""
        return sorted(path.name for path in self.snapshots.of(self.store.model).iterdir())


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home with some documents."""
    home = Home(tmp_path / "home")
    home.put(*range(1, 12))
    yield home
    home.store.close()


@pytest.mark.parametrize("index", ["flat", "ivf", "exact", "auto"])
def test_a_snapshot_is_the_store(home: Home, index: str) -> None:
    """Opened from a snapshot and what came after it, the view finds exactly what is stored."""
    home.compact(index)
    home.put(13, 14)
    home.store.remove(["s1", "s2"])
    serving = home.opened()
    status = serving.status()
    assert same(home.store, serving)
    assert (status.health, status.sequence) == ("", status.served)
    assert status.delta > 0
    assert status.tombstones > 0
    assert status.snapshot_age is not None
    home.compact(index)
    serving.reopen()
    status = serving.status()
    assert (status.delta, status.tombstones) == (0, 0)
    assert same(home.store, serving)


@pytest.mark.parametrize("harm", range(len(HARMS)), ids=[f"{i}-{h}" for i, h in enumerate(HARMS)])
@pytest.mark.parametrize("name", [CURRENT, MANIFEST, "base.faiss", "ids.npy", "vectors.f16"])
def test_damage_is_noticed_and_repaired(home: Home, name: str, harm: int) -> None:
    """A changed bit, a short, empty or missing file is noticed, repaired once, and does no harm."""
    home.compact("ivf")
    home.put(12)
    folder = home.compact("ivf")
    harm_file(folder.parent / name if name == CURRENT else folder / name, harm, random.Random(harm))
    state = look(home.folder)
    assert (state.torn, state.index_is_store, state.repaired_again) == (0, True, "")
    assert "damaged index" in state.repaired
    assert name in state.repaired


def test_no_snapshot_is_left_and_all_is_made_again(home: Home) -> None:
    """When every snapshot is damaged, the index is made again from the stored vectors."""
    home.compact()
    home.put(12)
    home.compact()
    for path in home.snapshots.of(home.store.model).glob("snap-*/base.faiss"):
        path.write_bytes(b"")
    state = look(home.folder)
    assert "made again from the stored vectors" in state.repaired
    assert (state.index_is_store, state.repaired_again) == (True, "")


def test_an_index_of_something_else_is_not_taken(home: Home, tmp_path: Path) -> None:
    """Sound files under the wrong encoder's name are not searched."""
    home.compact()
    other = Store(tmp_path / "other.db", "other@1", EMBEDDER.dim)
    os.rename(home.snapshots.of(home.store.model), home.snapshots.of(other.model))
    found, health = home.snapshots.open(other.model)
    assert found is None
    assert f"is of {EMBEDDER.id}" in health
    other.close()


def test_old_snapshots_go_when_nobody_reads_them(home: Home) -> None:
    """The newest two stay; an older one stays only while a view holds it."""
    reader = home.opened()
    names = []
    for number in (12, 13, 14, 15):
        home.put(number)
        names.append(home.compact().name)
        if number == 12:
            reader = home.opened()
            pinned = reader.view()
    assert home.kept() == sorted([CURRENT, names[0], names[2], names[3]])
    near = pinned.search(EMBEDDER.embed(lines("s1", 8)[:1], "query"), 3, None)
    assert len(near) == 3
    del reader, pinned
    home.put(16)
    names.append(home.compact().name)
    assert home.kept() == sorted([CURRENT, *names[3:]])


def test_the_log_is_trimmed_behind_the_oldest(home: Home) -> None:
    """What the oldest kept snapshot has seen leaves the log; an older view is opened anew."""
    idle = home.opened()
    for number in (12, 13, 14):
        home.put(number)
        home.compact()
    oldest = min(int(name.split("-")[1]) for name in home.kept() if name.startswith("snap"))
    log = home.store.changes(0)
    assert log.floor == oldest
    with home.store.read() as connection:
        first = connection.exec_driver_sql("SELECT min(seq) FROM change").scalar()
    assert first == oldest
    home.put(15)
    assert same(home.store, idle)
    assert idle.view().created > 0


def test_readers_while_snapshots_come_and_go(home: Home) -> None:
    """Searches beside swaps, deletions and commits find whole documents and no errors."""
    done = threading.Event()
    failures: list[BaseException] = []

    def read() -> None:
        question = EMBEDDER.embed(["quokka line0 of"], "query")
        try:
            while not done.is_set():
                serving = home.opened()
                for _ in range(5):
                    view = serving.view()
                    keys = view.search(question, 5, None)
                    assert keys
                    before = view.search(question, 5, None)
                    assert before == keys
                    home.store.passages([(key, score, ()) for key, score in keys.items()])
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(12, 24):
        home.put(number)
        home.compact("ivf" if number % 2 else "flat")
        home.serving.reopen()
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_two_writers_of_snapshots(home: Home) -> None:
    """The second writer of snapshots is refused, and may try again."""
    with home.snapshots.writing(), pytest.raises(StoreBusy, match="another process is writing"):
        home.compact()
    home.compact()


def limited(home: Home, size: int) -> subprocess.CompletedProcess[str]:
    """Write a snapshot where no file may be longer than `size` bytes."""
    model = home.store.model
    names = [str(home.store.path), str(home.snapshots.folder), model.name, str(model.dim), "flat"]
    return subprocess.run(
        [sys.executable, "-m", "retrieval.compact", *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )


@pytest.mark.parametrize("size", [100, 5_000, -10])
def test_a_full_disk_costs_nothing(home: Home, size: int) -> None:
    """A snapshot that does not fit is given up by name; the one before stays, search goes on."""
    before = home.compact()
    home.put(12)
    size = size if size > 0 else (before / "base.faiss").stat().st_size + size
    done = limited(home, size)
    assert done.returncode == command.FAILED, done.stderr
    assert done.stderr.strip()
    assert home.kept() == sorted([CURRENT, before.name])
    assert same(home.store, home.serving)
    assert look(home.folder).repaired == ""


def test_an_index_folder_that_cannot_be_written(home: Home) -> None:
    """Where no folder can be made, the index is kept in memory and the reason is told by name."""
    home.snapshots.folder.parent.joinpath("index").write_text("in the way")
    done = limited(home, 1 << 30)
    assert done.returncode == command.FAILED
    assert "index" in done.stderr
    assert same(home.store, home.opened())


def test_a_failed_sync_is_not_tried_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file the system could not bring to the disk never becomes the newest snapshot."""
    before = home.compact()
    home.put(12)
    calls = []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(Unsynced, match="could not be synced"):
            home.compact()
    assert len(calls) == 1
    assert home.kept() == sorted([CURRENT, before.name])
    assert look(home.folder).repaired == ""


def test_a_full_database_says_so(home: Home) -> None:
    """A version that does not fit is refused by name, whole; what was there stays."""
    with home.store.read() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    big = replace(version("big", 5), text="x" * 100_000)  # no chunks
    with pytest.raises(DiskFull, match=r"no room left for .*knowledge\.db"):
        home.store.put(big)
    known = home.store.known()
    assert (known["s4"].version, "big" in known) == ("11", False)
    assert same(home.store, home.serving)


@pytest.mark.skipif(not hasattr(os, "nice"), reason="needs POSIX signals")
def test_killed_at_every_place(tmp_path: Path) -> None:
    """Killed at random and at named places, nothing acknowledged is lost and nothing is torn."""
    values = killed(tmp_path / "home", 4, seed=3)
    assert (values["lost"], values["torn"], values["undetected"]) == (0, 0, 0)
    assert values["changes"] > 0


def test_processes_share_the_pages(home: Home) -> None:
    """A mapped snapshot costs a reader no copy of its own: the vectors stay in the file."""
    rng = np.random.default_rng(0)
    index = flat.build(256)
    index.add(np.arange(20_000, dtype=np.int64), rng.random((20_000, 256), dtype=np.float32))
    folder = home.folder / "mapped"
    folder.mkdir()
    index.save(folder)
    code = """
import sys
from pathlib import Path
import numpy as np
from retrieval.index import flat
def own():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(l for l in lines if l.startswith("RssAnon")).split()[1])
index = flat.build(256)
before = own()
index.load(Path(sys.argv[1]))
index.search(np.ones((1, 256), np.float32), 5)
print(own() - before)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs Linux")
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert int(done.stdout) < 5_000, "of 20,000 KiB"
