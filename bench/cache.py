"""How often the answer cache serves, and how often wrongly: `python -m bench.cache --qa FILE`.

A knowledge base is built from contexts of the file, of those that have two questions with one
answer. One half of each pair of questions is asked, so that its answer is kept. Then the other
halves are asked, and nothing more is kept:

same   another question of the same paragraph with the same gold answer, as people wrote them
framed the first question in other words around it ("Could you tell me …", 请问…)
other  the question of the same paragraph that is nearest to it, and has another gold answer

A naive cache sees the same pairs in the same run: it gives the answer to the nearest question whose
cosine reaches a threshold. `hits` is the share of second questions that were answered from a cache,
`wrong` the share of those hits that do not hold the second question's gold answer, and `harmed` the
share of hits that do not hold it while the answer made for that question does.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from assistant import Assistant, Reply, build_assistant
from assistant.fit.base import Question, answerable, fill, read
from assistant.grounding import marks_removed
from assistant.schema import Wish
from bench.asking import chosen, drawn, parser
from bench.common import rate, report, scratch
from retrieval.embed.base import Vectors
from retrieval.knowledge import open_knowledge
from retrieval.text import language, simplified

#: Cosines at which the naive cache serves.
NAIVE = (0.8, 0.9)
KINDS = ("same", "framed", "other")
FRAMES = {
    "en": ("Could you tell me: {}", "I would like to know, {}", "{} Please answer."),
    "zh": ("请问，{}", "我想知道，{}", "{}谢谢"),
}
#: Who asks the second questions; what is kept of them is deleted at once.
SECOND = "second"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions of one paragraph: what is asked first, and what then."""

    kind: str
    first: Question
    second: str
    gold: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Served:
    """What came of a second question at one cache: whether it hit, and what was right."""

    kind: str
    hit: bool
    right: bool
    fresh: bool


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask and report."""
    options = _options(arguments)
    rows = answerable(read(options.qa))
    contexts = drawn(_paired(rows), options.paragraphs)
    asked = [q for q in rows if q.context in {*contexts}]
    options.set = [
        "cache.store=memory",
        f"cache.entries={max(1000, len(asked))}",
        *options.set,
    ]
    with scratch() as folder:
        settings = chosen(options, folder / "home")
        knowledge = open_knowledge(settings.home, settings.retrieval)
        _, built = fill(knowledge, asked, folder / "docs")
        found = pairs(asked, lambda texts: knowledge.embedder.embed(texts, "query"))
        knowledge.close()
        with build_assistant(settings) as assistant:
            assistant.warm()
            results = measure(assistant, found)
    show(results, options, built.documents)


def pairs(questions: Sequence[Question], embed: Callable[[list[str]], Vectors]) -> list[Pair]:
    """The pairs of a set of questions; a question is in one pair of two that people wrote at most.

    Args:
        questions: of any number of paragraphs.
        embed: texts -> unit vectors (n, d).
    """
    made: list[Pair] = []
    by_context: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        by_context[question.context].append(question)
    for rows in by_context.values():
        vectors = embed([q.text for q in rows])
        near = vectors @ vectors.T
        free = set(range(len(rows)))
        for kind in ("same", "other"):
            order = [
                (float(near[a, b]), a, b)
                for a in range(len(rows))
                for b in range(a + 1, len(rows))
                if rows[a].text != rows[b].text and _kind(rows[a], rows[b]) == kind
            ]
            for _, a, b in sorted(order, reverse=True):
                if {a, b} <= free:
                    free -= {a, b}
                    made.append(Pair(kind, rows[a], rows[b].text, rows[b].answers))
    firsts = [pair.first for pair in made]
    for number, first in enumerate(firsts):
        forms = FRAMES[language(first.text)]
        framed = forms[number % len(forms)].format(first.text)
        made.append(Pair("framed", first, framed, first.answers))
    return made


def measure(assistant: Assistant, found: Sequence[Pair]) -> dict[str, list[Served]]:
    """What each cache made of the second questions."""
    firsts = list({pair.first.text: pair.first for pair in found}.values())
    answers = [_ask(assistant, q.text, "first") for q in track(firsts, "first", transient=True)]
    embed = assistant.parts.knowledge.embedder.embed
    known = embed([q.text for q in firsts], "query")
    results: dict[str, list[Served]] = defaultdict(list)
    for pair in track(found, "second", transient=True):
        reply = _ask(assistant, pair.second, SECOND)
        assistant.forget_user(SECOND)
        hit = any(s.name == "answer cache" and s.detail.startswith("cached") for s in reply.steps)
        # an answer drawn by chance is not looked up; the policies measured here do not draw
        fresh = _ask(assistant, pair.second, SECOND, Wish(temperature=1e-6)) if hit else reply
        good = _holds(fresh, pair.gold)
        results["cache"].append(Served(pair.kind, hit, _holds(reply, pair.gold), good))
        near = known @ embed([pair.second], "query")[0]
        best = int(np.argmax(near))
        for least in NAIVE:
            hit = bool(near[best] >= least) and answers[best].outcome == "answered"
            right = _holds(answers[best], pair.gold)
            results[f"naive_{least}"].append(Served(pair.kind, hit, right, good))
    return dict(results)


def show(results: dict[str, list[Served]], options: argparse.Namespace, paragraphs: int) -> None:
    """The table and the JSON line."""
    values: dict[str, object] = {"qa": options.qa.name, "paragraphs": paragraphs}
    rows = []
    for name, served in results.items():
        for kind in (*KINDS, "all"):
            some = [s for s in served if kind in (s.kind, "all")]
            hits = [s for s in some if s.hit]
            one = {
                "hits": rate([s.hit for s in some]),
                "wrong": rate([not s.right for s in hits]),
                "harmed": rate([s.fresh and not s.right for s in hits]),
            }
            values |= {f"{name}_{kind}_{what}": value for what, value in one.items()}
            told = ", ".join(f"{what} {value}" for what, value in one.items())
            rows.append((f"{name} {kind}", told, f"{len(hits)} of {len(some)}"))
    report("answer cache", rows, values)


def _paired(rows: Sequence[Question]) -> list[str]:
    """Contexts with two questions of the same answer; all, where there is none."""
    golds: dict[str, list[frozenset[str]]] = defaultdict(list)
    for row in rows:
        golds[row.context].append(frozenset(_folded(a) for a in row.answers))
    found = [
        context
        for context, gold in golds.items()
        if any(a & b for n, a in enumerate(gold) for b in gold[:n])
    ]
    return found or list(golds)


def _kind(one: Question, other: Question) -> str:
    gold = [{_folded(a) for a in q.answers} for q in (one, other)]
    if gold[0] & gold[1]:
        return "same"
    held = any(a in b or b in a for a in gold[0] for b in gold[1])
    return "" if held else "other"


def _ask(assistant: Assistant, text: str, user: str, wish: Wish = Wish()) -> Reply:
    return assistant.reply(text, user_id=user, keep=False, history=(), wish=wish)


def _holds(reply: Reply, gold: Sequence[str]) -> bool:
    text = _folded(marks_removed(reply.text))
    return reply.outcome == "answered" and any(_folded(a) in text for a in gold)


def _folded(text: str) -> str:
    return "".join(simplified(text).casefold().split())


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    made = parser(__doc__)
    made.add_argument("--qa", type=Path, required=True, help="a .jsonl.gz of questions")
    made.add_argument("--paragraphs", type=int, default=40, help="paragraphs, 0 = all")
    return made.parse_args(arguments)


if __name__ == "__main__":
    main()
