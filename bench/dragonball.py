"""Answers over company, court and hospital records, by kind of question, in both languages.

    python -m bench.dragonball --data FOLDER [--limit N] [--policy NAME] [--set KEY=VALUE]

FOLDER holds DRAGONBall (RAGEval): corpus.jsonl.gz {id, title, text, lang}, queries.jsonl.gz {id,
text, lang, type, is_impossible, answer, refs} and qrels.tsv. All documents, of both languages, are
one base; every question is asked in a conversation of its own. `--limit` is a number for each type
and language. Of the questions with an answer, those that were not answered counting as 0:

answered     not abstained; `wrong_abstention` is the rest
rouge_l      F1 over the longest common subsequence with the gold answer, the source's own lexical
             measure; Chinese by character
keypoints    share of the gold's reference sentences of whose words the reply holds four fifths
contains     the reply holds the gold answer itself, for golds of 40 characters at most

cited_right is over answered ones: a citation lies in a document that holds a reference sentence.
Questions that have no answer in the records: `abstained`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import track

from assistant import Reply
from bench import asking
from bench.common import report, scratch
from bench.ir import Doc, lines
from retrieval.sources.memory import Given

ROOT = "dragonball"
#: Share of a reference sentence's tokens from which a reply is taken to hold it.
HELD = 0.8
#: Longer gold answers are sentences, which no reply repeats letter by letter.
SHORT = 40


@dataclass(frozen=True, slots=True)
class Task:
    """A question with its gold answer, reference sentences and the documents they stand in."""

    text: str
    lang: str
    type: str
    impossible: bool
    answer: str
    refs: tuple[str, ...]
    sources: frozenset[str]


@dataclass(frozen=True, slots=True)
class Said:
    """What came of one task; `cited`: a right document is cited."""

    task: Task
    answered: bool
    abstained: bool
    rouge: float
    points: float
    contains: bool
    cited: bool


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask and report."""
    parser = asking.parser(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args(arguments)
    docs = [
        Doc(d["id"], d.get("title", ""), d["text"], d["lang"])
        for d in lines(options.data / "corpus.jsonl.gz")
    ]
    tasks = read(options.data, options.limit)
    given = [Given(doc.id, doc.text, title=doc.title) for doc in docs]
    with scratch() as home, asking.opened(asking.chosen(options, home), ROOT, given) as assistant:
        found = [
            judged(task, assistant.reply(task.text))
            for task in track(tasks, "asking", transient=True)
        ]
    _show(found, options)


def read(folder: Path, limit: int = 0) -> list[Task]:
    """The questions, at most `limit` of each type and language (all: 0), drawn by a seed."""
    where: dict[str, set[str]] = {}
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, doc, relevance = line.split("\t")
        if float(relevance) > 0:
            where.setdefault(query, set()).add(f"{ROOT}:{doc}")
    kinds: dict[tuple[str, str], list[Any]] = {}
    for found in lines(folder / "queries.jsonl.gz"):
        kinds.setdefault((found["lang"], found["type"]), []).append(found)
    return [
        Task(
            found["text"],
            found["lang"],
            _plain(found["type"]),
            bool(found["is_impossible"]),
            found["answer"],
            tuple(found["refs"]),
            frozenset(where.get(found["id"], ())),
        )
        for kind in sorted(kinds)
        for found in asking.drawn(kinds[kind], limit)
    ]


def judged(task: Task, reply: Reply) -> Said:
    """What a reply is worth."""
    text = asking.said(reply)
    points = [asking.covered(text, ref) >= HELD for ref in task.refs]
    return Said(
        task,
        reply.outcome == "answered",
        reply.outcome == "abstained",
        asking.rouge_l(text, task.answer),
        sum(points) / len(points) if points else 0.0,
        asking.holds(text, task.answer.rstrip(".。 ")),
        any(c.source in task.sources for c in reply.citations),
    )


def _plain(kind: str) -> str:
    """A type's name as a key: "Multi-hop Reasoning Question" is multi_hop_reasoning."""
    words = kind.removesuffix(" Question").casefold().replace("-", " ").split()
    return "_".join(words)


def _show(found: Sequence[Said], options: argparse.Namespace) -> None:
    """Print the table and the JSON line."""
    rows: list[tuple[str, str, str]] = []
    values: dict[str, object] = {}
    for lang in sorted({one.task.lang for one in found}):
        of = [one for one in found if one.task.lang == lang]
        types = sorted({one.task.type for one in of})
        values[lang] = _measured(lang, of, rows) | {
            "types": {
                kind: _measured(f"{lang} {kind}", [s for s in of if s.task.type == kind], rows)
                for kind in types
            }
        }
    values |= {"policy": options.policy, "n": len(found)}
    report(f"DRAGONBall, {options.policy}", rows, values)


def _measured(
    name: str, found: Sequence[Said], rows: list[tuple[str, str, str]]
) -> dict[str, object]:
    """The values of some questions; their rows are added to the table's."""
    known = [one for one in found if not one.task.impossible]
    unknown = [one for one in found if one.task.impossible]
    values: dict[str, object] = {"n": len(found)}

    def add(label: str, of: Sequence[Said], measure: Callable[[Said], float]) -> None:
        if of:
            numbers = [float(measure(one)) for one in of]
            rows.append(asking.row(f"{name}: {label}", numbers))
            values[label] = asking.average(numbers)

    add("answered", known, lambda s: s.answered)
    add("wrong_abstention", known, lambda s: s.abstained)
    add("rouge_l", known, lambda s: s.rouge)
    add("keypoints", [s for s in known if s.task.refs], lambda s: s.points)
    add("contains", [s for s in known if len(s.task.answer) <= SHORT], lambda s: s.contains)
    add("cited_right", [s for s in known if s.answered and s.task.sources], lambda s: s.cited)
    add("abstained", unknown, lambda s: s.abstained)
    return values


if __name__ == "__main__":
    main()
