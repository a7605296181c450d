"""How long an answer takes on a folder of documents: `python -m bench.ask PATH… [--questions N]`.

The folder is ingested into a new home, everything is run once, then N questions made from its own
headings ("What is …?", "什么是…？") are asked, each in a conversation of its own, through the whole
assistant. Prints how many were answered and the time per question, by language.
`--set KEY=VALUE` is a setting, for instance policy.backend=quote.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from assistant import build_assistant, load
from bench.common import assigned, report, scratch, settable
from retrieval.knowledge import KnowledgeBase, open_knowledge
from retrieval.text import language


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask and report."""
    parser = argparse.ArgumentParser(description="time per answer")
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--questions", type=int, default=100)
    settable(parser)
    options = parser.parse_args(arguments)
    with scratch() as folder:
        settings = load(overrides={"home": str(folder), "docs": "false", **assigned(options)})
        knowledge = open_knowledge(settings.home, settings.retrieval)
        for _ in knowledge.ingest(options.paths):
            pass
        questions = from_headings(knowledge, options.questions)
        if not questions:
            named = ", ".join(map(str, options.paths))
            raise SystemExit(f"{named}: no heading to ask about; give a folder of documents")
        chunks = knowledge.status().chunks
        knowledge.close()
        with build_assistant(settings) as assistant:
            assistant.warm()
            for question in questions[:5]:
                assistant.reply(question)
            replies = [assistant.reply(question) for question in questions]
    times: dict[str, list[float]] = {"en": [], "zh": []}
    for reply in replies:
        times[reply.language].append(reply.seconds * 1000)
    rows = [
        (
            tongue,
            f"{np.median(values):.0f} ms",
            f"p95 {np.percentile(values, 95):.0f} ms, n {len(values)}",
        )
        for tongue, values in times.items()
        if values
    ]
    everything = [v for values in times.values() for v in values]
    answered = sum(r.outcome == "answered" for r in replies)
    rows.append(("answered", f"{answered} of {len(replies)}", f"{chunks} chunks"))
    report(
        "time per answer",
        rows,
        {
            "n": len(replies),
            "chunks": chunks,
            "answered": answered,
            "p50_ms": round(float(np.median(everything)), 1),
            "p95_ms": round(float(np.percentile(everything, 95)), 1),
        },
    )


def from_headings(knowledge: KnowledgeBase, number: int) -> list[str]:
    """Questions about headings of the base, the same ones every time."""
    found = sorted({h for h in knowledge.headings() if 4 <= len(h) <= 60})
    chosen = random.Random(0).sample(found, min(number, len(found)))
    return [f"什么是{h}？" if language(h) == "zh" else f"What is {h}?" for h in chosen]


if __name__ == "__main__":
    main()
