from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import rgb
from tests.bench_files import last_line, write

NOISE = ["The lighthouse of Kelso is painted red.", "Ostrava holds maps in Latin."]


def harbour(name: str, year: str) -> dict[str, Any]:
    """Make a row whose five positives all tell the year."""
    told = [f"The harbour of Varnholm was built in {year} by {who}." for who in "ABCDE"]
    return {
        "id": name,
        "query": "When was the harbour of Varnholm built?",
        "answer": [year],
        "positive": told,
        "negative": [f"{text} Part {n}." for n in range(3) for text in NOISE],
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with one file of each kind."""
    monkeypatch.setenv("PLUMBLINE_RETRIEVAL__EMBED__BACKEND", "hashing")
    write(tmp_path / "xx_refine.jsonl.gz", [harbour("r0", "1874"), harbour("r1", "1990")])
    true = [f"The council of Varnholm has 70 seats, {who} said." for who in ("Lund", "Berg")]
    fact = {
        "id": "f0",
        "query": "How many seats has the council of Varnholm?",
        "answer": "70",
        "fakeanswer": "170",
        "positive": true,
        "positive_wrong": [text.replace("70", "170") for text in true],
        "negative": NOISE,
    }
    write(tmp_path / "xx_fact.jsonl.gz", [fact])
    return tmp_path


@pytest.mark.parametrize(
    ("noise", "positives"), [(0.0, 5), (0.2, 4), (0.4, 3), (0.6, 2), (0.8, 1), (1.0, 0)]
)
def test_noise_is_the_share_of_negatives(noise: float, positives: int) -> None:
    """Of five passages so many are negative, rounded up, as RGB has it."""
    row = {"positive": [f"p{n}" for n in range(9)], "negative": [f"n{n}" for n in range(9)]}
    found = rgb.passages(row, noise, parted=False)
    assert (sum(text[0] == "p" for text in found), len(found)) == (positives, 5)


@pytest.mark.parametrize(
    ("positive", "negative", "noise", "wanted"),
    [
        (2, 9, 0.0, ["p0", "p1", "n0", "n1", "n2"]),
        (9, 1, 0.8, ["p0", "p1", "p2", "p3", "n0"]),
        (9, 2, 1.0, ["n0", "n1"]),
    ],
)
def test_where_one_kind_runs_out_the_other_fills(
    positive: int, negative: int, noise: float, wanted: list[str]
) -> None:
    """Five all the same, but never a positive where all are to be noise."""
    row = {"positive": [f"p{n}" for n in range(positive)]}
    row |= {"negative": [f"n{n}" for n in range(negative)]}
    assert rgb.passages(row, noise, parted=False) == wanted


def test_of_each_part_of_an_answer_one_passage_is_there() -> None:
    """Integration keeps a passage of every part, whatever the noise."""
    row = {"positive": [["a0", "a1", "a2"], ["b0"]], "negative": [f"n{n}" for n in range(9)]}
    found = [rgb.passages(row, noise, parted=True) for noise in (0.0, 0.4, 0.8, 1.0)]
    assert found == [
        ["a0", "b0", "a1", "a2", "n0"],
        ["a0", "b0", "a1", "n0", "n1"],
        ["a0", "b0", "n0", "n1", "n2"],
        ["n0", "n1", "n2", "n3", "n4"],
    ]


def test_replies_are_judged_by_their_own_passages(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A policy that repeats the best passage is right while one positive is there, then wrong."""
    rgb.main(["--data", str(folder), "--files", "xx_refine", "--policy", "echo"])
    found = last_line(capsys)["xx_refine"]
    assert found["noise"] == dict.fromkeys(rgb.NOISE, 1.0)
    got = [found[name] for name in ("rejection", "answered", "right_in_noise", "detected", "n")]
    assert got == [0.0, 1.0, 0.0, None, 2]


def test_a_false_passage_is_told_by_its_older_true_version(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The newer version answers and the contradiction is shown; 70 is not found within 170."""
    rgb.main(["--data", str(folder), "--files", "xx_fact", "--policy", "echo"])
    found = last_line(capsys)["xx_fact"]
    arms = found["counterfactual"]
    assert arms["versions"] == {"detected": 1.0, "right": 0.0, "misled": 1.0, "n": 1}
    assert (arms["corrected"]["right"], arms["corrected"]["misled"]) == (1.0, 0.0)
    assert (arms["false"]["misled"], arms["agreeing"]["false_alarm"]) == (1.0, 0.0)
    assert (found["detected"], found["noise"]["0"], found["n"]) == (1.0, 1.0, 1)


def test_all_files_of_a_folder_are_measured_by_default(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each has its values; --limit is a number of rows a file."""
    rgb.main(["--data", str(folder), "--limit", "1", "--policy", "echo"])
    found = last_line(capsys)
    assert [name for name in found if name.startswith("xx")] == ["xx_refine", "xx_fact"]
    assert (found["xx_refine"]["n"], found["policy"]) == (1, "echo")


def test_a_folder_without_files_is_named(tmp_path: Path) -> None:
    """The error says what was looked for."""
    with pytest.raises(SystemExit, match=r"no \.jsonl\.gz"):
        rgb.main(["--data", str(tmp_path)])
