"""What the support check learns from, and that a run makes weights that it can be built on."""

from __future__ import annotations

import gzip
import json
import random
from collections import defaultdict
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assistant import support as check
from assistant.build import supporter_of
from assistant.config import Settings
from assistant.errors import ConfigError
from assistant.fit import _answers_rows, _support_places, support
from assistant.fit import _support_asked as statements
from assistant.fit import _support_chinese as han
from assistant.fit import _support_english as latin
from assistant.fit._support_english import Pool
from assistant.fit._support_places import ASKED, TEXTS
from assistant.fit._support_rows import (
    ANSWERS,
    OPPOSED,
    SAID,
    WRITTEN,
    Row,
    falsified,
    written,
)
from assistant.fit.base import apart
from assistant.fit.support import gathered

ENGLISH = (
    "In {year}, the tower of Lyon was built by Mara Lind. It was not open to all until "
    "1950. The largest room holds {n} people and is older than the north gate. Anna Berg sold it "
    "to Otto Kranz, who opened a school there."
)
CHINESE = (
    "{year}年，北京塔由林秀禾设计。这座塔位于北京东部，高{n}米，是当时最高的建筑。"
    "游客可以在周末参观，但是不能带宠物进入塔内。后来它获得了国家奖。"
)


def put(path: Path, found: list[dict[str, Any]]) -> None:
    """Write rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in found)


def asked(name: str, split: str = "train") -> list[dict[str, Any]]:
    """Seven passages, one of them held out, with a question each, and one that has no answer."""
    chinese = name.startswith(("cmrc", "drcd"))
    body = CHINESE if chinese else ENGLISH
    found: list[dict[str, Any]] = []
    for n in (*range(6), next(n for n in count(6) if apart(f"{name} {n}"))):
        text = body.format(year=1900 + n, n=20 + n)
        question = "北京塔由谁设计？" if chinese else "Who sold the tower to Otto Kranz?"
        answer = "林秀禾" if chinese else "Anna Berg"
        own = {"context": text, "title": f"{name} {n}", "split": split}
        start = {"text": answer, "start": text.find(answer)}
        found.append({"id": f"{name}{n}", "question": question, "answers": [start], **own})
        other = {"id": f"{name}-{n}", "question": "Who burnt the tower?", "answers": []}
        found.append({**other, "is_impossible": True, **own})
    return found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a few rows of every training file."""
    folder = tmp_path / "data"
    for name in ASKED:
        put(folder / "qa" / f"{name}.jsonl.gz", asked(name))
    for name in TEXTS:
        body = (CHINESE if name.startswith("zh") else ENGLISH).format(year=1990, n=7)
        put(
            folder / "text" / f"{name}.txt.gz", [{"id": str(n), "text": body * 9} for n in range(2)]
        )
    both = [
        {"id": f"a:{n}", "en": f"The value of the option {n} must not be empty.",
         "zh": f"选项 {n} 的值不能为空，否则会报错。"}
        for n in range(12)
    ]  # fmt: skip
    put(folder / "text" / "parallel-python_docs.jsonl.gz", both)
    forum = {
        "prompt": "Who owned the tower of Lyon?",
        "response": ENGLISH.format(year=1, n=2),
        "split": "train",
    }
    put(folder / "sft" / "lfrqa" / "answers.jsonl.gz", [{"id": "f", **forum}])
    claps = {"id": "c", "answers": [{"text": ENGLISH.format(year=3, n=4)}]}
    put(folder / "qa" / "clapnq" / "train_answers_no_passage.jsonl.gz", [claps])
    text = ENGLISH.format(year=5, n=6)
    put(folder / "qa" / "covidqa" / "docs.jsonl.gz", [{"id": "d", "text": text}])
    answer = {"text": "Anna Berg", "start": text.index("Anna Berg")}
    where = {"id": "q", "doc_id": "d", "question": "Who sold the tower?", "answers": [answer]}
    put(folder / "qa" / "covidqa" / "qa.jsonl.gz", [where])
    return folder


