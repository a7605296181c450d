from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from assistant.schema import Consent
from rlhf.errors import ExportError
from rlhf.exports import FORMATS, export, write
from rlhf.preferences import PreferenceStore


@pytest.fixture
def filled(store: PreferenceStore, record: Any, feedback: Any) -> PreferenceStore:
    """One consenting and one silent user, each with a pick, an edit and a thumb."""
    for user, consent in (("alice", Consent(train=True)), ("bob", Consent())):
        for name in "ab":
            store.add_turn(
                record(
                    f"t-{user}", f"{name}-{user}", user, text=f"{name} 答 {user}", consent=consent
                )
            )
        ids = (f"a-{user}", f"b-{user}")
        where = {"turn": f"t-{user}", "user": user}
        store.add_feedback(feedback("ab_pick", candidate_ids=ids, value=1, **where))
        store.add_feedback(feedback("edit", candidate_ids=ids[:1], text=f"改 {user}", **where))
        store.add_feedback(feedback(candidate_ids=ids[:1], value=-1, **where))
    return store


def test_preference_lines_are_conversational(filled: PreferenceStore) -> None:
    """Prompt, chosen and rejected are lists of role and content, the answers one message each."""
    lines = list(export(filled, "preference"))
    assert [line["source"] for line in lines] == ["pick", "edit"]
    assert [line["chosen"][0]["content"] for line in lines] == ["b 答 alice", "改 alice"]
    for line in lines:
        assert [m["role"] for m in line["prompt"]] == ["system", "user"]
        assert [m["role"] for m in line["chosen"] + line["rejected"]] == ["assistant"] * 2


def test_unpaired_and_sft_lines(filled: PreferenceStore) -> None:
    """A thumb is a labelled completion, an edit a completion."""
    (thumb,), (lesson,) = list(export(filled, "unpaired")), list(export(filled, "sft"))
    assert (thumb["completion"][0]["content"], thumb["label"]) == ("a 答 alice", False)
    assert lesson["completion"] == [{"role": "assistant", "content": "改 alice"}]


@pytest.mark.parametrize("format", FORMATS)
def test_no_export_has_the_silent_or_the_deleted(filled: PreferenceStore, format: Any) -> None:
    """Rows without consent are in no export, nor is anyone deleted."""
    assert "bob" not in json.dumps(list(export(filled, format)))
    assert "alice" in json.dumps(list(export(filled, format)))
    filled.delete_user("alice")
    assert list(export(filled, format)) == []


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_reads_back_as_written(
    filled: PreferenceStore, tmp_path: Path, format: Any
) -> None:
    """The file holds the same lines, in UTF-8, and nothing half-written beside it."""
    lines = list(export(filled, format))
    path = tmp_path / "out.jsonl"
    assert write(export(filled, format), path) == len(lines)
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == lines
    assert set("答改事") & set(path.read_text("utf-8"))
    assert not list(tmp_path.glob(".out*"))


def test_an_unknown_format_is_named(filled: PreferenceStore, tmp_path: Path) -> None:
    """The error lists the formats there are; an unwritable path is an error too."""
    with pytest.raises(ExportError, match=r"preference, unpaired, kto, .* raw"):
        export(filled, "xml")  # type: ignore[arg-type]
    with pytest.raises(ExportError, match="cannot write"):
        write([], tmp_path / "missing" / "out.jsonl")
