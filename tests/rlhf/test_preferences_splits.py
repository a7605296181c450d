from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhf.config import PreferenceSettings
from rlhf.errors import ConflictingRecord
from rlhf.preferences import PreferenceStore

MakeRecord = Any
MakeFeedback = Any

HALVES = PreferenceSettings(dev_fraction=0.25, test_fraction=0.25)


def ask(
    store: PreferenceStore, make: MakeRecord, user: str, conversation: str, question: str, n: int
) -> str:
    """Log a turn of a conversation; returns the split it stands in."""
    turn = f"{user}-{conversation}-{n}"
    given = make(turn, f"c-{turn}", user, question=question)
    store.add_turn(replace(given, conversation_id=conversation))
    return next(str(r["split"]) for r in store.records() if r["turn_id"] == turn)


def test_one_user_fills_every_split(tmp_path: Path, record: MakeRecord) -> None:
    """While few people are known, conversations fall into the splits, each as a whole."""
    store = PreferenceStore(tmp_path / "log.db", settings=HALVES)
    placed = [
        {ask(store, record, "me", f"talk{c}", f"Question {c}.{n}?", n) for n in range(2)}
        for c in range(16)
    ]
    store.close()
    assert all(len(splits) == 1 for splits in placed)
    assert set().union(*placed) == {"train", "dev", "test"}


def test_the_same_words_stay_in_one_split(tmp_path: Path, record: MakeRecord) -> None:
    """A conversation that opens with an earlier one's very words goes where that went."""
    store = PreferenceStore(tmp_path / "log.db", settings=HALVES)
    placed = {ask(store, record, "me", f"talk{c}", "The same question?", 0) for c in range(12)}
    store.close()
    assert len(placed) == 1


def test_a_conversations_split_is_frozen(tmp_path: Path, record: MakeRecord) -> None:
    """Other fractions, later, move no conversation that was met."""
    seen: list[list[str]] = []
    for settings in (HALVES, PreferenceSettings(dev_fraction=0, test_fraction=0)):
        store = PreferenceStore(tmp_path / "log.db", settings=settings)
        n = len(seen)
        seen.append([ask(store, record, "me", f"talk{c}", f"Q {c} {n}?", n) for c in range(12)])
        store.close()
    assert seen[0] == seen[1]
    assert len(set(seen[0])) > 1


def test_users_met_later_are_split_as_a_whole(tmp_path: Path, record: MakeRecord) -> None:
    """From the n-th user on, a user is in one split; who was met before stays as they were."""
    settings = HALVES.model_copy(update={"split_users": 3})
    store = PreferenceStore(tmp_path / "log.db", settings=settings)
    for user in (f"user{n}" for n in range(6)):
        for talk in range(5):
            turn = f"{user}-{talk}"
            given = record(turn, turn, user, question=f"{user} asks {talk}?")
            store.add_turn(replace(given, conversation_id=turn))
    by: dict[str, Counter[str]] = {}
    for row in store.records():
        by.setdefault(row["pseudonym"], Counter())[row["split"]] += 1
    early = [by.pop(store.pseudonym(f"user{n}")) for n in range(2)]
    assert any(len(splits) > 1 for splits in early)
    assert all(len(splits) == 1 for splits in by.values())
    with sqlite3.connect(tmp_path / "log.db") as db:
        kinds = Counter(split for (split,) in db.execute("SELECT split FROM person"))
    assert kinds["conversation"] == 2
    store.close()


