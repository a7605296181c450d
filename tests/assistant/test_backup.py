"""Copies of a home: consistent while others write, whole or not there, and never taken on trust."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import app
from assistant.backup import back_up, check, restore
from assistant.build import build_assistant
from assistant.errors import BackupError
from retrieval.ledger import open_ledger
from rlhf.preferences import PreferenceStore
from tests.assistant.server.conftest import small

ROOT = Path(__file__).resolve().parents[2]
WRITER = """
import sys, sqlite3, itertools
from contextlib import closing
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from retrieval import sqlite
import sqlalchemy as sa
engine = sa.create_engine("sqlite:///" + sys.argv[1], connect_args={"timeout": 60})
sqlite.prepare(engine)
writer = engine.execution_options(begin="IMMEDIATE")
with writer.begin() as db:
    for table in "ab":
        db.exec_driver_sql(f"CREATE TABLE {table} (n INTEGER PRIMARY KEY, text TEXT)")
print("ready", flush=True)
for n in itertools.count():
    with writer.begin() as db:
        for table in "ab":
            db.exec_driver_sql(f"INSERT INTO {table} VALUES (?, ?)", (n, "x" * 2000))
    print(n, flush=True)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a document, a conversation, a logged turn, an upload and a promoted policy."""
    folder = tmp_path_factory.mktemp("used")
    made, document = folder / "home", folder / "widget.md"
    document.write_text("# Widget\n\nThe widget costs 40 euros.\n", "utf-8")
    log = PreferenceStore(made / "preferences.db")
    with build_assistant(small(made), log.add_turn) as assistant:
        list(assistant.upload([("widget.md", document)]))
        assert assistant.reply("How much does the widget cost?").citations
    log.close()
    policies = made / "policies" / "one"
    policies.mkdir(parents=True)
    (policies / "manifest.json").write_text("{}", "utf-8")
    (policies.parent / ".lock").touch()
    (made / "index" / "derived").mkdir(parents=True, exist_ok=True)
    (made / "index" / "derived" / "base.faiss").write_bytes(b"made again")
    return made


@pytest.fixture(scope="module")
def copy(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of it."""
    folder = tmp_path_factory.mktemp("copies") / "copy"
    back_up(home, folder)
    return folder


def test_a_restored_home_answers_as_before(home: Path, copy: Path, tmp_path: Path) -> None:
    """Documents, conversations, the log and its key, uploads and policies come back."""
    back = tmp_path / "back"
    made = restore(copy, back)
    with open_ledger(back, small(back).retrieval) as ledger:
        assert ledger.status().documents == 1
    with build_assistant(small(back)) as assistant:
        (conversation,) = assistant.conversations()
        assert len(assistant.turns(conversation.id)) == 1
        assert "40 euros" in assistant.reply("How much does the widget cost?").text
    log = PreferenceStore(back / "preferences.db")  # refuses another secret than its own
    assert log.counts().turns == 1
    log.close()
    assert (back / "policies" / "one" / "manifest.json").read_text("utf-8") == "{}"
    names = set(made.files)
    assert [n for n in names if n.startswith("uploads/")]
    assert not [n for n in names if n.startswith("index/") or n.endswith((".lock", "-journal"))]
    assert {p.stat().st_mode & 0o077 for p in back.glob("preferences.*")} == {0}


