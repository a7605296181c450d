"""Questions as the linear ranker learns from them: what the real retrieval brings, weighed.

Making them takes most of a fit, so they are kept in .runs/extract as they are made: a run that was
stopped goes on, and another fit of the same questions with the same models begins at once.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from assistant.answering import Answerer
from assistant.config import Settings
from assistant.fit.base import Question, fill, left_out, sample
from assistant.policy._ranker import ANSWERS, FEATURES, READS, SHORTLIST, Evidence, weigh
from assistant.policy.base import Resources
from assistant.schema import Prompt
from retrieval.knowledge import open_knowledge
from retrieval.schema import Passage

WORK = Path(".runs") / "extract"
SEED = 7

Marks = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Example:
    """A question with its candidates' features; `right` marks candidates with the answer.

    `looks`: its own paragraph only looks as if it answered. `file`: which file it is of. `title`:
    its article.
    """

    evidence: Evidence
    right: Marks
    present: bool
    looks: bool = False
    file: int = 0
    title: str = ""

    @property
    def without(self) -> Example:
        """As it were without the answerability head."""
        matrix = self.evidence.matrix.copy()
        matrix[:, ANSWERS] = 0.0
        return replace(self, evidence=replace(self.evidence, matrix=matrix))


def examples(
    files: Sequence[Sequence[Question]],
    limit: int,
    settings: Settings,
    answerer: Answerer | None,
    absent: bool,
) -> Iterator[Example]:
    """At most `limit` questions, as many of each file as there are; candidates have no text.

    With `absent`, half of the articles are not in the base; only their questions count.
    """
    questions = [q for rows in files for q in rows]
    gone = left_out(questions) if absent else frozenset()
    kept = [q for q in questions if q.title not in gone]
    asked = sample([[q for q in r if not absent or q.title in gone] for r in files], limit, SEED)
    file = {id(q): number for number, rows in enumerate(files) for q in rows}
    folder = Path(tempfile.mkdtemp(prefix="plumbline-fit-"))
    knowledge = open_knowledge(folder / "home", settings.retrieval)
    try:
        reader = knowledge.reranker
        models = knowledge.embedder.id, reader.id if reader else "", answerer.id if answerer else ""
        size = settings.policy.passages
        about = [models, FEATURES, SHORTLIST, READS, size, [asdict(q) for q in (*kept, *asked)]]
        path = WORK / (hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16] + ".jsonl")
        done = _done(path)
        if len(done) < len(asked):
            where, _ = fill(knowledge, kept, folder / "docs")
            lent = Resources(knowledge.embedder, knowledge.rarity, reader, answerer)
            with path.open("a", encoding="utf-8") as lines:
                for question in asked[len(done) :]:
                    passages = knowledge.search(question.text, size)
                    done.append(_weighed(question, passages, where, lent, not absent))
                    lines.write(json.dumps(done[-1]) + "\n")
        for question, row in zip(asked, done, strict=True):
            if row is not None:
                present = not absent and not question.impossible
                evidence = Evidence((), np.array(row[0]), tuple(row[1]), row[2])
                title = question.title or question.context
                number = file[id(question)]
                right = np.array(row[3], dtype=np.bool_)
                yield Example(evidence, right, present, question.impossible, number, title)
    finally:
        knowledge.close()
        shutil.rmtree(folder, ignore_errors=True)


#: Features, whether the rarest term is there, search terms, and which candidates are right.
_Row = tuple[list[list[float]], list[bool], int, list[bool]]


def _done(path: Path) -> list[_Row | None]:
    """What was made before; half a line at the end is taken away."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = path.read_bytes() if path.exists() else b""
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        path.write_bytes(whole)
    return [json.loads(line) for line in whole.splitlines()]


def _weighed(
    question: Question,
    passages: Sequence[Passage],
    where: dict[str, str],
    lent: Resources,
    there: bool,
) -> _Row | None:
    evidence = weigh(Prompt((), question.text, tuple(passages), "en"), lent)
    if evidence is None:
        return None
    right = [
        there
        and not question.impossible
        and where[passages[c.passage].source] == question.context
        and any(answer in c.text for answer in question.answers)
        for c in evidence.candidates
    ]
    return evidence.matrix.tolist(), list(map(bool, evidence.rarest)), evidence.terms, right
