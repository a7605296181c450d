from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from assistant.prompt import ABSTAIN
from rlhf.config import PreferenceSettings
from rlhf.errors import BadRecord, ConflictingRecord, UnknownTurn
from rlhf.identity import mask_contacts
from rlhf.preferences import PreferenceStore

MakeRecord = Any
MakeFeedback = Any


def two(store: PreferenceStore, record: MakeRecord, **values: object) -> None:
    """Log a turn with two candidates, a and b."""
    store.add_turn(record(candidate="a", text="Fact A [1].", position=0, **values))
    store.add_turn(record(candidate="b", text="Fact B [2].", position=1, **values))


# -- turns


def test_a_turn_comes_back_whole(store: PreferenceStore, record: MakeRecord) -> None:
    """Prompt, tokens, log-probs, evidence versions, verdicts and policy are kept verbatim."""
    given_record = record()
    card = replace(given_record.reply.policy, tokenizer="f" * 64)
    given_record = replace(given_record, reply=replace(given_record.reply, policy=card))
    store.add_turn(given_record)
    (line,) = store.records()
    (answer,) = line["candidates"]
    assert line["prompts"][0]["messages"] == [[m.role, m.text] for m in given_record.prompt]
    assert answer["token_ids"] == [1, 2, 3]
    assert answer["logprobs"] == [-0.1, -0.2, -0.3]
    assert answer["policy"]["revision"] == "rev"
    assert answer["policy"]["tokenizer"] == "f" * 64
    assert line["prompts"][0]["prompt_sha256"] == given_record.prompt_sha256
    assert len(line["prompts"][0]["system_sha256"]) == 64
    assert answer["sampling"]["seed"] == 3
    assert answer["understanding"]["query"] == "What is fact 1?"
    assert [e["version"] for e in answer["evidence"]] == ["a" * 64] * 2
    assert [e["chunk_id"] for e in answer["evidence"]] == [1, 2]
    assert answer["verdicts"][0]["decision_id"] == "d1"
    assert (answer["shown"], answer["position"]) == (True, 0)


def test_a_retried_turn_changes_nothing(store: PreferenceStore, record: MakeRecord) -> None:
    """The same record twice is one candidate."""
    store.add_turn(record())
    store.add_turn(record())
    assert store.counts().candidates == 1


def test_an_id_names_one_content(store: PreferenceStore, record: MakeRecord) -> None:
    """Another text under a known candidate id, or another user's turn id, is refused."""
    store.add_turn(record())
    with pytest.raises(ConflictingRecord, match="candidate 'c1'"):
        store.add_turn(record(text="other"))
    with pytest.raises(ConflictingRecord, match="turn 't1'"):
        store.add_turn(record(candidate="c2", user="mallory"))
    assert store.counts().candidates == 1


def test_a_contradictory_turn_is_refused(store: PreferenceStore, record: MakeRecord) -> None:
    """Token ids need as many log-probs, and the hash must be the prompt's."""
    with pytest.raises(BadRecord, match="3 token ids but 1"):
        store.add_turn(replace(record(), logprobs=(0.0,)))
    with pytest.raises(BadRecord, match="prompt_sha256"):
        store.add_turn(replace(record(), prompt_sha256="0" * 64))
    assert store.counts().turns == 0


def test_the_redacted_text_stands_beside_the_raw(
    store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback
) -> None:
    """Iterators give masked texts unless raw ones are asked for."""
    store.add_turn(record(question="Mail bob@example.com or +86 138 0013 8000?", text="Yes."))
    store.add_feedback(feedback("edit", text="Mail eve@example.org"))
    (masked,), (raw,) = list(store.edits()), list(store.edits(raw=True))
    assert masked.edited == "Mail [email]"
    assert "Mail [email] or [phone]?" in masked.prompt[-1].text
    assert raw.edited == "Mail eve@example.org"
    assert "bob@example.com" in raw.prompt[-1].text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("打电话13800138000吧", "打电话[phone]吧"),
        ("邮箱a.b@c.cn。", "邮箱[email]。"),
        ("+1 (555) 123-4567", "[phone]"),
        ("座机010-62751234，手机138 0013 8000", "座机[phone]，手机[phone]"),
        ("call 555-123-4567 or +442071838750", "call [phone] or [phone]"),
        ("in 2026, 3.14159 and 42", "in 2026, 3.14159 and 42"),
        ("2026-11-21 10:30, 12345678 rows", "2026-11-21 10:30, 12345678 rows"),
        ("SHA 1a2b3c4d5e6f7a8b", "SHA 1a2b3c4d5e6f7a8b"),
    ],
)
def test_contacts_are_masked(text: str, masked: str) -> None:
    """E-mail addresses and telephone numbers go, years, decimals and hashes stay."""
    assert mask_contacts(text) == masked


