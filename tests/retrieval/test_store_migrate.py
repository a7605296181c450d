from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from retrieval import fault, lexical
from retrieval.errors import StoreError
from retrieval.schema import FileReport, Scope
from retrieval.serving import Serving
from retrieval.store import Store
from retrieval.store_tables import SCHEMA

ROOT = Path(__file__).resolve().parents[2]

#: The tables as version 0.1.0 made them, word for word.
SCHEMA_1 = """
CREATE TABLE meta ("key" VARCHAR NOT NULL, value VARCHAR NOT NULL, PRIMARY KEY ("key"));
CREATE TABLE document (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, source VARCHAR NOT NULL, root VARCHAR NOT NULL,
    title VARCHAR NOT NULL, text TEXT NOT NULL, lang VARCHAR NOT NULL, version VARCHAR NOT NULL,
    made_by VARCHAR NOT NULL, modified FLOAT NOT NULL, stamp VARCHAR NOT NULL,
    "indexed" FLOAT NOT NULL, UNIQUE (source)
);
CREATE INDEX ix_document_root ON document (root);
CREATE TABLE change (
    seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, op VARCHAR NOT NULL, chunk_id INTEGER NOT NULL
);
CREATE TABLE root (
    root VARCHAR NOT NULL, synced FLOAT NOT NULL, failures JSON NOT NULL, PRIMARY KEY (root)
);
CREATE TABLE chunk (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, document_id INTEGER NOT NULL,
    start INTEGER NOT NULL, "end" INTEGER NOT NULL, headings JSON NOT NULL,
    ordinal INTEGER NOT NULL, code JSON NOT NULL, digest VARCHAR NOT NULL,
    FOREIGN KEY(document_id) REFERENCES document (id) ON DELETE CASCADE
);
CREATE INDEX ix_chunk_document_id ON chunk (document_id);
CREATE TABLE embedding (
    chunk_id INTEGER NOT NULL, vector BLOB NOT NULL, PRIMARY KEY (chunk_id),
    FOREIGN KEY(chunk_id) REFERENCES chunk (id) ON DELETE CASCADE
);
CREATE VIRTUAL TABLE lexical USING fts5(head, body, tokenize="ascii tokenchars '+#.-'''");
CREATE VIRTUAL TABLE lexical_terms USING fts5vocab(lexical, row);
INSERT INTO meta VALUES ('schema', '1'), ('embedder', 'double@1');
INSERT INTO document VALUES
    (3, '/d/cats.md', '/d', 'Cats', 'Cats sleep. 猫睡觉。', 'en', 'v1', 'm', 1000.0, 's1', 5.0),
    (7, '/d/dogs.md', '/d', 'Dogs', 'Dogs bark.', 'en', 'v2', 'm', 2000.0, 's2', 6.0);
INSERT INTO chunk VALUES
    (10, 3, 0, 11, '["Head"]', 0, '[]', 'a'), (11, 3, 12, 17, '[]', 1, '[[0, 1]]', 'b'),
    (20, 7, 0, 10, '[]', 0, '[]', 'c');
INSERT INTO embedding VALUES (10, x'003c000000000000'), (20, x'0000003c00000000');
INSERT INTO lexical (rowid, head, body) VALUES
    (10, 'cat head', 'cat sleep'), (11, 'cat', '猫 睡觉'), (20, 'dog', 'dog bark');
INSERT INTO change VALUES
    (1, 'add', 9), (2, 'remove', 9), (3, 'add', 10), (4, 'add', 11), (5, 'add', 20);
INSERT INTO root VALUES ('/d', 4.0, '[{"source": "/d/x", "outcome": "failed", "chunks": 0,
    "embedded": 0, "reason": "broken", "detail": "d", "remedy": "r"}]');
"""


