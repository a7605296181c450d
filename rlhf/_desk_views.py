"""Rows of files, registry and log as the page's types (`assistant.training`)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from assistant.training import (
    Answer,
    Candidate,
    CandidateState,
    Evidence,
    GateRow,
    Pair,
    Remark,
    RewardModel,
    Run,
)
from rlhf import _loop_status as status
from rlhf._manifest import Manifest
from rlhf.gates import Gate, failing
from rlhf.registry import Entry
from rlhf.scoring import SCALE
from rlhf.survey import ONE_USER, Survey

#: What a run's process printed.
OUTPUT = "output.log"
#: What is known of a reward model that was measured.
FIGURES = ("accuracy", "low", "high", "n", "baseline", "ece")
STATES: dict[str, CandidateState] = {
    "live": "live",
    "trial": "canary",
    "before": "previous",
    "candidate": "candidate",
    "broken": "broken",
}


def remarks(found: Survey) -> Iterator[Remark]:
    """What there is to know about the data."""
    if found.ties and not found.decided:
        yield Remark("ties", "All comparisons are ties; nothing can be learned from them.")
    if found.duplicates:
        text = f"{found.duplicates} comparisons are there twice."
        yield Remark("duplicates", text, found.duplicates)
    if found.contradictions:
        text = f"{found.contradictions} comparisons contradict an earlier one."
        yield Remark("contradictions", text, found.contradictions)
    if found.users == 1:
        yield Remark("one_user", "All comparisons are of one user; it is that user's taste.")
    elif found.largest > ONE_USER:
        text = f"One user gave {found.largest:.0%} of the comparisons."
        yield Remark("largest", text, found.largest)
    if found.across:
        text = f"{found.across} questions stand in more than one split."
        yield Remark("across", text, found.across)


def shipped(folder: Path) -> RewardModel:
    """The reward model in a folder, with what its training measured on held-out comparisons."""
    try:
        told = json.loads((folder / SCALE).read_text(encoding="utf-8"))
        found = {name: told["held"][name] for name in FIGURES}
    except (OSError, ValueError, LookupError, TypeError):  # whoever loads it says what is wrong
        found = {}
    return RewardModel("reward", **found)


def run_of(folder: Path) -> Run | None:
    """A run as its folder says; None where it says nothing."""
    said = status.read(folder)
    if said is None:
        return None
    state, reason = status.state(folder, said), said.reason
    if state == "interrupted" and (folder / OUTPUT).exists():
        text = (folder / OUTPUT).read_text(encoding="utf-8", errors="replace")[-2000:]
        reason = reason or next((x for x in reversed(text.splitlines()) if x.strip()), "")
    return Run(
        folder.name, state, said.stage, said.step, said.of, said.text, said.started, said.ended,
        reason, state in ("interrupted", "cancelled"), said.candidate,
    )  # fmt: skip


def candidate_of(entry: Entry, live: str, taken_back: set[str]) -> Candidate:
    """A candidate without votes and picks; `taken_back` are ids of those that were."""
    made = entry.manifest
    if made is None:
        return Candidate(entry.id, "", 0.0, "broken", error=entry.error)
    state = STATES[entry.state]
    if state in ("candidate", "previous") and entry.id in taken_back:
        state = "rolled_back"
    rows = tuple(row_of(gate) for gate in made.gates)
    blockers = tuple(_blockers(made, live)) if state != "live" else ()
    return Candidate(entry.id, made.parent, made.created, state, rows, blockers)


def _blockers(made: Manifest, live: str) -> Iterator[str]:
    if made.against != live:
        seen = made.against or "the settings' policy"
        yield f"measured against {seen}, but {live or 'that'} answers now"
    yield from failing(made.gates)


def row_of(gate: Gate) -> GateRow:
    """A gate, laid flat."""
    low, high = gate.interval or (None, None)
    least, most = gate.bound
    return GateRow(gate.name, gate.passed, gate.value, low, high, least, most, gate.reason, gate.n)


def pair_of(candidate: str, row: dict[str, Any]) -> Pair:
    """A pair as the run wrote it."""
    old, new = (
        Answer(side["text"], tuple(Evidence(**one) for one in side["evidence"]))
        for side in (row["old"], row["new"])
    )
    name = f"{candidate}/{row['id']}"
    return Pair(name, candidate, row["question"], row["language"], old, new)


def command(options: argparse.Namespace, script: str) -> list[str]:
    """The command line that has the settings of this one."""
    found = [sys.executable, script, "--preset", options.preset]
    found += ["--config", str(options.config)] if options.config is not None else []
    for pair in options.set:
        found += ["--set", pair]
    named = getattr(options, "policy", "")
    return [*found, "--policy", named] if named else found
