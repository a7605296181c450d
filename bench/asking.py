"""What the benchmarks of answers share: options, documents handed over, texts held together.

Where a set gives every question passages of its own, all of them go into one knowledge base and
each is a document that only its questions may read (`Given.readers`); a question is asked as that
reader. So everything runs that runs for a user, from ingestion over the search, the reranker and
the guard to the grounding of the reply, and no question sees another one's passages.
"""

from __future__ import annotations

import argparse
import random
import re
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np

from assistant import Assistant, Reply, build_assistant, load
from assistant.config import Settings
from assistant.grounding import marks_removed
from bench.common import assigned, settable
from bench.measures import spread
from retrieval.knowledge import open_knowledge
from retrieval.schema import Chunk, IngestSummary, Passage
from retrieval.sources.memory import Given
from retrieval.text import language
from rlhf import best_of_n

#: Answers of a set: one text, or parts that must all be there; a list among them holds aliases.
Gold = str | Sequence[str | Sequence[str]]

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\u3000-\u303f\uff00-\uffef"
_GAP = re.compile(rf"(?<=[{_HAN}])\s+|\s+(?=[{_HAN}])")
_TOKEN = re.compile(rf"[{_HAN}]|[^\W_{_HAN}]+")

_Row = TypeVar("_Row")


def parser(about: str | None) -> argparse.ArgumentParser:
    """The options that these benchmarks have in common; the folder is theirs to add."""
    made = argparse.ArgumentParser(description=(about or "").split("\n")[0])
    made.add_argument("--limit", type=int, default=0, help="questions of each kind, 0 = all")
    made.add_argument("--policy", default="extract", help="a file of assistant/policy/")
    settable(made)
    return made


def chosen(options: argparse.Namespace, home: Path, policy: str = "") -> Settings:
    """The settings of a run: `--policy` and every `--set`, without the product's own guide.

    Raises:
        SystemExit: a `--set` has no value.
    """
    overrides = {
        "home": str(home),
        "docs": "false",
        "safety.audit": "false",
        "policy.backend": policy or options.policy,
    }
    return load(overrides=overrides | assigned(options))


def drawn(rows: Sequence[_Row], limit: int) -> list[_Row]:
    """At most `limit` rows (all: 0), the same ones each time, in their order."""
    if not limit or limit >= len(rows):
        return list(rows)
    return [rows[at] for at in sorted(random.Random(0).sample(range(len(rows)), limit))]


@contextmanager
def opened(settings: Settings, root: str, given: Iterable[Given]) -> Iterator[Assistant]:
    """The assistant over documents handed over under the name `root`, run once already.

    Raises:
        SystemExit: a document could not be taken in.
    """
    began = time.monotonic()
    knowledge = open_knowledge(settings.home, settings.retrieval)
    *_, summary = knowledge.ingest_documents(root, given)
    knowledge.close()
    assert isinstance(summary, IngestSummary)
    if summary.failures:
        first = summary.failures[0]
        raise SystemExit(f"{first.source}: not taken in ({first.reason} {first.detail})")
    seconds = time.monotonic() - began
    print(f"{summary.documents} documents, {summary.chunks} chunks, built in {seconds:.1f} s")
    with build_assistant(settings, wrap=best_of_n.wrapped) as assistant:
        assistant.warm()
        yield assistant


def folded(text: str) -> str:
    """Width, case and white space set aside; between Chinese characters no space is left."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return _GAP.sub("", plain)


def holds(text: str, gold: Gold) -> bool:
    """Whether a text holds every part of an answer, any alias of each (RGB's string inclusion)."""
    body = folded(text)
    parts = [gold] if isinstance(gold, str) else gold
    aliases = [[part] if isinstance(part, str) else part for part in parts]
    return bool(aliases) and all(any(folded(a) in body for a in names) for names in aliases)


def said(reply: Reply) -> str:
    """The text of an answer without its marks; "" where nothing was answered."""
    return marks_removed(reply.text) if reply.outcome == "answered" else ""


def tokens(text: str) -> list[str]:
    """Words of a text in small letters; a Chinese character is one."""
    return _TOKEN.findall(folded(text))


def rouge_l(text: str, gold: str) -> float:
    """ROUGE-L, F1 over the longest common subsequence of tokens (Lin 2004); 0 of nothing."""
    left, right = tokens(text), tokens(gold)
    if not left or not right:
        return 0.0
    before = [0] * (len(right) + 1)
    for token in left:
        row = [0]
        for at, other in enumerate(right, start=1):
            row.append(before[at - 1] + 1 if token == other else max(row[-1], before[at]))
        before = row
    return 2 * before[-1] / (len(left) + len(right))


def covered(text: str, part: str) -> float:
    """Share of the tokens of `part` that `text` holds, each as often as it is there."""
    wanted, held = tokens(part), tokens(text)
    left = {token: held.count(token) for token in set(wanted)}
    found = 0
    for token in wanted:
        found += left[token] > 0
        left[token] -= 1
    return found / len(wanted) if wanted else 0.0


def average(values: Sequence[float]) -> float | None:
    """The mean, rounded to four digits; None of nothing."""
    return round(float(np.mean(values)), 4) if len(values) else None


def row(name: str, values: Sequence[float]) -> tuple[str, str, str]:
    """A row of the table: a mean with its count and 95 % bootstrap interval (Efron 1979)."""
    found = average(values)
    if found is None:
        return name, "–", "n 0"
    numbers = np.asarray(values, dtype=float)
    low, high = spread(lambda at: float(numbers[at].mean()), len(numbers), rounds=1000)
    return name, f"{found:.3f}", f"n {len(numbers)}, 95 %: {low:.3f} to {high:.3f}"


def passage(text: str, number: int = 1) -> Passage:
    """A text as evidence, outside of any knowledge base; `number` is its document's and chunk's."""
    chunk = Chunk(number, number, text, 0, len(text), (), 0)
    name = f"text:{number}"
    return Passage(chunk, name, "", language(text), "", 0.0, 0.0, 1.0, ())