class Double:
    """An encoder of four columns."""

    id, dim = "double@1", 4

    def embed(self, texts: list[str], kind: str) -> np.ndarray:
        """The first axis, whatever the text."""
        return np.eye(1, 4, dtype=np.float32).repeat(len(texts), axis=0)

    def reads(self, text: str) -> bool:
        """Every text."""
        return True


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database of version 0.1.0."""
    path = tmp_path / "knowledge.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(SCHEMA_1)
    connection.close()
    return path


def assert_kept(path: Path) -> None:
    """Everything of the old database is there, and new versions can be written."""
    store = Store(path, "double@1", 4)
    assert store.counts() == (2, 3)
    document = store.document(3)
    assert document is not None
    assert (document.source, document.text) == ("/d/cats.md", "Cats sleep. 猫睡觉。")
    assert (document.version, document.modified, document.date) == ("v1", 1000.0, 1000.0)
    assert document.acl == ()
    texts = [p.chunk.text for p in store.passages([(k, 1.0, ()) for k in (10, 11, 20)])]
    assert texts == ["Cats sleep.", "猫睡觉。", "Dogs bark."]
    loaded = store.vectors(store.model)
    assert (loaded.ids.tolist(), loaded.sequence) == ([10, 20], 5)
    assert loaded.vectors.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]
    failure = FileReport("/d/x", "failed", reason="broken", detail="d", remedy="r")
    assert store.roots()[0].failures == (failure,)
    with store.read() as connection:
        assert list(lexical.search(connection, ["猫"], 5)) == [11]
    serving = Serving(store, Double())  # type: ignore[arg-type]
    view = serving.view(Scope(since=1500.0))
    mask = view.allowed(Scope(since=1500.0))
    assert list(view.search(Double().embed(["x"], "query"), 5, mask)) == [20]
    assert store.remove(["/d/dogs.md"]) == 1
    assert list(serving.view().search(Double().embed(["x"], "query"), 5, None)) == [10]
    store.close()


def test_nothing_of_an_older_version_is_lost(path: Path) -> None:
    """A database of 0.1.0 is brought up to date in place, whole, and a copy is kept."""
    assert_kept(path)
    with sqlite3.connect(path.with_name("knowledge.db.schema-1.bak")) as copy:
        assert copy.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone() == ("1",)
        assert copy.execute("SELECT count(*) FROM embedding").fetchone() == (2,)
    copy.close()
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    connection.close()
    assert found == (str(SCHEMA),)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs POSIX signals")
def test_a_migration_killed_half_way_starts_again(path: Path) -> None:
    """Killed between its steps, a migration leaves the old database, and then succeeds."""
    code = "import sys; from pathlib import Path; from retrieval.store import Store; "
    code += "Store(Path(sys.argv[1]), 'double@1', 4)"
    environment = {**os.environ, fault.VARIABLE: "mid-migration"}
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, env=environment)
    assert done.returncode == -signal.SIGKILL
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT text FROM document WHERE id = 7").fetchone()
    connection.close()
    assert_kept(path)


def test_a_database_that_does_not_add_up_is_left_alone(path: Path) -> None:
    """Rows that hang loose are refused by name, and the database stays as it was."""
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO chunk VALUES (30, 99, 0, 1, '[]', 0, '[]', 'd')")
    connection.close()
    with pytest.raises(StoreError, match=r"cannot be brought from schema 1 to 2: .* loose rows"):
        Store(path, "double@1", 4)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(text) FROM document").fetchone() == (2,)
    connection.close()


def test_both_ways_lead_to_the_same_tables(path: Path, tmp_path: Path) -> None:
    """A migrated database has the columns of a new one."""
    Store(path, "double@1", 4).close()
    Store(tmp_path / "new.db", "double@1", 4).close()
    shapes = []
    for name in ("knowledge.db", "new.db"):
        with sqlite3.connect(tmp_path / name) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            shapes.append(
                {
                    table: sorted(
                        row[1:4] for row in connection.execute(f"PRAGMA table_info({table})")
                    )
                    for (table,) in tables.fetchall()
                    if table != "source"  # made by whoever first asks for it
                }
            )
        connection.close()
    assert shapes[0] == shapes[1]
