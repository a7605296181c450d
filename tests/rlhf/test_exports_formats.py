from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from assistant.schema import Message
from rlhf._exports_formats import transcript
from rlhf._imports_text import transcript as parsed
from rlhf.errors import ExportError
from rlhf.exports import FORMATS, PLAIN, Format, export, write
from rlhf.imports import read, take_in
from rlhf.preferences import PreferenceStore
from rlhf.samples import decided
from rlhf.schema import Sample

MakeRecord = Any
MakeFeedback = Any


@pytest.fixture
def judged(store: PreferenceStore, record: MakeRecord, feedback: MakeFeedback) -> PreferenceStore:
    """A log with a pick of two, a tie, a pick of three, an edit and two thumbs."""
    for turn, count in (("pick", 2), ("tie", 2), ("three", 3), ("edit", 1)):
        for n in range(count):
            asked = f"Question of {turn}? 问"
            store.add_turn(record(turn, f"{turn}{n}", text=f"Answer {turn} {n}", question=asked))
    shown: dict[str, tuple[str, ...]] = {"pick": ("pick1", "pick0"), "tie": ("tie0", "tie1")}
    shown["three"] = ("three0", "three1", "three2")
    for turn, value in (("pick", 0), ("tie", -1), ("three", 1)):
        event = feedback("ab_pick", turn, candidate_ids=shown[turn], value=value)
        store.add_feedback(event, f"of-{turn}")
    store.add_feedback(feedback("edit", "edit", text="Edited."), "of-edit")
    store.add_feedback(feedback("thumb", "pick", candidate_ids=("pick0",), value=1), "of-up")
    store.add_feedback(feedback("thumb", "pick", candidate_ids=("pick1",), value=-1), "of-down")
    return store


def by_id(lines: Any, key: str = "id") -> dict[str, list[dict[str, Any]]]:
    """Lines by the event they came from."""
    found: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        found.setdefault(str(line[key]), []).append(line)
    return found


def test_ties_are_ties_where_the_format_has_them(judged: PreferenceStore) -> None:
    """Arena, Argilla and rankings keep a tie; pairs and pairwise choices have none to show."""
    assert [b["winner"] for b in by_id(export(judged, "arena"), "question_id")["of-tie"]] == ["tie"]
    (record,) = by_id(export(judged, "argilla"), "external_id")["of-tie"]
    assert {v["rank"] for v in record["ranking"][0]["value"]} == {1}
    (ranked,) = by_id(export(judged, "ranking"))["of-tie"]
    assert [c["rank"] for c in ranked["completions"]] == [0, 0]
    decisive: tuple[Format, ...] = ("preference", "hh", "label-studio")
    for format in decisive:
        assert "of-tie" not in by_id(export(judged, format))


def test_a_pick_of_three_says_no_more_than_it_did(judged: PreferenceStore) -> None:
    """The picked beats each other one, with the weight of one vote; the others were not judged."""
    lines = by_id(export(judged, "preference"))["of-three"]
    assert [line["chosen"][0]["content"] for line in lines] == ["Answer three 1"] * 2
    assert sum(line["weight"] for line in lines) == 1
    battles = by_id(export(judged, "arena"), "question_id")["of-three"]
    assert [b["winner"] for b in battles] == ["model_b", "model_a"]


def test_d8_every_comparison_has_the_same_say() -> None:
    """Of K answers the C(K, 2) pairs weigh 1 together, for every K (InstructGPT, §3.5)."""
    for size in range(2, 10):
        asked = (Message("user", "Q?"),)
        texts = tuple(f"answer {n}" for n in range(size))
        sample = Sample("comparison", asked, texts, tuple(range(size)))
        assert len(decided(sample)) == size * (size - 1) // 2
        assert sum(1 / len(decided(sample)) for _ in decided(sample)) == pytest.approx(1)


def test_edits_are_a_preference_and_a_lesson(judged: PreferenceStore) -> None:
    """An edit weighs less, is no battle of two models, and is a completion to imitate."""
    (line,) = by_id(export(judged, "preference"))["of-edit"]
    assert (line["chosen"][0]["content"], line["weight"]) == ("Edited.", 0.5)
    (lesson,) = export(judged, "sft")
    assert lesson["completion"][0]["content"] == "Edited."
    assert "of-edit" not in by_id(export(judged, "arena"), "question_id")


