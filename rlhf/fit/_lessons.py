"""What the policy learns to quote from: questions with the evidence that the real retrieval brings.

All training contexts, of every set and both languages, make one knowledge base. Every question is
searched in it, and the sentences of what comes are weighed as they are when people ask
(`assistant.policy._ranker`); those that hold the gold answer are marked. For half of the questions
the same is done without the gold paragraph, or without its whole article: nothing is marked then.

Left out: rows with split "test", paragraphs that `bench` reports on (xquad), drcd/dev. The order
of the questions depends on their ids alone and takes both languages in turns, so the first n of
them are fit to be trained on, whatever n is. Lessons go to a file as they are made; a run that was
stopped goes on.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assistant.config import Settings
from assistant.fit.base import Question, fill
from assistant.policy._quoting import heading
from assistant.policy._ranker import READ, Candidate, Evidence, weigh
from assistant.policy.base import Resources
from assistant.schema import Prompt
from retrieval.fit._glossary import FOLDER, share
from retrieval.knowledge import KnowledgeBase, open_knowledge
from retrieval.rerank.base import Reranker
from retrieval.schema import Passage
from retrieval.text import content_words, language, sentences
from rlhf.errors import TrainingError
from rlhf.fit._text import read

#: Changes whenever the same data would give other lessons.
VERSION = 1
#: Questions of each kind at most; those the reranker has learnt from are fewer.
MOST = {
    "squad/squad2_dev": 3000,
    "impossible": 1800,
    "nq_oracle/dev": 1600,
    "squadshifts/new_wiki": 800,
    "covidqa": 400,
    "cmrc2018/dev": 1645,
    "cmrc2018/trial": 400,
    "drcd/test": 3493,
    "crossed": 900,
    "keywords": 400,
    "follow-ups": 300,
}
FILES = (
    "squad/squad2_dev",
    "nq_oracle/dev",
    "squadshifts/new_wiki",
    "cmrc2018/dev",
    "cmrc2018/trial",
    "drcd/test",
)
#: Share of the articles that are never trained on, and of the questions also asked without theirs.
HELD, WITHOUT = 0.1, 0.5
#: Passages that are searched for one question; how many are shown is a setting.
WIDER = 2
_WORDS = (3, 6)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question to be searched: `kind` is where it comes from, `held` is not trained on."""

    id: str
    kind: str
    lang: str
    text: str
    context: str
    title: str
    answers: tuple[str, ...]

    @property
    def held(self) -> bool:
        """Whether its article is for checking only."""
        return share(f"lesson:{self.title or self.context}") < HELD


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

    @property
    def read(self) -> bool:
        """Whether a reranker has read the sentences."""
        return bool(self.matrix[:, READ].any())

    def evidence(self, kept: Sequence[int]) -> Evidence:
        """The evidence as it were with these sentences only."""
        found = tuple(Candidate(*self.spans[i], self.texts[i]) for i in kept)
        return Evidence(
            found, self.matrix[list(kept)], tuple(self.rarest[i] for i in kept), self.terms
        )


def plan(data: Path) -> list[Asked]:
    """All questions in the order they are taken: a row in English, a row in Chinese.

    Raises:
        TrainingError: a training file is missing or malformed.
    """
    rows = [*_rows(data / "qa"), *_covid(data / "qa" / "covidqa")]
    kept = {(row.kind, row.id): row for row in rows}
    found: list[Asked] = [*kept.values(), *_crossed(rows), *_keywords(rows)]
    found += _follow_ups(data / "qa" / "canard" / "dev.jsonl.gz")
    kinds: dict[str, list[Asked]] = {}
    for row in sorted(found, key=lambda row: share(f"lessons:{row.kind}:{row.id}")):
        chosen = kinds.setdefault(row.kind, [])
        if len(chosen) < MOST[row.kind]:
            chosen.append(row)
    each = {lang: [r for k in kinds.values() for r in k if r.lang == lang] for lang in ("en", "zh")}
    for lang, mine in each.items():
        random.Random(f"lessons {lang}").shuffle(mine)
    return [row for pair in zip_longest(*each.values()) for row in pair if row is not None]


