"""Other people's rows in the preference log: apart from users' own, each with where it is from.

A row is known by what it says and who says it, so that the same file taken in twice adds nothing.
Its split follows from the user it names or else from the first words of its conversation, by a
hash that is the same in every installation, and words seen once stay in their split.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import Engine, Row, and_, delete, func, insert, select
from sqlalchemy.engine import Connection

from assistant.schema import Message
from retrieval.text import language
from rlhf.config import PreferenceSettings
from rlhf.preferences_people import drawn, str_split
from rlhf.schema import Sample, SampleKind, Split
from rlhf.tables import imported


@dataclass(frozen=True, slots=True)
class Source:
    """What the rows of one file share, and how they are taken in."""

    dataset: str
    licence: str
    split: Split | None
    settings: PreferenceSettings
    pseudonym: Callable[[str], str]
    redact: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one row: new or there before; whether it contradicts one that is there.

    `masked`: personal data was taken out. `moved`: its words were met in another split before, and
    there it went.
    """

    outcome: Literal["new", "duplicate"]
    split: Split
    contradicts: bool = False
    masked: bool = False
    moved: bool = False


def said_of(sample: Sample) -> tuple[str, str]:
    """Hash what a row says, and what it says it about; the order of answers is no matter.

    Two rows about the same that say something else contradict each other.
    """
    prompt = [[m.role, _plain(m.text)] for m in sample.prompt]
    ranks = sample.ranks or (1,) * len(sample.completions)
    places = {rank: place for place, rank in enumerate(sorted(set(ranks)))}
    order = sorted(
        (places[rank], _plain(text)) for rank, text in zip(ranks, sample.completions, strict=True)
    )
    about = [sample.kind, prompt, sorted(text for _, text in order)]
    return _hash([*about, order, sample.label]), _hash(about)


def take(db: Connection, samples: Sequence[Sample], source: Source, now: float) -> list[Taken]:
    """Write the rows that are new."""
    return [_take(db, sample, source, now) for sample in samples]


def _take(db: Connection, sample: Sample, source: Source, now: float) -> Taken:
    clean = _redacted(sample, source.redact)
    said, about = said_of(clean)
    pseudonym = source.pseudonym(sample.user) if sample.user else ""
    digest = _hash([said, pseudonym])
    there = db.execute(select(imported.c.split).where(imported.c.digest == digest)).scalar()
    if there is not None:
        return Taken("duplicate", str_split(there))
    other = select(imported.c.seq).where(imported.c.about == about, imported.c.said != said)
    contradicts = db.execute(other.limit(1)).first() is not None
    words = next((m.text for m in clean.prompt if m.role == "user"), "")
    opening = _hash(_plain(words))
    met = select(imported.c.split).where(imported.c.opening == opening).limit(1)
    drawn_from = _hash(["user", sample.user]) if sample.user else opening
    wanted = source.split or drawn(drawn_from, source.settings)
    before = db.execute(met).scalar()
    split = str_split(before) if before is not None else wanted
    row = {
        "digest": digest,
        "said": said,
        "about": about,
        "opening": opening,
        "dataset": source.dataset,
        "licence": source.licence,
        "kind": clean.kind,
        "split": split,
        "pseudonym": pseudonym,
        "language": clean.language or language(words),
        "created": clean.created,
        "taken": now,
        "row_id": clean.id,
        "masked": clean != sample,
        "prompt": [[m.role, m.text] for m in clean.prompt],
        "completions": list(clean.completions),
        "ranks": list(clean.ranks),
        "label": clean.label,
        "models": list(clean.models),
        "weight": clean.weight,
    }
    db.execute(insert(imported), row)
    return Taken("new", split, contradicts, clean != sample, split != wanted)


def read(
    engine: Engine,
    kind: SampleKind,
    split: Split | None,
    datasets: Sequence[str] | None,
    page: int,
) -> Iterator[Sample]:
    """Rows of one kind in the order taken, page by page, each page in its own transaction."""
    where = [imported.c.kind == kind]
    if split is not None:
        where.append(imported.c.split == split)
    if datasets is not None:
        where.append(imported.c.dataset.in_(datasets))
    last = 0
    while True:
        query = select(imported).where(and_(*where, imported.c.seq > last))
        with engine.begin() as db:
            rows = db.execute(query.order_by(imported.c.seq).limit(page)).all()
        yield from (_sample(row) for row in rows)
        if len(rows) < page:
            return
        last = rows[-1].seq


def datasets(db: Connection) -> dict[str, tuple[str, int]]:
    """Name the data sets, each with its licence note and its number of rows."""
    found = (
        select(imported.c.dataset, func.min(imported.c.licence), func.count())
        .group_by(imported.c.dataset)
        .order_by(imported.c.dataset)
    )
    return {str(name): (str(licence), int(n)) for name, licence, n in db.execute(found)}


def forget(db: Connection, dataset: str) -> int:
    """Delete the rows of a data set; returns how many."""
    return int(db.execute(delete(imported).where(imported.c.dataset == dataset)).rowcount)


def _sample(row: Row[Any]) -> Sample:
    return Sample(
        row.kind,
        tuple(Message(role, text) for role, text in row.prompt),
        tuple(row.completions),
        tuple(row.ranks),
        row.label,
        tuple(row.models),
        row.weight,
        row.row_id or row.digest[:32],
        row.pseudonym,
        row.language,
        row.created,
        "import",
        row.dataset,
        row.licence,
        row.split,
    )


def _redacted(sample: Sample, redact: Callable[[str], str]) -> Sample:
    return replace(
        sample,
        prompt=tuple(Message(m.role, redact(m.text)) for m in sample.prompt),
        completions=tuple(redact(text) for text in sample.completions),
    )


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
