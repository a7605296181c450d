"""Answers from a question file through the whole assistant.

    python -m bench.answers --qa FILE.jsonl.gz [--absent] [--impossible] [--split NAME] [--limit N]
                            [--policy NAME[,NAME…]] [--passages K] [--set KEY=VALUE]

A knowledge base is built from all contexts of the file, through ingestion; every answerable
question is asked in a conversation of its own. Rates are over these denominators:

right          questions whose article is in the base: the reply holds a gold answer (case and
               white space folded), abstentions counting as wrong
cited_right    answered ones: a citation lies in the gold paragraph; `first_right`: the first does
refused_wrong  questions whose article is in the base, abstained
refused_right  with --absent, questions of the half of the articles that was left out, abstained
refused_impossible  with --impossible, questions that their own paragraph does not answer, abstained
sentences      mean number of quoted or written sentences per answered reply

`--split` asks only the questions of one split of the file, such as the one that nothing was
trained on; the base holds all contexts. With several policies each question is put to all of them
in turn, over one base: their rows stand side by side, `policies` holds the values of each, the
values at the top are the first one's, and `difference` is each other one's rate less the first
one's with its 95 % interval from a bootstrap of the questions (pairs, Efron 1979).
"""

from __future__ import annotations

import argparse
import random
import time
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from assistant import Assistant, Reply, build_assistant
from assistant.fit.base import Question, answerable, fill, left_out, read
from assistant.grounding import marks_removed
from bench import asking
from bench.common import interval, rate, report, scratch
from bench.measures import spread
from retrieval.knowledge import open_knowledge
from retrieval.text import sentences


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of one question; an `impossible` one has an article and no answer in it."""

    present: bool
    impossible: bool
    abstained: bool
    right: bool
    cited: bool
    first: bool
    sentences: int
    seconds: float


#: Each rate: over which questions, and what counts. A rate of None is one of no questions.
RATES: dict[str, tuple[Callable[[Asked], bool], Callable[[Asked], bool]]] = {
    "right": (lambda a: a.present and not a.impossible, lambda a: a.right),
    "cited_right": (lambda a: _answered(a), lambda a: a.cited),
    "first_right": (lambda a: _answered(a), lambda a: a.first),
    "refused_right": (lambda a: not a.present and not a.impossible, lambda a: a.abstained),
    "refused_wrong": (lambda a: a.present and not a.impossible, lambda a: a.abstained),
    "refused_impossible": (lambda a: a.present and a.impossible, lambda a: a.abstained),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask and report."""
    options = _options(arguments)
    policies = [name for name in options.policy.split(",") if name]
    rows = read(options.qa)
    everything = answerable(rows)
    gone = left_out(everything) if options.absent else frozenset()
    asked = _drawn(everything, options)
    if options.impossible:
        asked += _drawn([q for q in rows if q.impossible and q.title not in gone], options)
    with scratch() as folder, ExitStack() as stack:
        settings = {name: asking.chosen(options, folder / "home", name) for name in policies}
        first = settings[policies[0]]
        began = time.monotonic()
        knowledge = open_knowledge(first.home, first.retrieval)
        base = rows if options.impossible else everything
        kept = [q for q in base if q.title not in gone]
        where, built = fill(knowledge, kept, folder / "docs")
        knowledge.close()
        print(
            f"{len(everything)} answerable questions, {built.documents} paragraphs, "
            f"{built.chunks} chunks, built in {time.monotonic() - began:.1f} s"
        )
        assistants = {
            name: stack.enter_context(build_assistant(settings[name])) for name in policies
        }
        for assistant in assistants.values():
            assistant.warm()
        results: dict[str, list[Asked]] = {name: [] for name in policies}
        for question in track(asked, "asking", transient=True):
            for name, assistant in assistants.items():
                present = question.title not in gone
                results[name].append(ask(assistant, question, where, present))
    show(results, options)


def ask(assistant: Assistant, question: Question, where: dict[str, str], present: bool) -> Asked:
    """Ask one question and judge the reply."""
    reply = assistant.reply(question.text)
    text = _folded(marks_removed(reply.text))
    places = [where.get(c.source) == question.context for c in reply.citations]
    answered = reply.outcome == "answered"
    return Asked(
        present,
        question.impossible,
        not answered,
        answered and any(_folded(a) in text for a in question.answers),
        answered and any(places),
        answered and bool(places) and places[0],
        _count(reply),
        reply.seconds,
    )


def hits(results: Sequence[Asked], name: str) -> list[bool]:
    """What a rate is made of: one value for each question of its denominator."""
    counts, right = RATES[name]
    return [right(one) for one in results if counts(one)]