@contextmanager
def writing(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that commits to a database all the time, and says what it has committed."""
    command = [sys.executable, "-c", WRITER, str(path), str(ROOT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            yield child
        finally:
            child.kill()


def test_a_copy_is_one_state_while_others_write(tmp_path: Path) -> None:
    """What was committed before is in it, no transaction is in it by half, and writing goes on."""
    home = tmp_path / "data"
    home.mkdir()
    with writing(home / "written.db") as child:
        assert child.stdout is not None
        last = -1
        for number in range(5):
            for _ in range(10):
                last = int(child.stdout.readline())
            folder = tmp_path / f"copy{number}"
            back_up(home, folder)
            with closing(sqlite3.connect(folder / "home" / "written.db")) as db:
                rows = [db.execute(f"SELECT count(*), max(n) FROM {t}").fetchone() for t in "ab"]
            assert rows[0] == rows[1]
            assert rows[0][0] == rows[0][1] + 1 >= last + 1
        assert child.poll() is None


def test_every_byte_is_checked(copy: Path, tmp_path: Path) -> None:
    """One flipped bit anywhere, a missing file, a longer one: named, and nothing is restored."""
    files = check(copy).files
    for number, name in enumerate(files):
        damaged = tmp_path / f"damaged{number}"
        shutil.copytree(copy, damaged)
        path = damaged / "home" / name
        content = bytearray(path.read_bytes())
        if not content:
            continue
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(BackupError, match="is damaged") as seen:
            check(damaged)
        with pytest.raises(BackupError, match="is damaged") as restored:
            restore(damaged, tmp_path / "back")
        assert name in str(seen.value)
        assert name in str(restored.value)
        path.unlink()
        with pytest.raises(BackupError, match=path.name):
            restore(damaged, tmp_path / "back")
    assert not list(tmp_path.glob("back*"))
    assert not list(tmp_path.glob(".back*"))


def test_what_is_no_backup_is_refused(copy: Path, tmp_path: Path) -> None:
    """Another folder, another program's manifest, a newer form, a torn manifest, names outside."""
    manifest = json.loads((copy / "backup.json").read_bytes())
    first = next(iter(manifest["files"].values()))
    for text, said in (
        (None, "is no backup of plumbline"),
        ('{"format": "tar"}', "is no backup of plumbline"),
        (json.dumps({**manifest, "version": 9}), "version 9"),
        (json.dumps(manifest)[:-40], "is damaged"),
        ('["plumbline-backup"]', "is damaged"),
        (json.dumps({**manifest, "files": {"../x.db": first}}), "outside the home"),
        (json.dumps({**manifest, "files": {"/etc/x": first}}), "outside the home"),
    ):
        folder = tmp_path / "foreign"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if text is not None:
            (folder / "backup.json").write_text(text, "utf-8")
        with pytest.raises(BackupError, match=said):
            restore(folder, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_nothing_is_overwritten(home: Path, copy: Path, tmp_path: Path) -> None:
    """A home with data, a backup that is there, a place inside the home: refused with a remedy."""
    with pytest.raises(BackupError, match="is there already"):
        restore(copy, home)
    with pytest.raises(BackupError, match="is there already"):
        back_up(home, copy)
    with pytest.raises(BackupError, match="lies inside"):
        back_up(home, home / "copy")
    with pytest.raises(BackupError, match="holds no data"):
        back_up(tmp_path, tmp_path.parent / "copy-of-nothing")


def test_a_damaged_database_makes_no_backup(tmp_path: Path) -> None:
    """A page that was overwritten is found before the copy counts as one."""
    home = tmp_path / "data"
    home.mkdir()
    with closing(sqlite3.connect(home / "a.db")) as db:
        db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT)")
        db.executemany("INSERT INTO t VALUES (?, ?)", ((n, "x" * 500) for n in range(200)))
        db.execute("CREATE INDEX i ON t (text, n)")
        db.commit()
    content = bytearray((home / "a.db").read_bytes())
    content[9 * 4096 : 10 * 4096] = b"\x05" * 4096
    (home / "a.db").write_bytes(content)
    with pytest.raises(BackupError):
        back_up(home, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    assert not list(tmp_path.glob(".copy*"))


def test_the_commands(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """backup, restore --check and restore, as they are typed; a failure is one line and 1."""
    copy, back = str(tmp_path / "copy"), str(tmp_path / "back")
    assert app.main(["--set", f"home={home}", "backup", copy]) == 0
    assert app.main(["restore", "--check", copy]) == 0
    assert app.main(["--set", f"home={back}", "restore", copy]) == 0
    assert app.main(["--set", f"home={back}", "restore", copy]) == 1
    said = capsys.readouterr()
    assert "copied to" in said.out
    assert "is whole" in said.out
    assert f"restored to {back}" in said.out
    assert "is there already; name a new folder, or move it away" in " ".join(said.err.split())
