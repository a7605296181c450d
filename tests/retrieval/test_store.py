from __future__ import annotations

import itertools
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from retrieval import lexical
from retrieval.chunk import Piece
from retrieval.embed.base import Vectors
from retrieval.errors import IndexMismatch, StoreBusy, StoreError
from retrieval.schema import FileReport, Found
from retrieval.store import Known, NewVersion, Store

DIM = 4
EMBEDDER = "double@1"
ROOT = Path(__file__).resolve().parents[2]


def vector(number: int) -> Vectors:
    """Return a vector that float16 holds exactly and that names its number; zeros for 0."""
    return np.array([number % 7, number % 11, number % 13, number % 2], dtype=np.float32)


def version(source: str, number: int, bodies: tuple[str, ...] = ("a", "b", "c")) -> NewVersion:
    """Return version `number` of a document whose chunks say so; the first has no vector."""
    lines = [f"{body} says{number} {source}" for body in bodies]
    text = "\n".join(lines)
    ends = list(itertools.accumulate(len(line) + 1 for line in lines))
    vectors = [np.zeros(DIM, dtype=np.float32), *(vector(number + i) for i in range(1, len(lines)))]
    return NewVersion(
        source=source,
        root="root",
        title=f"Title {source}",
        text=text,
        lang="en",
        version=str(number),
        made_by="test",
        modified=float(number),
        stamp=str(number),
        pieces=tuple(
            Piece(end - 1 - len(line), end - 1, ("Head",), ((0, 1),))
            for end, line in zip(ends, lines, strict=True)
        ),
        digests=tuple(f"{number}-{i}" for i in range(len(lines))),
        vectors=np.array(vectors[: len(lines)], dtype=np.float32).reshape(len(lines), DIM),
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    store = Store(tmp_path / "knowledge.db", EMBEDDER, DIM)
    yield store
    store.close()


def ids(store: Store, statement: str) -> list[int]:
    """Return the first column of a query."""
    with store.read() as connection:
        return [row[0] for row in connection.execute(sa.text(statement))]


def found(store: Store, *query: str) -> list[int]:
    """Return ids the lexical index finds."""
    with store.read() as connection:
        return sorted(lexical.search(connection, query, 1000))


def texts(store: Store) -> dict[str, str]:
    """Return the whole text of every document by its source."""
    documents = {source: store.document(known.id) for source, known in store.known().items()}
    return {source: document.text for source, document in documents.items() if document}


def assert_sound(store: Store) -> None:
    """Chunks, terms, vectors and the log say the same, and every document is one whole version."""
    chunks = ids(store, "SELECT id FROM chunk ORDER BY id")
    assert ids(store, "SELECT rowid FROM lexical ORDER BY rowid") == chunks
    with_vector = ids(store, "SELECT id FROM chunk WHERE ordinal > 0 ORDER BY id")
    stored = "SELECT chunk_id FROM embedding WHERE length(vector) > 0 ORDER BY chunk_id"
    assert ids(store, stored) == with_vector
    log = store.changes(0)
    sequence, added, vectors, removed = log.sequence, log.ids, log.vectors, log.removed.tolist()
    assert (sorted(added.tolist()), sequence) == (with_vector, store.sequence())
    assert set(removed).isdisjoint(chunks)
    assert vectors.shape == (len(with_vector), DIM)
    for source, text in texts(store).items():
        known = store.known()[source]
        bodies = tuple(line.split(" ")[0] for line in text.split("\n")) if text else ()
        assert text == version(source, int(known.version), bodies).text
        assert known.chunks == len(bodies)


def test_a_version_comes_back_whole(store: Store) -> None:
    """A stored version is read back as it was, chunk by chunk."""
    new = version("文档.md", 3)
    store.put(new)
    assert_sound(store)
    keys = ids(store, "SELECT id FROM chunk ORDER BY ordinal")
    stages = (Found("fused", 1, 0.5),)
    passages = store.passages([(key, 0.5, stages) for key in reversed([*keys, 999])])
    assert [p.chunk.text for p in passages] == new.text.split("\n")[::-1]
    assert [new.text[p.chunk.start : p.chunk.end] for p in passages] == new.text.split("\n")[::-1]
    first = passages[-1]
    assert (first.source, first.title, first.version, first.modified, first.score) == (
        new.source,
        new.title,
        "3",
        3.0,
        0.5,
    )
    assert (first.chunk.headings, first.chunk.code, first.found_by) == (
        ("Head",),
        ((0, 1),),
        stages,
    )
    document = store.document(first.chunk.document_id)
    assert document is not None
    assert (document.text, document.root, document.lang) == (new.text, "root", "en")
    assert store.known() == {
        new.source: Known(document.id, "3", "test", "3", 3),
    }


def test_offsets_are_code_points(store: Store) -> None:
    """A chunk behind characters of several bytes and planes still has its own text."""
    text = "é𠮷野家 🎉 前文。\n正文 body"
    start = text.index("正")
    new = version("x", 1)
    store.put(
        NewVersion(
            "x", "root", "t", text, "zh", "1", "m", 0.0, "s",
            (Piece(start, len(text), ()),), ("d",), np.ones((1, DIM), dtype=np.float32),
        )
    )  # fmt: skip
    assert new.text != text
    assert [p.chunk.text for p in store.passages([(1, 1.0, ())])] == ["正文 body"]


def test_a_replaced_version_leaves_nothing(store: Store) -> None:
    """After a new version no row, term or vector of the old one is left, and no id comes again."""
    store.put(version("a", 1))
    old = ids(store, "SELECT id FROM chunk")
    old_document = store.known()["a"].id
    store.put(version("a", 2, ("x", "y")))
    new = ids(store, "SELECT id FROM chunk")
    assert_sound(store)
    assert min(new) > max(old)
    assert store.known()["a"].id > old_document
    assert (found(store, "says1"), found(store, "says2")) == ([], new)
    assert store.passages([(key, 1.0, ()) for key in old]) == []
    assert store.document(old_document) is None
    assert store.vectors_by_digest(old_document) == {}
    assert store.counts() == (1, 2)


def test_ids_survive_emptiness(store: Store) -> None:
    """Ids are not used again even when the store was emptied between."""
    store.put(version("a", 1))
    last = max(ids(store, "SELECT id FROM chunk"))
    assert store.remove(["a", "unknown"]) == 1
    assert (store.counts(), found(store, "says1")) == ((0, 0), [])
    assert_sound(store)
    store.put(version("a", 2))
    assert min(ids(store, "SELECT id FROM chunk")) > last


def test_a_failed_put_changes_nothing(store: Store) -> None:
    """A version that cannot be written leaves the one before, whole."""
    store.put(version("a", 1))
    before = store.sequence()
    broken = version("a", 2, ("x", "y", "z"))
    with pytest.raises(ValueError, match="zip"):
        store.put(
            NewVersion(
                **{n: getattr(broken, n) for n in broken.__slots__ if n != "digests"},
                digests=broken.digests[:2],
            )
        )
    assert (store.sequence(), found(store, "says2")) == (before, [])
    assert_sound(store)


def test_vectors_come_back_by_digest(store: Store) -> None:
    """Vectors of a version are found by the digest of their text; zero rows are not stored."""
    store.put(version("a", 5))
    kept = store.vectors_by_digest(store.known()["a"].id)
    assert sorted(kept) == ["5-1", "5-2"]
    assert np.array_equal(kept["5-1"], vector(6))


def test_touch_changes_the_stamp_only(store: Store) -> None:
    """A touched document keeps its version and chunks; only its date is told to the views."""
    store.put(version("a", 1))
    known, sequence = store.known()["a"], store.sequence()
    store.touch(known.id, "new", 9.0)
    assert store.known()["a"] == Known(known.id, "1", "test", "new", 3)
    log = store.changes(sequence)
    assert (log.ids.tolist(), log.removed.tolist(), log.catalog.dates.tolist()) == ([], [], [9.0])
    assert store.passages([(1, 1.0, ())])[0].modified == 9.0


def test_roots_tell_what_is_in_them(store: Store) -> None:
    """A root counts what lies below it, also what another root brought; failures are kept."""
    for source in ("/docs/a.md", "/docs/sub/b.md", "/docs2/c.md", "upload:d.md"):
        store.put(version(source, 1))
    failure = FileReport("/docs/x.pdf", "failed", reason="broken", detail="d", remedy="r")
    store.set_root("/docs", [failure])
    for root in ("/docs/sub", "upload", "/empty"):
        store.set_root(root, [])
    status = {s.root: (s.documents, s.chunks, s.failures) for s in store.roots()}
    assert status == {
        "/docs": (2, 6, (failure,)),
        "/docs/sub": (1, 3, ()),
        "/empty": (0, 0, ()),
        "upload": (1, 3, ()),
    }
    store.drop_root("/docs")
    assert [s.root for s in store.roots()] == ["/docs/sub", "/empty", "upload"]


def test_vectors_of_another_length_are_refused(tmp_path: Path) -> None:
    """An encoder does not change the length of its vectors under the same name."""
    Store(tmp_path / "k.db", EMBEDDER, DIM).close()
    with pytest.raises(IndexMismatch, match=r"double@1 are stored with 4 columns, the encoder"):
        Store(tmp_path / "k.db", EMBEDDER, DIM + 1)
    Store(tmp_path / "k.db", EMBEDDER, DIM).close()


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    """A database of a newer version is refused, and not a byte of it changes."""
    path = tmp_path / "k.db"
    Store(path, EMBEDDER, DIM).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
        connection.execute("DROP TABLE root")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"schema 99, this version reads \d+; use the version"):
        Store(path, EMBEDDER, DIM)
    assert path.read_bytes() == before


