"""A training run's state on disk: weights, moments of the optimiser, and the step."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def named(folder: Path, stage: str, about: Iterable[object]) -> Path:
    """The checkpoint of a run on just this plan and data; `folder` is made.

    Args:
        folder: of checkpoints.
        stage: what is trained.
        about: everything that other weights would follow from, as JSON takes it; it may be long.
    """
    digest = hashlib.sha256()
    for part in about:
        digest.update(json.dumps(part, sort_keys=True).encode() + b"\n")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{stage}-{digest.hexdigest()[:12]}.safetensors"


def save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Write all of it beside the file and put it in its place at once."""
    state = {f"weight.{k}": v.detach() for k, v in model.named_parameters()}
    for key, values in optimizer.state_dict()["state"].items():
        state |= {f"moment.{key}.{name}": value for name, value in values.items()}
    state["step"] = torch.tensor(step)
    part = path.with_suffix(".part")
    save_file({k: v.contiguous().cpu() for k, v in state.items()}, part)
    part.replace(path)


def resume(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Take up what was saved; returns the step, 0 where nothing was."""
    if not path.exists():
        return 0
    state = load_file(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(state[f"weight.{name}"])
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in state.items():
        if name.startswith("moment."):
            _, key, what = name.split(".")
            moments.setdefault(int(key), {})[what] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return int(state["step"])


def cosine(step: int, steps: int, warmup: int) -> float:
    """Factor on the learning rate: linear warm-up, then a cosine down to a fiftieth."""
    warm = min(1.0, (step + 1) / warmup)
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))
