"""What the policy learns to quote from: questions with the evidence that the real retrieval brings.

All training contexts, of every set and both languages, make one knowledge base. Every question is
searched in it, and the sentences of what comes are weighed as they are when people ask
(`assistant.policy._ranker`); those that hold the gold answer are marked. For half of the questions
the same is done without the gold paragraph, or without its whole article: nothing is marked then.

Which questions there are says `_asked`, which sentences sum up says `_gist`. Lessons go to a file
as they are made; a run that was stopped goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assistant.build import supporter_of
from assistant.config import Settings
from assistant.fit.base import fill
from assistant.policy._quoting import heading
from assistant.policy._ranker import ANSWERS, READ, Candidate, Evidence, weigh
from assistant.policy.base import Resources
from assistant.schema import Prompt
from retrieval.embed.remembered import Remembered
from retrieval.fit._glossary import share
from retrieval.knowledge import KnowledgeBase, open_knowledge
from retrieval.schema import Passage
from retrieval.text import is_han
from rlhf.errors import TrainingError
from rlhf.fit._asked import contexts, plan
from rlhf.fit._gist import gist, halves
from rlhf.fit._kinds import PARTIAL, SUMMARIES, Asked
from rlhf.fit._remembered import Answering, Reading

#: Changes whenever the same data would give other lessons.
VERSION = 5
#: Share of the questions that are also asked without their paragraph.
WITHOUT = 0.5
#: Vectors that are kept: of all sentences of a base.
VECTORS = 100_000
#: Passages that are searched for one question; how many are shown is a setting.
WIDER = 2
#: Characters of an answer that is not found in other texts by chance.
TELLING = {"en": 5, "zh": 3}


@dataclass(frozen=True, slots=True)
class Lesson:
    """A question with its evidence, as the file keeps it.

    Attributes:
        present: whether the gold paragraph was among what could be found.
        answers: gold spans.
        passages: heading of each passage.
        gold: of each passage, whether it is of the gold paragraph.
        spans: (passage, start, end) of each sentence, in characters of the passage.
        texts: the sentences.
        matrix: their features, (n, len(FEATURES)).
        rarest: of each, whether its passage has the question's rarest term.
        right: of each, whether it alone holds a gold answer.
        needed: sentences that hold one together, where none does alone.
        terms: search terms of the question.
        phrase: key of the phrase (`assistant.phrases`) that is the reply, "" for quotes.
        unseen: whether nothing else that answers has learnt from its article either.
    """

    id: str
    kind: str
    lang: str
    question: str
    held: bool
    present: bool
    answers: tuple[str, ...]
    passages: tuple[str, ...]
    gold: tuple[bool, ...]
    spans: tuple[tuple[int, int, int], ...]
    texts: tuple[str, ...]
    matrix: NDArray[np.float64]
    rarest: tuple[bool, ...]
    right: tuple[bool, ...]
    needed: tuple[int, ...]
    terms: int
    phrase: str = ""
    unseen: bool = False

    @property
    def partial(self) -> bool:
        """Whether some of the sentences that are needed are better than none."""
        return self.kind in PARTIAL

    @property
    def read(self) -> bool:
        """Whether a reranker has read the sentences."""
        return bool(self.matrix[:, READ].any())

    def saying(self) -> set[int]:
        """Sentences that hold an answer's words, marked or not."""
        telling = [a for a in self.answers if len(a) >= TELLING["zh" if is_han(a[:1]) else "en"]]
        return {i for i, text in enumerate(self.texts) if any(answer in text for answer in telling)}

    @property
    def teaches(self) -> bool:
        """Whether it shows something, and it can be said what is right.

        Where nothing is marked and yet a sentence holds the answer's words, no one can say.
        """
        known = any(self.right) or bool(self.needed) or not self.saying()
        return bool(self.texts) and known

    def evidence(self, kept: Sequence[int]) -> Evidence:
        """The evidence as it were with these sentences only.

        A stretch that was read with an answer which is not there counts as the worst.
        """
        found = tuple(Candidate(*self.spans[i], self.texts[i]) for i in kept)
        matrix = self.matrix[list(kept)]
        column = self.matrix[:, ANSWERS]
        for gone in {*np.flatnonzero(self.right).tolist(), *self.needed} - set(kept):
            for row, i in enumerate(kept):
                if self.spans[i][0] == self.spans[gone][0] and column[i] == column[gone]:
                    matrix[row, ANSWERS] = column.min()
        return Evidence(found, matrix, tuple(self.rarest[i] for i in kept), self.terms)