def test_a_foreign_database_is_left_alone(tmp_path: Path) -> None:
    """A database of something else is refused, and not a byte of it changes."""
    path = tmp_path / "k.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="is a database of something else"):
        Store(path, EMBEDDER, DIM)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"this is no database " * 200, b"SQLite format 3\0" * 64])
def test_no_database(tmp_path: Path, content: bytes) -> None:
    """A file that is no database is refused by name."""
    path = tmp_path / "k.db"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"k\.db is not a usable database"):
        Store(path, EMBEDDER, DIM)


def test_no_folder(tmp_path: Path) -> None:
    """A home that is a file is refused by name."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"knowledge\.db cannot be opened"):
        Store(tmp_path / "file" / "knowledge.db", EMBEDDER, DIM)


def test_any_folder_name_will_do(tmp_path: Path) -> None:
    """Marks that mean something in a URL mean nothing in a path."""
    path = tmp_path / "a?b=c&d#e%20 中文" / "k.db"
    Store(path, EMBEDDER, DIM).close()
    assert path.stat().st_size > 0


def test_a_reader_sees_one_state(store: Store) -> None:
    """What is committed during a read transaction is not seen in it."""
    store.put(version("a", 1))
    writer = threading.Thread(target=store.put, args=(version("b", 2),))
    with store.read() as connection:
        count = sa.text("SELECT count(*) FROM chunk")
        before = connection.execute(count).scalar()
        writer.start()
        writer.join(timeout=0.5)
        assert connection.execute(count).scalar() == before == 3
    writer.join()
    assert store.counts() == (2, 6)


def test_replay_beside_a_writer(store: Store) -> None:
    """A log replayed while another thread writes gives each vector once and the same end."""

    def write() -> None:
        for number in range(24):
            store.put(version(f"s{number % 5}", number))

    replica: dict[int, list[float]] = {}
    at = 0
    writer = threading.Thread(target=write)
    writer.start()
    while True:
        last = not writer.is_alive()
        new = store.changes(at)
        at, added, vectors, removed = new.sequence, new.ids, new.vectors, new.removed.tolist()
        assert replica.keys().isdisjoint(added.tolist())
        for key in removed:
            replica.pop(key, None)
        replica.update(zip(added.tolist(), vectors.tolist(), strict=True))
        if last:
            break
    added, vectors = store.changes(0).ids, store.changes(0).vectors
    assert replica == dict(zip(added.tolist(), vectors.tolist(), strict=True))
    assert_sound(store)


CHILD = """
import itertools, sys
from pathlib import Path
from retrieval.store import Store
sys.path.insert(0, sys.argv[1])
from test_store import DIM, EMBEDDER, version
store = Store(Path(sys.argv[2]), EMBEDDER, DIM)
prefix, first, count = sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
for number in itertools.islice(itertools.count(first), count):
    store.put(version(f"{prefix}{number % 5}", number))
    print(number, flush=True)
