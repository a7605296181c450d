"""Learning without drawing, for `bench.ppo`: DPO and KTO of TRL, `python -m bench.ppo_offline JOB`.

The first policy draws as many answers as PPO draws in all its updates, two to each prompt, and they
are judged once by the same reward model: DPO is told which of two is better, KTO which are above
the mean. Then as many optimiser steps go over them as PPO takes, so every answer is learnt from as
often. What an update takes is the whole divided by their number.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch

from bench.ppo_clock import Clock, Job, run
from bench.ppo_trl import batches, common, models, taste

#: What an answer without an end loses, as everywhere in `bench.ppo`.
CUT = 1.0
Ids = list[int]
#: A prompt and its answers, each with its score.
Judged = tuple[Ids, list[tuple[Ids, float]]]


def taking_ids(trainer: Any) -> Any:
    """A trainer that takes ids as they were drawn: TRL would write an end behind each answer."""
    return type(trainer.__name__, (trainer,), {"_prepare_dataset": lambda self, rows, *_: rows})


def dpo(job: Job, clock: Clock) -> None:
    """Of two answers to a prompt the better one."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    policy, rows, tokenizer = drawn(job, clock)
    found = []
    for prompt, answers in rows:
        (worse, _), (better, _) = sorted(answers, key=lambda answer: answer[1])
        found.append({"prompt_ids": prompt, "chosen_ids": better, "rejected_ids": worse})
    with tempfile.TemporaryDirectory() as folder:
        # a part of a step holds as many answers as PPO's
        asked = DPOConfig(**learnt(job, folder, job["micro"] // 2))
        trainer = taking_ids(DPOTrainer)(
            model=policy, args=asked, train_dataset=Dataset.from_list(found),
            processing_class=tokenizer,
        )  # fmt: skip
        finish(trainer, policy, job, clock)


def kto(job: Job, clock: Clock) -> None:
    """Each answer by itself: whether it is above the mean."""
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    policy, rows, tokenizer = drawn(job, clock)
    alone = [(prompt, *answer) for prompt, answers in rows for answer in answers]
    mean = sum(score for *_, score in alone) / len(alone)
    found = [
        # the divergence is estimated with the answer to another prompt
        {"prompt_ids": prompt, "completion_ids": ids, "label": score > mean,
         "KL_completion_ids": alone[at - 2][1]}
        for at, (prompt, ids, score) in enumerate(alone)
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        asked = KTOConfig(**learnt(job, folder, job["micro"]))
        trainer = taking_ids(KTOTrainer)(
            model=policy, args=asked, train_dataset=Dataset.from_list(found),
            processing_class=tokenizer,
        )  # fmt: skip
        finish(trainer, policy, job, clock)


def learnt(job: Job, folder: str, rows: int) -> dict[str, Any]:
    """Arguments that both share, with so many rows in a part of a step."""
    found = common(job, folder)
    del found["temperature"]  # nothing is drawn
    return found | {
        "per_device_train_batch_size": rows, "max_steps": job["updates"] * job["epochs"],
        "max_grad_norm": 1e9,
    }  # fmt: skip


def drawn(job: Job, clock: Clock) -> tuple[Any, list[Judged], Any]:
    """The policy, its judged answers, two to a prompt, and the tokenizer."""
    policy, judge, tokenizer = models(job)
    tokenizer.pad_token = "t0"  # padding is embedded; no prompt holds that token
    scorer, found = judge(), list[Judged]()
    torch.manual_seed(job["seed"])
    for batch in batches(job | {"drawn": twice(job["drawn"], job["episodes"])}):
        clock.to("generate")
        answers = written(policy, batch["input_ids"], job)
        clock.to("score")
        prompts = [[n for n in row if n != job["pad"]] for row in batch["input_ids"].tolist()]
        scores = taste(scorer, [p + a for p, a in zip(prompts, answers, strict=True)])
        lost = [CUT * (job["natural"] and a[-1] != job["eos"]) for a in answers]
        judged = [(a, s - c) for a, s, c in zip(answers, scores, lost, strict=True)]
        clock.tell(
            tokens=float(sum(map(len, answers))), reward=sum(scores) / len(scores), kl=0.0
        )  # fmt: skip
        found += [(prompts[at], judged[at : at + 2]) for at in range(0, len(prompts), 2)]
    return policy, found, tokenizer


def twice(prompts: Sequence[Ids], episodes: int) -> list[Ids]:
    """The first half of each update's prompts, each two times."""
    starts = range(0, len(prompts), episodes)
    return [row for at in starts for row in prompts[at : at + episodes // 2] for _ in range(2)]


@torch.no_grad()
def written(policy: Any, ids: torch.Tensor, job: Job) -> list[Ids]:
    """An answer to each prompt (n, longest), padded on the left, up to its end."""
    mask = ids != job["pad"]
    end = job["eos"] if job["natural"] else None
    whole = policy.generate(
        input_ids=ids.masked_fill(~mask, 0), attention_mask=mask.long(), do_sample=True, top_k=0,
        max_new_tokens=job["answer"], eos_token_id=end, pad_token_id=0,
    )  # fmt: skip
    rows: list[Ids] = whole[:, ids.shape[1] :].tolist()
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


def finish(trainer: Any, policy: Any, job: Job, clock: Clock) -> None:
    """Train, share the time out over the updates, and write the policy."""
    clock.to("train")
    trainer.train()
    clock.to("other")
    clock.end()
    for name in ("train", "other", "cpu"):
        mean = sum(row[name] for row in clock.updates) / len(clock.updates)
        for row in clock.updates:
            row[name] = mean
    clock.keep(policy, job)


if __name__ == "__main__":
    run({"dpo": dpo, "kto": kto}[sys.argv[2]], f"trl {version('trl')}")