@pytest.mark.parametrize(
    ("question", "answer", "said"),
    [
        ("Who wrote Hamlet?", "Shakespeare", "Shakespeare wrote Hamlet."),
        ("When did the war end?", "1945", "The war ended in 1945."),
        ("Where was the hall built?", "Lyon", "The hall was built in Lyon."),
        ("How many ships did he lose?", "four", "He lost four ships."),
        (
            "Why did the plan fail?",
            "a lack of money",
            "The plan failed because of a lack of money.",
        ),
        ("谁设计了北京塔？", "林秀禾", "林秀禾设计了北京塔。"),
        ("這座橋全長多少公里？", "12公里", "這座橋全長12公里。"),
        ("他哪一年出生？", "1902年", "他1902年出生。"),
    ],
)
def test_a_question_with_its_answer_is_a_statement(question: str, answer: str, said: str) -> None:
    """Both languages, traditional characters as well."""
    state = statements.chinese if "？" in question else statements.english
    assert state(question, answer) == said


def test_a_question_that_no_rule_reads_gives_nothing() -> None:
    """Rather nothing than a sentence that says something else."""
    assert statements.english("Is it raining?", "yes") is None
    assert statements.chinese("为什么下雨？", "因为冷") is None


@pytest.mark.parametrize(
    "said", [ENGLISH.format(year=1999, n=40).split(". ")[0] + ".", CHINESE.format(year=1999, n=40)]
)
def test_what_is_made_false_is_another_sentence(said: str) -> None:
    """Whatever rule is drawn, the sentence changes."""
    pool = Pool(("Paul Renn", "王小明"), ("Ida Holm",), ())
    found = {falsified(said, pool, random.Random(n)) for n in range(40)}
    assert said not in found
    assert len(found - {None}) > 4


def test_rules_say_the_same_and_the_opposite() -> None:
    """A few by name: active for passive, a denial, another order, roles exchanged."""
    dice = random.Random(0)
    said = "The firm was founded by John Berg."
    denials = {latin.denied(said, random.Random(n)) for n in range(20)} - {None}
    assert denials <= {said.replace("was", f"was {w}") for w in ("not", "never")}
    assert denials
    assert "John Berg founded the firm." in {r(said, dice) for r in latin.TRUE}
    assert latin.swapped("We know Mara Lind sued Otto Kranz.", dice) == (
        "We know Otto Kranz sued Mara Lind."
    )
    assert "林秀禾设计了北京塔。" in {r("北京塔由林秀禾设计。", dice) for r in han.TRUE}
    assert han.denied("游客可以参观。", dice) == "游客不可以参观。"


def test_every_written_line_is_of_a_known_kind() -> None:
    """Each file of support/ is read whole: every label in every pair of languages."""
    found = defaultdict(set)
    for row in written(WRITTEN):
        found[row.kind].add(row.labels)
    assert {kind: SAID in labels and OPPOSED in labels for kind, labels in found.items()} == {
        kind: True for kind in check.KINDS
    }


def test_an_unknown_label_is_named_by_its_line(tmp_path: Path) -> None:
    """A slip of the pen in a file of support/ stops the training."""
    (tmp_path / "pairs_x.tsv").write_text("supported\ta\tb\nsuported\ta\tb\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2: 'suported'"):
        list(written(tmp_path))


def test_rows_are_the_same_every_time(data: Path) -> None:
    """A run that was broken off goes on with the rows that it began with."""
    first, second = gathered(data), gathered(data)
    assert first == second
    assert {row.labels for row in first} >= {SAID, OPPOSED}
    assert {row.kind for row in first} == set(check.KINDS)


def test_a_window_answers_where_it_holds_the_answer(data: Path) -> None:
    """Questions of a passage: yes with the gold answer in the window, no for impossible ones."""
    found = [row for row in gathered(data) if row.labels[check.COLUMN] >= 0]
    assert {row.labels[:2] for row in found} == {ANSWERS[:2]}
    asked = {"北京塔由谁设计？": "林秀禾", "Who sold the tower to Otto Kranz?": "Anna Berg"}
    for question, answer in asked.items():
        own = [row for row in found if row.claim == question]
        assert {row.labels[check.COLUMN] for row in own} <= {0, 1}
        assert all(answer in row.window for row in own if row.labels[check.COLUMN])
        assert any(row.labels[check.COLUMN] for row in own)
    burnt = {row.labels[check.COLUMN] for row in found if row.claim == "Who burnt the tower?"}
    assert burnt == {0}


