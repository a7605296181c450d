"""Which library runs the encoder's network, and how texts become batches."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval import menu
from retrieval.embed._weights import Array, Weights

Ids = NDArray[np.int64]
Batch = tuple[Ids, Ids]
#: A batch is padded to multiples of so many texts and tokens: kernels are compiled and kept per
#: shape, and every new shape would cost time once and memory for good.
ROWS, COLUMNS = 8, 16


class Network(Protocol):
    """The network, ready to run."""

    def run(self, batches: Sequence[Batch]) -> list[Array]:
        """One result for each (ids, mask), both (n, length), in order."""


def network(
    weights: Weights, head: Array | None, *, runtime: str, device: str, dtype: str
) -> Network:
    """Load the network.

    Args:
        weights: its arrays by their usual names.
        head: None for sentence vectors, an array (width, n) for n scores of the
            first token instead.
        runtime: torch, openvino, or auto: OpenVINO where it is installed and the device is the
            processor. Measured (`python -m bench.encode`): there it is faster for one query and
            for batches, on processors with and without bfloat16 tiles.
        device: a torch device; OpenVINO runs on the processor only.
        dtype: auto, float32 or bfloat16.

    Raises:
        BackendMissing: the runtime asked for is not installed.
    """
    if runtime == "auto":
        there = importlib.util.find_spec("openvino") is not None
        runtime = "openvino" if there and device == "cpu" else "torch"
    module = menu.implementation("retrieval.embed", f"_{runtime}")
    made: Network = module.Network(weights, head, device, dtype)
    return made


def batches(found: Sequence[Sequence[int]], size: int) -> tuple[list[Batch], list[list[int]]]:
    """Token ids as batches of like length, and the rows that each batch holds.

    A batch may have more rows than were asked for: the last ones are padding. A lone text stays
    alone: it is a query, and waits for nobody.
    """
    order = sorted(range(len(found)), key=lambda i: len(found[i]))
    parts = [order[at : at + size] for at in range(0, len(order), size)]
    return [_padded([found[i] for i in part]) for part in parts], parts


def _padded(found: Sequence[Sequence[int]]) -> Batch:
    rows = len(found) if len(found) == 1 else -(-len(found) // ROWS) * ROWS
    columns = -(-max(map(len, found)) // COLUMNS) * COLUMNS
    ids = np.zeros((rows, columns), dtype=np.int64)
    mask = np.zeros((rows, columns), dtype=np.int64)
    mask[:, 0] = 1
    for row, tokens in enumerate(found):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return ids, mask
