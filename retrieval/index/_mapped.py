"""What the FAISS backends share: files mapped by all processes, and bitmaps of allowed rows.

A row is a vector's place in the index, 0 to n - 1; ids lie beside it, row by row. FAISS knows rows
only: its id map would cost a hash table in every process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np

from retrieval import fault
from retrieval.index.base import Ids, Mask, write_array

INDEX, IDS = "base.faiss", "ids.npy"
ENGINE = f"faiss {faiss.__version__}"


def write(index: Any, ids: Ids, folder: Path) -> tuple[str, ...]:
    """Write the FAISS index and its ids."""
    write_array(folder / IDS, ids)
    fault.reached("mid-index-write")
    try:
        faiss.write_index(index, str(folder / INDEX))
    except RuntimeError as error:  # FAISS says no more than that a write came short
        raise OSError(f"{folder / INDEX} could not be written: {_first(error)}") from error
    return INDEX, IDS


def read(folder: Path, dim: int) -> tuple[Any, Ids]:
    """Map both (IO_FLAG_MMAP_IFC: pages are shared between processes and loaded when touched)."""
    try:
        index = faiss.read_index(str(folder / INDEX), faiss.IO_FLAG_MMAP_IFC)
        ids: Ids = np.load(folder / IDS, mmap_mode="r")
    except (RuntimeError, ValueError) as error:
        raise OSError(f"{folder} could not be read: {_first(error)}") from error
    if (index.d, index.ntotal) != (dim, len(ids)):
        raise OSError(
            f"{folder}: {index.ntotal} vectors of {index.d} columns, {len(ids)} ids; "
            f"expected {dim} columns and as many ids"
        )
    return index, ids


def only(rows: Mask | None, probes: int = 0) -> Any:
    """Parameters of a FAISS search among the rows that are True, in `probes` lists (0: no lists).

    None where there is nothing to say. FAISS's own annotations leave its keywords out.
    """
    library: Any = faiss
    selector = None
    if rows is not None:
        selector = library.IDSelectorBitmap(np.packbits(rows, bitorder="little"))
    if probes:
        return library.SearchParametersIVF(nprobe=probes, sel=selector)
    return library.SearchParameters(sel=selector) if selector is not None else None


def _first(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
