"""Passages that rows for the support check are made of, with the questions asked about them."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assistant.errors import ConfigError
from retrieval.text import language, sentences

#: Files of questions on passages: sentences of each passage that are used.
ASKED = {
    "squad/squad2_dev": 3, "squad/squad11_dev": 2, "squadshifts/new_wiki": 3, "nq_oracle/dev": 1,
    "cmrc2018/dev": 5, "cmrc2018/trial": 5, "drcd/dev": 4, "pubmedqa/pqal": 2,
}  # fmt: skip
#: Files of text, and passages of each.
TEXTS = {
    "en-openstax_ccby": 900, "en-18f_blog": 200, "en-18f_guides": 250, "en-react_docs": 100,
    "en-helm": 120, "en-us_speeches": 60, "en-milvus": 120, "zh-prc_laws": 900,
    "zh-lctt_ccbysa": 700, "zh-sofastack": 300, "zh-react_docs": 100, "zh-d2l": 100, "zh-helm": 80,
    "zh-paddle_docs": 200,
}  # fmt: skip
FORUM, CLAPS, COVID = 700, 500, 300
#: Characters of a sentence that is made into rows, and of a passage.
SHORT, LONG = {"en": 35, "zh": 12}, {"en": 260, "zh": 95}
PASSAGE = {"en": 1_600, "zh": 600}


@dataclass(slots=True)
class Place:
    """A passage, the questions it answers or not, and what it belongs to.

    `titled`: the group is the title of an article.
    """

    text: str
    group: str
    source: str
    most: int
    asked: list[tuple[str, str]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    titled: bool = False

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Its sentences that are neither too short nor too long for a row."""
        tongue = language(self.text)
        return [
            (a, b)
            for a, b in sentences(self.text)
            if SHORT[tongue] <= b - a <= LONG[tongue] and self.text[b - 1] in ".。"
        ]


def asked(data: Path) -> Iterator[Place]:
    """Passages with their questions, train rows only, a paragraph once."""
    found: dict[str, Place] = {}
    for name, most in ASKED.items():
        for row in read(data / "qa" / f"{name}.jsonl.gz"):
            if row.get("split") == "test":
                continue
            context = str(row["context"]).strip()
            group = str(row.get("title") or context[:60])
            titled = bool(row.get("title"))
            made = Place(context, group, name.split("/")[0], most, titled=titled)
            place = found.setdefault(context, made)
            answers = row.get("answers") or []
            if row.get("is_impossible"):
                place.open.append(str(row["question"]))
            elif answers and name != "pubmedqa/pqal":
                place.asked.append((str(row["question"]), str(answers[0]["text"]).strip()))
    # held-out articles of SQuAD stay out whole, whichever version a paragraph is read from
    barred = {
        str(row["title"])
        for name in ("squad/squad2_dev", "squad/squad11_dev")
        for row in read(data / "qa" / f"{name}.jsonl.gz")
        if row.get("split") == "test"
    }
    yield from (place for place in found.values() if place.group not in barred)
    covid: dict[str, str] = {
        r["id"]: r["text"] for r in read(data / "qa" / "covidqa" / "docs.jsonl.gz")
    }
    qa = list(read(data / "qa" / "covidqa" / "qa.jsonl.gz"))
    for row in random.Random(1).sample(qa, min(len(qa), COVID)):
        text, answer = covid.get(str(row["doc_id"]), ""), row["answers"][0]
        at = int(answer["start"])
        around = [
            s for s in sentences(text) if s[1] > at - 300 and s[0] < at + len(answer["text"]) + 300
        ]
        if around:
            body = text[around[0][0] : around[-1][1]]
            yield Place(
                body, str(row["doc_id"]), "covidqa", 2, [(row["question"], answer["text"].strip())]
            )


def texts(data: Path) -> Iterator[Place]:
    """Stretches of documents, and answers of people, which are passages to their own sentences."""
    for name, most in TEXTS.items():
        found = [r for r in read(data / "text" / f"{name}.txt.gz") if len(r["text"]) > 300]
        for row in random.Random(name).sample(found, min(len(found), most)):
            size = PASSAGE[language(row["text"])]
            start = random.Random(row["id"]).randrange(max(1, len(row["text"]) - size))
            spans = [s for s in sentences(row["text"][start : start + size])][1:-1]
            body = row["text"][start : start + size]
            if len(spans) > 2:
                yield Place(body[spans[0][0] : spans[-1][1]], f"{name}:{row['id']}", name, 3)
    forum = [r for r in read(data / "sft" / "lfrqa" / "answers.jsonl.gz") if r["split"] != "test"]
    for row in random.Random(2).sample(forum, min(len(forum), FORUM)):
        yield Place(str(row["response"])[:1_600], str(row["id"]), "forum", 2)
    claps = list(read(data / "qa" / "clapnq" / "train_answers_no_passage.jsonl.gz"))
    for row in random.Random(3).sample(claps, min(len(claps), CLAPS)):
        yield Place(str(row["answers"][0]["text"]), str(row["id"]), "clapnq", 2)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a gzipped JSON-lines file.

    Raises:
        ConfigError: it is missing or malformed.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
    except (OSError, EOFError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}; name the data folder") from error