def test_written_questions_find_their_passage(data: Path, tmp_path: Path) -> None:
    """By its digest; a line whose passage is not in the data folder is left out."""
    place = next(iter(_support_places.asked(data)))
    key = _answers_rows.digest(place.text)
    lines = [f"{key}\tno\tWho burnt it?", f"{'0' * 12}\tyes\tWho?", f"{key}\tyes\tWho built it?"]
    path = tmp_path / "written" / "en.tsv"
    path.parent.mkdir()
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = [*_answers_rows.written(path.parent, [place], 7)]
    assert {(r.claim, r.labels[check.COLUMN]) for r in found} == {
        ("Who burnt it?", 0), ("Who built it?", 1)
    }  # fmt: skip
    path.write_text(f"{key}\tperhaps\tWho?\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 1: 'perhaps'"):
        list(_answers_rows.written(path.parent, [place], 7))


def test_every_written_question_is_of_a_known_kind() -> None:
    """Each file of answers/ is read whole, and no passage has one kind only twice over."""
    for path in sorted(_answers_rows.WRITTEN.glob("*.tsv")):
        lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
        assert {len(parts) for parts in lines} == {3}
        assert {label for _, label, _ in lines} == {"yes", "no"}
        assert len({(key, question) for key, _, question in lines}) == len(lines)


def test_questions_for_the_ranker_are_of_articles_nobody_learns_from(data: Path) -> None:
    """All of them are of groups that are held out, impossible ones among them."""
    groups = {row.group for row in gathered(data) if row.held_out}
    found = _answers_rows.held(data, "en") + _answers_rows.held(data, "zh")
    assert {q.title for q in found} <= groups
    assert {q.impossible for q in found} == {True, False}


def test_test_rows_are_never_read(data: Path) -> None:
    """Passages of a test split give no rows, nor do other paragraphs of such an article."""
    put(data / "qa" / "cmrc2018" / "dev.jsonl.gz", asked("cmrc2018/held", "test"))
    put(data / "qa" / "squad" / "squad2_dev.jsonl.gz", asked("squad/squad11_dev", "test"))
    groups = {row.group for row in gathered(data)}
    barred = {f"{name} {n}" for name in ("cmrc2018/held", "squad/squad11_dev") for n in range(6)}
    assert not groups & barred


def test_a_group_is_held_out_whole(data: Path) -> None:
    """All rows of an article lie on one side of the split."""
    sides: dict[str, set[bool]] = defaultdict(set)
    for row in gathered(data):
        sides[row.group].add(row.held_out)
    assert all(len(found) == 1 for found in sides.values())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The data folder is wrong, or not whole."""
    with pytest.raises(ConfigError, match=r"squad2_dev\.jsonl\.gz"):
        gathered(tmp_path)


def test_the_level_lets_few_unsupported_pass() -> None:
    """At most the share that the level was set for, of each kind."""
    held = [Row("a b", "a c", (n % 2, 0, n % 5 == 0), "x", str(n)) for n in range(400)]
    logits = np.random.default_rng(0).normal(size=(400, 3)) + np.array(
        [[r.labels[0], 0, 0] for r in held]
    )
    labels = [
        Row(r.claim, r.window, (r.labels[0], n % 3 == 0, r.labels[2]), "x", r.group)
        for n, r in enumerate(held)
    ]
    lines = support.calibrated(labels, logits)
    scores = support.probabilities(labels, logits, lines)
    level = support.levels_of(labels, scores)["en"]
    passed = np.mean(
        [s >= level for r, s in zip(labels, scores[:, 0], strict=True) if not r.labels[0]]
    )
    assert passed <= support.BELIEVED + 0.01


def test_a_run_makes_what_the_check_is_built_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three steps from the command's function to a check that reads a sentence; and on again."""
    monkeypatch.chdir(tmp_path)
    out, settings = tmp_path / "support", Settings()
    shown = list(support.run(data, out, 3, settings))
    made = supporter_of(settings, out)
    assert made is not None
    (found,) = made.score(["The tower was built by Mara Lind."], [ENGLISH.format(year=1999, n=4)])
    assert (0 < found.probability < 1, 0 <= found.start < found.end) == (True, True)
    assert "rows to train on" in shown[0]
    again = list(support.run(data, out, 3, settings))
    assert not any(line.startswith("step") for line in again)