store.close()
"""


def child(path: Path, prefix: str, first: int, count: int) -> subprocess.Popen[str]:
    """Start a process that puts versions and prints the number of each once it is stored."""
    arguments = [str(Path(__file__).parent), str(path), prefix, str(first), str(count)]
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_killed_in_the_middle(tmp_path: Path) -> None:
    """After kill -9 every acknowledged version is there whole, and no part of another."""
    path = tmp_path / "k.db"
    dice = random.Random(5)
    stored = -1
    for _ in range(4):
        process = child(path, "s", stored + 1, 100_000)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(dice.randrange(1, 12))]
        time.sleep(dice.random() / 50)
        process.kill()
        lines += process.stdout.readlines()
        stored = max(int(line) for line in lines if line.endswith("\n"))
        process.stdout.close()
        process.wait()
        store = Store(path, EMBEDDER, DIM)
        assert_sound(store)
        last = {f"s{n % 5}": n for n in range(max(0, stored - 4), stored + 1)}
        kept = {source: int(known.version) for source, known in store.known().items()}
        ahead = {source for source in kept if kept[source] != last.get(source)}
        assert ahead <= {f"s{(stored + 1) % 5}"}
        assert all(kept[source] == stored + 1 for source in ahead)
        assert kept.keys() == last.keys() | ahead
        stored = max(kept.values())
        store.close()


def test_writers_take_turns(tmp_path: Path) -> None:
    """Two processes that write at the same time both get through, each version whole."""
    path = tmp_path / "k.db"
    children = [child(path, prefix, 0, 12) for prefix in "ab"]
    outputs = [process.communicate()[0].split() for process in children]
    assert [process.returncode for process in children] == [0, 0]
    assert outputs == [[str(n) for n in range(12)]] * 2
    store = Store(path, EMBEDDER, DIM)
    assert_sound(store)
    assert {s: known.version for s, known in store.known().items()} == {
        f"{prefix}{n % 5}": str(n) for prefix in "ab" for n in range(7, 12)
    }
    store.close()


def test_busy_is_worth_another_try() -> None:
    """Of the store's errors only the one about another writer is to be retried."""
    assert (StoreBusy("x").retryable, StoreError("x").retryable) == (True, False)


