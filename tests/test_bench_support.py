from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import support
from tests.bench_files import last_line, write

TRUE, FALSE = "The harbour of Varnholm was built in 1874.", "The harbour was painted red in 1990."


def answer(model: str, said: str, **labels: str) -> dict[str, Any]:
    """Make an annotated answer; `labels` are by "true" and "false" claim."""
    text = {"true": ("harbour of Varnholm", "was built in", "1874"), "false": ("It", "has", "9")}
    claims = [{"triplet": list(text[kind]), "label": label} for kind, label in labels.items()]
    return {
        "setting": "accurate_context",
        "source_id": "1",
        "model": model,
        "response": said,
        "claims": claims,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return one question answered by two models, and two judged answers."""
    rows = [
        answer("a", FALSE, true="Entailment", false="Neutral"),
        answer("b", TRUE, false="Contradiction"),
    ]
    write(tmp_path / "refchecker" / "human_annotations.jsonl.gz", rows)
    said = {"user_query": TRUE, "hallucination_spans": []}
    judged = [
        {**said, "chatgpt_response": TRUE, "hallucination": "no"},
        {**said, "chatgpt_response": FALSE, "hallucination": "yes"},
    ]
    write(tmp_path / "halueval" / "general.jsonl.gz", judged)
    return tmp_path


def test_a_claim_is_held_against_the_other_answers(folder: Path) -> None:
    """Never against the answer that it is out of."""
    found = [(one.passages, one.unsupported) for one in support.refchecker(folder)]
    assert found == [((TRUE,), False), ((TRUE,), True), ((FALSE,), True)]


def test_references_take_the_place_of_other_answers(folder: Path) -> None:
    """Where the texts that annotators read are at hand, they are read."""
    references = [{"source_id": 1, "passages": ["Reference."]}]
    write(folder / "refchecker" / "references.jsonl.gz", references)
    assert {one.passages for one in support.refchecker(folder)} == {("Reference.",)}


def test_the_products_check_is_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What stands in the passage outscores what does not, and the threshold tells them apart."""
    support.main(["--data", str(folder), "--set", "policy.support=words"])
    found = last_line(capsys)
    assert found["judge"] == "words"
    for name, count in (("refchecker", 3), ("refchecker_accurate_context", 3), ("halueval", 2)):
        got = [found[name][key] for key in ("auroc", "f1", "n")]
        assert got == [1.0, 1.0, count]


def test_a_folder_without_either_set_is_named(tmp_path: Path) -> None:
    """The error says which folders are looked for."""
    with pytest.raises(SystemExit, match="neither refchecker nor halueval"):
        support.main(["--data", str(tmp_path)])


def test_rare_terms_weigh_more_than_common_ones() -> None:
    """A term of one text outweighs one of all; an unknown one outweighs both."""
    known = support.rarity(["harbour built", "harbour red", "harbour old"])
    common, rare, unknown = known(["harbour", "red", "ship"])
    assert common < rare < unknown