def test_a_deleted_user_leaves_no_row(
    tmp_path: Path, record: MakeRecord, feedback: MakeFeedback, clock: Any
) -> None:
    """No byte of the file has the pseudonym, an id or a word of theirs, and no table a row."""
    path = tmp_path / "log.db"
    store = PreferenceStore(path, clock=clock)
    for user in ("alice", "bob"):
        store.add_turn(record(f"turn-{user}", f"cand-{user}", user, text=f"answer to {user}"))
        store.add_feedback(
            feedback("edit", f"turn-{user}", user, text=f"edit of {user}"), f"event-{user}"
        )
        store.set_consent(user, record().consent)
    marks = [store.pseudonym("alice"), "turn-alice", "cand-alice", "event-alice", "of alice"]
    before = b"".join(p.read_bytes() for p in tmp_path.glob("log.db*"))
    assert all(mark.encode() in before for mark in marks)
    store.delete_user("alice")
    after = b"".join(p.read_bytes() for p in tmp_path.glob("log.db*"))
    assert not [mark for mark in marks if mark.encode() in after]
    assert all(mark.replace("alice", "bob").encode() in after for mark in marks[1:])
    with pytest.raises(ConflictingRecord, match="erased"):
        store.add_turn(record("turn-alice", "cand-alice"))
    assert store.counts().deleted_users == 1
    store.close()


def test_a_split_outlives_a_deletion(tmp_path: Path, record: MakeRecord, clock: Any) -> None:
    """Who comes back after a deletion is in the split of before, whatever the fractions are."""
    all_test = PreferenceSettings(split_users=1, dev_fraction=0, test_fraction=0.99)
    store = PreferenceStore(tmp_path / "log.db", settings=all_test, clock=clock)
    users = [f"user{n}" for n in range(6)]
    first = [ask(store, record, user, "talk", "Q?", 0) for user in users]
    for user in users:
        store.delete_user(user)
    store.close()
    clock.now += 10
    no_test = PreferenceSettings(split_users=1, dev_fraction=0, test_fraction=0)
    store = PreferenceStore(tmp_path / "log.db", settings=no_test, clock=clock)
    again = []
    for n, user in enumerate(users):
        store.add_turn(record(f"again{n}", f"again-c{n}", user, created=clock.now))
        again.append(next(r["split"] for r in store.records() if r["turn_id"] == f"again{n}"))
    store.close()
    assert first == again


def older(path: Path) -> None:
    """Turn a log back into what version 1 wrote."""
    with sqlite3.connect(path) as db:
        db.executescript(
            """
            DROP INDEX turn_by_conversation;
            ALTER TABLE turn DROP COLUMN split;
            ALTER TABLE person ADD COLUMN deleted FLOAT;
            UPDATE person SET split = 'test';
            DROP TABLE imported;
            DROP TABLE erased;
            UPDATE schema_version SET version = 1;
            """
        )


def test_a_log_of_version_1_is_brought_up_to_date(
    tmp_path: Path, record: MakeRecord, feedback: MakeFeedback, clock: Any
) -> None:
    """Turns get splits, the one user no longer falls wholly into test, tombstones lose names."""
    path = tmp_path / "log.db"
    store = PreferenceStore(path, settings=HALVES, clock=clock)
    gone = store.pseudonym("gone")
    for c in range(24):
        ask(store, record, "me", f"talk{c}", f"Question {c}?", 0)
    store.close()
    older(path)
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO person VALUES (?, 'dev', 1.0, 2000.0)", (gone,))
    store = PreferenceStore(path, settings=HALVES, clock=clock)
    splits = Counter(row["split"] for row in store.records())
    assert set(splits) == {"train", "dev", "test"}
    assert splits.total() == 24
    assert gone.encode() not in path.read_bytes()
    assert store.counts().deleted_users == 1
    with pytest.raises(ConflictingRecord, match="erased"):
        store.add_turn(record("late", "late", "gone", created=1999.0))
    store.close()
    again = PreferenceStore(path, settings=HALVES, clock=clock)
    assert Counter(row["split"] for row in again.records()) == splits
    again.close()


def test_many_users_of_version_1_keep_their_splits(
    tmp_path: Path, record: MakeRecord, clock: Any
) -> None:
    """Splits by user, once there are users enough, stay as they were drawn."""
    path = tmp_path / "log.db"
    few = PreferenceSettings(split_users=2)
    store = PreferenceStore(path, settings=few, clock=clock)
    for n in range(3):
        ask(store, record, f"user{n}", f"talk{n}", "Q?", 0)
    store.close()
    older(path)
    store = PreferenceStore(path, settings=few, clock=clock)
    assert [row["split"] for row in store.records()] == ["test"] * 3
    store.close()
