from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rlhf import world_ray, worlds
from rlhf.actors import Alone
from rlhf.errors import TrainingError
from rlhf.world_ray import on_ray
from tests.conftest import ROOT
from tests.rlhf.shared_run import fails, work

#: No device but processors, and no network but loopback.
QUIET = {"CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


def told(folder: Path, rank: int) -> dict[str, Any]:
    """What a process was told, its seconds left out."""
    found: dict[str, Any] = json.loads((folder / f"told-{rank}.json").read_text(encoding="utf-8"))
    for row in found["updates"]:
        row.pop("seconds")
    return found


def same_as_one(folder: Path, alone: Path) -> None:
    """Both processes learnt the same bits, and within rounding what one learns."""
    first, second = told(folder, 0), told(folder, 1)
    assert first == second
    assert first["size"] == 2
    pair = [load_file(folder / f"learnt-{rank}.safetensors") for rank in (0, 1)]
    one = load_file(alone / "learnt-0.safetensors")
    for name, want in one.items():
        assert torch.equal(pair[0][name], pair[1][name])
        torch.testing.assert_close(pair[0][name], want, atol=1e-4, rtol=0)
    for row, other in zip(told(alone, 0)["updates"], first["updates"], strict=True):
        for name, value in row.items():
            if isinstance(value, float):
                assert other[name] == pytest.approx(value, abs=1e-4), name


def test_two_launched_processes_learn_what_one_does(tmp_path: Path) -> None:
    """Started by accelerate, over gloo, they give the same update as one; all see the same."""
    work(Alone(), tmp_path / "one")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    script = [str(ROOT / "tests" / "rlhf" / "shared_run.py"), str(tmp_path / "two")]
    (tmp_path / "two").mkdir()
    launch = [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
        "--main_process_ip", "127.0.0.1", "--main_process_port", str(port),
    ]  # fmt: skip
    done = subprocess.run(
        [*launch, *script],
        env={**os.environ, **QUIET, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    same_as_one(tmp_path / "two", tmp_path / "one")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Start Ray once: it takes its time."""
    found = pytest.importorskip("ray", reason="ray is not installed; see plumbline[ray]")
    world_ray.begin()
    yield
    found.shutdown()


@pytest.mark.usefixtures("cluster")
def test_two_workers_of_ray_learn_what_one_does(tmp_path: Path) -> None:
    """The same loop inside Ray Train gives the same update."""
    work(Alone(), tmp_path / "one")
    (tmp_path / "two").mkdir()
    on_ray(functools.partial(work, folder=tmp_path / "two"), 2, folder=tmp_path / "ray")
    same_as_one(tmp_path / "two", tmp_path / "one")


def test_a_worker_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own words are left where the driver finds them, once however many said so; it fails on.

    The worker's side and the driver's are run here without Ray between them.
    """
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    for _ in range(2):
        with pytest.raises(ValueError, match="no such thing in 1"):
            world_ray._worker(fails, tmp_path / "failed")
    assert world_ray._words(tmp_path / "failed") == "ValueError: no such thing in 1"
    world_ray._worker(lambda world: None, tmp_path / "well")
    assert world_ray._words(tmp_path / "well") == ""


def test_without_ray_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra has a name."""
    monkeypatch.setattr(world_ray, "ray", None)
    with pytest.raises(TrainingError, match=r"plumbline\[ray\]"):
        on_ray(fails, folder=tmp_path)


def test_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing started several, so there is no group; with accelerate or without."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert worlds.launched() == Alone()
    monkeypatch.setattr(worlds, "PartialState", None)
    assert worlds.launched() == Alone()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match=r"plumbline\[adapters\]"):
        worlds.launched()
    with pytest.raises(TrainingError, match="accelerate launch or torchrun"):
        worlds.Together()


class Second:
    """The other one of two processes, which has ones where this one has `others`."""

    rank, size = 1, 2

    def sum(self, value: Tensor) -> Tensor:
        """With the first process's ones, or its count of nothing."""
        return value + 1 if value.shape == (2, 3) else value


def test_weights_that_differ_are_refused() -> None:
    """Before the first update; shards are too."""
    worlds.alike({"same": nn.Parameter(torch.ones(2, 3))}, Second())
    worlds.alike({"alone": nn.Parameter(torch.zeros(2, 3))}, Alone())
    with pytest.raises(TrainingError, match="other differs between processes"):
        worlds.alike({"other": nn.Parameter(torch.zeros(2, 3))}, Second())
    shard = nn.Parameter(torch.ones(2, 3))
    shard.device_mesh = "two"  # type: ignore[attr-defined]
    with pytest.raises(TrainingError, match="whole parameters"):
        worlds.alike({"shard": shard}, Alone())
