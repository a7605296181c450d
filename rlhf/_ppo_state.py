"""A run of PPO on disk: one safetensors file, put in its place at once, and a log of its updates.

The file holds weights, their average, the optimiser's moments, the generator, beta and the number
of updates done: all that the next update depends on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rlhf.errors import TrainingError


@dataclass(frozen=True, slots=True)
class State:
    """What is saved. `moments` are the optimiser's, by the number of the parameter and name."""

    weights: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    moments: Mapping[int, Mapping[str, Tensor]]
    generator: Tensor
    beta: float
    done: int
    steps: int


def copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Give the tensors of `target` the values of those with the same names."""
    with torch.no_grad():
        for name, value in target.items():
            value.copy_(source[name])


def save(path: Path, state: State, run: str) -> None:
    """Write aside, make it durable, and replace.

    Args:
        path: of the file.
        state: what to save.
        run: what tells this run from another one.

    Raises:
        TrainingError: it cannot be written; what was there before still is.
    """
    tensors = {f"weight/{name}": value for name, value in state.weights.items()}
    tensors |= {f"average/{name}": value for name, value in state.average.items()}
    for number, moments in state.moments.items():
        tensors |= {f"moment/{number}/{name}": value for name, value in moments.items()}
    tensors["generator"] = state.generator
    tensors["beta"] = torch.tensor(state.beta, dtype=torch.float64)
    tensors["counters"] = torch.tensor([state.done, state.steps])
    # a copy of each: a safetensors file does not hold two names of one piece of memory
    copies = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(copies, part, {"run": run})
        _durable(part)
        part.replace(path)
        _durable(path.parent)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise TrainingError(
            f"cannot write the checkpoint {path}: {error}; make room and start again, the run goes "
            "on from the one before"
        ) from error


def load(path: Path, run: str) -> State | None:
    """What was saved, None where nothing was.

    Raises:
        TrainingError: the file is damaged, or of another run.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            saved = (file.metadata() or {}).get("run", "")
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in found.items():
            if name.startswith("moment/"):
                _, number, what = name.split("/", 2)
                moments.setdefault(int(number), {})[what] = value
        done, steps = found["counters"].tolist()
        state = State(
            _named(found, "weight/"),
            _named(found, "average/"),
            moments,
            found["generator"],
            float(found["beta"]),
            done,
            steps,
        )
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TrainingError(f"cannot read {path}: {error}; delete it to begin anew") from error
    if saved != run:
        raise TrainingError(
            f"{path} is of a run with other settings, weights or tasks; give another folder"
        )
    return state


class Log:
    """One JSON object a line for each update.

    Args:
        path: of the file.
        done: updates that stand; lines of later ones were never saved with their weights, and go.

    Raises:
        TrainingError: the file cannot be read or written.
    """

    def __init__(self, path: Path, done: int) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            kept = [line for line in lines if _number(line) < done]
            if len(kept) < len(lines):
                part = path.with_suffix(".part")
                part.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
                _durable(part)
                part.replace(path)
        except OSError as error:
            raise TrainingError(f"cannot use the log {path}: {error}") from error

    def add(self, row: Mapping[str, object]) -> None:
        """Append a line; its "update" counts from 0.

        Raises:
            TrainingError: it cannot be written.
        """
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise TrainingError(f"cannot write {self._path}: {error}; make room") from error


def _number(line: str) -> float:
    """The update that a line is of; infinite where a line was cut short."""
    try:
        return int(json.loads(line)["update"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _named(found: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {k.removeprefix(start): v for k, v in found.items() if k.startswith(start)}


def _durable(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
