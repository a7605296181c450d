"""Where answers that may be given again lie: in memory, and where the settings say so on disk too.

The file is a cache: what cannot be read is left out, one of another version is made anew.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError

from assistant.schema import Citation
from retrieval import sqlite

logger = logging.getLogger(__name__)

FILE = "answers.db"
_metadata = sa.MetaData()
#: The number is raised with every change of `Entry`.
ANSWER = sa.Table(
    "answer_1",
    _metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("owner", sa.String, nullable=False, index=True),
    sa.Column("used", sa.Float, nullable=False),
    sa.Column("entry", sa.Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer that may be given again, and on what conditions.

    `gate` is a hash of all that must be equal; `owner` and `readers` (a hash) say who asked.
    `evidence` names the passages that were found, best first, `lead` the sentences among them that
    match the question best, `cited` those of `evidence` that the answer cites, `documents` the
    versions that they come from. `pieces` are the text as it was released. `vector` is the
    question's, empty where only the same words count.
    """

    id: str
    gate: str
    owner: str
    readers: str
    question: str
    vector: tuple[float, ...]
    evidence: tuple[str, ...]
    lead: tuple[str, ...]
    cited: tuple[str, ...]
    documents: tuple[int, ...]
    pieces: tuple[str, ...]
    answer: str
    citations: tuple[Citation, ...]
    finish: str
    confidence: float | None
    created: float


_entry = TypeAdapter(Entry)


class Answers:
    """The entries, the last used last. Bounded; safe for several threads.

    Args:
        path: the file; None keeps them in memory only.
        limit: entries at most.
    """

    def __init__(self, path: Path | None, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._held: OrderedDict[str, Entry] = OrderedDict()
        self._engine: sa.Engine | None = None
        self._writer = ThreadPoolExecutor(1, "answers")  # no reply waits for the disk
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 60})
            sqlite.prepare(self._engine)
            self._load(self._engine)

    def of(self, gate: str) -> list[Entry]:
        """The entries behind a gate, the last used first."""
        with self._lock:
            return [entry for entry in reversed(self._held.values()) if entry.gate == gate]

    def put(self, entry: Entry) -> None:
        """Keep an answer; the one that was unused for longest gives way."""
        with self._lock:
            self._held[entry.id] = entry
            over = [*self._held][: max(0, len(self._held) - self._limit)]
            for key in over:
                del self._held[key]
        self._write(
            sa.delete(ANSWER).where(ANSWER.c.id.in_(over)),
            sa.insert(ANSWER).values(
                id=entry.id,
                owner=entry.owner,
                used=entry.created,
                entry=_entry.dump_json(entry).decode(),
            ),
        )

    def used(self, entry: Entry) -> None:
        """The entry was given again; on disk, the order of use is that of making."""
        with self._lock:
            if entry.id in self._held:
                self._held.move_to_end(entry.id)

    def drop(self, which: Callable[[Entry], bool]) -> int:
        """Delete entries; returns how many."""
        with self._lock:
            gone = [key for key, entry in self._held.items() if which(entry)]
            for key in gone:
                del self._held[key]
        if gone:
            self._write(sa.delete(ANSWER).where(ANSWER.c.id.in_(gone))).result()
        return len(gone)

    def documents(self) -> frozenset[int]:
        """The document versions that entries were made from."""
        with self._lock:
            return frozenset(d for entry in self._held.values() for d in entry.documents)

    def __len__(self) -> int:
        with self._lock:
            return len(self._held)

    def close(self) -> None:
        """Write what is to be written, and close every connection."""
        self._writer.shutdown()
        if self._engine is not None:
            self._engine.dispose()

    def _load(self, engine: sa.Engine) -> None:
        with engine.execution_options(begin="IMMEDIATE").begin() as connection:
            for name in sa.inspect(connection).get_table_names():
                if name != ANSWER.name:  # another version's
                    connection.exec_driver_sql(f"DROP TABLE {json.dumps(name)}")
            _metadata.create_all(connection)
            rows = connection.execute(sa.select(ANSWER).order_by(ANSWER.c.used)).all()
        for row in rows[-self._limit :]:
            try:
                self._held[row.id] = _entry.validate_json(row.entry)
            except ValidationError:
                logger.warning("answer_left_out id=%s", row.id)

    def _write(self, *statements: sa.Executable) -> Future[None]:
        return self._writer.submit(self._written, statements)

    def _written(self, statements: Sequence[sa.Executable]) -> None:
        if self._engine is None:
            return
        try:
            with self._engine.execution_options(begin="IMMEDIATE").begin() as connection:
                for statement in statements:
                    connection.execute(statement)
        except sa.exc.OperationalError as error:
            logger.warning("answers_not_written error=%s", type(error.orig).__name__)


def forget(home: Path, owner: str) -> None:
    """Delete the answers to this owner's questions in a home, where there is a file of them."""
    if (home / FILE).exists():
        answers = Answers(home / FILE, 1_000_000)
        try:
            answers.drop(lambda entry: entry.owner == owner)
        finally:
            answers.close()
