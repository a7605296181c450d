"""The last turn of conversations over a pool of passages.

    python -m bench.mtrag --data FOLDER [--limit N] [--policy NAME] [--set KEY=VALUE]

FOLDER holds tasks of MTRAG-UN (IBM): corpus.jsonl.gz {id, title, text}, tasks.jsonl.gz {id, input:
[{speaker, text}, …], contexts: [{id}, …], answerability} and qrels*.tsv. The earlier turns are put
into the assistant's own memory as turns that it had, with the set's answers, and the last one is
asked in that conversation: the history reaches the reply through the assistant's own window and
rewriting only. Numbers are of a pool of a thousand passages, not of the published corpora.

answered      answerable and partly answerable tasks that got an answer
idk_accuracy  answerable, partly answerable and unanswerable tasks where the decision to answer was
              right: an answer to the first two, an abstention from the last
cited_right   answered tasks with reference passages: a citation lies in one of them
abstained     by answerability; an underspecified question wants to be asked back, which counts
              neither as right nor as wrong above
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from rich.progress import track

from assistant import Reply
from assistant.memory import Memory
from assistant.schema import PolicyCard, Turn
from assistant.understand import understand
from bench import asking
from bench.common import report, scratch
from bench.ir import lines
from retrieval.sources.memory import Given

ROOT = "mtrag"
USER = "local"
ANSWERABLE = ("ANSWERABLE", "PARTIAL")
UNANSWERABLE = "UNANSWERABLE"


@dataclass(frozen=True, slots=True)
class Task:
    """A conversation up to a question: `said` are (speaker, text), `sources` the references."""

    id: str
    said: tuple[tuple[str, str], ...]
    question: str
    answerability: str
    sources: frozenset[str]


@dataclass(frozen=True, slots=True)
class Said:
    """What came of one task; `cited`: a reference passage is cited."""

    task: Task
    answered: bool
    abstained: bool
    cited: bool


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask and report."""
    parser = asking.parser(__doc__)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args(arguments)
    tasks = asking.drawn(read(options.data), options.limit)
    given = [
        Given(d["id"], d["text"], media=".txt", title=d.get("title", ""))
        for d in lines(options.data / "corpus.jsonl.gz")
    ]
    with scratch() as home:
        settings = asking.chosen(options, home)
        with asking.opened(settings, ROOT, given) as assistant:
            memory = Memory(settings.home / "conversations.db")
            found = []
            for task in track(tasks, "asking", transient=True):
                place = remembered(memory, task) if task.said else None
                reply = assistant.reply(task.question, conversation_id=place)
                found.append(judged(task, reply))
    _show(found, options)


def read(folder: Path) -> list[Task]:
    """The tasks; reference passages are those of the task and of the judgements."""
    judged: dict[str, set[str]] = {}
    for path in sorted(folder.glob("qrels*.tsv")):
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            task, passage, relevance = line.split("\t")
            if float(relevance) > 0:
                judged.setdefault(task, set()).add(passage)
    found = []
    for row in lines(folder / "tasks.jsonl.gz"):
        *before, last = [(turn["speaker"], turn["text"]) for turn in row["input"]]
        known = judged.get(row["id"], set()) | {c["id"] for c in row["contexts"]}
        label = row["answerability"]
        found.append(
            Task(
                row["id"],
                tuple(before),
                last[1],
                label if isinstance(label, str) else label[0],
                frozenset(f"{ROOT}:{name}" for name in known),
            )
        )
    return found


def remembered(memory: Memory, task: Task) -> str:
    """Put the turns before the question into memory; returns the conversation's id.

    What a user said without getting an answer is kept with an empty one.
    """
    first = next(text for speaker, text in task.said if speaker == "user")
    place = memory.open(None, USER, first)
    turns: list[Turn] = []
    for at, (speaker, text) in enumerate(task.said):
        if speaker != "user":
            continue
        after = task.said[at + 1] if at + 1 < len(task.said) else ("user", "")
        turns.append(_turn(place, text, after[1] if after[0] != "user" else "", turns))
        memory.add(turns[-1], USER)
    return place


def judged(task: Task, reply: Reply) -> Said:
    """What a reply is worth."""
    cited = any(c.source in task.sources for c in reply.citations)
    return Said(task, reply.outcome == "answered", reply.outcome == "abstained", cited)


def _turn(place: str, text: str, answer: str, before: Sequence[Turn]) -> Turn:
    """A turn as the assistant stores its own, with an answer that is given."""
    meant = understand(text, before)
    name = uuid4().hex
    reply = Reply(
        turn_id=name,
        candidate_id=uuid4().hex,
        conversation_id=place,
        text=answer,
        outcome="answered" if answer else "abstained",
        language=meant.language,
        citations=(),
        passages=(),
        verdicts=(),
        steps=(),
        understanding=meant,
        policy=PolicyCard("reference", ""),
        confidence=None,
        seconds=0.0,
    )
    return Turn(name, place, text, reply, 0.0)


def _show(found: Sequence[Said], options: argparse.Namespace) -> None:
    """Print the table and the JSON line."""
    answerable = [s for s in found if s.task.answerability in ANSWERABLE]
    unanswerable = [s for s in found if s.task.answerability == UNANSWERABLE]
    right = [s.answered for s in answerable] + [s.abstained for s in unanswerable]
    referred = [s.cited for s in found if s.answered and s.task.sources]
    rates = {
        "answered": [float(s.answered) for s in answerable],
        "idk_accuracy": [float(hit) for hit in right],
        "cited_right": [float(hit) for hit in referred],
    }
    rows = [asking.row(name, hits) for name, hits in rates.items()]
    values: dict[str, object] = {name: asking.average(hits) for name, hits in rates.items()}
    abstained = {}
    for kind in sorted({s.task.answerability for s in found}):
        hits = [float(s.abstained) for s in found if s.task.answerability == kind]
        rows.append(asking.row(f"abstained, {kind.casefold()}", hits))
        abstained[kind.casefold()] = asking.average(hits)
    values |= {"n": len(found), "abstained": abstained, "policy": options.policy}
    report(f"MTRAG-UN, {options.policy}", rows, values)


if __name__ == "__main__":
    main()
