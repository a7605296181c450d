"""Homes that released versions wrote, opened by this one.

`tests/released/VERSION.tar.gz` is the folder `released` with what `used` makes, as that version
left it: never changed. Before the version after a release is begun, that release's own is added:
`python -c "from tests.test_upgrades import used, Path; used(Path('released'))"`, then `tar`.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tarfile
import time
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from assistant.build import build_assistant
from assistant.memory import Memory
from assistant.schema import Feedback
from assistant.server.keys import KeyStore
from assistant.server.records import Records
from assistant.server.shelf import Shelf
from retrieval import sqlite, versions
from retrieval.errors import StoreError
from retrieval.ledger import open_ledger
from rlhf.preferences import PreferenceStore
from tests.assistant.server.conftest import small

RELEASED = Path(__file__).resolve().parent / "released"
RELEASES = sorted(path.name.removesuffix(".tar.gz") for path in RELEASED.glob("*.tar.gz"))
DOCUMENTS = {
    "widget.md": "# Widget\n\nThe widget costs 40 euros. It was made in Lyon.\n",
    "tower.md": "# 北京塔\n\n北京塔高三百米。它的门票四十元。\n",
}
DATABASES = (
    "conversations.db",
    "knowledge.db",
    "preferences.db",
    "keys.db",
    "responses.db",
    "documents.db",
)
#: The key that was made in the home of 0.4.0, which answers on no server.
KEY = "pl-de1058d73576-igykxe2D5tMgG4QuSEilUmTML62xQVNdD2JL2nGSHik"


def home_of(release: str, folder: Path) -> Path:
    """A home as a release left it."""
    with tarfile.open(RELEASED / f"{release}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "released"


def shape(path: Path) -> dict[str, set[tuple[object, ...]]]:
    """The tables of a database: columns, indexes and references, in whatever order."""
    found: dict[str, set[tuple[object, ...]]] = {}
    with closing(sqlite3.connect(path)) as db:
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
            columns = db.execute(f"PRAGMA table_info({name})")
            parts: set[tuple[object, ...]] = {("column", *row[1:4], row[5] > 0) for row in columns}
            for row in db.execute(f"PRAGMA index_list({name})").fetchall():
                inside = [r[2] for r in db.execute(f"PRAGMA index_info({row[1]})")]
                parts.add(("index", bool(row[2]), *inside))
            for row in db.execute(f"PRAGMA foreign_key_list({name})"):
                parts.add(("reference", row[2], row[3], row[4], row[6]))
            found[name] = parts
    return found


def opened(home: Path) -> tuple[int, str]:
    """Open everything of a home; returns how many documents there are, and an answer."""
    log = PreferenceStore(home / "preferences.db")
    assert (log.counts().turns, sum(n for _, n in log.counts().feedback)) == (2, 1)
    log.close()
    with build_assistant(small(home)) as assistant:
        (conversation,) = assistant.conversations("anna")
        (turn,) = assistant.turns(conversation.id, user_id="anna")
        assert (turn.user_text, turn.rating) == ("How much does the widget cost?", 1)
        assert "40 euros" in turn.reply.text
        Shelf(home / "documents.db", assistant.parts.knowledge).close()
        answer = assistant.reply("北京塔高多少米？", user_id="anna").text
        return assistant.health().documents, answer


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that this version made."""
    home = tmp_path_factory.mktemp("fresh") / "made"
    used(home)
    return home


def used(home: Path) -> str:
    """Make a home with two documents, a question in each language, a thumb and a key."""
    documents = home.with_name("documents")
    documents.mkdir()
    for name, text in DOCUMENTS.items():
        (documents / name).write_text(text, encoding="utf-8")
    log = PreferenceStore(home / "preferences.db")

    def heard(feedback: Feedback) -> None:
        log.add_feedback(feedback)

    with build_assistant(small(home), log.add_turn, heard) as assistant:
        list(assistant.ingest([documents]))
        reply = assistant.reply("How much does the widget cost?", user_id="anna")
        assistant.reply("北京塔高多少米？", user_id="bert")
        turn, conversation, candidate = reply.turn_id, reply.conversation_id, reply.candidate_id
        assistant.give_feedback(Feedback(turn, conversation, "anna", "thumb", (candidate,), 1))
        Shelf(home / "documents.db", assistant.parts.knowledge).close()
    log.close()
    keys, records = KeyStore(home / "keys.db"), Records(home / "responses.db")
    key = keys.create("bot")
    records.add("r1", "main/anna", [reply], stored=True)
    keys.close()
    records.close()
    return key


def test_every_release_is_here() -> None:
    """Each version of the change log before the one that is built has its home."""
    text = (RELEASED.parent.parent / "CHANGELOG.md").read_text("utf-8")
    headings = [line[4:].split("]")[0] for line in text.splitlines() if line.startswith("## [")]
    assert set(headings[1:]) <= set(RELEASES)