def make(
    data: Path, folder: Path, count: int, settings: Settings, *, held: bool = False
) -> Iterator[str]:
    """Make the lessons of the first `count` questions, those that `folder` lacks; yields lines.

    With `held`, only those that are not trained on.

    Raises:
        TrainingError: a training file is missing or malformed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asked = [row for row in plan(data)[:count] if row.held or not held]
    if not asked:
        raise TrainingError(f"none of {count} questions is held out; make lessons of more of them")
    state: dict[str, object] = {"version": VERSION, "passages": settings.policy.passages}
    if not {row.id for row in asked} - _done(folder, state):
        return
    knowledge = open_knowledge(folder / "home", settings.retrieval)
    try:
        reader, answerer = knowledge.reranker, supporter_of(settings)
        made_with = {
            "reranker": reader.id if reader else "",
            "answers": answerer.id if answerer else "",
        }
        done = _done(folder, state | made_with)
        where, _ = fill(knowledge, contexts(data), folder / "docs")
        yield f"{len(where)} paragraphs in the base, {len(done)} of {len(asked)} questions done"
        lent = Resources(
            Remembered(knowledge.embedder, VECTORS),
            knowledge.rarity,
            reader and Reading(reader),
            answerer and Answering(answerer),
        )
        teller = _Teller(knowledge, where, settings.policy.passages, lent)
        with (folder / "lessons.jsonl").open("a", encoding="utf-8") as file:
            for number, row in enumerate(asked, start=1):
                if row.id not in done:
                    line = json.dumps([_plain(x) for x in teller.tell(row)], ensure_ascii=False)
                    file.write(f'{{"id": {json.dumps(row.id)}, "lessons": {line}}}\n')
                    file.flush()
                if number % 200 == 0:
                    yield f"{number} of {len(asked)} questions"
    finally:
        knowledge.close()


def readers(folder: Path) -> tuple[str, str]:
    """Ids of the reranker and of the answerability head that lessons were made with, "" for none.

    Raises:
        TrainingError: there are no lessons.
    """
    path = folder / "lessons.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return str(found["reranker"]), str(found["answers"])
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(f"cannot read {path}: {error!r}; make the lessons again") from error


def taught(data: Path, folder: Path, count: int, *, phrases: bool = False) -> list[Lesson]:
    """The lessons that teach, of the first `count` questions; with `phrases`, those they answer.

    In the order of the questions, whatever the order they were made in.

    Raises:
        TrainingError: the file of lessons, or a training file, is missing or malformed.
    """
    wanted = {row.id: number for number, row in enumerate(plan(data)[:count])}
    found = (x for x in lessons(folder) if x.id in wanted and (phrases or not x.phrase))
    return sorted((x for x in found if x.teaches), key=lambda x: wanted[x.id])


def lessons(folder: Path) -> Iterator[Lesson]:
    """Read all that was made.

    Raises:
        TrainingError: the file is missing or malformed.
    """
    path = folder / "lessons.jsonl"
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield from (_lesson(values) for values in json.loads(line)["lessons"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"cannot read {path}: {error}; delete it to make it again") from error


class _Teller:
    """Searches and weighs as the assistant does."""

    def __init__(
        self, knowledge: KnowledgeBase, where: Mapping[str, str], size: int, lent: Resources
    ) -> None:
        self._knowledge, self._where, self._size, self._lent = knowledge, where, size, lent
        self._all = frozenset(where.values())

    def tell(self, row: Asked) -> Iterator[Lesson]:
        """The lesson with everything there is, and for half of the questions one without."""
        found = self._knowledge.search(row.text, self._size * WIDER)
        yield from self._lesson(row, found[: self._size], present=self._there(row))
        if row.answerable and share(f"without:{row.id}") < WITHOUT:
            whole = share(f"article:{row.id}") < 0.5 and row.title
            left = [
                p for p in found if not self._gold(row, p) and not (whole and p.title == row.title)
            ]
            yield from self._lesson(row, left[: self._size], present=False)

    def _there(self, row: Asked) -> bool:
        return row.kind == SUMMARIES or row.context in self._all

    def _gold(self, row: Asked, found: Passage) -> bool:
        """Whether a passage is of the paragraph asked about, or of the article to be summed up."""
        if row.kind == SUMMARIES:
            return found.title == row.title
        return bool(row.context) and self._where[found.source] == row.context

    def _lesson(self, row: Asked, found: Sequence[Passage], *, present: bool) -> Iterator[Lesson]:
        prompt = Prompt((), row.text, tuple(found), row.lang)
        evidence = weigh(prompt, self._lent)
        if evidence is None:
            return
        gold = tuple(self._gold(row, p) for p in found)
        right, needed = _labels(row, found, gold, evidence.candidates)
        yield Lesson(
            row.id,
            row.kind,
            row.lang,
            row.text,
            row.held,
            present and row.answerable,
            row.answers,
            tuple(heading(p) for p in found),
            gold,
            tuple((c.passage, c.start, c.end) for c in evidence.candidates),
            tuple(c.text for c in evidence.candidates),
            evidence.matrix,
            evidence.rarest,
            right,
            needed,
            evidence.terms,
            row.phrase,
            row.unseen,
        )


def _labels(
    row: Asked,
    found: Sequence[Passage],
    gold: Sequence[bool],
    candidates: Sequence[Candidate],
) -> tuple[tuple[bool, ...], tuple[int, ...]]:
    """Which candidates answer by themselves, and which do together."""
    if row.kind == SUMMARIES:
        return (False,) * len(candidates), gist(found, gold, candidates)
    if row.parts:
        return halves(row.parts, gold, candidates)
    return marked(row.answers, found, gold, candidates)


def marked(
    answers: Sequence[str],
    found: Sequence[Passage],
    gold: Sequence[bool],
    candidates: Sequence[Candidate],
) -> tuple[tuple[bool, ...], tuple[int, ...]]:
    """Which candidates hold an answer by themselves, and which do together where none does.

    Args:
        answers: gold spans.
        found: the passages.
        gold: of each passage, whether it is of the gold paragraph.
        candidates: sentences of the passages.
    """
    right = tuple(gold[c.passage] and any(a in c.text for a in answers) for c in candidates)
    if any(right):
        return right, ()
    for number, passage in enumerate(found):
        for answer in answers if gold[number] else ():
            start = passage.chunk.text.find(answer.strip())
            end = start + len(answer.strip())
            held = tuple(
                i
                for i, c in enumerate(candidates)
                if start >= 0 and c.passage == number and c.start < end and c.end > start
            )
            whole = held and candidates[held[0]].start <= start and candidates[held[-1]].end >= end
            if whole and 2 <= len(held) <= 3:
                return right, held
    return right, ()


def _done(folder: Path, state: Mapping[str, object]) -> set[str]:
    """Questions whose lessons are in the file; half a line at its end is taken away."""
    path, about = folder / "lessons.jsonl", folder / "lessons.json"
    known = json.loads(about.read_text(encoding="utf-8")) if about.exists() else {}
    if {key: known.get(key) for key in state} != state:
        path.unlink(missing_ok=True)
        about.write_text(json.dumps(state) + "\n", encoding="utf-8")
    text = path.read_bytes() if path.exists() else b""
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        path.write_bytes(whole)
    return {json.loads(line)["id"] for line in whole.splitlines()}


def _plain(lesson: Lesson) -> dict[str, Any]:
    values = asdict(lesson)
    values["matrix"] = [[round(float(v), 4) for v in row] for row in lesson.matrix]
    return values


def _lesson(values: dict[str, Any]) -> Lesson:
    pairs: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    pairs["matrix"] = np.array(values["matrix"])
    pairs["spans"] = tuple((int(p), int(a), int(b)) for p, a, b in values["spans"])
    return Lesson(**pairs)
