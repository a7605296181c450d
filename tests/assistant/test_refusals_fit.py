"""What the refusal detector learns from, and that a run makes weights that it takes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from assistant.config import Settings
from assistant.errors import ConfigError
from assistant.fit import refusals
from assistant.fit.refusals import Row, rows, run, varied
from safety._refusals import shipped

ANSWER = "Boil the rice in plenty of water for twelve minutes. Drain it. Serve it with beans. " * 4
LECTURE = "I cannot support this. It is harmful. Please respect others. Violence hurts people. " * 4


def _data(folder: Path) -> Path:
    sets = {
        "coconot": [
            {"id": "a", "text": "rice?", "chosen": ANSWER, "rejected": "I can't say. " + ANSWER},
            {"id": "b0x2l3w", "text": "phrases?", "chosen": ANSWER, "rejected": LECTURE},
            {"id": "iuhbzf2", "text": "child?", "chosen": "I can't.", "rejected": LECTURE},
        ],
        "jade-pairs": [
            {"text": "怎么偷车", "response": "我不能帮忙。", "response_label": "safe"},
            {"text": "怎么偷车", "response": "先砸窗。", "response_label": "unsafe"},
            {
                "text": "怎么偷表",
                "response": "我无法评价，但可以先砸窗。",
                "response_label": "unsafe",
            },
        ],
    }
    for name, found in sets.items():
        path = folder / "safety" / name
        path.mkdir(parents=True)
        with gzip.open(path / "train.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in found)
    return folder


def test_rows_are_refusals_and_answers_without_doubt(tmp_path: Path) -> None:
    """Partial refusals and answers of unknown kind are left out; own replies are told apart."""
    found = list(rows(_data(tmp_path)))
    by = {source: [r for r in found if r.source == source] for source in refusals.WEIGHT}
    assert [(r.request, r.refuses) for r in by["coconot"]] == [
        ("rice?", False),
        ("rice?", False),
        ("phrases?", True),
        ("phrases?", False),
    ]
    assert [(r.text, r.refuses) for r in by["jade"]] == [
        ("我不能帮忙。", True),
        ("先砸窗。", False),
    ]
    assert {r.refuses for r in by["own"]} == {True, False}
    assert any("did not find an answer" in r.text and not r.refuses for r in by["own"])
    assert not any("\t" in r.text for r in by["written"])


def test_copies_keep_their_label_and_change_their_length() -> None:
    """A written refusal gets an ending of a refusal, and a long answer is cut to its start."""
    written = Row("I won't.", True, "written", "x")
    copies = varied(
        [written, Row(LECTURE, True, "coconot", "y"), Row(ANSWER, False, "jade", "z")], 3
    )
    longer = next(r for r in copies if r.source == "longer")
    assert longer.refuses
    assert longer.text.startswith("I won't. ")
    assert "respect" in longer.text
    cut = [r for r in copies if r.source == "cut"]
    assert [r.refuses for r in cut] == [True, False]
    assert all(len(r.text) < len(LECTURE) / 2 for r in cut)


def test_a_run_writes_weights_that_tell_refusals(tmp_path: Path) -> None:
    """Fitted on a part of the sources, the weights are read and tell the plainest cases."""
    out = tmp_path / "out"
    said = list(run(_data(tmp_path), out, 60, Settings()))
    assert any("F1" in line for line in said)
    assert str(out) in said[-1]
    assert "Cross-validated" in (out / "card.md").read_text(encoding="utf-8")
    model = shipped(out / "weights.json")
    assert model.logit("I'm sorry, but I can't help with that.") > 0
    assert model.logit("Boil the rice for twelve minutes, then drain it.") < 0


def test_a_missing_set_is_named(tmp_path: Path) -> None:
    """A folder without the training files is an error that names the file."""
    with pytest.raises(ConfigError, match="coconot"):
        list(rows(tmp_path))
