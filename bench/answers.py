"""Answers from a question file through the whole assistant.

    python -m bench.answers --qa FILE.jsonl.gz [--absent] [--limit N] [--policy NAME] [--passages K]

A knowledge base is built from all contexts of the file, through ingestion; every answerable
question is asked in a conversation of its own. Rates are over these denominators:

right          questions whose article is in the base: the reply holds a gold answer (case and
               white space folded), abstentions counting as wrong
cited_right    answered ones: a citation lies in the gold paragraph; `first_right`: the first does
refused_wrong  questions whose article is in the base, abstained
refused_right  with --absent, questions of the half of the articles that was left out, abstained
sentences      mean number of quoted or written sentences per answered reply
"""

from __future__ import annotations

import argparse
import random
import time
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from assistant import Assistant, Reply, build_assistant, load
from assistant.fit.base import Question, answerable, fill, left_out, read
from assistant.grounding import marks_removed
from bench.common import interval, rate, report, scratch
from retrieval.knowledge import open_knowledge
from retrieval.text import sentences


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of one question."""

    present: bool
    abstained: bool
    right: bool
    cited: bool
    first: bool
    sentences: int
    seconds: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--qa", type=Path, required=True)
    parser.add_argument("--absent", action="store_true")
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--policy", default="extract")
    parser.add_argument("--passages", type=int, default=8)
    options = parser.parse_args(arguments)
    everything = answerable(read(options.qa))
    gone = left_out(everything) if options.absent else frozenset()
    asked = list(everything)
    if options.limit:
        asked = random.Random(0).sample(everything, min(options.limit, len(everything)))
    with scratch() as folder:
        overrides = {
            "home": str(folder / "home"),
            "docs": "false",
            "policy.backend": options.policy,
            "policy.passages": str(options.passages),
        }
        settings = load(overrides=overrides)
        began = time.monotonic()
        knowledge = open_knowledge(settings.home, settings.retrieval)
        kept = [q for q in everything if q.title not in gone]
        where, built = fill(knowledge, kept, folder / "docs")
        knowledge.close()
        print(
            f"{len(everything)} answerable questions, {built.documents} paragraphs, "
            f"{built.chunks} chunks, built in {time.monotonic() - began:.1f} s"
        )
        with build_assistant(settings) as assistant:
            assistant.warm()
            results = [
                ask(assistant, q, where, q.title not in gone)
                for q in track(asked, "asking", transient=True)
            ]
    show(results, options)


def ask(assistant: Assistant, question: Question, where: dict[str, str], present: bool) -> Asked:
    """Ask one question and judge the reply."""
    reply = assistant.reply(question.text)
    text = _folded(marks_removed(reply.text))
    places = [where.get(c.source) == question.context for c in reply.citations]
    answered = reply.outcome == "answered"
    return Asked(
        present,
        not answered,
        answered and any(_folded(a) in text for a in question.answers),
        answered and any(places),
        answered and bool(places) and places[0],
        _count(reply),
        reply.seconds,
    )


def show(results: list[Asked], options: argparse.Namespace) -> None:
    """Print the table and the JSON line."""
    present = [r for r in results if r.present]
    absent = [r for r in results if not r.present]
    answered = [r for r in present if not r.abstained]
    times = np.array([r.seconds for r in results]) * 1000
    rates = {
        "right": [r.right for r in present],
        "cited_right": [r.cited for r in answered],
        "first_right": [r.first for r in answered],
        "refused_right": [r.abstained for r in absent],
        "refused_wrong": [r.abstained for r in present],
    }
    rows = []
    for name, hits in rates.items():
        low, high = interval(hits)
        value = rate(hits)
        shown = "–" if value is None else f"{value:.3f}"
        rows.append((name, shown, f"n {len(hits)}, 95 %: {low:.3f} to {high:.3f}"))
    count = float(np.mean([r.sentences for r in answered])) if answered else 0.0
    p50, p95 = (float(np.percentile(times, p)) for p in (50, 95))
    rows.append(("sentences", f"{count:.2f}", f"n {len(answered)}"))
    rows.append(("latency", f"{p50:.0f} / {p95:.0f} ms", "p50 / p95"))
    values: dict[str, object] = {"n": len(results)}
    values |= {name: rate(hits) for name, hits in rates.items()}
    values |= {
        "sentences": round(count, 3),
        "p50_ms": round(p50, 1),
        "p95_ms": round(p95, 1),
        "policy": options.policy,
    }
    report(f"{options.qa.name}{' --absent' if options.absent else ''}", rows, values)


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _count(reply: Reply) -> int:
    return len(sentences(marks_removed(reply.text)))


if __name__ == "__main__":
    main()
