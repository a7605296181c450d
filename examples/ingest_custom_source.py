"""Documents from a system of your own: here, the tickets of a help desk in an SQLite database.

    python examples/ingest_custom_source.py tickets.db

The table is `ticket (id, title, body, team, updated)`, `updated` in seconds since the epoch. Run it
again whenever you like: what did not change is not read again, and a ticket that is gone from the
database is forgotten. Exit status 1 says that some document could not be taken in.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from assistant import load
from assistant.build import build_knowledge
from retrieval.schema import IngestSummary
from retrieval.sources.memory import Given

#: The name all these documents stand under: `python app.py forget tickets` removes them.
ROOT = "tickets"


def tickets(database: Path) -> Iterator[Given]:
    """Every ticket as a document; rows are read as they are wanted, so a large table is fine."""
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT id, title, body, team, updated FROM ticket ORDER BY id")
        for number, title, body, team, updated in rows:
            yield Given(
                name=f"ticket-{number}",  # stable: the next version takes this one's place
                content=f"# {title}\n\n{body}\n",
                media="text/markdown",
                title=title,
                stamp=f"{updated}:{team}",  # while it is the same, nothing is read or embedded
                modified=float(updated),
                readers=(team,) if team else (),  # found by this team alone; nobody: by all
            )


def main(database: Path) -> int:
    """Bring the tickets up to date; failures are named, and the rest goes on."""
    knowledge, _ = build_knowledge(load())
    failed = 0
    try:
        # `complete`: what is not handed over any more is removed
        for event in knowledge.ingest_documents(ROOT, tickets(database), complete=True):
            if isinstance(event, IngestSummary):
                failed = len(event.failures)
                for report in event.failures:
                    print(f"{report.source}: {report.detail} {report.remedy}", file=sys.stderr)
                print(
                    f"{event.added} added, {event.updated} updated, {event.unchanged} unchanged, "
                    f"{event.removed} removed, {failed} failed"
                )
    finally:
        knowledge.close()
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1])))
