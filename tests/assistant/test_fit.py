from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from assistant.config import Settings, load
from assistant.errors import ConfigError
from assistant.fit import base, extract
from assistant.fit._extract_rows import WORK, Example
from assistant.fit._support_places import ASKED
from assistant.fit.base import Question, answerable, fill, half, left_out, read
from assistant.fit.extract import fit, unseen
from assistant.policy._ranker import ANSWERABLE, FEATURES, Candidate, Evidence
from assistant.policy._ranker import answerable as question_features
from assistant.policy.extract import Weights
from retrieval.knowledge import open_knowledge

ROW = {
    "id": "1",
    "question": "When?",
    "context": "It was built in 1874.",
    "title": "Old_Harbour",
    "answers": [{"text": "1874", "start": 16}],
}


def write(path: Path, *lines: str) -> Path:
    """Write a question file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)
    return path


def settings(home: Path) -> Settings:
    """Read settings without an encoder's weights."""
    return load(overrides={"home": str(home), "retrieval.embed.backend": "hashing"})


def question(number: int, title: str, context: str, answer: str = "x") -> Question:
    """Make a question."""
    return Question(str(number), f"q{number}", context, title, (answer,), False, "train")


def test_a_row_is_read(tmp_path: Path) -> None:
    """Question, paragraph, article and gold answers."""
    found = read(write(tmp_path / "q.jsonl.gz", json.dumps(ROW)))
    text, split = "It was built in 1874.", half("Old_Harbour")
    expected = Question("1", "When?", text, "Old_Harbour", ("1874",), False, split)
    assert found == [expected]


@pytest.mark.parametrize(
    ("line", "number"), [("{", 2), ("{}", 2), ('{"id": 1, "question": "x"}', 2)]
)
def test_a_malformed_row_is_named_by_its_line(line: str, number: int, tmp_path: Path) -> None:
    """Who made the file knows where to look."""
    path = write(tmp_path / "q.jsonl.gz", json.dumps(ROW), line)
    with pytest.raises(ConfigError, match=f"line {number}: not a question row"):
        read(path)


@pytest.mark.parametrize("content", [None, b"no gzip"])
def test_a_file_that_cannot_be_read_is_named(content: bytes | None, tmp_path: Path) -> None:
    """Missing, or not compressed."""
    path = tmp_path / "q.jsonl.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"cannot read .*q\.jsonl\.gz"):
        read(path)


def test_every_paragraph_becomes_a_document(tmp_path: Path) -> None:
    """A context shared by several questions is one document, titled like its article."""
    asked = [
        question(1, "Old_Harbour", "It is <b> & deep.\nAnd wide."),
        question(2, "Old_Harbour", "It is <b> & deep.\nAnd wide."),
        question(3, "Tower", "It is tall."),
    ]
    knowledge = open_knowledge(tmp_path / "home", settings(tmp_path).retrieval)
    where, summary = fill(knowledge, asked, tmp_path / "documents")
    (found, *_) = knowledge.search("deep", 3)
    knowledge.close()
    got = (summary.documents, sorted(where.values()), found.title, where[found.source])
    deep = "It is <b> & deep.\nAnd wide."
    assert got == (2, [deep, "It is tall."], "Old Harbour", deep)
    assert found.chunk.text.split() == deep.split()


def test_half_of_the_articles_are_left_out() -> None:
    """Which ones depends on the titles alone, not on the order of questions."""
    asked = [question(n, f"Article {n % 9}", "c") for n in range(40)]
    gone = left_out(asked)
    shuffled = random.Random(1).sample(asked, len(asked))
    assert (len(gone), left_out(shuffled), left_out([])) == (4, gone, frozenset())


def test_only_answerable_questions_are_kept() -> None:
    """Those without a gold answer teach nothing about sentences."""
    asked = [
        question(1, "t", "c"),
        Question("2", "q", "c", "t", (), False, ""),
        Question("3", "q", "c", "t", ("x",), True, ""),
    ]
    assert answerable(asked) == asked[:1]


def examples(count: int, present: bool, seed: int) -> list[Example]:
    """Make questions whose right sentence has the largest first feature."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        matrix = draw.normal(size=(6, len(FEATURES)))
        matrix[:, 0] += 4.0 * present * (np.arange(6) == 2)
        rarest = bool(draw.random() < (0.9 if present else 0.2))
        found = tuple(Candidate(0, n, n + 1, "s") for n in range(6))
        right = np.array([present and n == 2 for n in range(6)])
        made.append(Example(Evidence(found, matrix, (rarest,) * 6, 4), right, present))
    return made


def test_the_fit_finds_the_feature_that_tells() -> None:
    """The first feature decides, so its weight is the largest, and positive."""
    part, _ = fit([*examples(60, True, 0), *examples(60, False, 1)])
    weight = part["weight"]
    assert isinstance(weight, list)
    assert (int(np.argmax(np.abs(weight))), weight[0] > 0) == (0, True)


def test_the_fit_tells_what_can_be_answered() -> None:
    """At the threshold, few answerable questions are refused and most of the others are."""
    whole, half = examples(200, True, 0), examples(200, False, 1)
    part, line = fit([*whole, *half])
    made = Weights(**{k: np.array(v) if isinstance(v, list) else v for k, v in part.items()})  # type: ignore[arg-type]

    def refused(asked: Sequence[Example]) -> float:
        sure = [
            made.confidence(question_features(e.evidence, made.scores(e.evidence.matrix)))
            for e in asked
        ]
        return float(np.mean(np.array(sure) < made.threshold))

    got = (refused(whole) <= base.WRONGLY_REFUSED + 0.02, refused(half) > 0.8)
    assert (got, "200 answered questions" in line and "200 absent" in line) == ((True, True), True)


def test_the_fit_is_deterministic() -> None:
    """The same questions give the same weights."""
    one, two = (fit([*examples(30, True, 0), *examples(30, False, 1)]) for _ in range(2))
    assert one == two


def test_a_fit_has_what_the_policy_reads() -> None:
    """Every field of the policy's weights is there, of the right length."""
    part, _ = fit([*examples(30, True, 0), *examples(30, False, 1)])
    lengths = {name: len(v) for name, v in part.items() if isinstance(v, list)}
    ranked = dict.fromkeys(("mean", "scale", "weight"), len(FEATURES))
    judged = dict.fromkeys(("answer_mean", "answer_scale", "answer_weight"), len(ANSWERABLE))
    got = ({f.name for f in fields(Weights)} == set(part), lengths)
    assert got == (True, ranked | judged)