def test_masking_takes_linear_time() -> None:
    """A long text without contacts does not hold up the log."""
    for text in ("a" * 200_000, "1 " * 100_000, "a.b-" * 50_000, "@" * 200_000):
        assert mask_contacts(text) == text


# -- feedback


def test_a_pick_prefers_the_picked(
    store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback
) -> None:
    """A pick gives the picked answer over each other one, with its place and the draw."""
    two(store, record)
    store.add_feedback(
        feedback("ab_pick", candidate_ids=("b", "a"), value=0, order_randomised=True)
    )
    (pair,) = store.pairs()
    assert (pair.chosen, pair.rejected) == ("Fact B [2].", "Fact A [1].")
    assert (pair.chosen_id, pair.rejected_id) == ("b", "a")
    assert (pair.chosen_position, pair.rejected_position) == (0, 1)
    assert pair.order_randomised
    assert pair.source == "pick"
    assert pair.weight == 1.0


def test_a_tie_is_no_pair(
    store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback
) -> None:
    """Equally good answers, and equal answers, decide nothing."""
    two(store, record)
    store.add_turn(record(candidate="c", text="Fact A [1]."))
    store.add_feedback(feedback("ab_pick", candidate_ids=("a", "b"), value=-1))
    store.add_feedback(feedback("ab_pick", candidate_ids=("a", "c"), value=0))
    assert list(store.pairs()) == []


def test_a_pair_shares_its_prompt(
    store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback
) -> None:
    """Answers to different evidence are not compared."""
    store.add_turn(record(candidate="a", text="A", passages=1))
    store.add_turn(record(candidate="b", text="B", passages=2))
    store.add_feedback(feedback("ab_pick", candidate_ids=("a", "b"), value=0))
    assert list(store.pairs()) == []


def test_a_pick_stays_within_its_turn(
    store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback
) -> None:
    """A candidate of another turn cannot be picked against."""
    store.add_turn(record())
    store.add_turn(record(turn="t2", candidate="c2"))
    with pytest.raises(BadRecord, match="no candidate 'c2'"):
        store.add_feedback(feedback("ab_pick", candidate_ids=("c1", "c2"), value=0))


def test_thumbs_never_become_pairs(
    store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback
) -> None:
    """One answer liked and its sibling disliked are two labels and no comparison."""
    two(store, record)
    store.add_feedback(feedback(candidate_ids=("a",), value=1, reasons=("clear",)))
    store.add_feedback(feedback(candidate_ids=("b",), value=-1))
    assert list(store.pairs()) == []
    assert [(t.completion, t.label, t.reasons) for t in store.thumbs()] == [
        ("Fact A [1].", True, ("clear",)),
        ("Fact B [2].", False, ()),
    ]


def test_an_edit_is_a_lesson_and_a_preference(
    store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback
) -> None:
    """An edit demonstrates, and beats what it replaced with less than a pick's weight."""
    store.add_turn(record())
    store.add_feedback(feedback("edit", text="Better [1]."))
    (pair,), (edit,) = list(store.pairs()), list(store.edits())
    assert (pair.chosen, pair.rejected, pair.source) == ("Better [1].", "Fact 1 [1].", "edit")
    assert pair.weight == PreferenceSettings().edit_weight < 1
    assert pair.chosen_policy is None
    assert (edit.edited, edit.original) == ("Better [1].", "Fact 1 [1].")
    assert edit.prompt == pair.prompt


