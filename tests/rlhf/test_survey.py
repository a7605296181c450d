from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlhf.imports import take_in
from rlhf.preferences import PreferenceStore
from rlhf.survey import ENOUGH, Survey, lines, survey

MakeRecord = Any
MakeFeedback = Any


def pick(
    store: PreferenceStore,
    record: MakeRecord,
    feedback: MakeFeedback,
    n: int,
    value: int,
    user: str = "alice",
    question: str = "",
) -> None:
    """Log a turn with the answers A and B and what was picked of them."""
    ids = (f"a{n}", f"b{n}")
    asked = question or f"Question {n}?"
    for name, text in zip(ids, "AB", strict=True):
        given = record(f"t{n}", name, user, text=text, question=asked, passages=0)
        store.add_turn(given)
    store.add_feedback(feedback("ab_pick", f"t{n}", user, candidate_ids=ids, value=value))


def test_too_few_is_said(
    store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback, tmp_path: Path
) -> None:
    """Below 2,000 comparisons the first line says how many there are and how many are missing."""
    pick(store, record, feedback, 1, 0)
    found = survey(store)
    assert (found.decided, found.train + found.missing) == (1, ENOUGH)
    assert "too few for a fresh reward model" in lines(found)[0]
    assert "2,000" in lines(found)[0]
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"prompt": "Q?", "chosen": "A", "rejected": "B"}), "utf-8")
    take_in(store, path, "preference", dataset="set", licence="MIT")
    found = survey(store)
    assert (found.decided, found.imported, found.datasets) == (1, 1, (("set", "MIT", 1),))
    assert "apart from users' own: 1 rows of set (MIT)" in lines(found)[-1]


def test_enough_is_said_too() -> None:
    """With 2,000 decided comparisons to train on, nothing is missing."""
    kinds = "ties edits liked disliked demonstrations duplicates contradictions across imported"
    counted = dict.fromkeys(kinds.split(), 0)
    found = Survey(
        decided=2500, train=2000, users=9, largest=0.2, languages=(), datasets=(), **counted
    )
    assert found.missing == 0
    assert "enough for a fresh reward model" in lines(found)[0]


def test_what_speaks_against_a_log_is_counted(
    store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback
) -> None:
    """Votes given twice, contradictions, ties and a single user are reported."""
    for n, value in enumerate((0, 0, 1, -1)):
        pick(store, record, feedback, n, value, question="The same?")
    found = survey(store)
    assert (found.decided, found.ties, found.duplicates, found.contradictions) == (3, 1, 1, 2)
    said = " ".join(lines(found))
    assert "1 comparisons are there twice, 2 contradict" in said
    assert "all comparisons are of one user" in said


def test_only_ties_teach_nothing(
    store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback
) -> None:
    """A log of ties alone says so."""
    pick(store, record, feedback, 1, -1)
    assert "all comparisons are ties" in " ".join(lines(survey(store)))


def test_kto_is_told_how_to_weigh(
    store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback
) -> None:
    """Three liked answers to one disliked weigh a third each."""
    for n, value in enumerate((1, 1, 1, -1)):
        store.add_turn(record(f"t{n}", f"c{n}", text=f"Answer {n}"))
        store.add_feedback(feedback(turn=f"t{n}", value=value))
    found = survey(store)
    assert (found.liked, found.disliked) == (3, 1)
    assert found.desirable_weight == 1 / 3
