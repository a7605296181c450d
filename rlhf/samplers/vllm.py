"""Draws with vLLM, on graphics cards.

Written against vLLM's documented interface (offline inference and sleep mode) and tried with a
double of it alone: vLLM needs CUDA or ROCm, and pins a version of torch. It is no extra of
plumbline: install a release whose torch is plumbline's into the environment that trains.

The weights go through a file: a checkpoint in `folder`, which the engine reads again. Sleeping at
level 2 gives the weights and the cache back, so weights come with every wake: first room for them,
then the weights, then room for the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from rlhf.actor_causal import Prompted
from rlhf.errors import TrainingError
from rlhf.samplers.base import Sampler, Weights
from rlhf.schema import Finish, Rollout

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
LEVEL = 2


class Engine:
    """See the module's text.

    Args:
        folder: a checkpoint as transformers writes it, one file of weights; it is overwritten with
            every hand-over, so a folder in memory serves best.
        library: the module `vllm`.
        share: of the card's memory that vLLM takes while awake.
        **options: of `vllm.LLM`, for example tensor_parallel_size.

    Raises:
        TrainingError: the checkpoint is in several files.
    """

    def __init__(self, folder: Path, library: Any, share: float = 0.5, **options: Any) -> None:
        if (folder / INDEX).exists() or not (folder / WEIGHTS).is_file():
            raise TrainingError(
                f"{folder} has to hold its weights in one file {WEIGHTS}; save the model there "
                "with max_shard_size above its size"
            )
        self._folder, self._library = folder, library
        self._llm = library.LLM(
            model=str(folder),
            skip_tokenizer_init=True,  # ids in, ids out
            enable_sleep_mode=True,
            logprobs_mode="processed_logprobs",  # after the temperature
            gpu_memory_utilization=share,
            **options,
        )
        self._asleep, self._stale = False, True

    def generate(
        self, tasks: Sequence[Prompted], temperature: float, generator: torch.Generator
    ) -> list[Rollout]:
        """Free text.

        Raises:
            TrainingError: there are no weights yet, or an answer was broken off.
        """
        if self._asleep or self._stale:
            raise TrainingError("the sampler sleeps, or slept and got no weights; hand them over")
        seeds = torch.randint(2**31, (len(tasks),), generator=generator).tolist()
        outputs = self._llm.generate(
            [{"prompt_token_ids": list(task.ids)} for task in tasks],
            [
                self._library.SamplingParams(
                    temperature=temperature,
                    top_p=1.0,
                    top_k=0,
                    min_p=0.0,
                    max_tokens=task.most,
                    stop_token_ids=sorted(task.stops),
                    ignore_eos=True,  # the task says what ends an answer
                    logprobs=0,  # of the token that was drawn
                    seed=seed,
                    detokenize=False,
                )
                for task, seed in zip(tasks, seeds, strict=True)
            ],
            use_tqdm=False,
        )
        return [_rollout(task, out.outputs[0]) for task, out in zip(tasks, outputs, strict=True)]

    def update_weights(self, weights: Weights) -> None:
        """Through the file; prompts that were kept are forgotten."""
        part = self._folder / f"{WEIGHTS}.part"
        save_file({k: v.detach().cpu().clone().contiguous() for k, v in weights}, part)
        part.replace(self._folder / WEIGHTS)
        self._llm.collective_rpc("reload_weights")
        if self._asleep:
            self._llm.wake_up(tags=["kv_cache"])
        self._llm.reset_prefix_cache()
        self._asleep = self._stale = False

    def sleep(self) -> None:
        """Give the card's memory back."""
        self._llm.sleep(level=LEVEL)
        self._asleep = self._stale = True

    def wake(self) -> None:
        """Room for the weights; the cache follows them."""
        if self._asleep:
            self._llm.wake_up(tags=["weights"])


def _rollout(task: Prompted, out: Any) -> Rollout:
    """Of one completion of vLLM."""
    ids = tuple(out.token_ids)
    if out.finish_reason not in ("stop", "length") or not ids:
        raise TrainingError(f"vLLM broke an answer off: {out.finish_reason}, {len(ids)} tokens")
    finish: Finish = "stop" if out.finish_reason == "stop" else "length"
    if (finish == "stop") != task.ended(ids):
        raise TrainingError("vLLM left out the token that ended an answer, or went on behind it")
    logprobs = tuple(found[token].logprob for token, found in zip(ids, out.logprobs, strict=True))
    return Rollout(task.ids, ids, (True,) * len(ids), None, finish, logprobs)


def build(folder: Path, share: float = 0.5, **options: Any) -> Sampler[Prompted]:
    """See `Engine`.

    Raises:
        TrainingError: vLLM is not installed.
    """
    try:
        import vllm
    except ModuleNotFoundError as error:
        raise TrainingError(
            "the sampler vllm needs vLLM, which needs a graphics card and a torch of its own; "
            "install a release of it whose torch is this one's, or choose transformers"
        ) from error
    return Engine(folder, vllm, share, **options)