def test_a_correction_is_a_new_event(
    store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback
) -> None:
    """Up, taken back, up again: three events are kept and the last one stands."""
    store.add_turn(record())
    ids = [store.add_feedback(feedback(value=value)) for value in (1, 0, 1)]
    assert len(set(ids)) == 3
    (line,) = store.records()
    assert [e["supersedes"] for e in line["feedback"]] == [None, ids[0], ids[1]]
    (thumb,) = store.thumbs()
    assert thumb.origin.event_id == ids[2]
    assert store.counts().feedback == (("thumb", 1),)


def test_a_thumb_taken_back_is_no_label(
    store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback
) -> None:
    """Zero stands for no opinion."""
    store.add_turn(record())
    store.add_feedback(feedback(value=1))
    store.add_feedback(feedback(value=0))
    assert list(store.thumbs()) == []


def test_retried_feedback_counts_once(
    store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback
) -> None:
    """The same event again gives the same id and no second row, with or without an own id."""
    store.add_turn(record())
    first = store.add_feedback(feedback(value=1, dwell_ms=10))
    assert store.add_feedback(feedback(value=1, dwell_ms=99)) == first
    assert store.add_feedback(feedback(value=-1), event_id="mine") == "mine"
    store.add_feedback(feedback(value=0))
    assert store.add_feedback(feedback(value=-1), event_id="mine") == "mine"
    assert list(store.thumbs()) == []
    with pytest.raises(ConflictingRecord, match="mine"):
        store.add_feedback(feedback(value=1), event_id="mine")


def test_reports_add_up(store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback) -> None:
    """A second report does not correct the first."""
    store.add_turn(record())
    store.add_feedback(feedback("report", reasons=("wrong",), text="one"))
    store.add_feedback(feedback("report", reasons=("rude",), text="two"))
    assert store.counts().feedback == (("report", 2),)


def test_feedback_without_candidate_is_on_the_shown_one(
    store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback
) -> None:
    """A candidate that was never displayed cannot be meant."""
    store.add_turn(record(candidate="seen", text="seen"))
    store.add_turn(record(candidate="hidden", text="hidden", shown=False))
    store.add_feedback(feedback(value=1))
    assert [t.candidate_id for t in store.thumbs()] == ["seen"]


@pytest.mark.parametrize(
    "values",
    [
        {"value": 2},
        {"kind": "ab_pick", "candidate_ids": ("c1",), "value": 0},
        {"kind": "ab_pick", "candidate_ids": ("c1", "c1"), "value": 0},
        {"kind": "edit", "text": " "},
        {"candidate_ids": ("nobody",), "value": 1},
    ],
)
def test_bad_feedback_is_refused(
    store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback, values: dict[str, Any]
) -> None:
    """A value, text or candidate that does not fit its kind is named and not written."""
    store.add_turn(record())
    with pytest.raises(BadRecord):
        store.add_feedback(feedback(**values))
    assert store.counts().feedback == ()


def test_feedback_needs_the_users_own_turn(
    store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback
) -> None:
    """An unknown turn, another user's, or one of another conversation is unknown alike."""
    store.add_turn(record())
    for event in (
        feedback(turn="nope", value=1),
        feedback(user="mallory", value=1),
        replace(feedback(value=1), conversation_id="other"),
    ):
        with pytest.raises(UnknownTurn):
            store.add_feedback(event)


def test_canned_replies_teach_nothing(
    store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback
) -> None:
    """No policy wrote a refusal; an abstention is exported as the marker the policy wrote."""
    store.add_turn(record(outcome="refused"))
    store.add_feedback(feedback("edit", text="do it anyway"))
    store.add_feedback(feedback(value=-1))
    store.add_turn(record(turn="t2", candidate="c2", outcome="abstained", text="I found nothing."))
    store.add_feedback(feedback(turn="t2", value=1))
    assert list(store.edits()) == []
    assert [t.completion for t in store.thumbs()] == [ABSTAIN]
