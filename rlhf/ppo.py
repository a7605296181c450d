"""Proximal policy optimisation of a policy that answers (Schulman et al. 2017), as InstructGPT's.

An update draws answers, has them scored, and learns from them:

1. `episodes` answers by the policy as it is, `answers` of them to each task;
2. the score is the sum of all reward terms, replaced where an answer did not end, then clipped;
3. log-probs before the update come from the training forward, not from the sampler;
4. the reward is the score on the last action, minus beta times the KL (k1) at each action;
5. advantages by GAE, less those of the other answers to the task where `leave_one_out` says so,
   whitened over all actions of the batch;
6. `epochs` shuffles in `minibatches` optimiser steps, each with the clipped policy loss, the
   clipped value loss and, where `pretraining` weighs anything, the language model's (PPO-ptx);
7. beta is adapted to the target KL.

The first minibatch must find the ratio of new and old policy to be 1: anything else says that the
training forward is not the same function twice (dropout, other numerics), and the run stops. A run
that goes astray stops with its reason. Checkpoints are whole: a run that was broken off and taken
up again gives, on a processor, the same weights to the bit.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Generic

import numpy as np
import torch
from torch import Tensor, nn

from rlhf import objectives
from rlhf._ppo_batch import Batch, Minibatch, passes, prepared, scored
from rlhf._ppo_metrics import Steps, Update, alarm, measured
from rlhf._ppo_state import Log, State, copy, load, save
from rlhf.actors import Actor, Alone, TaskT, World
from rlhf.config import PPOSettings
from rlhf.errors import Diverged, TrainingError
from rlhf.schema import Rollout

__all__ = ["PPO", "Potential", "Pretraining", "Reward", "Steps", "Update"]

#: Reward terms by name, each already weighted, with a number for each rollout.
Reward = Callable[[Sequence[TaskT], Sequence[Rollout]], Mapping[str, Sequence[float]]]
#: What the state promised in which each action was chosen, (rows, longest completion).
Potential = Callable[[Sequence[Rollout]], Tensor]
#: Parts that add up to the mean language-model loss of the optimiser step with this number.
Pretraining = Callable[[int], Iterable[Tensor]]

#: Distance of the seeds of two processes (Huang et al. 2023).
APART = 100_003
#: Part of the rate that the first update gets, and part of the target that a step may move on.
FIRST_RATE, TOO_FAR = 0.1, 1.5


class PPO(Generic[TaskT]):
    """One run.

    Args:
        actor: the policy with its reference and value head; it is changed in place.
        tasks: what answers are drawn to; each once before any of them again.
        reward: scores answers; called once an update.
        settings: of the run.
        folder: of checkpoint and log; a run that was broken off there is taken up.
        pretraining: the loss that is mixed in, where `settings.pretraining` is above 0.
        world: the processes that share the run.
        potential: what rewards are shaped with (`objectives.shaped`), such as the scores that a
            causal reward model gives to the beginnings of an answer: all in one reading.

    Raises:
        TrainingError: there is nothing to learn from, or `folder` holds another run.
    """

    def __init__(
        self,
        actor: Actor[TaskT],
        tasks: Sequence[TaskT],
        reward: Reward[TaskT],
        settings: PPOSettings,
        folder: Path,
        pretraining: Pretraining | None = None,
        world: World | None = None,
        potential: Potential | None = None,
    ) -> None:
        self._actor, self._tasks, self._reward = actor, tasks, reward
        self._potential = potential
        self._settings, self._world = settings, world or Alone()
        self._pretraining = pretraining if settings.pretraining > 0 else None
        self._check(pretraining)
        self._policy, self._value = dict(actor.policy), dict(actor.value)
        self._optimizer = torch.optim.Adam(
            [
                {"params": [*self._policy.values()], "lr": settings.rate},
                {"params": [*self._value.values()], "lr": settings.value_rate},
            ],
            betas=(settings.adam_beta1, settings.adam_beta2),
            eps=settings.adam_epsilon,
        )
        self._generator = torch.Generator()
        self._generator.manual_seed(settings.seed + APART * self._world.rank)
        #: Weight of the KL in the next update.
        self.beta = settings.beta
        #: Updates and optimiser steps done.
        self.done, self.steps = 0, 0
        self._average = {name: p.detach().clone() for name, p in self._policy.items()}
        self._run = self._named()
        suffix = f"-{self._world.rank}" if self._world.size > 1 else ""
        #: The checkpoint.
        self.path = folder / f"ppo{suffix}.safetensors"
        self._take_up()
        first = self._world.rank == 0
        self._log = Log(folder / "updates.jsonl", self.done) if first else None

    def train(self) -> Iterator[Update]:
        """Go on to the end; yields every update when it is done.

        Raises:
            Diverged: the run went astray; the last checkpoint is from before that.
            TrainingError: ratio gate, a reward term, or the disk.
        """
        settings = self._settings
        while self.done < settings.updates:
            update = self._update()
            if self._log is not None:
                self._log.add(update.row())
            reason = alarm(update, settings)
            if reason:
                raise Diverged(f"update {update.update}: {reason}")
            self.done += 1
            if self.done % settings.save_every == 0 or self.done == settings.updates:
                self.save()
            yield update

    def save(self) -> None:
        """Write the checkpoint.

        Raises:
            TrainingError: it cannot be written; the one before it stays.
        """
        moments = self._optimizer.state_dict()["state"]
        state = State(
            {**self._policy, **self._value},
            self._average,
            moments,
            self._generator.get_state(),
            self.beta,
            self.done,
            self.steps,
        )
        save(self.path, state, self._run)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The policy with the average of its weights, for measuring and export."""
        kept = {name: p.detach().clone() for name, p in self._policy.items()}
        try:
            copy(self._average, self._policy)
            yield
        finally:
            copy(kept, self._policy)

    def _update(self) -> Update:
        """Draw, score, learn."""
        began, settings, world = time.monotonic(), self._settings, self._world
        warm = self.done < settings.value_warmup
        factor = self._factor()
        for group, rate in zip(
            self._optimizer.param_groups, (settings.rate, settings.value_rate), strict=True
        ):
            group["lr"] = rate * factor
        tasks = self._next_tasks()
        with torch.no_grad():
            rollouts = self._actor.draw(tasks, settings.temperature, self._generator)
        if len(rollouts) != len(tasks):
            raise TrainingError(f"the actor drew {len(rollouts)} answers to {len(tasks)} tasks")
        terms = self._reward(tasks, rollouts)
        epochs = passes(rollouts, settings, self._generator)
        parts = [part for minibatch in epochs[0] for part in minibatch]
        scores = scored(terms, len(rollouts))
        promised = self._potential(rollouts) if self._potential else None
        batch = prepared(self._actor, rollouts, scores, parts, settings, self.beta, world, promised)
        steps = self._learn(batch, epochs, warm)
        update = measured(
            batch, terms, steps, settings, world,
            number=self.done, beta=self.beta, warm=warm, rate=settings.rate * factor,
            seconds=time.monotonic() - began,
        )  # fmt: skip
        if settings.target_kl is not None and not warm:
            self.beta = objectives.adapted(
                self.beta, update.kl, settings.target_kl, settings.horizon, update.episodes
            )
        return update

    def _learn(self, batch: Batch, epochs: Sequence[Sequence[Minibatch]], warm: bool) -> Steps:
        """All optimiser steps of an update, or those before the policy moved too far."""
        settings, first = self._settings, True
        taken, stopped, farthest, tokens = 0, False, 0.0, 0.0
        sums = torch.zeros(4, device=batch.mask.device)
        norms, other = [0.0], [(0.0, 0.0)]
        for minibatch in (minibatch for epoch in epochs for minibatch in epoch):
            found, count, gap = self._backward(batch, minibatch, warm)
            if not count:
                continue
            if first:
                self._gate(gap)
                first = False
            *each, moved = self._world.sum(found).tolist()
            sums += torch.tensor(each, device=sums.device)
            tokens += count
            farthest = max(farthest, moved / count)
            if settings.step_kl is not None and moved / count > TOO_FAR * settings.step_kl:
                stopped = True
                break
            norms.append(self._norm())
            if self._pretraining is not None and not warm:
                other.append(self._mix(self._pretraining))
            self._step(warm)
            taken += 1
        policy, value, clipped, value_clipped = (sums / max(tokens, 1)).tolist()
        lost, mixed = (float(np.mean(column[1:] or [0.0])) for column in zip(*other, strict=True))
        return Steps(
            taken, stopped, policy, value, lost, clipped, value_clipped, farthest,
            float(np.mean(norms[1:] or [0.0])), mixed,
        )  # fmt: skip

    def _backward(
        self, batch: Batch, minibatch: Minibatch, warm: bool
    ) -> tuple[Tensor, float, float]:
        """Gradients of a minibatch, divided by its number of actions in all processes.

        Returns:
            Sums of policy loss, value loss, clipped ratios, clipped values and k3 of new and old
            policy, (5,), of this process; the number of actions of all; and how far the ratio is
            from 1 at the most.
        """
        settings, device = self._settings, batch.mask.device
        trained = self._trained(warm)
        for parameter in (*self._policy.values(), *self._value.values()):
            parameter.grad = None
        rows = [row for part in minibatch for row in part]
        count = float(self._world.sum(batch.mask[rows].sum()))
        found, gap = torch.zeros(5, device=device), 0.0
        for part in minibatch:
            look = self._actor.look([batch.rollouts[row] for row in part], settings.temperature)
            cut = (torch.tensor(part, device=device), slice(look.logprobs.shape[1]))
            mask = batch.mask[cut]
            if not mask.any():
                continue
            old = batch.old[cut]
            weights = None if batch.weights is None else batch.weights[cut]
            chosen = objectives.policy_loss(
                look.logprobs, old, batch.advantages[cut], mask, settings.clip, weights
            )
            valued = objectives.value_loss(
                look.values, batch.values[cut], batch.returns[cut], mask, settings.value_clip
            )
            loss = settings.value_weight * valued.total
            loss = loss if warm else loss + chosen.total
            torch.autograd.backward(loss / count, inputs=trained)
            with torch.no_grad():
                found += torch.stack(
                    (chosen.total, valued.total, chosen.clipped, valued.clipped, chosen.moved)
                )
                ratio = objectives.log_ratio(look.logprobs, old).exp()
                gap = max(gap, float(((ratio - 1).abs() * mask).max()))
        self._gather(trained)
        return found, count, gap

    def _gather(self, trained: Sequence[nn.Parameter]) -> None:
        """Add up the gradients of all processes."""
        if self._world.size > 1:
            for parameter in trained:
                mine = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self._world.sum(mine)

    def _mix(self, pretraining: Pretraining) -> tuple[float, float]:
        """Add the language model's gradient to the policy's; returns its loss and its norm."""
        policy = [*self._policy.values()]
        before = [parameter.grad for parameter in policy]
        for parameter in policy:
            parameter.grad = None
        total, share = 0.0, self._settings.pretraining / self._world.size
        for part in pretraining(self.steps * self._world.size + self._world.rank):
            torch.autograd.backward(share * part, inputs=policy)
            total += float(part.detach())
        self._gather(policy)
        norm = _norm(policy)
        for parameter, gradient in zip(policy, before, strict=True):
            if parameter.grad is None:
                parameter.grad = gradient
            elif gradient is not None:
                parameter.grad += gradient
        return total, norm

    def _step(self, warm: bool) -> None:
        """Clip, step, and average the weights."""
        settings = self._settings
        norm = float(nn.utils.clip_grad_norm_(self._trained(warm), settings.gradient_clip))
        if not np.isfinite(norm):
            raise Diverged(
                f"update {self.done}: the gradient's norm is {norm}; lower the rate, or look for a "
                "broken reward term"
            )
        self.steps += 1
        if settings.adam_form == "tensorflow":
            for group in self._optimizer.param_groups:  # of torch's form, the epsilon that is this
                step = self._optimizer.state[group["params"][0]].get("step", 0)
                group["eps"] = (
                    settings.adam_epsilon / (1 - settings.adam_beta2 ** (step + 1)) ** 0.5
                )
        self._optimizer.step()
        with torch.no_grad():
            for name, parameter in self._policy.items():
                self._average[name].lerp_(parameter, 1 - settings.average)

    def _gate(self, gap: float) -> None:
        """Before the first step of an update, new and old policy are the same."""
        settings = self._settings
        if float(self._world.sum(torch.tensor(float(not gap <= settings.ratio_gap)))):
            raise TrainingError(
                f"update {self.done}: on the first minibatch the ratio of new and old policy is "
                f"off 1 by {gap:.2g}, more than ratio_gap = {settings.ratio_gap:g}, though no "
                "weight has changed; switch dropout off, or read with one precision both times"
            )

    def _trained(self, warm: bool) -> list[nn.Parameter]:
        return [*self._value.values()] if warm else [*self._policy.values(), *self._value.values()]

    def _norm(self) -> float:
        return _norm([*self._policy.values()])

    def _factor(self) -> float:
        """On both rates, in this update."""
        settings = self._settings
        left = 1 - self.done / settings.updates if settings.schedule == "linear" else 1.0
        if self.done >= settings.rate_warmup:
            return left
        return left * (FIRST_RATE + (1 - FIRST_RATE) * self.done / settings.rate_warmup)

    def _next_tasks(self) -> list[TaskT]:
        """This process's share of the update's; depends on seed and update alone.

        A task of which several answers are drawn stands as often, one behind the other.
        """
        each, found = self._settings.answers, []
        size = self._settings.episodes // each
        orders: dict[int, list[int]] = {}
        for number in range(self.done * size, (self.done + 1) * size):
            epoch, at = divmod(number, len(self._tasks))
            if epoch not in orders:
                draw = np.random.default_rng((self._settings.seed, epoch))
                orders[epoch] = draw.permutation(len(self._tasks)).tolist()
            found.append(self._tasks[orders[epoch][at]])
        return [task for task in found[self._world.rank :: self._world.size] for _ in range(each)]

    def _check(self, pretraining: Pretraining | None) -> None:
        settings, size = self._settings, self._world.size
        if not self._tasks:
            raise TrainingError("there are no tasks to draw answers to; give some prompts")
        if settings.episodes // settings.answers // size < settings.minibatches:
            raise TrainingError(
                f"{settings.episodes} episodes, {settings.answers} to a prompt, in {size} "
                f"processes do not fill {settings.minibatches} minibatches; draw more"
            )
        if settings.pretraining > 0 and pretraining is None:
            raise TrainingError("settings.pretraining is above 0, but there is no such loss")

    def _named(self) -> str:
        """What tells this run from others: settings, shapes and the number of tasks."""
        open_ended = {"save_every"} | (
            {"updates"} if self._settings.schedule == "constant" else set()
        )
        shapes = {k: list(v.shape) for k, v in (*self._policy.items(), *self._value.items())}
        whole = [self._settings.model_dump(exclude=open_ended), shapes, len(self._tasks)]
        text = json.dumps([*whole, self._world.rank, self._world.size], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _take_up(self) -> None:
        state = load(self.path, self._run)
        done = 0 if state is None else state.done
        total = float(self._world.sum(torch.tensor(float(done))))
        if total != done * self._world.size:
            raise TrainingError(f"{self.path} is of another update than those of other processes")
        if state is None:
            return
        copy(state.weights, {**self._policy, **self._value})
        copy(state.average, self._average)
        before = self._optimizer.state_dict()
        self._optimizer.load_state_dict({**before, "state": state.moments})
        self._generator.set_state(state.generator)
        self.beta, self.done, self.steps = state.beta, state.done, state.steps


def _norm(parameters: Sequence[nn.Parameter]) -> float:
    found = [p.grad.norm() for p in parameters if p.grad is not None]
    return float(torch.stack(found).norm()) if found else 0.0
