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
#: shape, and every new shape costs time once and half a megabyte for good. Measured: 8 sentences
#: read in 13 ms, in 16 where they are padded to 4 and 16.
ROWS, COLUMNS = 2, 8


class Network(Protocol):
    """The network, ready to run."""

    #: Batches that it runs side by side.
    parallel: int

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


def rows(runner: Network, found: Sequence[Sequence[int]], size: int, width: int) -> Array:
    """The network's result (len(found), width) for token ids, in batches of `size` at most."""
    parts = _parts(found, size, runner.parallel)
    result = np.zeros((len(found), width), dtype=np.float32)
    made = [_padded([found[i] for i in part]) for part in parts]
    for some, part in zip(runner.run(made), parts, strict=True):
        result[part] = some[: len(part)]
    return result


def _parts(found: Sequence[Sequence[int]], size: int, parallel: int) -> list[list[int]]:
    """Rows of like length together, each part about as much work.

    About as many parts as run side by side, where there is enough: one batch of twenty passages
    would leave the other cores idle while a user waits. A lone text is a query, and waits for
    nobody.
    """
    order = sorted(range(len(found)), key=lambda i: len(found[i]))
    count = max(-(-len(order) // size), min(parallel, len(order)))
    share = sum(map(len, found)) / max(count, 1)
    # so many texts stay together: fewer would be padded to as many
    step = min(ROWS, size) if len(order) > parallel else 1
    parts: list[list[int]] = [[]]
    held = 0
    for at in range(0, len(order), step):
        block = order[at : at + step]
        work = sum(len(found[i]) for i in block)
        if parts[-1] and (
            len(parts[-1]) + len(block) > size or held + work / 2 > share * len(parts)
        ):
            parts.append([])
        parts[-1] += block
        held += work
    return parts if order else []


def _padded(found: Sequence[Sequence[int]]) -> Batch:
    count = len(found) if len(found) == 1 else -(-len(found) // ROWS) * ROWS
    columns = -(-max(map(len, found)) // COLUMNS) * COLUMNS
    ids = np.zeros((count, columns), dtype=np.int64)
    mask = np.zeros((count, columns), dtype=np.int64)
    mask[:, 0] = 1
    for row, tokens in enumerate(found):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return ids, mask
