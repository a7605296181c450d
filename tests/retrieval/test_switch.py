"""Another encoder: its vectors are made beside those that serve, and then take over."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from retrieval.chunk import Piece
from retrieval.compact import compact
from retrieval.config import EmbedSettings, RetrievalSettings, SearchSettings
from retrieval.embed.base import Embedder, Kind, Vectors
from retrieval.embed.hashing import Hashing
from retrieval.knowledge import open_knowledge, serve
from retrieval.serving import Serving
from retrieval.snapshot import Snapshots
from retrieval.store import NewVersion, Store
from retrieval.upkeep import Upkeep

ROOT = Path(__file__).resolve().parents[2]
QUICK = SearchSettings(snapshot_changes=100)


class Other(Hashing):
    """Another encoder: fewer columns, no Chinese, and it can be held up."""

    id = "other@2"
    dim = 64

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.gate = gate
        self.seen = 0

    def embed(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """Hashed terms, folded."""
        if kind == "passage":
            if self.gate is not None:
                self.gate.wait(60)
            self.seen += len(texts)
        wide = super().embed(texts, kind) if not texts else Hashing.embed(Wide(), texts, kind)
        narrow = wide.reshape(len(texts), 4, 64).sum(axis=1)
        norms = np.linalg.norm(narrow, axis=1, keepdims=True)
        return np.asarray(narrow / np.where(norms > 0, norms, 1), dtype=np.float32)

    def reads(self, text: str) -> bool:
        """Nothing that holds a Chinese character."""
        return text.isascii()


class Wide(Hashing):
    """The double as it is."""


def put(store: Store, embedder: Embedder, name: str, *texts: str) -> None:
    """Store a document of these chunks."""
    vectors = np.zeros((len(texts), embedder.dim), dtype=np.float32)
    rows = [row for row, text in enumerate(texts) if embedder.reads(text)]
    if rows:
        vectors[rows] = embedder.embed([texts[row] for row in rows], "passage")
    starts = [0, *itertools.accumulate(len(text) + 1 for text in texts)]
    pieces = tuple(Piece(a, a + len(t), ()) for a, t in zip(starts, texts, strict=False))
    store.put(
        NewVersion(
            name, "r", name, "\n".join(texts), "en", "1", "m", 0.0, "s",
            pieces, tuple(texts), vectors,
        )
    )  # fmt: skip


def until(true: Callable[[], bool]) -> None:
    """Wait for what must come; the limit is for a machine that does many other things."""
    end = time.monotonic() + 300
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def fill(home: Path, count: int = 6) -> None:
    """A home made with the double: chunks 1 to `count`, and one in Chinese."""
    noted = EmbedSettings(backend="hashing").model_dump_json()
    store = Store(home / "knowledge.db", Hashing.id, Hashing.dim, noted)
    put(store, Hashing(), "quokkas", *quokkas(count), "袋鼠吃树叶。")
    store.close()


def quokkas(count: int) -> list[str]:
    """Texts that differ in one word."""
    return [f"Quokka number{number} eats leaves." for number in range(count)]


def found(serving: Serving, text: str) -> list[int]:
    """Ids the dense side finds, best first."""
    view = serving.view()
    if view.embedder is None:
        return []
    return list(view.search(view.embedder.embed([text], "query"), 20, None))


def test_the_old_answers_until_the_new_is_whole(tmp_path: Path) -> None:
    """While new vectors are made, the old encoder answers, also what is ingested meanwhile."""
    fill(tmp_path)
    gate = threading.Event()
    embedder = Other(gate)
    store = Store(tmp_path / "knowledge.db", embedder.id, embedder.dim)
    snapshots = Snapshots(tmp_path / "index")
    serving = serve(store, embedder, "auto", snapshots)
    assert serving.embedder is not None
    assert serving.embedder.id == Hashing.id
    assert found(serving, "number3")[0] == 4
    status = serving.status()
    assert (status.embedder, status.switching, status.switched) == (Hashing.id, "other@2", 0.0)
    upkeep = Upkeep(serving, snapshots, QUICK, embedder)
    gate.set()
    put(store, embedder, "wombat", "A wombat digs.")
    until(lambda: serving.status().switching == "")
    until(lambda: serving.embedder is embedder)
    status = serving.status()
    assert (status.embedder, status.switched, status.health) == ("other@2", 1.0, "")
    assert found(serving, "number3")[0] == 4
    assert found(serving, "wombat")[0] == 8
    assert sorted(found(serving, "quokka")) == [1, 2, 3, 4, 5, 6, 8], "7 is Chinese"
    with store.read() as connection:
        models = connection.exec_driver_sql("SELECT DISTINCT model_id FROM embedding").all()
    assert len(models) == 1
    upkeep.close()
    store.close()


def test_what_is_ingested_meanwhile_is_found_by_the_old(tmp_path: Path) -> None:
    """A document taken in during the change gets a vector of the encoder that answers, too."""
    fill(tmp_path, 200)
    gate = threading.Event()
    embedder = Other(gate)
    store = Store(tmp_path / "knowledge.db", embedder.id, embedder.dim)
    serving = serve(store, embedder, "auto", Snapshots(tmp_path / "index"))
    upkeep = Upkeep(serving, serving.snapshots or Snapshots(tmp_path), QUICK, embedder)
    put(store, Wordy(), "wombat", "A wombat digs.")
    gate.set()
    until(lambda: 202 in found(serving, "wombat digs"))
    until(lambda: serving.embedder is embedder)
    assert found(serving, "wombat digs")[0] == 202
    upkeep.close()
    store.close()


class Wordy(Other):
    """The new encoder, never held up."""


def test_without_the_old_encoder_terms_answer(tmp_path: Path) -> None:
    """Where the old encoder cannot be built, search goes on by terms, and says so."""
    store = Store(tmp_path / "knowledge.db", "lost@1", 8)
    put(store, Lost(), "one", "Quokka eats leaves.")
    store.close()
    gate = threading.Event()
    embedder = Other(gate)
    store = Store(tmp_path / "knowledge.db", embedder.id, embedder.dim)
    serving = serve(store, embedder, "auto", Snapshots(tmp_path / "index"))
    assert serving.view().embedder is None
    assert "terms are" in serving.status().health
    upkeep = Upkeep(serving, Snapshots(tmp_path / "index"), QUICK, embedder)
    gate.set()
    until(lambda: serving.view().embedder is embedder)
    assert (found(serving, "quokka"), serving.status().health) == ([1], "")
    upkeep.close()
    store.close()


class Lost(Hashing):
    """An encoder that no settings name."""

    id = "lost@1"
    dim = 8

    def embed(self, texts: Sequence[str], kind: Kind) -> Vectors:
        """One axis."""
        return np.eye(1, 8, dtype=np.float32).repeat(len(texts), axis=0)


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_switch import *
class Slow(Other):
    def embed(self, texts, kind):
        if self.seen >= 128:
            print("half", flush=True)
            time.sleep(60)
        return super().embed(texts, kind)
embedder = Slow()
home = Path(sys.argv[2])
store = Store(home / "knowledge.db", embedder.id, embedder.dim)
serving = serve(store, embedder, "auto", Snapshots(home / "index"))
Upkeep(serving, Snapshots(home / "index"), QUICK, embedder)
time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_a_change_that_was_killed_goes_on(tmp_path: Path) -> None:
    """Killed half-way, a change of encoder goes on with the chunks not seen yet, and ends."""
    fill(tmp_path, 300)
    arguments = [str(Path(__file__).parent), str(tmp_path)]
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "half\n"
    child.kill()
    child.wait()
    child.stdout.close()
    embedder = Other()
    store = Store(tmp_path / "knowledge.db", embedder.id, embedder.dim)
    snapshots = Snapshots(tmp_path / "index")
    serving = serve(store, embedder, "auto", snapshots)
    status = serving.status()
    assert 0 < status.switched < 1
    upkeep = Upkeep(serving, snapshots, QUICK, embedder)
    until(lambda: serving.embedder is embedder)
    assert embedder.seen == 300 - 128
    assert serving.view().created > 0, "its index was written before it served"
    assert found(serving, "number250")[0] == 251
    upkeep.close()
    store.close()


def test_two_processes_with_two_encoders(tmp_path: Path) -> None:
    """Who still has the old encoder serves terms after the switch; what it writes is made good."""
    fill(tmp_path)
    noted = EmbedSettings(backend="hashing").model_dump_json()
    old = Store(tmp_path / "knowledge.db", Hashing.id, Hashing.dim, noted)
    behind = Serving(old, Hashing(), "auto")
    embedder = Other()
    store = Store(tmp_path / "knowledge.db", embedder.id, embedder.dim)
    snapshots = Snapshots(tmp_path / "index")
    serving = serve(store, embedder, "auto", snapshots)
    upkeep = Upkeep(serving, snapshots, QUICK, embedder)
    until(lambda: serving.embedder is embedder)
    assert found(behind, "quokka") == []
    assert behind.view().embedder is None
    put(old, Hashing(), "wombat", "A wombat digs.")
    until(lambda: found(serving, "wombat")[:1] == [8])
    upkeep.close()
    old.close()
    store.close()


def test_upkeep_writes_the_index(tmp_path: Path) -> None:
    """After enough changes a child writes the index, the views take it up, the log is trimmed."""
    store = Store(tmp_path / "knowledge.db", Hashing.id, Hashing.dim)
    snapshots = Snapshots(tmp_path / "index")
    serving = Serving(store, Hashing(), "auto", snapshots)
    upkeep = Upkeep(serving, snapshots, QUICK, Hashing())
    put(store, Hashing(), "quokkas", *quokkas(101))
    until(lambda: serving.view().created > 0)
    assert found(serving, "number77")[0] == 78
    until(lambda: store.changes(0).floor > 0)
    upkeep.close()
    store.close()


class Small(Serving):
    """A machine with little memory."""

    in_memory = 50


def test_a_lost_index_of_many_vectors_is_made_first(tmp_path: Path) -> None:
    """Too many vectors for the memory are not loaded: terms answer until the index is there."""
    store = Store(tmp_path / "knowledge.db", Hashing.id, Hashing.dim)
    put(store, Hashing(), "quokkas", *quokkas(60))
    snapshots = Snapshots(tmp_path / "index")
    serving = Small(store, Hashing(), "auto", snapshots)
    put(store, Hashing(), "wombat", "A wombat digs.")
    assert found(serving, "quokka") == []
    assert "terms are" in serving.status().health
    assert serving.status().served == serving.status().sequence
    upkeep = Upkeep(serving, snapshots, SearchSettings(), Hashing())
    until(lambda: serving.view().embedder is not None)
    assert found(serving, "wombat digs")[0] == 61
    assert (serving.view().created > 0, serving.status().health) == (True, "")
    upkeep.close()
    store.close()


def test_a_folder_in_the_way_is_told(tmp_path: Path) -> None:
    """Where the index cannot be written, the status says why, and searching goes on."""
    (tmp_path / "index").write_text("in the way")
    store = Store(tmp_path / "knowledge.db", Hashing.id, Hashing.dim)
    put(store, Hashing(), "quokkas", *quokkas(101))
    snapshots = Snapshots(tmp_path / "index")
    serving = Serving(store, Hashing(), "auto", snapshots)
    upkeep = Upkeep(serving, snapshots, QUICK, Hashing())
    until(lambda: "index could not be written" in serving.status().health)
    assert found(serving, "number77")[0] == 78
    upkeep.close()
    store.close()


def test_a_knowledge_base_opens_with_another_encoder(tmp_path: Path) -> None:
    """Opened with another encoder in the settings, a home changes over and says so."""
    fill(tmp_path)
    store = Store(tmp_path / "knowledge.db", Hashing.id, Hashing.dim)
    compact(store, Snapshots(tmp_path / "index"), store.model, "flat")
    with store.write() as connection:
        connection.exec_driver_sql("UPDATE model SET name = 'hashing-of-old'")
        connection.exec_driver_sql("UPDATE model SET settings = ''")
    store.close()
    base = open_knowledge(tmp_path, RetrievalSettings(embed=EmbedSettings(backend="hashing")))
    assert base.search("quokka", 3, mode="lexical")
    until(lambda: base.status().switching == "" and base.status().health == "")
    assert base.status().embedder == Hashing.id
    assert base.search("number3", 1, mode="dense")[0].chunk.text == quokkas(4)[3]
    base.close()
