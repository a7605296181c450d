from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assistant.schema import Consent
from rlhf.config import PreferenceSettings
from rlhf.errors import ConflictingRecord
from rlhf.preferences import DAY, PreferenceStore

NONE = Consent()
MakeRecord = Any
MakeFeedback = Any


def test_without_consent_nothing_is_used(
    store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback
) -> None:
    """A turn logged without consent to training appears in no iterator."""
    store.add_turn(record(candidate="a", text="A", consent=NONE))
    store.add_turn(record(candidate="b", text="B", consent=NONE))
    store.add_feedback(feedback("ab_pick", candidate_ids=("a", "b"), value=0))
    store.add_feedback(feedback("edit", candidate_ids=("a",), text="mine"))
    store.add_feedback(feedback(candidate_ids=("a",), value=1))
    readers = (store.pairs, store.edits, store.thumbs, store.records)
    assert [list(read()) for read in readers] == [[], [], [], []]
    assert store.counts().trainable == 0


def test_withdrawal_reaches_back_and_a_grant_only_if_told(
    store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback
) -> None:
    """What is withdrawn is out at once; what is granted later reaches back only with `past`."""
    store.add_turn(record())
    store.add_feedback(feedback(value=1))
    assert len(list(store.thumbs())) == 1
    store.set_consent("alice", NONE)
    assert list(store.thumbs()) == []
    store.set_consent("alice", Consent(train=True))
    assert list(store.thumbs()) == []
    store.set_consent("alice", Consent(train=True), past=True)
    assert len(list(store.thumbs())) == 1


def test_consent_is_what_was_said_last(store: PreferenceStore, record: MakeRecord) -> None:
    """A turn's own consent and a change of mind count in the order they came."""
    assert store.consent("alice") == Consent()
    store.set_consent("alice", Consent(train=True, text_version="v1"))
    assert store.consent("alice") == Consent(train=True, text_version="v1")
    store.add_turn(record(consent=Consent(evaluate=True)))
    assert store.consent("alice") == Consent(evaluate=True)
    store.set_consent("alice", NONE)
    assert store.consent("alice") == NONE


def test_a_user_is_a_pseudonym(tmp_path: Path, record: MakeRecord) -> None:
    """The user's id is not in the file, and another installation makes another pseudonym."""
    one, other = PreferenceStore(tmp_path / "1.db"), PreferenceStore(tmp_path / "2.db")
    one.add_turn(record(user="alice.liddell"))
    one.close()
    other.close()
    assert b"alice.liddell" not in (tmp_path / "1.db").read_bytes()
    assert one.pseudonym("alice.liddell") != other.pseudonym("alice.liddell")


def test_files_are_the_owners_only(tmp_path: Path, store: PreferenceStore) -> None:
    """The log and its secret have mode 0600, and a wider secret is narrowed."""
    assert (tmp_path / "log.db").stat().st_mode & 0o777 == 0o600
    secret = tmp_path / "log.key"
    assert secret.stat().st_mode & 0o777 == 0o600
    secret.chmod(0o644)
    PreferenceStore(tmp_path / "log.db").close()
    assert secret.stat().st_mode & 0o777 == 0o600


def test_deleting_a_user_leaves_no_word(
    tmp_path: Path, store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback
) -> None:
    """After a deletion no byte of the user's texts is in the log's files; others' stay."""
    for number in range(40):
        mine = f"紫色的长颈鹿{number} purple-giraffe-{number} " * 60
        store.add_turn(record(f"t{number}", f"c{number}", question=mine, text=mine))
        store.add_feedback(feedback("edit", f"t{number}", text=f"edited {mine}"))
        other = f"green-otter-{number} " * 60
        store.add_turn(record(f"o{number}", f"oc{number}", "bob", question=other, text=other))
    before = b"".join(p.read_bytes() for p in tmp_path.glob("log.db*"))
    assert "紫色的长颈鹿39".encode() in before
    assert store.delete_user("alice") == 40
    after = b"".join(p.read_bytes() for p in tmp_path.glob("log.db*"))
    assert b"purple-giraffe" not in after
    assert "长颈鹿".encode() not in after
    assert b"green-otter-39" in after
    counts = store.counts()
    assert (counts.users, counts.deleted_users, counts.turns) == (1, 1, 40)
    assert counts.feedback == ()


def test_the_deleted_do_not_come_back_late(
    store: PreferenceStore, record: MakeRecord, clock: Any
) -> None:
    """A turn created before the deletion is refused; one made after it is welcome."""
    store.add_turn(record())
    store.delete_user("alice")
    with pytest.raises(ConflictingRecord, match="erased"):
        store.add_turn(record())
    store.add_turn(record(turn="t9", candidate="c9", created=clock.now + 1))
    assert store.counts().turns == 1


def test_retention_ends(store: PreferenceStore, record: MakeRecord, clock: Any) -> None:
    """A turn is purged once its retention time is over, not before."""
    store.add_turn(record(created=clock.now))
    clock.now += 364 * DAY
    assert store.purge() == 0
    clock.now += 2 * DAY
    assert store.purge() == 1
    assert store.counts().turns == 0


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=20))
def test_a_split_is_frozen(tmp_path: Path, user: str) -> None:
    """A user stays in the split of first sight, whatever the fractions become."""
    thirds = PreferenceSettings(dev_fraction=0.3, test_fraction=0.3, split_users=1)
    row = "SELECT split FROM person WHERE pseudonym = ?"
    seen = []
    none = PreferenceSettings(dev_fraction=0, test_fraction=0, split_users=1)
    for chosen in (thirds, none):
        store = PreferenceStore(tmp_path / "log.db", settings=chosen)
        store.set_consent(user, NONE)
        with sqlite3.connect(tmp_path / "log.db") as db:
            seen += db.execute(row, (store.pseudonym(user),)).fetchall()
        store.close()
    assert seen[0] == seen[1]


def test_splits_have_their_size(tmp_path: Path, record: MakeRecord, feedback: MakeFeedback) -> None:
    """Users fall into the splits by the fractions, and an iterator keeps to its split."""
    wanted = PreferenceSettings(dev_fraction=0.25, test_fraction=0.25, page=7, split_users=1)
    store = PreferenceStore(tmp_path / "log.db", settings=wanted)
    for n in range(300):
        store.add_turn(record(f"t{n}", f"c{n}", user=f"user{n}"))
        store.add_feedback(feedback(turn=f"t{n}", user=f"user{n}", value=1))
    sizes = {s: len(list(store.thumbs(s))) for s in ("train", "dev", "test")}
    assert sum(sizes.values()) == len(list(store.thumbs())) == 300
    assert sizes["train"] > max(sizes["dev"], sizes["test"]) > 0
    assert {t.origin.split for t in store.thumbs("dev")} == {"dev"}
    store.close()
