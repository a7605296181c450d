"""The loop that all trainers share: rate, step, checkpoint, report. Resumes where it stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from retrieval.fit._checkpoint import cosine, resume, save


class Schedule(Protocol):
    """How long a run is, and how often it is saved and checked, in steps."""

    @property
    def steps(self) -> int:
        """Steps in all."""
        ...

    @property
    def warmup(self) -> int:
        """Steps until the rate is at its highest."""
        ...

    @property
    def save_every(self) -> int:
        """Steps between checkpoints."""
        ...

    @property
    def check_every(self) -> int:
        """Steps between looks at held-out data."""
        ...


class Loop:
    """One run of AdamW (Loshchilov and Hutter 2019) on a model."""

    def __init__(
        self,
        model: nn.Module,
        parts: Sequence[tuple[Sequence[nn.Parameter], float, float]],
        schedule: Schedule,
        path: Path,
    ) -> None:
        """Take up what `path` holds.

        Args:
            model: all of whose parameters are saved.
            parts: (parameters, highest rate, weight decay).
            schedule: the run's length.
            path: the checkpoint.
        """
        self._model, self._schedule, self._path = model, schedule, path
        self._rates = [rate for _, rate, _ in parts]
        self._optimizer = torch.optim.AdamW(
            [{"params": [*p], "lr": rate, "weight_decay": decay} for p, rate, decay in parts],
            betas=(0.9, 0.98),
        )
        #: Steps done.
        self.step = resume(path, model, self._optimizer)

    def run(
        self, loss: Callable[[int], Tensor | Iterable[Tensor]], check: Callable[[], str]
    ) -> Iterator[str]:
        """Train to the end; yields lines to show.

        Args:
            loss: of the step with this number; in parts that add up to it, where the whole step
                does not fit the memory, each made when the one before it is done with.
            check: a line on held-out data.
        """
        schedule, began, first = self._schedule, time.monotonic(), self.step
        losses: list[float] = []
        while self.step < schedule.steps:
            factor = cosine(self.step, schedule.steps, schedule.warmup)
            for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * factor
            self._optimizer.zero_grad(set_to_none=True)
            losses.append(_backward(loss(self.step)))
            nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
            self._optimizer.step()
            self.step += 1
            last = self.step == schedule.steps
            if self.step % schedule.save_every == 0 or last:
                save(self._path, self._model, self._optimizer, self.step)
                pace = (time.monotonic() - began) / (self.step - first)
                yield (
                    f"step {self.step}/{schedule.steps}, loss {np.mean(losses):.3f}, {pace:.2f} s "
                    f"a step, {pace * (schedule.steps - self.step) / 60:.0f} min left"
                )
                losses = []
            if self.step % schedule.check_every == 0 or last:
                yield f"  {check()}"


def _backward(loss: Tensor | Iterable[Tensor]) -> float:
    """Add up the gradients of all parts; returns their sum."""
    total = 0.0
    for part in [loss] if isinstance(loss, Tensor) else loss:
        torch.autograd.backward(part)
        total += float(part.detach())
    return total
