"""One run of PPO that several processes share, for the tests of worlds.

`python -m tests.rlhf.shared_run FOLDER` is a script for a launcher.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from rlhf.actors import World
from rlhf.config import PPOSettings
from rlhf.ppo import PPO
from rlhf.worlds import alike, launched, leave
from tests.rlhf.toys import Same, scored_by

TASKS = 24
SETTINGS = PPOSettings(
    updates=3,
    episodes=24,
    minibatches=1,
    epochs=2,
    micro=5,
    rate=1e-2,
    value_rate=1e-2,
    rate_warmup=0,
    value_warmup=0,
    horizon=100,
    whiten_rewards=True,
    step_kl=None,
    save_every=2,
)


def work(world: World, folder: Path) -> None:
    """Train a table; every process writes what it learnt and what it was told."""
    torch.set_num_threads(1)
    actor = Same(8, 4, contexts=TASKS)
    alike({**actor.policy, **actor.value}, world)
    worth = torch.randn(TASKS, 4, 8, generator=torch.Generator().manual_seed(2))
    loop = PPO(actor, [*range(TASKS)], scored_by(worth), SETTINGS, folder / "run", world=world)
    updates = [update.row() for update in loop.train()]
    folder.mkdir(exist_ok=True)
    weights = {"logits": actor.logits.detach(), "values": actor.values.detach()}
    save_file(weights, folder / f"learnt-{world.rank}.safetensors")
    found = {"size": world.size, "updates": updates}
    (folder / f"told-{world.rank}.json").write_text(json.dumps(found), encoding="utf-8")


def fails(world: World) -> None:
    """Break."""
    raise ValueError(f"no such thing in {world.size}")


if __name__ == "__main__":
    work(launched(), Path(sys.argv[1]))
    leave()
