"""Which version a database of ours has, and how an older one is brought up to date in place.

The version stands in SQLite's own `user_version`; 0 with tables in it is version 1, as all releases
up to 0.4.0 left it. The steps of all versions in between are one transaction under the writer's
lock, so a database is never half-way: after a crash it is the old one, and the next opening starts
again. Two databases count by themselves in the same manner: the knowledge base
(`retrieval.store_migrate`, which makes a copy first and counts before and after) and the preference
log (`rlhf.preferences_upgrade`, which needs the key of its users). Verdicts are a cache: one of
another version is made anew.

Why not Alembic: it would have to take all of this over or be one mechanism more. It runs scripts
that it finds and loads by itself, begins transactions in its own way where ours begin as
`retrieval.sqlite` says (with pysqlite it takes DDL as not transactional), keeps a table of its own
in every file, and would bring SQLAlchemy into `safety`, which does without. What it is good at, a
graph of revisions from several branches and other databases, we do not have. What it would give,
the certainty that every released state gets to the present one, is tested: homes that the released
versions wrote are opened, and their tables compared with new ones.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import sqlalchemy as sa

from retrieval.errors import StoreError

logger = logging.getLogger(__name__)


def bring_up(
    writer: sa.Engine, path: Path, tables: sa.MetaData, steps: Mapping[int, Sequence[str]] = {}
) -> None:
    """Make the tables of a new database, or bring an older one up to date.

    Args:
        writer: an engine whose transactions begin at once with the writer's lock.
        path: of the database, for messages.
        tables: as they are in the newest version, which is one more than the last step.
        steps: SQL by the version it leads away from; never changed once released.

    Raises:
        StoreError: it was written by a newer version, or a step failed; nothing was changed.
    """
    newest = max(steps, default=0) + 1
    try:
        with writer.begin() as db:
            found = int(db.exec_driver_sql("PRAGMA user_version").scalar() or 0)
            empty = not sa.inspect(db).get_table_names()
            if found > newest:
                raise StoreError(
                    f"{path} has version {found}, this plumbline reads {newest}; "
                    "use the version that wrote it, or restore a backup"
                )
            old = newest if empty else max(found, 1)
            for version in range(old, newest):
                for statement in steps[version]:
                    db.exec_driver_sql(statement)
            tables.create_all(db)  # what is new beside the older tables
            if found != newest:
                db.exec_driver_sql(f"PRAGMA user_version = {newest}")
    except sa.exc.OperationalError as error:
        if "locked" in str(error.orig):
            raise
        raise StoreError(
            f"{path} cannot be brought to version {newest} ({error.orig}); nothing was changed"
        ) from error
    if old < newest:
        logger.warning("database %s: version %d -> %d", path.name, old, newest)