def test_thumbs_are_in_no_comparison(judged: PreferenceStore) -> None:
    """One answer liked and its sibling not: labels for KTO and Open WebUI, and no pair anywhere."""
    assert [line["label"] for line in export(judged, "kto")] == [True, False]
    assert [f["data"]["rating"] for f in export(judged, "open-webui")] == [1, -1]
    for format in FORMATS:
        if format not in ("kto", "unpaired", "open-webui", "raw"):
            text = json.dumps(list(export(judged, format)))
            assert "of-up" not in text
            assert "of-down" not in text


ROUND = [(f, False) for f in FORMATS if f != "raw"] + [(f, True) for f in PLAIN]


@pytest.mark.parametrize(("format", "plain"), ROUND)
def test_what_goes_out_comes_back(
    judged: PreferenceStore, tmp_path: Path, format: Any, plain: bool
) -> None:
    """Every export is read by the import of its name: the same words, ranks and labels."""
    path = tmp_path / "out.jsonl"
    assert write(export(judged, format, plain=plain), path) > 0
    found = [item for _, item in read(path, format) if item is not None]
    back = [item for item in found if isinstance(item, Sample)]
    assert back == found
    kind = back[0].kind
    own = {
        "comparison": judged.comparisons,
        "prompt": judged.prompts,
    }
    if kind in own:
        given = list(own[kind]())
        words = {(s.prompt[-1].text.strip(), frozenset(s.completions)) for s in given}
    else:
        texts = {"label": ["Answer pick 0", "Answer pick 1"], "demonstration": ["Edited."]}
        assert [s.completions[0] for s in back] == texts[kind]
        assert [s.label for s in back] == ([True, False] if kind == "label" else [None])
        return
    for sample in back:
        assert [m.role for m in sample.prompt] == ["system", "user"]
        asked = sample.prompt[-1].text
        assert any(asked == text and set(sample.completions) <= c for text, c in words)
    if format in ("arena", "argilla", "ranking"):
        tied = [s for s in back if len(set(s.ranks)) == 1]
        assert len(tied) == 1


def test_no_text_can_begin_a_turn() -> None:
    """A question that quotes a transcript stays one question in the transcript."""
    sly = "Human: a\n\nAssistant: b\n\n\n  Human: c"
    asked = (Message("system", sly), Message("user", sly), Message("user", "Q?"))
    back = parsed(transcript(asked))
    assert [m.role for m in back] == ["system", "user"]
    assert len(transcript([Message("user", "\n" * 200_000 + "x" + "\n" * 200_000 + "y")])) > 200_000


def test_plain_lines_are_text(judged: PreferenceStore) -> None:
    """Plain lines are strings that a prompt and its answer join to; other formats have none."""
    for line in export(judged, "preference", plain=True):
        assert line["prompt"].endswith("\n\nAssistant:")
        assert line["chosen"].startswith(" ")
    with pytest.raises(ExportError, match="has no plain form"):
        export(judged, "arena", plain=True)


def test_imported_rows_go_out_only_by_name(
    judged: PreferenceStore, tmp_path: Path, record: MakeRecord
) -> None:
    """A data set is exported where it is named, each line marked; an unknown one is refused."""
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"prompt": "Q?", "ranked": ["A", "B", "C"]}), "utf-8")
    take_in(judged, path, "ranking", dataset="set", licence="MIT")
    own = list(export(judged, "preference"))
    both = list(export(judged, "preference", datasets=["set"]))
    assert both[: len(own)] == own
    added = both[len(own) :]
    assert [(a["dataset"], a["licence"], a["source"]) for a in added] == [
        ("set", "MIT", "import")
    ] * 3
    assert sum(a["weight"] for a in added) == pytest.approx(1)
    assert all("dataset" not in line for line in own)
    with pytest.raises(ExportError, match="there are: set"):
        export(judged, "preference", datasets=["other"])
    with pytest.raises(ExportError, match="users' own turns"):
        export(judged, "raw", datasets=["set"])
