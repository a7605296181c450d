"""Thumbs as votes on a policy's version: counts, and no word of what anybody said."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import exists, func, select
from sqlalchemy.exc import DatabaseError

from rlhf.errors import StoreError
from rlhf.examples import WRITTEN
from rlhf.tables import candidate, feedback, open_engine, turn

_BUSY = 30.0


@dataclass(frozen=True, slots=True)
class Tally:
    """Votes on one version."""

    up: int = 0
    down: int = 0

    @property
    def count(self) -> int:
        """All of them."""
        return self.up + self.down

    @property
    def share(self) -> float:
        """How many are up, 0 to 1; one half of none."""
        return self.up / self.count if self.count else 0.5


def votes(
    path: Path, version: str, since: float = 0.0, until: float = 1e18, per_user: int = 20
) -> Tally:
    """Count the standing thumbs on answers that one version wrote to turns of a time.

    The first of a conversation counts: the others of it are no independent draws. Of one user at
    most `per_user` count. Only of users who allow training or evaluation as of now.

    Args:
        path: the preference log; one that does not exist has no votes.
        version: a candidate's id, "" for the policy that the settings name.
        since, until: when the turn was, from and before, seconds since the epoch.
        per_user: votes of one user that count.

    Raises:
        StoreError: the file is no preference log.
    """
    if not path.exists():
        return Tally()
    newer = feedback.alias("newer")
    query = (
        select(turn.c.conversation_id, turn.c.pseudonym, feedback.c.value)
        .join(turn, turn.c.turn_id == feedback.c.turn_id)
        .join(
            candidate,
            candidate.c.candidate_id == func.json_extract(feedback.c.candidate_ids, "$[0]"),
        )
        .where(
            feedback.c.kind == "thumb",
            feedback.c.value != 0,
            ~exists().where(newer.c.supersedes == feedback.c.event_id),
            candidate.c.outcome.in_(WRITTEN),
            func.coalesce(func.json_extract(candidate.c.policy, "$.version"), "") == version,
            turn.c.created >= since,
            turn.c.created < until,
            turn.c.allow_train | turn.c.allow_evaluate,
        )
        .order_by(feedback.c.seq)
    )
    engine = open_engine(path, _BUSY)
    try:
        with engine.begin() as db:
            rows = db.execute(query).all()
    except DatabaseError as error:
        raise StoreError(f"cannot count the votes in {path}: {error.orig}") from error
    finally:
        engine.dispose()
    seen: set[str] = set()
    given: Counter[str] = Counter()
    up = down = 0
    for conversation, user, value in rows:
        if conversation in seen or given[user] >= per_user:
            continue
        seen.add(conversation)
        given[user] += 1
        up, down = up + (value > 0), down + (value < 0)
    return Tally(up, down)
