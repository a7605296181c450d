"""TRL's side of `bench.ppo`, in an environment of its own: `python -m bench.ppo_trl JOB`.

PPO is that of TRL 1.12.0, the last one that had it; RLOO that of a later TRL. Prompts come in the
order of our side. What has a switch in TRL and costs time for nothing here is off: gradient
checkpointing, bfloat16, reports, samples for show.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import (
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    TrainerCallback,
)

from bench.ppo_clock import Clock, Job, attention, run


class Ended(TrainerCallback):
    """Tells the clock that training is over, and after every `every` times writes the policy."""

    def __init__(self, clock: Clock, policy: Any, job: Job, every: int) -> None:
        self._clock, self._policy, self._job, self._every = clock, policy, job, every
        self._times = 0

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """After an update of PPO, or an optimiser's step of a trainer that counts those."""
        self._clock.to("other")
        self._times += 1
        if self._times % self._every == 0:
            self._clock.keep(self._policy, self._job)


def common(job: Job, folder: str) -> dict[str, Any]:
    """Arguments that PPO and RLOO share."""
    return {
        "output_dir": folder,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": job["micro"],
        "gradient_accumulation_steps": job["episodes"] // job["micro"],
        "learning_rate": job["rate"],
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "adam_beta1": job["betas"][0],
        "adam_beta2": job["betas"][1],
        "adam_epsilon": job["epsilon"],
        "temperature": 1.0,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": job["seed"],
    }


def models(job: Job) -> tuple[Any, Callable[[], Any], Any]:
    """The policy, what loads a reward model, and the tokenizer."""
    folder = Path(job["folder"])
    options: Any = {"attn_implementation": attention(job)}

    def judge() -> Any:
        found: Any = GPT2ForSequenceClassification.from_pretrained(folder / "reward", **options)
        return found.eval()

    policy = GPT2LMHeadModel.from_pretrained(folder / "policy", **options)
    return policy, judge, PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer")


def ppo(job: Job, clock: Clock) -> None:
    """PPOTrainer with a critic of its own."""
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

    policy, judge, tokenizer = models(job)
    with tempfile.TemporaryDirectory() as folder:
        trainer = PPOTrainer(
            args=PPOConfig(
                **common(job, folder),
                num_mini_batches=1,
                num_ppo_epochs=job["epochs"],
                total_episodes=job["episodes"] * job["updates"],
                local_rollout_forward_batch_size=job["episodes"],
                response_length=job["answer"],
                stop_token="eos" if job["natural"] else None,
                missing_eos_penalty=1.0 if job["natural"] else None,
                kl_coef=job["beta"],
                lam=job["trace"],
                cliprange=job["clip"],
                cliprange_value=job["clip"],
                vf_coef=job["value_weight"],
                num_sample_generations=0,
            ),
            processing_class=tokenizer,
            model=policy,
            ref_model=None,
            reward_model=judge(),
            value_model=judge(),
            train_dataset=Dataset.from_dict({"input_ids": job["drawn"]}),
            eval_dataset=Dataset.from_dict({"input_ids": job["drawn"][:1]}),
            callbacks=[Ended(clock, policy, job, 1)],
        )
        trainer.dataloader = batches(job)
        _watch_ppo(ppo_trainer, trainer, job, clock)
        trainer.train()
    clock.end()


def batches(job: Job) -> list[dict[str, torch.Tensor]]:
    """The prompts of each update, padded on the left."""
    found = []
    for at in range(0, len(job["drawn"]), job["episodes"]):
        rows = job["drawn"][at : at + job["episodes"]]
        most = max(map(len, rows))
        ids = [[job["pad"]] * (most - len(row)) + row for row in rows]
        found.append({"input_ids": torch.tensor(ids)})
    return found


