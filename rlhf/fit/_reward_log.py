"""Comparisons of the chat's own users: what they picked, and what they wrote better.

Users whom the log has for training are learnt from, those for development are held out; those for
testing belong to the gates and are not read. Texts are the redacted ones, of users who allow
training as of now.

What a policy answered has passed the guard; what a user wrote in its place has not, and could teach
the scores to like an attack, as planted text or as harm. So the guard reads every edit first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from assistant.build import network_of
from assistant.config import Settings
from rlhf._attacks import attacks
from rlhf.config import PreferenceSettings
from rlhf.fit._reward_rows import Compared
from rlhf.preferences import PreferenceStore
from rlhf.scoring import asked
from safety import build_guard
from safety.config import SafetySettings
from safety.guard import Guard
from safety.schema import Context

#: Time that one judgement of a moderator may take, seconds.
PATIENCE = 300.0


def patient(settings: SafetySettings) -> SafetySettings:
    """Nobody waits for a verdict while a policy learns, and a busy machine must not end the run."""
    longer = {
        name: max(PATIENCE, getattr(settings, name)) for name in ("seconds", "second_seconds")
    }
    return settings.model_copy(update=longer)


def moderated(settings: Settings) -> Guard:
    """The guard of the settings, with patience."""
    return build_guard(patient(settings.safety), None, network_of(settings))


def logged(
    home: Path,
    settings: PreferenceSettings | None = None,
    guard: Callable[[], Guard] | None = None,
) -> Iterator[Compared]:
    """Comparisons of the log in `home`, if there is one, kept as the settings say.

    Args:
        home: folder of the log.
        settings: of the log.
        guard: builds what reads the edits, where there are any; None: nobody reads them.

    Raises:
        StoreError: the log cannot be opened.
    """
    path = home / "preferences.db"
    if not path.exists():
        return
    store = PreferenceStore(path, settings=settings)
    try:
        yield from comparisons(store, guard)
    finally:
        store.close()


def comparisons(
    store: PreferenceStore, guard: Callable[[], Guard] | None = None
) -> Iterator[Compared]:
    """Comparisons of one log; an edit weighs less than a pick, as the log has it."""
    judge: Guard | None = None
    for split in ("train", "dev"):
        for row in store.pairs(split):
            question, flaw = asked(row.prompt), ""
            if guard is not None and row.source == "edit":
                judge = judge or guard()
                flaw = _flaw(judge, question, row.chosen)
            yield Compared(
                "log",
                f"user {row.origin.user}",
                question,
                row.chosen,
                row.rejected,
                split == "dev",
                row.weight,
                row.origin.user,
                flaw,
            )


def _flaw(guard: Guard, question: str, text: str) -> str:
    """Why the guard would not let a text be learnt from, "" where it would."""
    if attacks(guard, [text])[0]:
        return "an edit that plants instructions"
    if guard.screen(text, "output", Context(question=question)).stops:
        return "an edit that the guard stops"
    return ""