def difference(
    one: Sequence[Asked], other: Sequence[Asked], name: str
) -> tuple[float, float, float] | None:
    """How much the second's rate lies above the first's, with its 95 % interval.

    The questions are drawn, and with each what both policies made of it; None where one of the
    rates is over no question.
    """
    counts, right = RATES[name]

    def rates(results: Sequence[Asked]) -> tuple[np.ndarray, np.ndarray]:
        known = np.array([counts(r) for r in results], dtype=float)
        return known, known * np.array([right(r) for r in results], dtype=float)

    pairs = [rates(one), rates(other)]

    def gap(at: np.ndarray) -> float:
        less, more = (float(h[at].sum() / k[at].sum()) if k[at].any() else np.nan for k, h in pairs)
        return more - less

    value = gap(np.arange(len(one)))
    if np.isnan(value):
        return None
    low, high = spread(gap, len(one), rounds=1000)
    return round(value, 4), round(low, 4), round(high, 4)


def show(results: dict[str, list[Asked]], options: argparse.Namespace) -> None:
    """Print the tables and the JSON line."""
    names = list(RATES) if options.impossible else list(RATES)[:-1]
    first, *others = results
    title = f"{options.qa.name}{' --absent' if options.absent else ''}"
    every = {policy: _values(found, names, policy) for policy, found in results.items()}
    if not others:
        report(title, _rows(results[first], every[first], names), every[first])
        return
    for policy in results:
        table = Table("what", "value", "note", title=f"{title}, {policy}")
        for cells in _rows(results[policy], every[policy], names):
            table.add_row(*cells)
        Console().print(table)
    gaps: dict[str, dict[str, tuple[float, float, float]]] = {}
    rows = []
    for policy in others:
        found = {n: difference(results[first], results[policy], n) for n in names}
        gaps[policy] = {n: gap for n, gap in found.items() if gap is not None}
        for name, (value, low, high) in gaps[policy].items():
            note = f"95 %: {low:+.3f} to {high:+.3f}"
            rows.append((f"{policy} less {first}: {name}", f"{value:+.3f}", note))
    report(f"{title}, differences", rows, every[first] | {"policies": every, "difference": gaps})


def _values(results: Sequence[Asked], names: Sequence[str], policy: str) -> dict[str, object]:
    answered = [r for r in results if _answered(r)]
    times = np.array([r.seconds for r in results]) * 1000
    values: dict[str, object] = {"n": len(results)}
    values |= {name: rate(hits(results, name)) for name in names}
    count = float(np.mean([r.sentences for r in answered])) if answered else 0.0
    p50, p95 = (float(np.percentile(times, p)) for p in (50, 95))
    values |= {"sentences": round(count, 3), "p50_ms": round(p50, 1), "p95_ms": round(p95, 1)}
    return values | {"policy": policy}


def _rows(
    results: Sequence[Asked], values: dict[str, object], names: Sequence[str]
) -> list[tuple[str, str, str]]:
    rows = []
    for name in names:
        found = hits(results, name)
        low, high = interval(found)
        value = rate(found)
        shown = "–" if value is None else f"{value:.3f}"
        rows.append((name, shown, f"n {len(found)}, 95 %: {low:.3f} to {high:.3f}"))
    answered = sum(map(_answered, results))
    rows.append(("sentences", f"{values['sentences']:.2f}", f"n {answered}"))
    latency = f"{values['p50_ms']:.0f} / {values['p95_ms']:.0f} ms"
    rows.append(("latency", latency, "p50 / p95"))
    return rows


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = asking.parser(__doc__)
    parser.add_argument("--qa", type=Path, required=True)
    parser.add_argument("--absent", action="store_true")
    parser.add_argument("--impossible", action="store_true")
    parser.add_argument("--split", default="", help="only the questions of this split")
    parser.add_argument("--passages", type=int, default=8)
    options = parser.parse_args(arguments)
    if not options.policy.strip(","):
        parser.error("--policy names no policy; give extract, or several as extract,quote")
    options.set = [f"policy.passages={options.passages}", *options.set]
    return options


def _drawn(questions: Sequence[Question], options: argparse.Namespace) -> list[Question]:
    """The questions of the split, at most `--limit`, the same ones each time.

    Raises:
        SystemExit: the split has none.
    """
    found = [q for q in questions if options.split in ("", q.split)]
    if not found:
        known = ", ".join(sorted({q.split for q in questions if q.split})) or "none"
        raise SystemExit(f"{options.qa}: no question of split {options.split!r}; known: {known}")
    if not options.limit:
        return found
    return random.Random(0).sample(found, min(options.limit, len(found)))


def _answered(asked: Asked) -> bool:
    return asked.present and not asked.impossible and not asked.abstained


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _count(reply: Reply) -> int:
    return len(sentences(marks_removed(reply.text)))


if __name__ == "__main__":
    main()
