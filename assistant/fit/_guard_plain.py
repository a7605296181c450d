"""The harmless half of what the guard's heads learn from: what people ask, chat and write down.

Documents are cut as the guard cuts passages, so that it has seen the middle of a table or a
manual; those held out stay whole, for they are what its levels are counted on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from assistant.fit._guard_labels import Row, in_context, labels, read, row_of
from safety.moderator.classifier import joined, windows

#: Rows taken of large sets, which would drown the others.
QUESTIONS = {"drcd/dev": 2_000, "squadshifts/new_wiki": 3_000, "cmrc2018/trial": 500}
MOST = {"clinc150": 4_000, "banking77": 1_500}
FORUM, TALKS = 3_000, 400
#: Rows of texts, of each file, and characters of one.
TEXTS, LONG, CHINESE = 120, 900, 300
#: Texts of which some are stories or speeches, whose harm nobody looked at.
TOLD = ("en-standardebooks", "en-us_speeches")
#: Windows of a passage that are trained on; of an e-mail or a table.
WINDOWS, LETTERS = 3, 30
#: Characters of a long answer that are read; the network sees no more.
ANSWER = 500
STORIES = ("hate", "harassment", "violence", "sexual", "self_harm", "unsafe")


def harmless(data: Path) -> Iterator[Row]:
    """Questions, small talk and passages that ask for no harm."""
    yield from _asking(data)
    yield from _talking(data / "sft")
    yield from _documents(data)


def _asking(data: Path) -> Iterator[Row]:
    for row in read(data / "safety" / "benign-prompts" / "train.jsonl.gz"):
        yield row_of(row["text"], labels(), "benign-prompts", row["id"])
    for name in ("clinc150", "banking77"):
        found = list(read(data / "dialogue" / name / "train.jsonl.gz"))
        for row in random.Random(name).sample(found, min(len(found), MOST[name])):
            yield row_of(row["text"], labels(), name, row["id"])
    for row in read(data / "dialogue" / "crosswoz-user" / "train.jsonl.gz"):
        yield row_of(row["text"], labels(), "crosswoz", row["id"])
    for name, most in QUESTIONS.items():
        found = _asked(data, name)
        for row in random.Random(name).sample(found, min(len(found), most)):
            yield row_of(row["question"], labels(), "questions", row["question"])
    forum = list(read(data / "sft" / "lfrqa" / "answers.jsonl.gz"))
    for row in random.Random("lfrqa").sample(forum, min(len(forum), FORUM)):
        yield row_of(row["prompt"], labels(), "forum", row["id"])
    for row in read(data / "sft" / "oasst_zh" / "sft.jsonl.gz"):
        # what volunteers asked of an assistant: not looked through for harm
        yield row_of(row["prompt"], labels((), STORIES), "oasst", row["id"])


def _talking(folder: Path) -> Iterator[Row]:
    """Turns of people who talk of films, music, journeys and the news."""
    for name in ("kdconv", "topical_chat", "sgd"):
        talks = list(read(folder / name / "dialogues.jsonl.gz"))
        talks = [talk for talk in talks if talk["split"] != "test"]
        for talk in random.Random(name).sample(talks, min(len(talks), TALKS)):
            turns = random.Random(talk["id"]).sample(talk["turns"], min(len(talk["turns"]), 3))
            for turn in turns:
                yield row_of(turn["text"], labels(), "talk", talk["id"])


def _documents(data: Path) -> Iterator[Row]:
    for name in QUESTIONS:
        contexts = sorted({row["context"] for row in _asked(data, name)})
        for text in random.Random(name).sample(contexts, min(len(contexts), 700)):
            yield from passage(text[:LONG], labels((), ("violence", "sexual")), text)
    for path in sorted((data / "text").glob("??-*.txt.gz")):
        texts = [row["text"] for row in read(path)]
        size = CHINESE if path.name.startswith("zh") else LONG
        unknown = STORIES if path.name.startswith(TOLD) else ()
        dice = random.Random(path.name)
        for text in dice.sample(texts, min(len(texts), TEXTS)):
            start = dice.randrange(max(1, len(text) - size))
            yield from passage(text[start : start + size], labels((), unknown), text[:200])
    for row in read(data / "safety" / "bipia-contexts" / "train.jsonl.gz"):
        yield from passage(row["text"], labels(), row["id"], LETTERS, "letters")


def passage(
    text: str, found: tuple[int, ...], group: str, most: int = WINDOWS, source: str = "windows"
) -> Iterator[Row]:
    """A passage as the guard reads it: whole where it is held out, else some of its windows."""
    whole = row_of(text, found, "passages", group)
    if whole.held_out:
        yield whole
        return
    pieces = windows(text, "passage")
    for start, end in random.Random(group).sample(pieces, min(len(pieces), most)):
        yield row_of(text[start:end], found, source, group)


def answers(data: Path) -> Iterator[Row]:
    """Answers behind their questions: unsafe ones, refusals, and sentences that answer."""
    for row in read(data / "safety" / "diasafety" / "train.jsonl.gz"):
        if row["category"] != "Unauthorized Expertise":  # who may advise is not for a model to say
            bad = row["label"] == "Unsafe"
            yield row_of(
                joined(row["context"], row["text"]), in_context(bad), "diasafety", row["id"]
            )
    for row in read(data / "safety" / "jade-pairs" / "train.jsonl.gz"):
        bad, group = row["response_label"] == "unsafe", str(row["id"]).rsplit("-", 1)[0]
        said = joined(row["text"], row["response"][:ANSWER])
        yield row_of(said, in_context(bad), "jade-pairs", group)
    for row in read(data / "safety" / "coconot" / "train.jsonl.gz"):
        said = joined(row["text"], row["chosen"][:ANSWER])
        yield row_of(said, in_context(False), "answers", row["id"])
    for name, most in QUESTIONS.items():
        found = [r for r in _asked(data, name) if r["answers"]]
        for row in random.Random(f"answers {name}").sample(found, min(len(found), most // 2)):
            start = row["answers"][0]["start"]
            sentence = row["context"][max(0, start - 60) : start + 120]
            said = joined(row["question"], sentence)
            yield row_of(said, in_context(False), "answers", row["context"])


def _asked(data: Path, name: str) -> list[dict[str, Any]]:
    """Questions of a set that may be trained on."""
    rows = read(data / "qa" / f"{name}.jsonl.gz")
    return [row for row in rows if row.get("split") != "test"]
