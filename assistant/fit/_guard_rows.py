"""All rows that the guard's heads learn from: sets with harm in them, and what was written for it.

Contrast pairs and statements (`contrast/*.tsv`) were written for this project by a language model:
an unsafe text beside harmless ones in the same words.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from assistant.errors import ConfigError
from assistant.fit._guard_labels import YES, Row, in_context, labels, read, row_of
from assistant.fit._guard_plain import answers, harmless, passage
from safety.appeal import reviewed
from safety.moderator.classifier import HEADS, joined

CONTRAST = Path(__file__).resolve().parent / "contrast"
#: Labels of messages that came without, or with too broad ones: digest of the message, labels.
JUDGED = CONTRAST / "judged" / "messages.tsv"
#: What stands there for a message that cannot be judged alone.
OPEN = "?"
#: Rows taken of large sets, which would drown the others.
MOST = {"davidson": 6_000, "edos": 6_000}
#: Scores of the continuation set from which a trait is there, and below which it is not.
THERE, ABSENT = 0.5, 0.25
#: Characters around an instruction that was put into a passage.
AROUND = 110
INSERTED = 3
#: Statements that stand together are often alike but for their harm: they are held out together.
NEAR = 6

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
    """All rows of the data folder (safety/, dialogue/, qa/) and of this folder's contrast/.

    Raises:
        ConfigError: a training file is missing or malformed.
    """
    safety = data / "safety"
    yield from _toxic(safety)
    yield from _requests(safety)
    yield from _attacks(safety)
    yield from harmless(data)
    yield from answers(data)
    yield from redteam(data / "preference" / "hh_harmless_base" / "test.jsonl.gz", JUDGED)
    yield from contrast(CONTRAST)


def redteam(path: Path, judged: Path) -> Iterator[Row]:
    """First and last messages of people who tried to get harm out of an assistant, and labels.

    The dialogues came without labels of single messages; those were given for this project by a
    language model, and are found by a digest of the message.
    """
    known = _judged(judged)
    for row in read(path):
        if row["split"] == "test" or not row["prompt"]:
            continue
        for text in messages(row["prompt"]):
            label = known.get(digest(text), OPEN)
            if label != OPEN:
                yield row_of(text, _stated(label), "redteam", row["id"])


def _judged(path: Path) -> dict[str, str]:
    """Digest -> labels."""
    return dict(line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())


def messages(dialogue: str) -> list[str]:
    """The first and the last message of the human side."""
    said = [t.split("\n\nAssistant:")[0] for t in re.split(r"(?:^|\n\n)Human:", dialogue)[1:]]
    turns = [" ".join(text.split()) for text in said]
    return list(dict.fromkeys([turns[0], turns[-1]])) if turns else []


def digest(text: str) -> str:
    """What a judged message is found by: 12 hex digits of a SHA-256, whatever case and spacing."""
    return hashlib.sha256(" ".join(text.lower().split()).encode()).hexdigest()[:12]


def contrast(folder: Path) -> Iterator[Row]:
    """The pairs, statements, attacks, pages and responses that were written for this."""
    for path in sorted(folder.glob("*.tsv")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            label, *texts = line.split("\t")
            group = f"{path.stem}:{number}"
            if path.stem.startswith("pairs") and label in HEADS:
                risky = labels((label, "unsafe"), set(REQUEST) - {label})
                yield row_of(texts[0], risky, "contrast", group)
                for text in texts[1:]:
                    yield row_of(text, labels(), "contrast", group)
            elif path.stem.startswith("injections"):
                found = labels(("attack",), ("unsafe",)) if label == "attack" else labels()
                yield row_of(texts[0], found, "contrast-attack", group)
            elif path.stem.startswith("selfharm"):
                found = labels(("self_harm",), ("unsafe",)) if label == "risk" else labels()
                yield row_of(texts[0], found, "contrast", group)
            elif path.stem.startswith("statements") and {"none", *HEADS} >= set(label.split(",")):
                near = f"{path.stem}:{number // NEAR}"
                yield row_of(texts[0], _stated(label), "statement", near)
            elif path.stem == "pages":
                yield from passage(texts[0], labels(), group, source="pages")
            elif path.stem.startswith("responses"):
                if label != "comply":  # a request's harm is not told, so nor is that of complying
                    yield row_of(joined(*texts), in_context(False), "responses", group)
            else:
                raise ConfigError(f"{path}, line {number}: {label!r} is no label of a head")


def _stated(label: str) -> tuple[int, ...]:
    found = set(label.split(",")) - {"none"}
    return labels((*found, "unsafe") if found else ())


def cases(path: Path) -> Iterator[Row]:
    """What people decided on appeal, where there is such a file (`safety.appeal.reviewed`).

    Raises:
        AppealInvalid: names the line that is no such case.
    """
    for case in reviewed(path) if path.exists() else ():
        label = case["label"]
        if label in HEADS or label == "none":
            found = _stated(label) if label == "none" else labels((label, "unsafe"), REQUEST)
            yield row_of(case["text"], found, "reviewed", f"case-{case.get('decision')}")


def _toxic(folder: Path) -> Iterator[Row]:
    kept: dict[str, list[Row]] = {}
    for row in read(folder / "davidson" / "train.jsonl.gz"):
        kind = int(row["class"])
        said = (
            labels(("hate", "unsafe"), ("harassment", "violence", "sexual")),
            labels(("harassment",), ("hate", "violence", "sexual", "unsafe")),
            labels((), ("violence", "sexual")),
        )[kind]
        kept.setdefault("davidson", []).append(row_of(row["text"], said, "davidson", row["id"]))
    for row in read(folder / "edos" / "train.jsonl.gz"):
        sexist = row["label_sexist"] == "sexist"
        threat = str(row["label_category"]).startswith("1.")
        said = labels(
            ("hate", "unsafe", *(["violence"] if threat else [])) if sexist else (),
            ("harassment", "violence", "sexual")
            if sexist
            else ("harassment", "violence", "sexual", "unsafe"),
        )
        kept.setdefault("edos", []).append(row_of(row["text"], said, "edos", row["id"]))
    for name, found in kept.items():
        # the rare kind stays whole
        rare = [r for r in found if r.labels[0] == YES]
        others = [r for r in found if r.labels[0] != YES]
        yield from rare
        yield from random.Random(name).sample(others, min(len(others), MOST[name]))
    for row in read(folder / "cold" / "train.jsonl.gz"):
        bad = int(row["label"]) == 1
        said = labels(("hate", "unsafe") if bad else (), ("harassment", "violence") if bad else ())
        yield row_of(row["text"], said, "cold", row["id"])
    for row in read(folder / "surge-toxicity" / "train.jsonl.gz"):
        bad = row["is_toxic"] == "Toxic"
        said = labels(("harassment", "unsafe"), ("hate", "violence", "sexual")) if bad else labels()
        yield row_of(row["text"], said, "surge", row["id"])
    for row in read(folder / "rtp-challenge" / "train.jsonl.gz"):
        yield row_of(row["text"], _perspective(row), "rtp", str(row["id"]).rsplit("-", 1)[0])


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
    known = _judged(JUDGED)
    for row in read(folder / "catqa" / "train.jsonl.gz"):
        if row["category"] in ("Political Campaigning", "Tailored Financial Advice"):
            continue
        yes, unknown = CATQA_PARTS.get(row["subcategory"]) or CATQA.get(
            row["category"], ((), REQUEST)
        )
        yield row_of(row["text"], labels((*yes, "unsafe"), unknown), "catqa", row["id"])
    for row in read(folder / "jade" / "train.jsonl.gz"):
        about = f"{row.get('violation_type')} {row.get('violation_subtype')}"
        yes, unknown = next(
            (y, u) for words, y, u in JADE if any(word in about for word in words.split("|"))
        )
        label = known.get(digest(row["text"]), "")
        if label != OPEN:  # some are opinions that harm nobody
            found = _stated(label) if label else labels((*yes, "unsafe"), unknown)
            yield row_of(row["text"], found, "jade", row["id"])
    for row in read(folder / "harmfulqa" / "train.jsonl.gz"):
        # a fifth of them is harmless as worded
        label = known.get(digest(row["text"]), OPEN)
        if label != OPEN:
            yield row_of(row["text"], _stated(label), "harmfulqa", row["id"])
    for row in read(folder / "advbench" / "train.jsonl.gz"):
        yield row_of(row["text"], labels(("unsafe",), REQUEST), "advbench", row["id"])
    for row in read(folder / "coconot" / "train.jsonl.gz"):
        yield row_of(row["text"], labels(), "coconot", row["id"])


def _attacks(folder: Path) -> Iterator[Row]:
    for row in read(folder / "jailbench" / "train.jsonl.gz"):
        # 108 seeds in 20 templates: one group, or the templates would be learnt from both sides
        found = labels(("attack", "unsafe"), REQUEST)
        yield row_of(row["text"], found, "jailbench", f"jailbench-{row['level2']}")
    for row in read(folder / "jailbreak-inthewild" / "train.jsonl.gz"):
        yield row_of(row["text"], labels(("attack",), (*REQUEST, "unsafe")), "jailbreak", row["id"])
    contexts = [r["text"] for r in read(folder / "bipia-contexts" / "train.jsonl.gz")]
    dice = random.Random(7)
    for row in read(folder / "bipia-attacks" / "train.jsonl.gz"):
        found = labels(("attack",), ("illicit", "privacy", "unsafe"))
        yield row_of(row["text"], found, "bipia", f"bipia-{row['attack_type']}")
        for _ in range(INSERTED):
            around = dice.choice(contexts)
            cut = around.find(" ", dice.randrange(len(around))) % len(around)
            text = f"{around[:cut][-AROUND:]} {row['text']} {around[cut:][:AROUND]}"
            yield row_of(text, found, "bipia", f"bipia-{row['attack_type']}")
