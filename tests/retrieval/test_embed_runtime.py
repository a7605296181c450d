"""How texts become batches of the encoder's network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrieval.embed._runtime import COLUMNS, ROWS, Batch, rows
from retrieval.embed._weights import Array


class Sums:
    """A network whose result is each text's length and the sum of its ids."""

    def __init__(self, parallel: int) -> None:
        self.parallel = parallel
        self.seen: list[Batch] = []

    def run(self, batches: Sequence[Batch]) -> list[Array]:
        """As the network would, and keep what was asked."""
        self.seen = list(batches)
        return [
            np.stack([mask.sum(axis=1), (ids * mask).sum(axis=1)], axis=1).astype(np.float32)
            for ids, mask in batches
        ]


LENGTHS = st.lists(st.integers(1, 320), max_size=70)


@given(LENGTHS, st.integers(1, 32), st.integers(1, 8))
def test_rows_come_in_the_order_asked(lengths: list[int], size: int, parallel: int) -> None:
    """Each text has its own row, whatever the batches."""
    texts = [[3 + i] * length for i, length in enumerate(lengths)]
    found = rows(Sums(parallel), texts, size, 2)
    assert found.tolist() == [[len(t), sum(t)] for t in texts]


@given(LENGTHS, st.integers(1, 32), st.integers(1, 8))
def test_every_core_has_work(lengths: list[int], size: int, parallel: int) -> None:
    """No batch is over the size, or heavier than its share and the texts that fill its rows."""
    runner = Sums(parallel)
    rows(runner, [[7] * length for length in lengths], size, 2)
    work = [int((ids > 0).sum()) for ids, _ in runner.seen]
    assert sum(work) == sum(lengths)
    if not lengths:
        return
    count = max(-(-len(lengths) // size), min(parallel, len(lengths)))
    assert max(work) <= sum(lengths) / count + ROWS * max(lengths)
    for ids, _ in runner.seen:
        assert len(ids) == 1 or (len(ids) % ROWS == 0 and len(ids) < size + ROWS)
        assert ids.shape[1] % COLUMNS == 0


def test_twenty_passages_are_read_on_both_cores() -> None:
    """What a user waits for is not one batch on one core while the other is idle."""
    runner = Sums(2)
    rows(runner, [[7] * (100 + i) for i in range(20)], 32, 2)
    assert [len(ids) for ids, _ in runner.seen] == [10, 10]
    rows(runner, [[7] * length for length in (10, 10, 10, 10, 30, 40, 50, 60)], 32, 2)
    assert [len(ids) for ids, _ in runner.seen] == [6, 2]
    rows(runner, [[7] * 9, [7] * 20], 32, 2)
    assert [ids.shape for ids, _ in runner.seen] == [(1, 16), (1, 24)]
