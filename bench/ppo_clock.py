"""What both sides of `bench.ppo` measure with; imports nothing of ours, for it runs in two homes.

An update goes through the phases generate, score, train and other. A run tells, for each update,
seconds of the wall and of the processor in each of them; how many tokens it drew; its mean score
and KL; and for the whole run the optimiser's steps, the memory and, where asked, the operations.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.flop_counter import FlopCounterMode

PHASES = ("generate", "score", "train", "other")
Job = dict[str, Any]


class Clock:
    """Adds up time by update and phase; "generate" begins an update."""

    def __init__(self) -> None:
        #: One for each update.
        self.updates: list[dict[str, float]] = []
        self._phase, self._since = "", (0.0, 0.0)

    def to(self, phase: str) -> None:
        """The phase that was there ends, and this one begins; the same one goes on."""
        if phase == self._phase:
            return
        now = (time.perf_counter(), time.process_time())
        if self._phase:
            row = self.updates[-1]
            row[self._phase] += now[0] - self._since[0]
            row["cpu"] += now[1] - self._since[1]
        if phase == "generate":
            self.updates.append(dict.fromkeys((*PHASES, "cpu"), 0.0))
        self._phase, self._since = phase, now

    def tell(self, **values: float) -> None:
        """Add to the last update."""
        self.updates[-1] |= values

    def end(self) -> None:
        """The last phase ends."""
        self.to("")

    def keep(self, policy: Any, job: Job) -> None:
        """Write the policy as it is after this update, outside all times."""
        if job.get("final"):
            phase = self._phase
            self.end()
            policy.save_pretrained(Path(job["final"]) / str(len(self.updates)))
            self.to(phase)


def run(system: Callable[[Job, Clock], None], version: str) -> None:
    """Read the job named on the command line, run, and write what was measured beside it."""
    path = Path(sys.argv[1])
    job: Job = json.loads(path.read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    job["base_mib"] = peak()
    found = measured(system, job)
    found |= {"version": version, "base_mib": job["base_mib"], "peak_mib": peak()}
    Path(job["result"]).write_text(json.dumps(found), encoding="utf-8")


def measured(system: Callable[[Job, Clock], None], job: Job) -> dict[str, Any]:
    """Run one system and count its steps and, where the job says so, its operations."""
    clock, steps = Clock(), []
    hook = register_optimizer_step_post_hook(lambda *_: steps.append(time.perf_counter()))
    try:
        if job["flops"]:
            with FlopCounterMode(display=False) as counter:
                system(job, clock)
            flops = counter.get_total_flops()
        else:
            system(job, clock)
            flops = 0
    finally:
        hook.remove()
    clock.end()
    return {"updates": clock.updates, "steps": len(steps), "flops": flops}


def peak() -> float:
    """The largest resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def attention(job: Job) -> str:
    """Plain products are counted, fused attention on a processor is not."""
    return "eager" if job["flops"] else "sdpa"