SOURCES = st.sampled_from(["a", "b", "上传:c"])
BODIES = st.lists(st.sampled_from(["x", "y", "猫"]), max_size=3).map(tuple)


class Machine(RuleBasedStateMachine):
    """The store against a dictionary, and a replica fed by the log against a fresh load."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store(Path(self.folder.name, "k.db"), EMBEDDER, DIM)
        self.model: dict[str, str] = {}
        self.seen: set[int] = set()
        self.numbers = itertools.count(1)
        self.replica: dict[int, list[float]] = {}
        self.at = 0

    @rule(source=SOURCES, bodies=BODIES)
    def put(self, source: str, bodies: tuple[str, ...]) -> None:
        """Write a version."""
        new = version(source, next(self.numbers), bodies)
        self.store.put(new)
        self.model[source] = new.text
        chunks = set(ids(self.store, "SELECT id FROM chunk"))
        fresh = chunks - self.seen
        assert len(fresh) == len(bodies)
        assert all(key > max(self.seen, default=0) for key in fresh)
        self.seen |= chunks

    @rule(sources=st.lists(SOURCES, max_size=2))
    def remove(self, sources: list[str]) -> None:
        """Remove documents."""
        there = len(self.model.keys() & set(sources))
        assert self.store.remove(sources) == there
        for source in sources:
            self.model.pop(source, None)

    @rule()
    def reopen(self) -> None:
        """Close and open."""
        self.store.close()
        self.store = Store(Path(self.folder.name, "k.db"), EMBEDDER, DIM)

    @rule()
    def replay(self) -> None:
        """Bring the replica up to date and compare it with a fresh load."""
        new = self.store.changes(self.at)
        self.at, added, vectors, removed = new.sequence, new.ids, new.vectors, new.removed.tolist()
        assert self.replica.keys().isdisjoint(added.tolist())
        for key in removed:
            self.replica.pop(key, None)
        self.replica.update(zip(added.tolist(), vectors.tolist(), strict=True))
        added, vectors = self.store.changes(0).ids, self.store.changes(0).vectors
        assert self.replica == dict(zip(added.tolist(), vectors.tolist(), strict=True))

    @invariant()
    def is_the_model(self) -> None:
        """Text, terms and vectors are those of the model."""
        assert texts(self.store) == self.model
        assert_sound(self.store)

    def teardown(self) -> None:
        """Remove the files."""
        self.store.close()
        self.folder.cleanup()


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=12, stateful_step_count=12, suppress_health_check=list(HealthCheck)
)
