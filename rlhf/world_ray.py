"""PPO on the workers of Ray Train: one process each, on one machine or several.

    from rlhf.world_ray import on_ray

    def work(world: World) -> None:
        ...
        for update in PPO(actor, tasks, reward, settings, folder, world=world).train(): ...

    on_ray(work, workers=2, folder=folder)

`work` is what a script under accelerate would be. It has to be importable on the workers, and reads
and writes files that all of them see. Needs plumbline[ray].
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from rlhf.actors import World
from rlhf.errors import TrainingError
from rlhf.worlds import launched

try:
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer
except ModuleNotFoundError:  # an extra of its own, needed here only
    ray = None

Work = Callable[[World], None]
#: How often workers that could not be started are tried again, a minute each.
STARTS = 2
#: Where workers that fail say why, below the folder of a run.
FAILED = "failed"


def on_ray(work: Work, workers: int = 2, *, folder: Path, gpu: bool = False) -> None:
    """Run `work` in as many processes, and wait for them. A cluster that is running is used.

    Args:
        work: see the module's text.
        workers: processes; each has a processor core, or a graphics card where `gpu`.
        folder: Ray's own files, seen by all machines.
        gpu: whether the group is nccl's, else gloo's.

    Raises:
        TrainingError: ray is not installed, or a worker failed; in its own words where it had any.
    """
    if ray is None:
        raise TrainingError("PPO on Ray needs 'ray'; install plumbline[ray]")
    failed = folder / FAILED
    shutil.rmtree(failed, ignore_errors=True)
    ours = not ray.is_initialized()
    if ours:
        begin()
    trainer = TorchTrainer(
        functools.partial(_worker, work, failed),
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=RunConfig(
            storage_path=str(folder),
            name="ppo",
            failure_config=FailureConfig(controller_failure_limit=STARTS),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise TrainingError(f"a worker of Ray failed: {_words(failed) or error}") from error
    finally:
        if ours:
            ray.shutdown()


def begin() -> None:
    """Start Ray on this machine; its workers import what this process can."""
    path = os.pathsep.join(part for part in sys.path if part)
    ray.init(
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )


def _worker(work: Work, failed: Path) -> None:
    """In the process of a worker; Ray Train has made the group.

    What a worker raises is also left in a file: how Ray passes it on differs between releases.
    """
    try:
        work(launched())
    except Exception as error:
        failed.mkdir(parents=True, exist_ok=True)
        text = f"{type(error).__name__}: {error}"
        (failed / f"{uuid4().hex}.txt").write_text(text, encoding="utf-8")
        raise


def _words(failed: Path) -> str:
    """What workers said when they failed, each once; "" where none could say anything."""
    found = {path.read_text(encoding="utf-8") for path in failed.glob("*.txt")}
    return "; ".join(sorted(found))
