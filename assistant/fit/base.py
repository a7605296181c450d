"""Extractive question files as knowledge bases, for fitting and for `bench.answers`.

Rows carry `id, question, context, title, answers: [{text, start}], is_impossible, lang`, one JSON
object a line, gzipped. Every distinct context becomes an HTML file of its own, titled like its
article, and goes through ingestion like any other document.
"""

from __future__ import annotations

import gzip
import hashlib
import html
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from assistant.errors import ConfigError
from assistant.schema import Citation, PolicyCard, Reply, Turn, Understanding
from assistant.understand import understand
from retrieval.knowledge import KnowledgeBase
from retrieval.schema import IngestSummary
from retrieval.text import language

#: Share of the answerable questions that a threshold may refuse, and how sure that must be: there
#: are a few hundred of few articles.
WRONGLY_REFUSED, CONFIDENCE = 0.05, 0.95


@dataclass(frozen=True, slots=True)
class Question:
    """One row: `answers` are the gold spans, empty where `impossible`.

    `split` is the file's own; a file without splits falls into a `first` and a `second` half, by
    article.
    """

    id: str
    text: str
    context: str
    title: str
    answers: tuple[str, ...]
    impossible: bool
    split: str


def read(path: Path) -> list[Question]:
    """Read a question file.

    Raises:
        ConfigError: the file is missing, or a line is not such a row (named by its number).
    """
    found: list[Question] = []
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                found.append(_question(json.loads(line)))
    except (OSError, EOFError) as error:
        raise ConfigError(f"cannot read {path}: {error}; give a .jsonl.gz of questions") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}, line {len(found) + 1}: not a question row ({error!r})"
        ) from error
    return found


def fill(
    knowledge: KnowledgeBase, questions: Iterable[Question], folder: Path
) -> tuple[dict[str, str], IngestSummary]:
    """Write every distinct context to `folder` and ingest it.

    Returns:
        source -> context, to tell which paragraph a citation is of; and the ingestion's summary.
    """
    folder.mkdir(parents=True, exist_ok=True)
    contexts = {q.context: q.title for q in questions}
    where = {}
    for number, (context, title) in enumerate(contexts.items()):
        path = folder / f"{number:05d}.html"
        name = html.escape(title.replace("_", " "))
        body = "".join(f"<p>{html.escape(line)}</p>" for line in context.splitlines())
        page = f"<html><head><title>{name}</title></head><body>{body}</body></html>"
        path.write_text(page, encoding="utf-8")
        where[str(path.resolve())] = context
    *_, summary = knowledge.ingest([folder])
    assert isinstance(summary, IngestSummary)
    return where, summary


def standing_alone(text: str, before: str, title: str) -> str:
    """What is searched where `text` comes after the question `before`, answered from `title`."""
    tongue = language(before)
    cited = Citation(1, 0, 0, "", title, (), "", 0, 0, True, "", 0.0, 0.0, 0.0)
    read = Understanding("question", before, False, tongue, "")
    card = PolicyCard("extract", "")
    reply = Reply(
        "", "", "", "", "answered", tongue, (cited,), (), (), (), read, card, None, 0.0
    )  # fmt: skip
    return understand(text, [Turn("", "", before, reply, 0.0)]).query


def left_out(questions: Iterable[Question]) -> frozenset[str]:
    """Half of the articles, by a hash of their titles: those that `--absent` leaves out."""
    titles = {q.title for q in questions}
    order = sorted(titles, key=lambda title: hashlib.sha256(title.encode()).hexdigest())
    return frozenset(order[: len(order) // 2])


def half(title: str) -> str:
    """The half of a file that an article belongs to, by a hash of its title."""
    digest = hashlib.sha256(f"half:{title}".encode()).digest()
    return "first" if digest[0] < 128 else "second"


def apart(group: str) -> bool:
    """Whether all rows of a group are for calibration, and nobody else's training either."""
    return int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) / 2**32 < 0.1


def answerable(questions: Sequence[Question]) -> list[Question]:
    """Those with an answer in their context."""
    return [q for q in questions if not q.impossible and q.answers]


def sample(questions: Sequence[Sequence[Question]], count: int, seed: int) -> list[Question]:
    """At most `count` questions, as many of each file as of the others while they last."""
    dice = random.Random(seed)
    found: list[Question] = []
    for number, rows in enumerate(sorted(questions, key=len)):
        share = (count - len(found)) // (len(questions) - number)
        found += dice.sample(rows, min(share, len(rows)))
    return found


def _question(row: object) -> Question:
    if not isinstance(row, dict):
        raise TypeError("not an object")
    answers = row.get("answers") or []
    if not isinstance(answers, list):
        raise TypeError("answers is not a list")
    return Question(
        str(row["id"]),
        str(row["question"]),
        str(row["context"]),
        str(row.get("title") or ""),
        tuple(str(a["text"]) for a in answers),
        bool(row.get("is_impossible")),
        str(row.get("split") or half(str(row.get("title") or row["context"]))),
    )


def bounded(sure: NDArray[np.float64]) -> float:
    """The threshold that with 95 % confidence refuses no more than `WRONGLY_REFUSED` of such.

    The exact binomial test of Clopper and Pearson (1934), as risks are controlled by Angelopoulos
    et al. (2021, "Learn then test"); of too few to say so, none is refused.

    Args:
        sure: (n,), of answerable questions that nothing was fitted on.
    """
    refused = int(binom.ppf(1 - CONFIDENCE, len(sure), WRONGLY_REFUSED)) - 1
    return float(np.sort(sure)[max(0, refused)])
