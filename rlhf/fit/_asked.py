"""Which questions the policy's lessons are made of, and in what order.

Left out: rows with split "test", the second half of drcd/test and paragraphs of xquad, which
`bench` reports on, and drcd/dev, which the answerability head learns from. The order depends on the
questions' ids alone and takes both languages in turns, so the first n questions are fit to be
trained on, whatever n is. What `_kinds` makes comes early, as there is little of it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from assistant.fit.base import Question, half
from retrieval.fit._glossary import FOLDER, share
from retrieval.text import content_words, language, sentences
from rlhf.fit._kinds import (
    BARE,
    FOLLOWED,
    JOINT,
    PHRASES,
    SUMMARIES,
    Asked,
    bare,
    followed,
    joint,
    phrases,
    summaries,
)
from rlhf.fit._text import read

#: Questions of each kind and language at most; those the reranker has learnt from are fewer.
MOST = {
    "squad/squad2_dev": 3000,
    "impossible": 1800,
    "nq_oracle/dev": 1600,
    "squadshifts/new_wiki": 800,
    "covidqa": 400,
    "cmrc2018/dev": 1645,
    "cmrc2018/trial": 400,
    "drcd/test": 3493,
    "crossed": 450,
    "keywords": 200,
    "follow-ups": 300,
    BARE: 160,
    JOINT: 160,
    FOLLOWED: 160,
    SUMMARIES: 130,
    PHRASES: 300,
}
#: Kinds that come in the first part of the order, and how long it is.
EARLY, SOON = (BARE, JOINT, FOLLOWED, SUMMARIES, PHRASES), 0.3
FILES = (
    "squad/squad2_dev",
    "nq_oracle/dev",
    "squadshifts/new_wiki",
    "cmrc2018/dev",
    "cmrc2018/trial",
    "drcd/test",
)
#: Files without splits whose second half is reported on.
HALVES = ("drcd/test",)
#: Words of a keyword request.
_WORDS = (3, 6)


def plan(data: Path) -> list[Asked]:
    """All questions in the order they are taken: a row in English, a row in Chinese.

    Raises:
        TrainingError: a training file is missing or malformed.
    """
    everything = [*_rows(data / "qa"), *_covid(data / "qa" / "covidqa")]
    rows = [row for row in everything if row.kind not in HALVES or _first(row.title)]
    kept = {(row.kind, row.id): row for row in rows}
    found: list[Asked] = [*kept.values(), *_crossed(rows), *_keywords(rows)]
    found += _follow_ups(data / "qa" / "canard" / "dev.jsonl.gz")
    alike = list(kept.values())
    found += [*bare(alike), *joint(alike), *followed(alike), *summaries(alike), *phrases()]
    each = {lang: _chosen([row for row in found if row.lang == lang]) for lang in ("en", "zh")}
    return [row for pair in zip_longest(*each.values()) for row in pair if row is not None]


def _chosen(rows: Sequence[Asked]) -> list[Asked]:
    """What is asked of one language, in its order."""
    kinds: dict[str, list[Asked]] = {}
    for row in sorted(rows, key=lambda row: share(f"lessons:{row.kind}:{row.id}")):
        mine = kinds.setdefault(row.kind, [])
        if len(mine) < MOST[row.kind]:
            mine.append(row)

    def place(row: Asked) -> float:
        return share(f"place:{row.kind}:{row.id}") * (SOON if row.kind in EARLY else 1)

    return sorted((row for mine in kinds.values() for row in mine), key=place)


def contexts(data: Path) -> list[Question]:
    """Every paragraph of the base, as a row that `fill` takes."""
    rows = [*_rows(data / "qa"), *_covid(data / "qa" / "covidqa")]
    first = {row.context: row for row in rows}
    return [Question(r.id, r.text, r.context, r.title, (), True, "") for r in first.values()]


def _rows(qa: Path) -> Iterator[Asked]:
    reported = {row["context"] for row in read(qa / "xquad" / "en.jsonl.gz")}
    for name in FILES:
        for row in read(qa / f"{name}.jsonl.gz"):
            if row.get("split") == "test" or row["context"] in reported:
                continue
            impossible = bool(row.get("is_impossible"))
            answers = () if impossible else tuple(a["text"] for a in row["answers"])
            if impossible or any(a in row["context"] for a in answers):
                kind = "impossible" if impossible else name
                title = str(row.get("title") or "").replace("_", " ")
                lang = str(row["lang"])[:2]
                yield Asked(row["id"], kind, lang, row["question"], row["context"], title, answers)


def _covid(folder: Path) -> Iterator[Asked]:
    texts = {row["id"]: row["text"] for row in read(folder / "docs.jsonl.gz")}
    for row in read(folder / "qa.jsonl.gz"):
        text = texts.get(row["doc_id"], "")
        answers = tuple(a["text"].strip() for a in row["answers"])
        if any(a in text for a in answers):
            title = text.strip().split("\n")[0][:100]
            yield Asked(row["id"], "covidqa", "en", row["question"], text, title, answers)


def _first(title: str) -> bool:
    """Whether an article is of the first half of its file, however its title is spelt there."""
    return {half(title), half(title.replace(" ", "_"))} == {"first"}


def _crossed(rows: Sequence[Asked]) -> Iterator[Asked]:
    """Questions in the other language than their paragraph."""
    known = {row.id: row for row in rows}
    for line in (FOLDER / "asked.tsv").read_text(encoding="utf-8").splitlines():
        number, _, text = line.partition("\t")
        row = known.get(number)
        if row is not None and row.answers:
            lang = "zh" if row.lang == "en" else "en"
            yield Asked(f"{number}~", "crossed", lang, text, row.context, row.title, row.answers)


def _keywords(rows: Sequence[Asked]) -> Iterator[Asked]:
    """A few words of one sentence, as people type them into a search box."""
    for context, row in {row.context: row for row in rows if row.kind != "covidqa"}.items():
        number = hashlib.sha256(context.encode()).hexdigest()[:12]
        dice = random.Random(f"keywords {number}")
        said = [context[a:b] for a, b in sentences(context)]
        text = dice.choice(said) if said else ""
        words = list(dict.fromkeys(w for w in content_words(text) if len(w) > 1))
        if len(words) > _WORDS[1]:
            chosen = dice.sample(range(len(words)), dice.randint(*_WORDS))
            asked = " ".join(words[i] for i in sorted(chosen))
            lang = "zh" if language(text) == "zh" else "en"
            yield Asked(f"kw-{number}", "keywords", lang, asked, context, row.title, (text,))


def _follow_ups(path: Path) -> Iterator[Asked]:
    """Follow-up questions made standalone; their articles are not in the base."""
    for row in read(path):
        if row["history"]:
            yield Asked(f"canard-{row['id']}", "follow-ups", "en", row["rewrite"], "", "", ())
