"""What the policies of `bench.ppo` have become, by one definition: ours, on all sides alike.

A system writes its policy after each update, and here it draws answers to prompts that nothing
learnt on, the same ones with the same dice. Of an answer count all tokens to its end, the ending
one too.

kl      sum over an answer's tokens of the whole KL of policy and first policy at that place, mean
        over answers: no estimate of what was not drawn, so it hardly varies with the dice
k1, k3  the same by log-ratios of the drawn tokens alone; k1 is what both sides log while they train
reward  the mean score of the reward model
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2ForSequenceClassification, GPT2LMHeadModel

from bench.ppo_ours import asked, scores
from rlhf import objectives
from rlhf.actor_causal import CausalActor
from rlhf.schema import Rollout

#: Answers that are read at once.
AT_ONCE = 32


def weigh(
    folder: Path, final: Path, prompts: Sequence[Sequence[int]], job: dict[str, Any], seed: int = 5
) -> dict[str, float]:
    """What a policy spent and got.

    Args:
        folder: of `policy`, the first one, and `reward`.
        final: the policy.
        prompts: one answer is drawn to each.
        job: says how long answers are, and whether a token ends them.
        seed: of the dice.
    """
    first: Any = GPT2LMHeadModel.from_pretrained(folder / "policy")
    judge: Any = GPT2ForSequenceClassification.from_pretrained(folder / "reward")
    last: Any = GPT2LMHeadModel.from_pretrained(final)
    first.eval()
    judge.eval()
    actor = CausalActor(last, rank=0, at_once=len(prompts))
    generator = torch.Generator().manual_seed(seed)
    sums = dict.fromkeys(("kl", "k1", "k3", "reward", "tokens"), 0.0)
    with torch.no_grad():
        rollouts = actor.draw([asked(ids, job) for ids in prompts], 1.0, generator)
        for at in range(0, len(rollouts), AT_ONCE):
            some = rollouts[at : at + AT_ONCE]
            for name, value in divergences(last, first, some).items():
                sums[name] += float(value.sum())
            sums["reward"] += sum(scores(judge, some))
            sums["tokens"] += sum(len(r.completion) for r in some)
    return {name: value / len(rollouts) for name, value in sums.items()}


def divergences(policy: Any, reference: Any, rollouts: Sequence[Rollout]) -> dict[str, Tensor]:
    """KL of two networks on answers, in nats, each (answers,): `kl`, `k1` and `k3`.

    Args:
        policy: that drew them.
        reference: the other one.
        rollouts: whose tokens all count.
    """
    whole = [(*r.prompt, *r.completion) for r in rollouts]
    most = max(map(len, whole))
    ids = torch.tensor([(*row, *[0] * (most - len(row))) for row in whole])
    mask = torch.zeros(len(whole), most - 1, dtype=torch.bool)
    for row, rollout in enumerate(rollouts):
        mask[row, len(rollout.prompt) - 1 : len(whole[row]) - 1] = True
    new, old = (
        torch.log_softmax(model(ids, use_cache=False).logits[:, :-1].float(), -1)
        for model in (policy, reference)
    )
    picked = [side.gather(2, ids[:, 1:, None])[:, :, 0] for side in (new, old)]
    each = {
        "kl": (new.exp() * (new - old)).sum(-1),
        "k1": objectives.k1(*picked),
        "k3": objectives.k3(*picked),
    }
    return {name: value.masked_fill(~mask, 0).sum(1) for name, value in each.items()}
