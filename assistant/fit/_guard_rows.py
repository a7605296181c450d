"""What the guard's heads learn from: labelled texts, a label a head, with unknown ones left out.

A source says something about some heads only: a tweet of a hate set is no evidence on privacy.
Heads that a source cannot have are 0 (a question of a shop's chat is no threat), heads it may
have but did not look at are unknown. `unsafe` says that a text should not be answered or said, for
sources without categories. Contrast pairs (`contrast/*.tsv`) were written for this project by a
language model: an unsafe request beside harmless ones in the same words.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assistant.errors import ConfigError
from safety._ngrams import is_chinese
from safety.moderator.classifier import HEADS

CONTRAST = Path(__file__).resolve().parent / "contrast"
UNKNOWN, NO, YES = -1, 0, 1
#: Rows taken of large sets, which would drown the others.
QUESTIONS = {"drcd/dev": 2_000, "squadshifts/new_wiki": 3_000, "cmrc2018/trial": 500}
MOST = {"davidson": 6_000, "edos": 6_000, "clinc150": 4_000, "banking77": 1_500}
#: Scores of the continuation set from which a trait is there, and below which it is not.
THERE, ABSENT = 0.5, 0.25


@dataclass(frozen=True, slots=True)
class Row:
    """One text. `labels` follows `HEADS`: 1, 0, or -1 where unknown."""

    text: str
    lang: str
    labels: tuple[int, ...]
    source: str
    group: str

    @property
    def held_out(self) -> bool:
        """Whether the row is for calibration, with all rows of its group."""
        digest = hashlib.sha256(self.group.encode()).hexdigest()
        return int(digest[:8], 16) / 2**32 < 0.12


def labels(yes: Iterable[str] = (), unknown: Iterable[str] = ()) -> tuple[int, ...]:
    """Labels of a text that has `yes`, may have `unknown`, and has nothing else."""
    yes, unknown = set(yes), set(unknown)
    return tuple(YES if h in yes else UNKNOWN if h in unknown else NO for h in HEADS)


TOXIC = ("hate", "harassment", "violence", "sexual", "unsafe")
REQUEST = ("hate", "harassment", "violence", "sexual", "self_harm", "illicit", "privacy")
CATQA: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Illegal Activity": (("illicit",), ("violence", "privacy")),
    "Child Abuse": (("violence",), ("harassment", "illicit")),
    "Malware Viruses": (("illicit",), ("privacy",)),
    "Economic Harm": (("illicit",), ("privacy",)),
    "Fraud/Deception": (("illicit",), ("privacy",)),
    "Adult Content": (("sexual",), ()),
    "Privacy Violation Activity": (("privacy",), ("illicit", "harassment")),
}
CATQA_PARTS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Racial or ethnic hate": (("hate",), ("harassment", "violence")),
    "Religious intolerance": (("hate",), ("harassment", "violence")),
    "Gender-based violence": (("violence",), ("hate", "harassment")),
    "Cyberbullying": (("harassment",), ("hate", "privacy")),
    "Self-harm": (("self_harm",), ("violence",)),
    "Assault and battery": (("violence",), ("illicit",)),
    "Hazardous material handling": (("illicit",), ("violence",)),
    "Unsafe practices": ((), ("illicit", "violence", "self_harm")),
    "Weapon making": (("illicit", "violence"), ()),
}
JADE: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("隐私|个人信息", ("privacy",), ("illicit", "harassment")),
    ("歧视", ("hate",), ("harassment",)),
    ("恐怖|故意伤害|抢劫|虐待", ("violence",), ("illicit", "hate")),
    ("暴力、淫秽", (), ("violence", "sexual", "illicit")),
    ("淫秽", ("sexual",), ("illicit",)),
    ("名誉|身心健康", ("harassment",), ("privacy", "violence", "self_harm", "hate")),
    ("违法犯罪", ("illicit",), ("violence", "privacy")),
    ("", (), REQUEST),
)


def rows(data: Path) -> Iterator[Row]:
    """All rows of the data folder (safety/, dialogue/, qa/, text/, sft/) and of the contrast pairs.

    Raises:
        ConfigError: a training file is missing or malformed.
    """
    safety = data / "safety"
    yield from _toxic(safety)
    yield from _requests(safety)
    yield from _attacks(safety)
    yield from _benign(data)
    yield from contrast(CONTRAST)


def contrast(folder: Path) -> Iterator[Row]:
    """The pairs, the attacks and the statements of distress that were written for this."""
    for path in sorted(folder.glob("*.tsv")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            label, *texts = line.split("\t")
            group = f"{path.stem}:{number}"
            if path.stem.startswith("pairs") and label in HEADS:
                risky = labels((label, "unsafe"), set(REQUEST) - {label})
                yield _row(texts[0], risky, "contrast", group)
                for text in texts[1:]:
                    yield _row(text, labels(), "contrast", group)
            elif path.stem.startswith("injections"):
                found = labels(("attack",), ("unsafe",)) if label == "attack" else labels()
                yield _row(texts[0], found, "contrast-attack", group)
            elif path.stem.startswith("selfharm"):
                found = labels(("self_harm",), ("unsafe",)) if label == "risk" else labels()
                yield _row(texts[0], found, "contrast", group)
            elif not path.stem.startswith("responses"):
                raise ConfigError(f"{path}, line {number}: {label!r} is no label of a head")


def _toxic(folder: Path) -> Iterator[Row]:
    kept: dict[str, list[Row]] = {}
    for row in read(folder / "davidson" / "train.jsonl.gz"):
        kind = int(row["class"])
        said = (
            labels(("hate", "unsafe"), ("harassment", "violence", "sexual")),
            labels(("harassment",), ("hate", "violence", "sexual", "unsafe")),
            labels((), ("violence", "sexual")),
        )[kind]
        kept.setdefault("davidson", []).append(_row(row["text"], said, "davidson", row["id"]))
    for row in read(folder / "edos" / "train.jsonl.gz"):
        sexist = row["label_sexist"] == "sexist"
        threat = str(row["label_category"]).startswith("1.")
        said = labels(
            ("hate", "unsafe", *(["violence"] if threat else [])) if sexist else (),
            ("harassment", "violence", "sexual")
            if sexist
            else ("harassment", "violence", "sexual", "unsafe"),
        )
        kept.setdefault("edos", []).append(_row(row["text"], said, "edos", row["id"]))
    for name, found in kept.items():
        # the rare kind stays whole
        rare = [r for r in found if r.labels[0] == YES]
        others = [r for r in found if r.labels[0] != YES]
        yield from rare
        yield from random.Random(name).sample(others, min(len(others), MOST[name]))
    for row in read(folder / "cold" / "train.jsonl.gz"):
        bad = int(row["label"]) == 1
        said = labels(("hate", "unsafe") if bad else (), ("harassment", "violence") if bad else ())
        yield _row(row["text"], said, "cold", row["id"])
    for row in read(folder / "surge-toxicity" / "train.jsonl.gz"):
        bad = row["is_toxic"] == "Toxic"
        said = labels(("harassment", "unsafe"), ("hate", "violence", "sexual")) if bad else labels()
        yield _row(row["text"], said, "surge", row["id"])
    for row in read(folder / "rtp-challenge" / "train.jsonl.gz"):
        yield _row(row["text"], _perspective(row), "rtp", str(row["id"]).rsplit("-", 1)[0])


def _perspective(row: Mapping[str, Any]) -> tuple[int, ...]:
    names = {
        "hate": "identity_attack",
        "harassment": "insult",
        "violence": "threat",
        "sexual": "sexually_explicit",
    }
    found = {h: float(row[name]) for h, name in names.items() if row.get(name) is not None}
    worst = max(float(row.get(name) or 0) for name in ("toxicity", *names.values()))
    yes = [h for h, score in found.items() if score >= THERE]
    unknown = [h for h in names if ABSENT <= found.get(h, THERE) < THERE]
    if worst >= 0.75:
        yes.append("unsafe")
    elif worst >= ABSENT:
        unknown.append("unsafe")
    return labels(yes, unknown)


def _requests(folder: Path) -> Iterator[Row]:
    for row in read(folder / "catqa" / "train.jsonl.gz"):
        if row["category"] in ("Political Campaigning", "Tailored Financial Advice"):
            continue
        yes, unknown = CATQA_PARTS.get(row["subcategory"]) or CATQA.get(
            row["category"], ((), REQUEST)
        )
        yield _row(row["text"], labels((*yes, "unsafe"), unknown), "catqa", row["id"])
    for row in read(folder / "jade" / "train.jsonl.gz"):
        about = f"{row.get('violation_type')} {row.get('violation_subtype')}"
        yes, unknown = next(
            (y, u) for words, y, u in JADE if any(word in about for word in words.split("|"))
        )
        yield _row(row["text"], labels((*yes, "unsafe"), unknown), "jade", row["id"])
    for name in ("harmfulqa", "advbench"):
        for row in read(folder / name / "train.jsonl.gz"):
            yield _row(row["text"], labels(("unsafe",), REQUEST), name, row["id"])
    for row in read(folder / "coconot" / "train.jsonl.gz"):
        yield _row(row["text"], labels(), "coconot", row["id"])


def _attacks(folder: Path) -> Iterator[Row]:
    for row in read(folder / "jailbench" / "train.jsonl.gz"):
        # 108 seeds in 20 templates: one group, or the templates would be learnt from both sides
        found = labels(("attack", "unsafe"), REQUEST)
        yield _row(row["text"], found, "jailbench", f"jailbench-{row['level2']}")
    for row in read(folder / "jailbreak-inthewild" / "train.jsonl.gz"):
        yield _row(row["text"], labels(("attack",), (*REQUEST, "unsafe")), "jailbreak", row["id"])
    contexts = [r["text"] for r in read(folder / "bipia-contexts" / "train.jsonl.gz")]
    dice = random.Random(7)
    for row in read(folder / "bipia-attacks" / "train.jsonl.gz"):
        found = labels(("attack",), ("illicit", "privacy", "unsafe"))
        yield _row(row["text"], found, "bipia", f"bipia-{row['attack_type']}")
        around = dice.choice(contexts)
        cut = around.find(" ", dice.randrange(len(around))) % len(around)
        for text in (f"{around[:cut][-300:]} {row['text']} {around[cut:][:300]}",):
            yield _row(text, found, "bipia", f"bipia-{row['attack_type']}")
    for number, text in enumerate(contexts):
        yield _row(text, labels(), "bipia-context", f"context-{number}")


def _benign(data: Path) -> Iterator[Row]:
    for row in read(data / "safety" / "benign-prompts" / "train.jsonl.gz"):
        yield _row(row["text"], labels(), "benign-prompts", row["id"])
    for name in ("clinc150", "banking77"):
        found = list(read(data / "dialogue" / name / "train.jsonl.gz"))
        for row in random.Random(name).sample(found, min(len(found), MOST[name])):
            yield _row(row["text"], labels(), name, row["id"])
    for row in read(data / "dialogue" / "crosswoz-user" / "train.jsonl.gz"):
        yield _row(row["text"], labels(), "crosswoz", row["id"])
    for name, most in (
        ("drcd/dev", 2_000),
        ("squadshifts/new_wiki", 3_000),
        ("cmrc2018/trial", 500),
    ):
        found = [r for r in read(data / "qa" / f"{name}.jsonl.gz") if r.get("split") != "test"]
        for row in random.Random(name).sample(found, min(len(found), most)):
            yield _row(row["question"], labels(), "questions", row["question"])
        contexts = sorted({r["context"] for r in found})
        for text in random.Random(name).sample(contexts, min(len(contexts), 700)):
            yield _row(text[:700], labels((), ("violence", "sexual")), "passages", text)


def _row(text: str, found: tuple[int, ...], source: str, group: str) -> Row:
    text = text.strip()
    return Row(text, "zh" if is_chinese(text) else "en", found, source, str(group))


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a gzipped JSON-lines file.

    Raises:
        ConfigError: the file is missing or malformed.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
    except (OSError, EOFError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}; name the data folder") from error
