"""Our side of `bench.ppo`, in a process of its own: `python -m bench.ppo_ours JOB`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2ForSequenceClassification, GPT2LMHeadModel

from bench.ppo_clock import Clock, Job, attention, run
from rlhf._actor_network import Ids, cut
from rlhf.actor_causal import CausalActor, Prompted
from rlhf.actors import Look
from rlhf.config import PPOSettings
from rlhf.ppo import PPO
from rlhf.schema import Rollout

#: A bound that is never met: the other side has none.
FREE = 1e9
#: What an answer without an end loses, on both sides.
CUT = 1.0


@dataclass(frozen=True)
class Fixed(Prompted):
    """Answers are of `most` tokens, and that ends them."""

    def allowed(self, path: Sequence[int]) -> Ids | None:
        """Anything, so many times."""
        return None if len(path) < self.most else ()

    def ended(self, path: Sequence[int]) -> bool:
        """They are never cut off."""
        return True


@dataclass(frozen=True)
class Open(Prompted):
    """Answers end by themselves or are cut off; what that costs is said by the reward alone."""

    def allowed(self, path: Sequence[int]) -> Ids | None:
        """Any token, until a stop or the longest answer."""
        return () if len(path) >= self.most or cut(path, self.stops)[1] else None

    def ended(self, path: Sequence[int]) -> bool:
        """So that no score is replaced: TRL takes 1 off it instead."""
        return True


def asked(ids: Sequence[int], job: Job) -> Prompted:
    """A prompt, with answers that end as the job says."""
    if job["natural"]:
        return Open(tuple(ids), frozenset({job["eos"]}), job["answer"])
    return Fixed(tuple(ids), frozenset(), job["answer"])


class Timed:
    """An actor that tells the clock what it is doing."""

    def __init__(self, actor: CausalActor, clock: Clock) -> None:
        self._actor, self._clock = actor, clock
        self.device = actor.device

    @property
    def policy(self) -> Mapping[str, nn.Parameter]:
        """The actor's."""
        return self._actor.policy

    @property
    def value(self) -> Mapping[str, nn.Parameter]:
        """The actor's."""
        return self._actor.value

    def draw(
        self, tasks: Sequence[Any], temperature: float, generator: torch.Generator
    ) -> list[Rollout]:
        """Generation."""
        self._clock.to("generate")
        found = self._actor.draw(tasks, temperature, generator)
        self._clock.to("score")
        self._clock.tell(tokens=sum(len(r.completion) for r in found))
        return found

    def look(
        self, rollouts: Sequence[Rollout], temperature: float, *, entropy: bool = False
    ) -> Look:
        """With gradients it is training."""
        if torch.is_grad_enabled():
            self._clock.to("train")
        return self._actor.look(rollouts, temperature, entropy=entropy)

    def reference(self, rollouts: Sequence[Rollout], temperature: float) -> Tensor:
        """The actor's."""
        return self._actor.reference(rollouts, temperature)


def system(job: Job, clock: Clock) -> None:
    """Train so many updates."""
    folder = Path(job["folder"])
    options: Any = {"attn_implementation": attention(job)}
    model: Any = GPT2LMHeadModel.from_pretrained(folder / "policy", **options)
    judge: Any = GPT2ForSequenceClassification.from_pretrained(folder / "reward", **options)
    critic: Any = None
    if job["critic"]:
        critic = GPT2ForSequenceClassification.from_pretrained(folder / "reward", **options)
    actor = Timed(CausalActor(model, rank=0, at_once=job["episodes"], critic=critic), clock)
    judge.eval()

    beginnings = torch.zeros(0)

    def reward(tasks: Sequence[Any], found: Sequence[Rollout]) -> dict[str, list[float]]:
        nonlocal beginnings
        beginnings, ends = judged(judge, found)
        return {"taste": ends.tolist(), "cut off": cut_off(found, job)}

    tasks = [asked(ids, job) for ids in job["tasks"]]
    with tempfile.TemporaryDirectory() as log:
        # a critic begins as the reward model; without one its scores of beginnings are given
        shaping = None if job["critic"] else lambda _: beginnings
        loop = PPO(actor, tasks, reward, settings(job), Path(log), potential=shaping)
        for update in islice(loop.train(), job["updates"]):
            clock.to("other")
            clock.tell(reward=update.score, kl=update.kl)
            clock.keep(model, job)
    clock.end()


def settings(job: Job) -> PPOSettings:
    """As the job says; what the other side does not do is left out."""
    return PPOSettings(
        seed=job["seed"],
        updates=job["updates"] + 1,  # one more than is run: the last one writes a checkpoint
        episodes=job["episodes"],
        minibatches=1,
        epochs=job["epochs"],
        micro=job["micro"],
        rate=job["rate"],
        value_rate=job["rate"],
        rate_warmup=0,
        adam_beta1=job["betas"][0],
        adam_beta2=job["betas"][1],
        adam_epsilon=job["epsilon"],
        gradient_clip=FREE,
        beta=job["beta"],
        target_kl=None,
        step_kl=None,
        trace=job["trace"],
        clip=job["clip"],
        value_clip=job["clip"],
        value_weight=job["value_weight"],
        value_warmup=0,
        score_clip=FREE,
        ratio_gap=1e-3,
        most_kl=FREE,
        least_entropy=0.0,
        save_every=10**6,
    )


def cut_off(rollouts: Sequence[Rollout], job: Job) -> list[float]:
    """What answers lose that should have ended by themselves."""
    return [-CUT if job["natural"] and r.completion[-1] != job["eos"] else 0.0 for r in rollouts]


def scores(judge: Any, rollouts: Sequence[Rollout]) -> list[float]:
    """The reward model's, at the last token of each answer."""
    found: list[float] = judged(judge, rollouts)[1].tolist()
    return found


@torch.no_grad()
def judged(judge: Any, rollouts: Sequence[Rollout]) -> tuple[Tensor, Tensor]:
    """The reward model's scores of an answer before each token (rows, longest), and at its end."""
    whole = [(*r.prompt, *r.completion) for r in rollouts]
    most = max(map(len, whole))
    ids = torch.tensor([(*row, *[0] * (most - len(row))) for row in whole])
    each = judge.score(judge.transformer(ids, use_cache=False).last_hidden_state)[:, :, 0]
    before = torch.zeros(len(whole), max(len(r.completion) for r in rollouts))
    for row, rollout in enumerate(rollouts):
        start, size = len(rollout.prompt) - 1, len(rollout.completion)
        before[row, :size] = each[row, start : start + size]
    return before, each[torch.arange(len(whole)), torch.tensor([len(row) - 1 for row in whole])]


if __name__ == "__main__":
    run(system, f"plumbline {version('plumbline')}")
