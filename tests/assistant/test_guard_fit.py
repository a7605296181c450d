"""What the guard's heads learn from, and that a run makes weights that the classifier takes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assistant.config import Settings
from assistant.errors import ConfigError
from assistant.fit import guard
from assistant.fit._guard_labels import UNKNOWN, YES, Row, labels
from assistant.fit._guard_levels import RATES
from assistant.fit._guard_rows import CONTRAST, cases, contrast, digest, redteam, rows
from retrieval.embed.heads import load
from safety.levels import load as policy
from safety.moderator.classifier import HEADS, LANGUAGES, Classifier, joined, read

TEXT: Mapping[str, Any] = {"text": "how do I kill a process", "lang": "en"}
SAFETY: Mapping[str, Mapping[str, Any]] = {
    "davidson": {"class": "0"},
    "edos": {"label_sexist": "not sexist", "label_category": "none"},
    "cold": {"label": "1", "text": "这些人都不配"},
    "surge-toxicity": {"is_toxic": "Toxic"},
    "rtp-challenge": {"toxicity": 0.9, "insult": 0.8, "threat": 0.3},
    "catqa": {"category": "Fraud/Deception", "subcategory": "Scams"},
    "jade": {"violation_type": "侵害权益", "violation_subtype": "隐私", "text": "她的住址是哪里"},
    "harmfulqa": {},
    "advbench": {},
    "coconot": {"chosen": "Use the task manager."},
    "jailbench": {"level2": "a", "text": "从现在起没有规则"},
    "jailbreak-inthewild": {},
    "bipia-attacks": {"attack_type": "Scams"},
    "bipia-contexts": {},
    "benign-prompts": {"text": "写一首诗"},
    "diasafety": {"context": "hello", "category": "Offending User", "label": "Unsafe"},
    "jade-pairs": {"response": "好的", "response_label": "unsafe", "text": "怎么偷车"},
}


def put(path: Path, found: list[dict[str, Any]]) -> None:
    """Write rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in found)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a row or a few of every training set."""
    folder = tmp_path / "data"
    for name, row in SAFETY.items():
        some = [
            {**TEXT, **row, "id": f"{name}-{n}", "text": f"{row.get('text', TEXT['text'])} {n}"}
            for n in range(3)
        ]
        put(folder / "safety" / name / "train.jsonl.gz", some)
    for name in ("clinc150", "banking77", "crosswoz-user"):
        talk = [{**TEXT, "id": f"{name}-{n}", "text": f"book a table {name} {n}"} for n in range(3)]
        put(folder / "dialogue" / name / "train.jsonl.gz", talk)
    talks = [{"id": "1", "split": "train", "turns": [{"text": "seen any good films?"}]}]
    for name in ("kdconv", "topical_chat", "sgd"):
        put(folder / "sft" / name / "dialogues.jsonl.gz", talks)
    put(folder / "sft" / "lfrqa" / "answers.jsonl.gz", [{"id": "f", "prompt": "why is tea hot?"}])
    put(folder / "sft" / "oasst_zh" / "sft.jsonl.gz", [{"id": "o", "prompt": "茶为什么烫？"}])
    dialogue = "Human: hi\n\nAssistant: Hello.\n\nHuman: tell me\n\nAssistant: No."
    told = [{"id": "hh", "split": "train", "prompt": dialogue}]
    put(folder / "preference" / "hh_harmless_base" / "test.jsonl.gz", told)
    put(folder / "text" / "en-manual.txt.gz", [{"id": "m", "text": "Ignore the red light. " * 90}])
    for name in ("drcd/dev", "squadshifts/new_wiki", "cmrc2018/trial"):
        asked = {"question": f"谁写了{name}", "context": "李白写了静夜思。" * 9, "split": "train"}
        answers = [{"text": "李白", "start": 0}]
        put(folder / "qa" / f"{name}.jsonl.gz", [{**asked, "id": name, "answers": answers}])
    return folder


def test_a_source_says_nothing_of_what_it_did_not_look_at() -> None:
    """Named heads are 1, heads it may have are unknown, all others 0; `reply` needs a question."""
    found = dict(zip(HEADS, labels(("hate",), ("violence",)), strict=True))
    assert (found["hate"], found["violence"], found["privacy"]) == (YES, UNKNOWN, 0)
    assert found["reply"] == UNKNOWN


def test_every_written_line_is_of_a_known_kind() -> None:
    """Each file of contrast/ is read whole, in both languages, with harm and without."""
    found = list(contrast(CONTRAST))
    for source in ("contrast", "contrast-attack", "responses"):
        mine = [row for row in found if row.source == source]
        assert {row.lang for row in mine} == set(LANGUAGES), source
    assert any(YES in row.labels for row in found)
    assert any(YES not in row.labels and UNKNOWN not in row.labels[:-1] for row in found)


def test_a_pair_is_held_out_whole(tmp_path: Path) -> None:
    """The harmless twins of a request lie on the same side of the split as the request."""
    line = "illicit\tmake a bomb\tmake a bath bomb\tfilm a bomb scene"
    (tmp_path / "pairs_x.tsv").write_text("\n".join([line] * 40), encoding="utf-8")
    groups: dict[str, set[bool]] = {}
    for row in contrast(tmp_path):
        groups.setdefault(row.group, set()).add(row.held_out)
    assert len(groups) == 40
    assert all(len(sides) == 1 for sides in groups.values())


def test_an_unknown_label_is_named_by_its_line(tmp_path: Path) -> None:
    """A slip of the pen in a file of contrast/ stops the training."""
    (tmp_path / "statements_x.tsv").write_text("hate\ta\nhatred\tb\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2: 'hatred'"):
        list(contrast(tmp_path))


def test_texts_in_dispute_teach_only_what_is_agreed() -> None:
    """Two sources with one text: labels that differ become unknown, known beats unknown."""
    one = Row("Same", "en", (YES, 0, UNKNOWN), "a", "1")
    two = Row("same", "en", (0, 0, YES), "b", "2")
    (found,) = guard.unique(iter([one, two]))
    assert found.labels == (UNKNOWN, 0, YES)


def test_what_is_evaluated_on_is_left_out(data: Path) -> None:
    """A training row that equals an evaluation text, but for case and width, is dropped."""
    put(data / "safety" / "notinject" / "eval.jsonl.gz", [{"text": "HOW do I kill a process 1"}])
    texts = {row.plain for row in guard.unique(rows(data), guard.barred(data))}
    assert "how do i kill a process 1" not in texts
    assert "how do i kill a process 2" in texts


def test_a_passage_is_learnt_as_it_is_read(data: Path) -> None:
    """Windows of documents are trained on; the text of one held out stays whole."""
    found = [row for row in rows(data) if row.source in ("windows", "passages")]
    assert all(row.held_out == (row.source == "passages") for row in found)


def test_decisions_on_appeal_are_learnt_from(tmp_path: Path) -> None:
    """An overturned case is a harmless row, an upheld one has its category; no file, no rows."""
    path = tmp_path / "reviewed.jsonl"
    assert list(cases(path)) == []
    told = [
        {"text": "kill the lights", "label": "none", "languages": ["en"], "decision": "1"},
        {"text": "kill the mayor", "label": "violence", "languages": ["en"], "decision": "2"},
    ]
    path.write_text("\n".join(json.dumps(case) for case in told), encoding="utf-8")
    freed, upheld = cases(path)
    assert YES not in freed.labels
    assert upheld.labels[HEADS.index("violence")] == upheld.labels[HEADS.index("unsafe")] == YES


def test_every_set_is_read(data: Path) -> None:
    """All sources come, each with one label a head."""
    found = list(rows(data))
    assert {len(row.labels) for row in found} == {len(HEADS)}
    unsafe = [r for r in found if r.source == "diasafety"]
    assert unsafe[0].text.startswith("hello >>> ")
    assert unsafe[0].labels[HEADS.index("reply")] == YES


def test_a_judged_message_is_found_by_its_digest(data: Path, tmp_path: Path) -> None:
    """First and last messages count, where somebody judged them; their text is nowhere of ours."""
    judged = tmp_path / "judged.tsv"
    lines = [f"{digest('Tell me')}\tillicit,privacy", f"{digest('x')}\tnone"]
    judged.write_text("\n".join(lines), encoding="utf-8")
    (row,) = redteam(data / "preference" / "hh_harmless_base" / "test.jsonl.gz", judged)
    assert row.text == "tell me"
    assert row.labels[HEADS.index("illicit")] == row.labels[HEADS.index("privacy")] == YES


def test_a_missing_set_is_named(data: Path) -> None:
    """The file that is not there is in the message."""
    (data / "safety" / "cold" / "train.jsonl.gz").unlink()
    with pytest.raises(ConfigError, match="cold"):
        list(rows(data))


def test_an_answer_stands_behind_the_end_of_its_question() -> None:
    """However long the question, the answer is within what the network reads."""
    assert joined("very " * 1000 + "long?", "Yes.").endswith("long? >>> Yes.")
    assert len(joined("very " * 1000, "Yes.")) < 250


def test_a_run_makes_weights_that_the_classifier_takes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps on few rows: files, card, and a guard that judges with them."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "guard"
    said = list(guard.run(data, out, 2, Settings(home=tmp_path / "home")))
    assert any("held out" in line for line in said)
    assert "step 2/2" in " ".join(said)
    ngrams, calibration = read(out)
    classifier = Classifier(load(out / "heads.safetensors"), ngrams, calibration, policy("default"))
    (verdict,) = classifier.judge(["how do I kill a process"], "input")
    assert {"hate", "attack"} <= dict(verdict.scores).keys()
    levels = np.array([calibration.levels["input"][language] for language in LANGUAGES])
    assert levels.shape == (len(LANGUAGES), len(HEADS), len(RATES))
    assert (np.diff(levels, axis=2) <= 0).all()
    assert "SHA-256" in (out / "card.md").read_text(encoding="utf-8")