def _watch_ppo(module: Any, trainer: Any, job: Job, clock: Clock) -> None:
    """Tell the clock where the trainer is, without changing what it does."""
    draw, forward, log = module.batch_generation, module.forward, trainer.log

    def drawn(model: Any, queries: torch.Tensor, *rest: Any) -> Any:
        clock.to("generate")
        found = draw(model, queries, *rest)
        clock.to("score")
        answers = found[0][:, queries.shape[1] :]
        clock.tell(tokens=float(length(answers, job["eos"])))
        return found

    def forwarded(*given: Any) -> Any:
        if torch.is_grad_enabled():
            clock.to("train")
        return forward(*given)

    def logged(metrics: dict[str, float], *rest: Any) -> Any:
        clock.tell(reward=metrics["objective/scores"], kl=metrics["objective/kl"])
        return log(metrics, *rest)

    module.batch_generation, module.forward, trainer.log = drawn, forwarded, logged


def length(answers: torch.Tensor, eos: int) -> int:
    """Tokens up to the first `eos` of each row, that one included."""
    before = (answers == eos).int().cumsum(1) - (answers == eos).int()
    return int((before == 0).sum())


@torch.no_grad()
def taste(scorer: Any, rows: list[list[int]]) -> list[float]:
    """The reward model's score of prompts with their answers, at the last token of each."""
    most = max(map(len, rows))
    ids = torch.tensor([row + [0] * (most - len(row)) for row in rows])
    states = scorer.transformer(ids, use_cache=False).last_hidden_state
    last = states[torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])]
    found: list[float] = scorer.score(last)[:, 0].tolist()
    return found


def rloo(job: Job, clock: Clock) -> None:
    """RLOOTrainer, with several answers to a prompt and no critic."""
    from datasets import Dataset
    from trl import RLOOConfig, RLOOTrainer

    policy, judge, tokenizer = models(job)
    scorer = judge()
    tokenizer.pad_token = "t0"  # this trainer embeds padding too; no prompt holds that token

    def rewarded(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        clock.tell(tokens=float(sum(map(len, completion_ids))))
        asked = [tokenizer(text)["input_ids"] for text in prompts]
        return taste(scorer, [[*p, *ids] for p, ids in zip(asked, completion_ids, strict=True)])

    texts = [" ".join(f"t{n}" for n in row) for row in job["drawn"]]
    accumulated = job["episodes"] // job["micro"]
    with tempfile.TemporaryDirectory() as folder:
        trainer = RLOOTrainer(
            model=policy,
            reward_funcs=rewarded,
            args=RLOOConfig(
                **common(job, folder),
                max_steps=job["updates"] * job["epochs"],
                num_iterations=job["epochs"],
                steps_per_generation=accumulated,
                num_generations=min(4, job["episodes"]),
                max_completion_length=job["answer"],
                beta=job["beta"],
                epsilon=job["clip"],
                max_grad_norm=1e9,
                shuffle_dataset=False,
                logging_steps=1,
            ),
            train_dataset=Dataset.from_dict({"prompt": texts}),
            processing_class=tokenizer,
            callbacks=[Ended(clock, policy, job, job["epochs"])],
        )
        _watch_rloo(trainer, clock)
        trainer.train()
    clock.end()


def _watch_rloo(trainer: Any, clock: Clock) -> None:
    make, draw = trainer._generate_and_score_completions, trainer._generate
    loss, log = trainer.compute_loss, trainer.log

    def made(*given: Any, **named: Any) -> Any:
        clock.to("generate")
        return make(*given, **named)

    def drawn(*given: Any, **named: Any) -> Any:
        found = draw(*given, **named)
        clock.to("score")
        return found

    def lost(*given: Any, **named: Any) -> Any:
        clock.to("train")
        return loss(*given, **named)

    def logged(metrics: dict[str, float], *rest: Any) -> Any:
        told = trainer._metrics["train"]
        if told.get("reward"):
            clock.tell(reward=told["reward"][-1], kl=told.get("kl", [0.0])[-1])
        return log(metrics, *rest)

    trainer._generate_and_score_completions, trainer._generate = made, drawn
    trainer.compute_loss, trainer.log = lost, logged


if __name__ == "__main__":
    name = sys.argv[2]
    run(ppo if name == "ppo" else rloo, f"trl {version('trl')}")
