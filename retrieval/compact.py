"""The index written to disk anew, without the dead: `python -m retrieval.compact` in a child.

A child process, because building lists for a million vectors takes a gigabyte and all of a core:
its memory goes back to the system when it ends, it is niced, and killing it at any moment leaves
the snapshot before. The vectors are read batch by batch, each in a transaction of its own, so that
no writer waits; what changed meanwhile is replayed by whoever opens the snapshot, because its
number is that of the last change before the first batch.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retrieval import fault, menu, store_log
from retrieval.errors import RetrievalError
from retrieval.index.base import Ids, Index
from retrieval.serving import backend_name
from retrieval.snapshot import Snapshots, Unsynced
from retrieval.store import Store
from retrieval.store_log import Model

#: Exit status: it could not be written; another process was at it; a sync failed.
FAILED, BUSY, UNSYNCED = 74, 75, 76
SCRATCH = "vectors.f16"


def compact(store: Store, snapshots: Snapshots, model: Model, index: str) -> Path:
    """Write a snapshot of `model`'s vectors, delete old ones, and trim the log behind them.

    Raises:
        StoreBusy: another process is at it.
        OSError: the disk is full, failed, or may not be written; the snapshots before stay.
    """
    with snapshots.writing(), snapshots.scratch(model) as folder:
        sequence = store.sequence()
        ids = _copied(store, model, folder / SCRATCH)
        name = backend_name(index, len(ids))
        made: Index = menu.load("retrieval.index", name).build(model.dim)
        shape = (len(ids), model.dim)
        if len(ids):
            made.add(ids, np.memmap(folder / SCRATCH, dtype="<f2", mode="r", shape=shape))
        files = made.save(folder)
        # FAISS does not report that the last of its writes failed
        menu.load("retrieval.index", name).build(model.dim).load(folder)
        if SCRATCH not in files:
            (folder / SCRATCH).unlink()
        target = snapshots.publish(folder, model, name, made, sequence, files)
        oldest = snapshots.prune(model)
    fault.reached("before-trim")
    serving, _, _ = store.progress()
    if oldest is not None and serving is not None and serving.id == model.id:
        store.trim(oldest)
    return target


def _copied(store: Store, model: Model, path: Path) -> Ids:
    """Write all vectors one after the other; returns their ids, ascending."""
    parts: list[Ids] = [np.zeros(0, dtype=np.int64)]
    last = -1
    with path.open("wb") as file:
        while True:
            with store.read() as connection:
                at, ids, halves = store_log.batch(connection, model, last)
            if at == last:
                return np.concatenate(parts)
            last = at
            parts.append(ids)
            file.write(halves.tobytes())


def main(arguments: Sequence[str] | None = None) -> int:
    """Write one snapshot; the reason of a failure is the last line of the error output."""
    parser = argparse.ArgumentParser(description="write the index of a knowledge base anew")
    parser.add_argument("database", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("model")
    parser.add_argument("dim", type=int)
    parser.add_argument("index")
    options = parser.parse_args(arguments)
    os.nice(10)
    store = Store(options.database, options.model, options.dim)
    try:
        compact(store, Snapshots(options.folder), store.model, options.index)
    except Unsynced as error:
        sys.stderr.write(f"{error}\n")
        return UNSYNCED
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return FAILED
    except RetrievalError as error:
        sys.stderr.write(f"{error}\n")
        return BUSY if error.retryable else FAILED
    finally:
        store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
