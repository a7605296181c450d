"""Killing a writer again and again: `python -m bench.crash [--rounds N]`.

A child process puts, replaces and removes numbered documents, writes the index anew every few
changes, and says each number once its change is committed. The parent kills it with SIGKILL: at a
random moment, or at a named place (before and after a commit, in the middle of writing the index,
around its renaming, before the log is trimmed). A fresh process then opens what is left. `lost`
counts rounds in which an acknowledged change was not there, `torn` documents that were not one
whole version, and `undetected` rounds in which the index was not what the store says or a second
opening had something left to repair. At the end every file of a snapshot is changed by one bit at
several places, cut short and deleted; `undetected` counts damage that opening did not notice too.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bench.common import report, scratch
from retrieval import fault
from retrieval.chunk import Piece
from retrieval.compact import compact
from retrieval.config import EmbedSettings
from retrieval.embed import hashing
from retrieval.serving import Serving
from retrieval.snapshot import MANIFEST, Snapshots
from retrieval.store import NewVersion, Store

ROOT = Path(__file__).resolve().parent.parent
EMBEDDER = hashing.build(EmbedSettings())
#: Documents there are at most, and changes between two snapshots.
SOURCES, EVERY = 12, 9
#: What is done to a file.
HARMS = ("bit", "bit", "bit", "half", "empty", "gone")


@dataclass(frozen=True, slots=True)
class State:
    """What a fresh process finds: version by source, and what is wrong with it."""

    versions: dict[str, int]
    torn: int
    index_is_store: bool
    repaired: str
    repaired_again: str


def main(arguments: Sequence[str] | None = None) -> None:
    """Kill, look, report."""
    parser = argparse.ArgumentParser(description="kill -9 and damaged files")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--look", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.write:
        write(options.write, options.first)
    elif options.look:
        print(json.dumps(asdict(look(options.look))))
    else:
        logging.disable(logging.WARNING)  # damage is what this is about
        with scratch() as folder:
            values = killed(folder / "home", options.rounds, options.seed)
            missed, tried = damaged(folder / "home", options.seed)
        values["undetected"] += len(missed)
        rows = [
            ("rounds", str(values["rounds"]), f"{values['changes']} changes acknowledged"),
            ("lost", str(values["lost"]), "acknowledged changes that were not there"),
            ("torn", str(values["torn"]), "documents that were not one whole version"),
            ("undetected", str(values["undetected"]), f"{tried} damaged files among them"),
            *(("missed", name, "") for name in missed),
        ]
        report("crash", rows, values | {"damaged_files": tried})


def change(number: int) -> tuple[str, bool]:
    """What change `number` does: (source, whether it puts; else it removes)."""
    dice = random.Random(number)
    return f"s{dice.randrange(SOURCES)}", dice.random() < 0.8


def expected(count: int) -> dict[str, int]:
    """The version of each source after the first `count` changes."""
    versions: dict[str, int] = {}
    for number in range(count):
        source, puts = change(number)
        versions.pop(source, None)
        if puts:
            versions[source] = number
    return versions


def lines(source: str, number: int) -> list[str]:
    """The chunks of version `number`, one a line; sometimes there are none."""
    return [f"{source} says{number} line{place} of quokka" for place in range(number % 5)]


def version(source: str, number: int) -> NewVersion:
    """Version `number` of a document."""
    texts = lines(source, number)
    ends = np.cumsum([len(text) + 1 for text in texts]).tolist()
    pieces = tuple(Piece(end - 1 - len(t), end - 1, ()) for t, end in zip(texts, ends, strict=True))
    return NewVersion(
        source=source, root="root", title=source, text="\n".join(texts), lang="en",
        version=str(number), made_by="bench", modified=float(number), stamp=str(number),
        pieces=pieces, digests=tuple(texts), vectors=EMBEDDER.embed(texts, "passage"),
    )  # fmt: skip


def write(home: Path, first: int) -> None:
    """Change after change, from `first` on, until killed; says each once it is committed."""
    store = Store(home / "knowledge.db", EMBEDDER.id, EMBEDDER.dim)
    snapshots = Snapshots(home / "index")
    number = first
    while True:
        source, puts = change(number)
        if puts:
            store.put(version(source, number))
        else:
            store.remove([source])
        print(number, flush=True)
        number += 1
        if number % EVERY == 0:
            index = "ivf" if number % 2 else "flat"
            compact(store, snapshots, store.model, index)


def look(home: Path) -> State:
    """Open what is there, twice, and compare index and store."""
    store = Store(home / "knowledge.db", EMBEDDER.id, EMBEDDER.dim)
    snapshots = Snapshots(home / "index")
    serving = Serving(store, EMBEDDER, "auto", snapshots)
    versions = {source: int(known.version) for source, known in store.known().items()}
    torn = sum(not _whole(store, source, number) for source, number in versions.items())
    fits = same(store, serving)
    again = Serving(store, EMBEDDER, "auto", snapshots)
    fits = fits and same(store, again)
    store.close()
    return State(versions, torn, fits, serving.health, again.health)


def _whole(store: Store, source: str, number: int) -> bool:
    """Whether text, chunks, terms and vectors are those of this version, all of them."""
    known = store.known()[source]
    document = store.document(known.id)
    query = (
        "SELECT c.id, l.rowid, e.chunk_id FROM chunk c LEFT JOIN lexical l ON l.rowid = c.id "
        f"LEFT JOIN embedding e ON e.chunk_id = c.id WHERE c.document_id = {known.id}"
    )
    with store.read() as connection:
        rows = connection.exec_driver_sql(query).all()
    texts = lines(source, number)
    whole = all(row[0] == row[1] == row[2] for row in rows)
    return (
        whole
        and len(rows) == len(texts)
        and document is not None
        and document.text == "\n".join(texts)
    )


def same(store: Store, serving: Serving) -> bool:
    """Whether the view finds exactly the stored vectors, each by itself."""
    view = serving.view()
    stored = store.vectors(store.model)
    inside = np.concatenate([view.base.ids, *(part.ids for part in view.delta)])
    found = np.sort(inside[~np.isin(inside, view.gone)])
    if found.tolist() != stored.ids.tolist():
        return False
    for key, vector in list(zip(stored.ids, stored.vectors, strict=True))[:: 1 + len(found) // 20]:
        near = view.search(vector[None].astype(np.float32), 5, None)
        if int(key) not in near or abs(near[int(key)] - 1) > 0.01:
            return False
    return True


def killed(home: Path, rounds: int, seed: int) -> dict[str, int]:
    """Kill a writer `rounds` times; returns what was lost, torn and not detected."""
    dice = random.Random(seed)
    values = {"rounds": rounds, "lost": 0, "torn": 0, "undetected": 0, "changes": 0}
    done = 0
    for place in range(rounds):
        point = fault.POINTS[place // 2 % len(fault.POINTS)] if place % 2 else ""
        acknowledged = run(home, done, f"{point}:{dice.randint(1, 4)}" if point else "", dice)
        values["changes"] += acknowledged - done
        state = _state(home)
        if state.versions == expected(acknowledged):
            done = acknowledged
        elif state.versions == expected(acknowledged + 1):  # committed, killed before it said so
            done = acknowledged + 1
        else:
            values["lost"] += 1
            shutil.rmtree(home)
            done = 0
        values["torn"] += state.torn
        values["undetected"] += not state.index_is_store or bool(state.repaired_again)
    return values


def run(home: Path, first: int, point: str, dice: random.Random) -> int:
    """Let a writer go on from change `first` and kill it; returns how many were acknowledged."""
    command = [sys.executable, "-m", "bench.crash", "--write", str(home), "--first", str(first)]
    environment = {**os.environ, fault.VARIABLE: point}
    child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = []
    if point:
        said = child.stdout.readlines()
        if child.wait() != -9:
            raise SystemExit(f"the writer ended by itself ({child.returncode}) at {point}")
    else:
        said = [child.stdout.readline() for _ in range(dice.randint(1, 2 * EVERY))]
        time.sleep(dice.random() / 20)
        child.kill()
        said += child.stdout.readlines()
        child.wait()
    child.stdout.close()
    return max([first, *(int(line) + 1 for line in said if line.endswith("\n"))])


def _state(home: Path) -> State:
    command = [sys.executable, "-m", "bench.crash", "--look", str(home)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return State(**json.loads(done.stdout.splitlines()[-1]))


def damaged(home: Path, seed: int) -> tuple[list[str], int]:
    """Damage every file of a snapshot in several ways; returns what was missed, and how many."""
    missed, tried = [], 0
    for index in ("flat", "ivf"):
        place = 0
        while True:
            folder = _fresh(home, index)
            files = [folder.parent / "CURRENT", *sorted(folder.iterdir())]
            cases = [(file, harm) for file in files for harm in range(6)]
            if place == len(cases):
                break
            file, harm = cases[place]
            harm_file(file, harm, random.Random(seed + place))
            place += 1
            tried += 1
            state = look(home)
            if not state.repaired or state.repaired_again or not state.index_is_store:
                missed.append(f"{index}: {file.name} {HARMS[harm]}")
    return missed, tried


def _fresh(home: Path, index: str) -> Path:
    """A new snapshot, after a change."""
    store = Store(home / "knowledge.db", EMBEDDER.id, EMBEDDER.dim)
    store.put(version("damage", 4))
    folder = compact(store, Snapshots(home / "index"), store.model, index)
    store.close()
    assert (folder / MANIFEST).exists()
    return folder


def harm_file(file: Path, harm: int, dice: random.Random) -> None:
    """Change one bit, cut in half, empty, or delete."""
    content = bytearray(file.read_bytes())
    if HARMS[harm] == "bit":
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    elif HARMS[harm] == "half":
        del content[len(content) // 2 :]
    elif HARMS[harm] == "empty":
        content.clear()
    file.unlink()
    if HARMS[harm] != "gone":
        file.write_bytes(content)


if __name__ == "__main__":
    main()
