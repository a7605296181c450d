"""A second reading while PPO learns: what the reward does not know, on prompts nothing learns on.

Where labels are known, the policy draws an answer to each watched prompt, and it is counted how
many are right where there is an answer and refused where there is none: the mean of the two shares
is `gold`, and `win_rate` is the share of prompts on which it does better than before the run, those
on which it does as well counted half. Where nobody knows, development users' comparisons are read:
`gold` is the share of them whose better answer has gained more probability, since the run began,
than the worse one.

A reward that rises while `gold` falls is over-optimisation (Gao et al. 2022). It is said where the
fall from the best reading is certain: its 95 % interval, paired by prompt, lies below 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from rlhf._intervals import bootstrap
from rlhf._loop_gates import Measured
from rlhf._loop_reward import Judge
from rlhf._loop_tasks import Asked
from rlhf.schema import Rollout

#: Updates between two readings; prompts and comparisons that are read at most.
EVERY, MOST = 5, 96
#: Log-ratios that are nearer than this are alike, nats.
ALIKE = 1e-6
Floats = NDArray[np.float64]


class Told(Asked, Protocol):
    """A prompt whose given answers can be read as if they were drawn."""

    def rollout(self, reply: str) -> Rollout | None:
        """A reply as tokens; None where the policy cannot say it."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison of a development user: a prompt with the better answer and the worse one."""

    task: Asked
    better: Rollout
    worse: Rollout


@dataclass(frozen=True, slots=True)
class _Reading:
    values: Floats
    proxy: float


class Watch:
    """Reads now and then; see the module's text.

    Args:
        tasks: prompts with labels.
        pairs: comparisons, looked at where there are no labels.
        updates: of the run; the last one is read too.
        seed: of the answers that are drawn, the same ones at every reading.
    """

    def __init__(
        self, tasks: Sequence[Asked], pairs: Sequence[Compared], updates: int, seed: int
    ) -> None:
        self._tasks = [t for t in tasks if t.answerable is not None][:MOST]
        self._pairs = [] if self._tasks else list(pairs)[:MOST]
        self._last, self._seed = updates - 1, seed
        self._first: Floats | None = None
        self._best: _Reading | None = None

    def __call__(self, update: int, actor: Any, judge: Judge) -> Mapping[str, float] | None:
        """A reading after an update, -1 before the first; None where none is due or possible."""
        rows = self._tasks or [pair.task for pair in self._pairs]
        if not rows or (update >= 0 and (update + 1) % EVERY and update != self._last):
            return None
        generator = torch.Generator().manual_seed(self._seed)
        with torch.no_grad():
            drawn = actor.draw(rows, 1.0, generator)
            replies = [t.reply(r.completion) for t, r in zip(rows, drawn, strict=True)]
            values = self._right(replies) if self._tasks else self._preferred(actor)
        now = _Reading(values, float(judge.totals(rows, replies).mean()))
        found = {"gold": _halves(self._tasks, values), "proxy": now.proxy, "n": float(len(rows))}
        if self._tasks:
            self._first = values if self._first is None else self._first
            won = 0.5 + (values - self._first).mean() / 2
            found |= {**self._shares(values), "win_rate": float(won)}
        best = self._best
        if best is None or values.mean() >= best.values.mean():
            self._best = now
        elif now.proxy > best.proxy:
            _, high = bootstrap(values - best.values, 0.95, 1000)
            found["overdone"] = float(high < 0)
        return found

    def _right(self, replies: Sequence[str]) -> Floats:
        found = [t.correct(reply) or 0.0 for t, reply in zip(self._tasks, replies, strict=True)]
        return np.array(found, dtype=np.float64)

    def _shares(self, values: Floats) -> dict[str, float]:
        """Right where there is an answer, refused where there is none; what there is of the two."""
        there = np.array([bool(t.answerable) for t in self._tasks])
        named = {"right": values[there], "refused": values[~there]}
        return {name: float(some.mean()) for name, some in named.items() if len(some)}

    def _preferred(self, actor: Any) -> Floats:
        gaps = []
        for side in ("better", "worse"):
            some = [getattr(pair, side) for pair in self._pairs]
            gap = actor.look(some, 1.0).logprobs - actor.reference(some, 1.0)
            gaps.append(gap.sum(1).double().cpu().numpy())
        apart = gaps[0] - gaps[1]
        return np.where(np.abs(apart) < ALIKE, 0.5, (apart > 0).astype(np.float64))


def compared(task: Told, better: str, worse: str) -> Compared | None:
    """A comparison as it is read; None where the policy cannot say one of the answers."""
    sides = [task.rollout(reply) for reply in (better, worse)]
    if sides[0] is None or sides[1] is None or sides[0].completion == sides[1].completion:
        return None
    return Compared(task, sides[0], sides[1])


def said(row: Mapping[str, float]) -> str:
    """A reading in words, with the alarm where it is one."""
    shares = [f"{row[name]:.2f} {name}" for name in ("right", "refused") if name in row]
    text = ", ".join(shares) or f"{row['gold']:.2f} of held-out comparisons as people had them"
    text = f"on {row['n']:.0f} held-out prompts: {text}, reward {row['proxy']:.3f}"
    if row.get("overdone"):
        text += "; over-optimised: the reward rose while this fell, stop here or lower train.kl"
    return text


def alarmed(measured: Measured, rows: Sequence[Mapping[str, float]]) -> Measured:
    """The gates, the one on reward and judge failed where the last reading was an alarm."""
    if not rows or not rows[-1].get("overdone"):
        return measured
    reason = "while it learnt, the reward rose and what is right on held-out prompts fell"
    gates = tuple(
        replace(g, passed=False, reason=f"{g.reason}; {reason}") if g.name == "sign" else g
        for g in measured.gates
    )
    return replace(measured, gates=gates)


def _halves(tasks: Sequence[Asked], values: Floats) -> float:
    """The mean, of both kinds of labels alike where there are both."""
    there = np.array([bool(t.answerable) for t in tasks], dtype=bool)
    if not len(there) or there.all() or not there.any():
        return float(values.mean())
    return float((values[there].mean() + values[~there].mean()) / 2)
