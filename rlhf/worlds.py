"""The processes that share a run of PPO: started by accelerate, torchrun or Ray Train.

    accelerate launch --multi_gpu --num_processes 2 script.py      (also on processors alone)
    torchrun --nproc-per-node 2 script.py

In the script, `PPO(..., world=launched())`. Each process holds the whole policy, draws its share of
the answers and reads them; sums over all of them make whitening, token counts, gradients and
measures those of the whole batch, so a run of two learns what a run of one does. The batch of an
update (`episodes`) is that of all processes together. Weights have to begin alike, and the tasks,
the settings and the order of parameters have to be the same everywhere.

Parameters that are cut into shards (FSDP) are refused: their gradients are means over processes
already, and a checkpoint would hold one shard.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rlhf.actors import Alone, World
from rlhf.errors import TrainingError

try:
    from accelerate import PartialState
except ModuleNotFoundError:  # comes with the adapters; one process runs without it
    PartialState = None

__all__ = ["Alone", "Together", "World", "alike", "launched", "leave"]


@dataclass(frozen=True, slots=True)
class Together:
    """The processes of torch's default group.

    Raises:
        TrainingError: there is no such group.
    """

    def __post_init__(self) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise TrainingError(
                "there is no process group; start with accelerate launch or torchrun, and ask "
                "launched() for the world"
            )

    @property
    def rank(self) -> int:
        """Which of them this is, from 0."""
        return dist.get_rank()

    @property
    def size(self) -> int:
        """How many there are."""
        return dist.get_world_size()

    def sum(self, value: Tensor) -> Tensor:
        """The sum over all of them, the same bits for each; `value` stays as it is."""
        found = value.detach().clone()
        if found.dtype == torch.bool:
            found = found.long()
        dist.all_reduce(found)
        return found


def launched() -> World:
    """The world that this process was started in: `Alone` where nothing started several.

    Call it once, before the first tensor is on a device. Where a group is there already (Ray Train
    makes its own) it is taken. On processors the group is gloo's; with graphics cards every process
    gets its own as the device "cuda".

    Raises:
        TrainingError: several processes were started, and accelerate is not installed.
    """
    if dist.is_available() and dist.is_initialized():
        return Together()
    if PartialState is None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise TrainingError("several processes need 'accelerate'; install plumbline[adapters]")
        return Alone()
    state = PartialState(cpu=not torch.cuda.is_available())
    return Together() if state.num_processes > 1 else Alone()


def alike(parameters: Mapping[str, nn.Parameter], world: World) -> None:
    """Make sure that all processes begin with the same weights.

    Args:
        parameters: of policy and value head, by name.
        world: see `launched`.

    Raises:
        TrainingError: a parameter differs, or is a shard.
    """
    for name, parameter in parameters.items():
        if hasattr(parameter, "device_mesh"):
            raise TrainingError(f"{name} is cut into shards; PPO needs whole parameters")
        if world.size == 1:
            continue
        # the first process's numbers, for the others add zeros
        first = parameter.detach() if world.rank == 0 else torch.zeros_like(parameter)
        if world.sum((world.sum(first) != parameter.detach()).sum()):
            raise TrainingError(
                f"{name} differs between processes; load one checkpoint, or seed them alike"
            )


def leave() -> None:
    """Close the group of this process, if there is one; for the end of a script."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
