"""Comparisons that the reward model learns from, gathered to one ranking a prompt.

| source | languages | comparisons |
| --- | --- | --- |
| hh_harmless_base | en | people's, of two answers to who wants harm (Bai et al. 2022) |
| pandalm | en | people's, of five small models' answers to one instruction (Wang et al. 2023) |
| oasst_zh | zh | people's rankings of two to ten answers (Köpf et al. 2023) |
| jade-pairs | zh | an answer labelled safe over one labelled unsafe, to the same question |
| quoted | en, zh | made of questions with a known answer: see `_reward_quotes` |
| log | any of both | picks and edits of the chat's own users: see `_reward_log` |

Every source says of its comparisons which are held out. What no split may share (`owner`) is the
first message of a conversation, an article, or a user.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.fit._glossary import share
from retrieval.text import language
from rlhf.fit._text import read
from rlhf.scoring import plain

#: Share of the prompts that are held out, where the source does not say which.
HELD = 0.15
#: Prompts of one user at most: nobody's taste becomes everybody's.
PER_USER = 200
#: Files that only evaluation may read: their prompts are no one's to learn.
BARRED = (
    "llmbar/pairs",
    "llmbar/processed_human",
    "hhh_alignment/pairs",
    "halluqa_zh/qa",
    "ragchecker_human/pairs",
    "hh_helpful/test",
)
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")
_HAN, _LATIN = ("\u3400", "\u9fff"), "\u024f"


@dataclass(frozen=True, slots=True)
class Compared:
    """One comparison as its source has it. `weight` 0 is a tie, which teaches nothing.

    `user` is who compared, "" where that is not known; `flaw` is why nothing may be learnt from it.
    """

    source: str
    owner: str
    question: str
    better: str
    worse: str
    held: bool = False
    weight: float = 1.0
    user: str = ""
    flaw: str = ""


@dataclass(frozen=True, slots=True)
class Ranking:
    """All comparisons of one prompt: pairs of (better, worse, weight), places among `replies`."""

    source: str
    lang: str
    owner: str
    question: str
    replies: tuple[str, ...]
    pairs: tuple[tuple[int, int, float], ...]
    held: bool


@dataclass(frozen=True, slots=True)
class Gathered:
    """Rankings, and how many comparisons were left out for which reason."""

    rankings: tuple[Ranking, ...]
    left_out: Counter[str]
    users: int

    @property
    def kept(self) -> list[Ranking]:
        """Those to learn from."""
        return [row for row in self.rankings if not row.held]

    @property
    def held(self) -> list[Ranking]:
        """Those to check on."""
        return [row for row in self.rankings if row.held]


def people(data: Path) -> Iterator[Compared]:
    """The comparisons that people made, of all sets in the folder.

    Raises:
        TrainingError: a training file is missing or malformed.
    """
    preference = data / "preference"
    yield from harmless(preference / "hh_harmless_base" / "test.jsonl.gz")
    yield from pandalm(preference / "pandalm" / "testset_v1.jsonl.gz")
    yield from ranked(preference / "oasst_zh" / "ranked.jsonl.gz")
    yield from jade(data / "safety" / "jade-pairs" / "train.jsonl.gz")


def harmless(path: Path) -> Iterator[Compared]:
    """Pairs of answers in a dialogue; the question is all that its human side said."""
    for row in read(path):
        said = _human(row["prompt"])
        if said and _texts(row["chosen"], row["rejected"]):
            yield Compared(
                "hh_harmless_base",
                owner(said[0]),
                " ".join(said),
                row["chosen"],
                row["rejected"],
                row["split"] == "test",
            )


def pandalm(path: Path) -> Iterator[Compared]:
    """Pairs of answers to an instruction, with the votes of three; several pairs an instruction."""
    for row in read(path):
        tie = row["label"] not in (1, 2)
        better, worse = (row["response1"], row["response2"])[:: -1 if row["label"] == 2 else 1]
        if not _texts(better, worse):
            continue
        yield Compared(
            "pandalm",
            owner(row["prompt"]),
            row["prompt"],
            better,
            worse,
            row["split"] == "test",
            0.0 if tie else row["votes"].count(row["label"]) / len(row["votes"]),
        )


def ranked(path: Path) -> Iterator[Compared]:
    """All pairs of answers that people put in an order, best first."""
    for row in read(path):
        said = [turn[0] for turn in row["history"]] + [row["prompt"]]
        for better, worse in itertools.combinations(row["ranked"], 2):
            if _texts(better, worse):
                held = row["split"] == "test"
                yield Compared("oasst_zh", owner(said[0]), " ".join(said), better, worse, held)


def jade(path: Path) -> Iterator[Compared]:
    """A safe answer over an unsafe one, where a question has both."""
    answers: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in read(path):
        answers[row["text"]][row["response_label"]].append(row["response"])
    for question, by in answers.items():
        for safe, unsafe in itertools.product(by["safe"], by["unsafe"]):
            held = share(f"reward:{owner(question)}") < HELD
            yield Compared("jade-pairs", owner(question), question, safe, unsafe, held)


def barred(data: Path) -> frozenset[str]:
    """Owners of the prompts of evaluation files, as far as the folder has them."""
    found = set()
    for name in BARRED:
        path = data / "preference" / f"{name}.jsonl.gz"
        for row in read(path) if path.exists() else ():
            said = _human(row["prompt"]) or [row["prompt"] or ""]
            found |= {owner(said[0]), owner(said[-1])}
    return frozenset(found)


def gathered(found: Iterable[Compared], barred: frozenset[str] = frozenset()) -> Gathered:
    """One ranking a prompt, and no prompt or user on both sides.

    Comparisons are left out, and counted, where they tie two replies or compare equal ones, are
    in neither language, repeat another one, contradict others in equal measure, are of a user's
    201st prompt or later, or are to be learnt from but are of an owner who is held out or barred.
    """
    left_out: Counter[str] = Counter()
    rows = []
    for row in found:
        reason = _unfit(row)
        if reason:
            left_out[reason] += 1
        else:
            rows.append(row)
    held_owners = {row.owner for row in rows if row.held}
    held_asked = {plain(row.question).casefold() for row in rows if row.held}
    prompts: dict[tuple[str, str, bool], list[Compared]] = defaultdict(list)
    theirs: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        asked = plain(row.question).casefold()
        if not row.held and (row.owner in held_owners or asked in held_asked):
            left_out["of a prompt or user held out"] += 1
        elif not row.held and (row.owner in barred or owner(row.question) in barred):
            left_out["of a prompt of an evaluation file"] += 1
        elif row.user and asked not in theirs[row.user] and len(theirs[row.user]) >= PER_USER:
            left_out[f"past a user's {PER_USER} prompts"] += 1
        else:
            theirs[row.user].add(asked)
            prompts[row.source, asked, row.held].append(row)
    rankings = [made for rows in prompts.values() if (made := _ranking(rows, left_out)) is not None]
    return Gathered(tuple(rankings), left_out, len(theirs.keys() - {""}))


def owner(text: str) -> str:
    """What a first message is known by, whatever its case and spacing."""
    return hashlib.sha256(" ".join(text.casefold().split()).encode()).hexdigest()[:16]


def _ranking(rows: list[Compared], left_out: Counter[str]) -> Ranking | None:
    """The comparisons of one prompt; each two replies are compared once, as most would have it."""
    spelt: dict[str, str] = {}
    votes: dict[tuple[str, str], float] = defaultdict(float)
    times: Counter[tuple[str, str]] = Counter()
    for row in rows:
        better, worse = plain(row.better), plain(row.worse)
        spelt.setdefault(better, row.better)
        spelt.setdefault(worse, row.worse)
        votes[better, worse] += row.weight
        times[better, worse] += 1
    place = {text: at for at, text in enumerate(spelt)}
    pairs = []
    for (better, worse), weight in votes.items():
        against = votes.get((worse, better), 0.0)
        if weight > against:
            left_out.update(["said before"] * (times[better, worse] - 1))
            sure = min(1.0, weight / times[better, worse]) * (1 - against / weight)
            pairs.append((place[better], place[worse], sure))
        else:
            left_out["contradicted"] += times[better, worse]
    if not pairs:
        return None
    first = rows[0]
    return Ranking(
        first.source,
        language(first.question),
        first.owner,
        first.question,
        tuple(spelt.values()),
        tuple(pairs),
        first.held,
    )


def _unfit(row: Compared) -> str:
    """Why a comparison teaches nothing, "" where it does."""
    if row.flaw:
        return row.flaw
    better, worse = plain(row.better), plain(row.worse)
    if row.weight <= 0 or better == worse:
        return "tied"
    if not plain(row.question) or not (better and worse):
        return "empty"
    if any(_foreign(text) for text in (row.question, better, worse)):
        return "in neither language"
    return ""


def _foreign(text: str) -> bool:
    """Whether most of a text's letters are neither Latin nor Chinese."""
    letters = [c for c in text if c.isalpha()]
    known = sum(c <= _LATIN or _HAN[0] <= c <= _HAN[1] for c in letters)
    return known * 2 < len(letters)


def _human(dialogue: str | None) -> list[str]:
    """What the human side of a dialogue said, in order."""
    parts = _TURN.split(dialogue or "")[1:]
    return [
        said.strip() for who, said in zip(parts[::2], parts[1::2], strict=True) if who[0] == "H"
    ]


def _texts(*found: Any) -> bool:
    """Whether all are texts: some rows of the sets hold other things."""
    return all(isinstance(one, str) for one in found)