def test_a_threshold_is_sure_of_its_bound() -> None:
    """Of as many as it was set on, those refused are too few for chance; of a handful, none is."""
    sure = np.linspace(0, 1, 233)
    refused = int((sure < base.bounded(sure)).sum())
    share = base.WRONGLY_REFUSED
    assert binom.cdf(refused, 233, share) <= 1 - base.CONFIDENCE
    assert binom.cdf(refused + 1, 233, share) > 1 - base.CONFIDENCE
    assert base.bounded(np.array([0.3, 0.2, 0.9])) == 0.2


def test_articles_are_judged_by_a_fit_that_has_not_seen_them() -> None:
    """What is known of an article's questions changes nothing in how sure one is of them."""
    made = [*examples(60, True, 0), *examples(60, False, 1)]
    told = [replace(e, title=f"Article {n % 12}") for n, e in enumerate(made)]
    own = np.array([e.title == "Article 3" for e in told])
    other = [
        replace(e, present=not e.present) if mine else e for e, mine in zip(told, own, strict=True)
    ]
    before, after = unseen(told), unseen(other)
    assert np.array_equal(before[own], after[own])
    assert not np.array_equal(before[~own], after[~own])


def test_a_run_writes_weights_and_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From question files to weights and a card; a run that was stopped asks only what is left."""
    monkeypatch.chdir(tmp_path)  # examples go to .runs of where one stands
    english = [
        ("Harbour", "The harbour of Varnholm was built in 1874. It is deep.", "1874"),
        ("Tower", "The tower of Kelso is 41 metres tall. It is red.", "41 metres"),
        ("Library", "The library of Ostrava holds 9000 maps. It is old.", "9000 maps"),
        ("Bridge", "The bridge of Lund spans 300 feet. It is new.", "300 feet"),
    ]
    chinese = [
        ("寺", "云岭寺建于1374年。寺内有石塔。", "1374年"),
        ("茶", "云岭茶每年四月采摘。茶香很浓。", "四月"),
        ("桥", "长江大桥全长六千米。桥上有路。", "六千米"),
        ("湖", "东湖面积三十三平方公里。湖水清。", "三十三平方公里"),
    ]
    qa = tmp_path / "data" / "qa"
    for name in (*ASKED, "covidqa/docs", "covidqa/qa"):
        write(qa / f"{name}.jsonl.gz")
    asked = ["{0} of which when how many", "{0}的数字是多少？"]
    for texts, pattern, names in zip(
        (english, chinese), asked, extract.FILES.values(), strict=True
    ):
        rows = [
            json.dumps(
                ROW
                | {
                    "id": title,
                    "title": title,
                    "context": context,
                    "question": pattern.format(context[:9]),
                    "answers": [{"text": gold, "start": 0}],
                    "split": "test",
                }
            )
            for title, context, gold in texts
        ]
        for name in names:
            write(qa / name, *rows)
    out = tmp_path / "models" / "extract"
    lines = list(extract.run(tmp_path / "data", out, 20, settings(tmp_path)))
    values = json.loads((out / "weights.json").read_text(encoding="utf-8"))
    got = (values["features"], values["answerable"], sorted(values["fits"][0]["languages"]))
    assert got == (list(FEATURES), list(ANSWERABLE), ["en", "zh"])
    card = (out / "card.md").read_text(encoding="utf-8")
    named = [name in card for names in extract.FILES.values() for name in names]
    assert (values["revision"] in lines[-1], values["revision"] in card, all(named)) == (True,) * 3
    kept = sorted((tmp_path / WORK).glob("*.jsonl"))
    whole = {path: path.read_bytes() for path in kept}
    assert len(whole) == 8
    kept[0].write_bytes(whole[kept[0]][:-9])  # killed in the middle of a line
    kept[1].unlink()
    list(extract.run(tmp_path / "data", out, 20, settings(tmp_path)))
    assert json.loads((out / "weights.json").read_text(encoding="utf-8")) == values
    assert {path: path.read_bytes() for path in kept} == whole