def contexts(data: Path) -> list[Question]:
    """Every paragraph of the base, as a row that `fill` takes."""
    rows = [*_rows(data / "qa"), *_covid(data / "qa" / "covidqa")]
    first = {row.context: row for row in rows}
    return [Question(r.id, r.text, r.context, r.title, (), True, "") for r in first.values()]


def make(data: Path, folder: Path, count: int, settings: Settings) -> Iterator[str]:
    """Make the lessons of the first `count` questions, those that `folder` lacks; yields lines.

    Raises:
        TrainingError: a training file is missing or malformed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asked = plan(data)[:count]
    state: dict[str, object] = {"version": VERSION, "passages": settings.policy.passages}
    if not {row.id for row in asked} - _done(folder, state):
        return
    knowledge = open_knowledge(folder / "home", settings.retrieval)
    try:
        reader = knowledge.reranker
        done = _done(folder, state | {"reranker": reader.id if reader else ""})
        where, _ = fill(knowledge, contexts(data), folder / "docs")
        yield f"{len(where)} paragraphs in the base, {len(done)} of {len(asked)} questions done"
        teller = _Teller(knowledge, where, settings.policy.passages)
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


def reader(folder: Path) -> str:
    """Id of the reranker that the lessons of a folder were made with, "" for none.

    Raises:
        TrainingError: there are no lessons.
    """
    path = folder / "lessons.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["reranker"])
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(f"cannot read {path}: {error!r}; make the lessons again") from error


def lessons(folder: Path, count: int | None = None) -> Iterator[Lesson]:
    """Read what was made, of the first `count` questions.

    Raises:
        TrainingError: the file is missing or malformed.
    """
    path = folder / "lessons.jsonl"
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file):
                if count is not None and number >= count:
                    return
                for values in json.loads(line)["lessons"]:
                    yield _lesson(values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"cannot read {path}: {error}; delete it to make it again") from error


class _Teller:
    """Searches and weighs as the assistant does."""

    def __init__(self, knowledge: KnowledgeBase, where: Mapping[str, str], size: int) -> None:
        self._knowledge, self._where, self._size = knowledge, where, size
        self._all = frozenset(where.values())
        self._reader = None if knowledge.reranker is None else _Remembering(knowledge.reranker)

    def tell(self, row: Asked) -> Iterator[Lesson]:
        """The lesson with everything there is, and for half of the questions one without."""
        found = self._knowledge.search(row.text, self._size * WIDER)
        yield from self._lesson(row, found[: self._size], present=row.context in self._all)
        if row.answers and share(f"without:{row.id}") < WITHOUT:
            whole = share(f"article:{row.id}") < 0.5 and row.title
            left = [
                p
                for p in found
                if self._where[p.source] != row.context and not (whole and p.title == row.title)
            ]
            yield from self._lesson(row, left[: self._size], present=False)
        if self._reader is not None:
            self._reader.forget()

    def _lesson(self, row: Asked, found: Sequence[Passage], *, present: bool) -> Iterator[Lesson]:
        prompt = Prompt((), row.text, tuple(found), row.lang)
        knowledge = self._knowledge
        lent = Resources(knowledge.embedder, knowledge.rarity, self._reader)
        evidence = weigh(prompt, lent)
        if evidence is None:
            return
        gold = tuple(bool(row.context) and self._where[p.source] == row.context for p in found)
        right, needed = marked(row.answers, found, gold, evidence.candidates)
        yield Lesson(
            row.id,
            row.kind,
            row.lang,
            row.text,
            row.held,
            present and bool(row.answers),
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
        )


class _Remembering:
    """A reranker that reads no pair twice; of one question at a time."""

    def __init__(self, reader: Reranker) -> None:
        self._reader = reader
        self._known: dict[tuple[str, str], np.float32] = {}
        self.id, self.calibrated = reader.id, reader.calibrated

    def rank(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """As the reranker does."""
        new = list(dict.fromkeys(t for t in texts if (query, t) not in self._known))
        if new:
            for text, chance in zip(new, self._reader.rank(query, new), strict=True):
                self._known[query, text] = chance
        return np.array([self._known[query, text] for text in texts], dtype=np.float32)

    def forget(self) -> None:
        """Make room."""
        self._known.clear()


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
