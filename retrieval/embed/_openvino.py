"""The encoder's network as an OpenVINO graph, built from the arrays: no conversion, no torch.

BERT (Devlin et al. 2019), six layers of it, in the graph's own operations. bfloat16 where the
processor multiplies it in tiles, else float32. Several requests run side by side, one a core.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as op

from retrieval.embed._weights import DIM, EMBEDDINGS, HEADS, LAYERS, Array, Weights

Ids = NDArray[np.int64]
EPSILON = 1e-12


class Network:
    """Runs batches of token ids."""

    def __init__(self, weights: Weights, head: Array | None, device: str, dtype: str) -> None:
        """Compile; `device` is always the CPU here.

        Args:
            weights: the network's arrays by their usual names.
            head: None for sentence vectors; an array (DIM, n) gives n scores of the first token.
            dtype: auto, float32 or bfloat16.
        """
        core = ov.Core()
        wanted = {"float32": "f32", "bfloat16": "bf16"}.get(dtype)
        if wanted is None:
            able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            wanted = "bf16" if "BF16" in able else "f32"
        streams = max(1, min(8, os.cpu_count() or 1))
        self._model = core.compile_model(
            _graph(weights, head),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": wanted,
                "NUM_STREAMS": str(streams),
                "INFERENCE_NUM_THREADS": str(streams),
            },
        )
        # no callbacks: they need the interpreter's lock in OpenVINO's threads, and a network that
        # is dropped while one is on its way waits for it for ever
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            self._free.put(self._model.create_infer_request())
        self.parallel = streams

    def run(self, batches: Sequence[tuple[Ids, Ids]]) -> list[Array]:
        """One result for each (ids, mask), both (n, length), in order; safe for several threads."""
        if not batches:
            return []
        mine = [self._free.get()]
        try:
            while len(mine) < min(len(batches), self.parallel):
                try:
                    mine.append(self._free.get_nowait())
                except queue.Empty:
                    break
            return _through(mine, batches)
        finally:
            for request in mine:
                request.wait()
                self._free.put(request)


def _through(requests: Sequence[Any], batches: Sequence[tuple[Ids, Ids]]) -> list[Array]:
    """Run the batches, as many at a time as there are requests."""
    found: list[Array] = []

    def collect(number: int) -> None:
        request = requests[number % len(requests)]
        request.wait()
        found.append(request.get_output_tensor(0).data.copy())

    for number, (ids, mask) in enumerate(batches):
        if number >= len(requests):
            collect(number - len(requests))
        requests[number % len(requests)].start_async({0: ids, 1: mask})
    for number in range(max(0, len(batches) - len(requests)), len(batches)):
        collect(number)
    return found


def _graph(weights: Weights, head: Array | None) -> Any:
    ids = op.parameter([-1, -1], np.int64, name="ids")
    mask = op.parameter([-1, -1], np.int64, name="mask")
    hidden = _embedded(ids, weights)
    # added to the attention scores: 0 where a token is, very low where padding is
    seen = op.unsqueeze(op.convert(mask, "f32"), _ints(1, 2))
    bias = op.multiply(op.subtract(seen, _floats(1.0)), _floats(1e9))
    for layer in range(LAYERS):
        hidden = _layer(hidden, bias, weights, f"encoder.layer.{layer}")
    if head is None:
        result = _pooled(hidden, mask)
    else:
        first = op.gather(hidden, _scalar(0), _ints(1))
        result = op.matmul(first, op.constant(head.reshape(DIM, -1)), False, False)
    return ov.Model([result], [ids, mask], "encoder")


def _embedded(ids: Any, weights: Weights) -> Any:
    words = op.gather(op.constant(weights[EMBEDDINGS]), ids, _ints(0))
    length = op.gather(op.shape_of(ids), _ints(1), _ints(0))
    steps = op.range(_scalar(0), op.squeeze(length, _ints(0)), _scalar(1), "i64")
    places = op.gather(
        op.constant(weights["embeddings.position_embeddings.weight"]), steps, _ints(0)
    )
    kind = op.constant(weights["embeddings.token_type_embeddings.weight"][0])
    return _norm(op.add(op.add(words, places), kind), weights, "embeddings.LayerNorm")


def _layer(hidden: Any, bias: Any, weights: Weights, name: str) -> Any:
    query, key, value = (
        _heads(_linear(hidden, weights, f"{name}.attention.self.{part}"))
        for part in ("query", "key", "value")
    )
    mixed = op.scaled_dot_product_attention(query, key, value, bias)
    joined = op.reshape(op.transpose(mixed, _ints(0, 2, 1, 3)), _ints(0, 0, DIM), True)
    out = _linear(joined, weights, f"{name}.attention.output.dense")
    hidden = _norm(op.add(hidden, out), weights, f"{name}.attention.output.LayerNorm")
    wide = op.gelu(_linear(hidden, weights, f"{name}.intermediate.dense"), "erf")
    out = _linear(wide, weights, f"{name}.output.dense")
    return _norm(op.add(hidden, out), weights, f"{name}.output.LayerNorm")


def _heads(hidden: Any) -> Any:
    """(n, length, DIM) -> (n, HEADS, length, DIM / HEADS)."""
    split = op.reshape(hidden, _ints(0, 0, HEADS, DIM // HEADS), True)
    return op.transpose(split, _ints(0, 2, 1, 3))


def _linear(hidden: Any, weights: Weights, name: str) -> Any:
    product = op.matmul(hidden, op.constant(weights[f"{name}.weight"]), False, True)
    return op.add(product, op.constant(weights[f"{name}.bias"]))


def _norm(hidden: Any, weights: Weights, name: str) -> Any:
    plain = op.mvn(hidden, _ints(-1), True, EPSILON, "inside_sqrt")
    scaled = op.multiply(plain, op.constant(weights[f"{name}.weight"]))
    return op.add(scaled, op.constant(weights[f"{name}.bias"]))


def _pooled(hidden: Any, mask: Any) -> Any:
    """Mean over the tokens, unit length."""
    seen = op.unsqueeze(op.convert(mask, "f32"), _ints(2))
    total = op.reduce_sum(op.multiply(hidden, seen), _ints(1), False)
    count = op.maximum(op.reduce_sum(seen, _ints(1), False), _floats(1.0))
    return op.normalize_l2(op.divide(total, count), _ints(1), EPSILON, "add")


def _ints(*values: int) -> Any:
    return op.constant(np.array(values, dtype=np.int64))


def _scalar(value: int) -> Any:
    return op.constant(np.array(value, dtype=np.int64))


def _floats(value: float) -> Any:
    return op.constant(np.array(value, dtype=np.float32))
