"""What there is to learn from, whether it is enough, and what speaks against it.

Below about 2,000 comparisons reward models of every size stay near chance (arXiv 2210.10760, §3.5:
Gao, Schulman and Hilton), so a fresh one is not worth its training before.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from assistant.prompt import mark_of, unmarked
from assistant.schema import Message
from rlhf.preferences import PreferenceStore
from rlhf.preferences_imported import said_of
from rlhf.samples import decided, gather
from rlhf.schema import Sample

#: Comparisons that a fresh reward model needs.
ENOUGH = 2_000
#: A user with more than this share of all comparisons is their taste.
ONE_USER = 0.5


@dataclass(frozen=True, slots=True)
class Survey:
    """What a log holds for training.

    `decided` comparisons say what is better, `ties` do not; `train` of the decided are in the train
    split. `duplicates` say what another row of the same user says; `contradictions` say something
    else about the same answers than an earlier row. `largest` is the share of the user with the
    most comparisons, in [0, 1]. `across` prompts stand in more than one split. `datasets` are
    (name, licence, rows), `imported` the decided comparisons among them.
    """

    decided: int
    train: int
    ties: int
    edits: int
    liked: int
    disliked: int
    demonstrations: int
    duplicates: int
    contradictions: int
    users: int
    largest: float
    across: int
    languages: tuple[tuple[str, int], ...]
    imported: int
    datasets: tuple[tuple[str, str, int], ...]

    @property
    def missing(self) -> int:
        """Own comparisons to train on that are missing for a fresh reward model."""
        return max(ENOUGH - self.train, 0)

    @property
    def desirable_weight(self) -> float:
        """How KTO should weigh a liked answer so that both kinds have the same say; 1 without."""
        return self.disliked / self.liked if self.liked and self.disliked else 1.0


def survey(store: PreferenceStore) -> Survey:
    """Read the whole log once, the comparisons hashed in memory (some 200 bytes each)."""
    own = _Tally()
    own.add(gather(store, "comparison"))
    labels = Counter(sample.label for sample in gather(store, "label"))
    datasets = store.datasets()
    taken = sum(bool(decided(s)) for s in store.imported("comparison"))
    total = sum(own.users.values())
    return Survey(
        decided=own.decided,
        train=own.train,
        ties=own.ties,
        edits=own.edits,
        liked=labels[True],
        disliked=labels[False],
        demonstrations=sum(1 for _ in gather(store, "demonstration")),
        duplicates=own.duplicates,
        contradictions=own.contradictions,
        users=len(own.users),
        largest=max(own.users.values(), default=0) / total if total else 0.0,
        across=sum(len(splits) > 1 for splits in own.prompts.values()),
        languages=tuple(sorted(own.languages.items())),
        imported=taken,
        datasets=tuple((name, licence, n) for name, (licence, n) in datasets.items()),
    )


class _Tally:
    def __init__(self) -> None:
        self.decided = self.train = self.ties = self.edits = 0
        self.duplicates = self.contradictions = 0
        self.users: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.prompts: dict[bytes, set[str]] = {}
        self._said: dict[str, set[str]] = {}
        self._by: set[tuple[str, str]] = set()

    def add(self, samples: Iterable[Sample]) -> None:
        """Count comparisons."""
        for sample in map(_unmarked, samples):
            self.users[sample.user] += 1
            self.languages[sample.language] += 1
            self.edits += sample.source == "edit"
            pairs = bool(decided(sample))
            self.decided += pairs
            self.ties += not pairs
            self.train += pairs and sample.split == "train"
            words = "\n".join(m.text for m in sample.prompt if m.role != "system")
            key = hashlib.sha256(words.encode()).digest()
            self.prompts.setdefault(key, set()).add(sample.split)
            said, about = said_of(sample)
            known = self._said.setdefault(about, set())
            self.duplicates += (said, sample.user) in self._by
            self.contradictions += bool(known - {said})
            self._by.add((said, sample.user))
            known.add(said)


def _unmarked(sample: Sample) -> Sample:
    """The sample without the marks of its turn, by which no two prompts would be the same."""
    if not sample.turn:
        return sample
    mark = mark_of(sample.turn)
    prompt = tuple(Message(m.role, unmarked(m.text, mark)) for m in sample.prompt)
    return replace(sample, prompt=prompt)


def lines(found: Survey) -> list[str]:
    """What a survey says, a sentence a line; the first says whether it is enough."""
    if found.missing:
        first = (
            f"{found.train} decided comparisons to train on: too few for a fresh reward model, "
            f"which is near chance below about {ENOUGH:,}; {found.missing:,} more are needed"
        )
    else:
        first = f"{found.train} decided comparisons to train on: enough for a fresh reward model"
    said = [
        first,
        f"{found.decided} decided ({found.edits} of the comparisons are edits), {found.ties} ties, "
        f"{found.liked} liked and {found.disliked} disliked answers, "
        f"{found.demonstrations} corrected answers",
    ]
    if found.ties and not found.decided:
        said.append("all comparisons are ties: nothing can be learned from them")
    if found.duplicates or found.contradictions:
        said.append(
            f"{found.duplicates} comparisons are there twice, {found.contradictions} contradict "
            "an earlier one"
        )
    if found.users == 1:
        said.append("all comparisons are of one user: what is learned is that user's taste")
    elif found.largest > ONE_USER:
        said.append(
            f"one user gave {found.largest:.0%} of the comparisons: mostly that one's taste"
        )
    if found.across:
        said.append(
            f"{found.across} questions stand in more than one split: held-out scores flatter"
        )
    if found.languages:
        spread = ", ".join(f"{n} {name or 'unknown'}" for name, n in found.languages)
        said.append(f"by language: {spread}")
    for name, licence, n in found.datasets:
        said.append(f"imported, apart from users' own: {n} rows of {name} ({licence})")
    return said