def test_a_home_of_this_version_is_like_the_released_ones(fresh: Path, tmp_path: Path) -> None:
    """What is packed with the next release has what is asked of the others."""
    home = tmp_path / "copy"
    shutil.copytree(fresh, home)
    documents, answer = opened(home)
    assert (documents, "三百米" in answer) == (2, True)


@pytest.mark.parametrize("release", RELEASES)
def test_a_released_home_goes_on(release: str, fresh: Path, tmp_path: Path) -> None:
    """All that was there is there, it answers, and its tables are those of a new home."""
    home = home_of(release, tmp_path)
    documents, answer = opened(home)
    assert (documents, "三百米" in answer) == (2, True)
    KeyStore(home / "keys.db").close()
    Records(home / "responses.db").close()
    for name in DATABASES:
        assert shape(home / name) == shape(fresh / name), name
    kept = sorted(path.name for path in home.glob("*.bak"))
    with open_ledger(home, small(home).retrieval) as ledger:  # a second opening changes nothing
        assert ledger.status().documents == 2
    assert sorted(path.name for path in home.glob("*.bak")) == kept


def test_a_key_and_an_answer_of_0_4_0_are_still_known(tmp_path: Path) -> None:
    """Clients' keys, and the ids of answers they were given, outlive an upgrade."""
    home = home_of("0.4.0", tmp_path)
    keys, records = KeyStore(home / "keys.db"), Records(home / "responses.db")
    who, response = keys.find(KEY), records.get("r1", "main/anna")
    keys.close()
    records.close()
    assert who is not None
    assert response is not None
    assert (who.tenant, response.citations[0][0].number) == ("main", 1)


@pytest.mark.parametrize("opening", [Memory, KeyStore, Records])
def test_what_a_newer_version_wrote_is_left_alone(opening: type[Memory], tmp_path: Path) -> None:
    """It is refused with both versions and a remedy, and not a byte of it changes."""
    path = tmp_path / "newer.db"
    opening(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"version 99, this plumbline reads 1; use the version"):
        opening(path)
    assert path.read_bytes() == before


def test_steps_are_taken_together_or_not_at_all(tmp_path: Path) -> None:
    """A step that fails takes the ones before it back; the same steps made right then succeed."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript("CREATE TABLE t (n INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);")
    tables = sa.MetaData()
    sa.Table(
        "t",
        tables,
        sa.Column("n", sa.Integer, primary_key=True),
        sa.Column("a", sa.Text),
        sa.Column("b", sa.Text),
    )
    engine = sa.create_engine(f"sqlite:///{path}")
    sqlite.prepare(engine)
    writer = engine.execution_options(begin="IMMEDIATE")
    first = "ALTER TABLE t ADD COLUMN a TEXT"
    with pytest.raises(StoreError, match="nothing was changed"):
        versions.bring_up(writer, path, tables, {1: [first], 2: ["ALTER TABLE missing ADD b"]})
    assert shape(path)["t"] == {("column", "n", "INTEGER", 0, True)}
    good = {1: [first], 2: ["ALTER TABLE t ADD COLUMN b TEXT", "UPDATE t SET b = 'x'"]}
    for _ in range(2):
        versions.bring_up(writer, path, tables, good)
    engine.dispose()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT n, b FROM t").fetchall() == [(1, "x")]
        assert db.execute("PRAGMA user_version").fetchone() == (3,)


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import sqlalchemy as sa
from retrieval import sqlite, versions
path = Path(sys.argv[1])
engine = sa.create_engine(f"sqlite:///{path}")
sqlite.prepare(engine)
endless = (
    "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) "
    "SELECT count(*) FROM c"
)
steps = {1: ["ALTER TABLE t ADD COLUMN a TEXT", "UPDATE t SET a = 'x'", endless]}
versions.bring_up(engine.execution_options(begin="IMMEDIATE"), path, sa.MetaData(), steps)
"""


def test_a_process_killed_while_it_upgrades_leaves_the_old_database(tmp_path: Path) -> None:
    """After kill -9 between two steps, the tables and the rows are those of before."""
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript("CREATE TABLE t (n INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);")
    before = shape(path)
    journal = path.with_name(f"{path.name}-journal")
    log = path.with_name(f"{path.name}-wal")
    root = str(RELEASED.parent.parent)
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path), root]) as child:
        ends = time.monotonic() + 60
        while not any(p.exists() and p.stat().st_size for p in (journal, log)):
            assert time.monotonic() < ends
            assert child.poll() is None
            time.sleep(0.05)
        time.sleep(0.2)
        child.kill()
    assert shape(path) == before
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT * FROM t").fetchall() == [(1,)]
        assert db.execute("PRAGMA user_version").fetchone() == (0,)
