"""Settings of learning from feedback. Every field says its unit."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from assistant.config import PreferenceSettings

__all__ = ["FILTERS", "PPOSettings", "PreferenceSettings"]

#: Ways to sample that leave part of the policy's distribution out, so that the KL of what was
#: drawn is no longer that of the policy; it goes below zero.
FILTERS = (
    "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "repetition_penalty",
    "no_repeat_ngram_size", "min_length", "min_new_tokens", "suppress_tokens", "bad_words_ids",
)  # fmt: skip


class PPOSettings(BaseModel):
    """One run of PPO. Defaults suit the small policy on two cores.

    InstructGPT's schedule is episodes = 512, minibatches = 8, epochs = 1, beta = 0.02,
    target_kl = None, trace = 1, pretraining = 27.8, average = 0.992.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(default=7, description="of all that is drawn; process n adds 100003 * n")
    updates: int = Field(default=100, ge=0, description="batches that are drawn and learnt from")
    episodes: int = Field(default=64, ge=1, description="answers drawn for an update")
    answers: int = Field(
        default=1, ge=1, description="of these, to one prompt; it is read once for all of them"
    )
    minibatches: int = Field(default=2, ge=1, description="optimiser steps in a pass over a batch")
    epochs: int = Field(default=2, ge=1, description="passes over a batch")
    micro: int = Field(default=16, ge=1, description="answers read at once; changes memory only")
    temperature: float = Field(default=1.0, gt=0, description="divides the logits everywhere")

    rate: float = Field(default=1e-4, gt=0, description="learning rate of the policy")
    value_rate: float = Field(default=3e-4, gt=0, description="learning rate of the value head")
    schedule: Literal["constant", "linear"] = Field(
        default="constant", description="of both rates after the warm-up; linear falls to zero"
    )
    rate_warmup: int = Field(default=10, ge=0, description="updates in which rates rise from 10 %")
    adam_beta1: float = Field(default=0.9, ge=0, lt=1, description="decay of the first moment")
    adam_beta2: float = Field(default=0.95, ge=0, lt=1, description="decay of the second moment")
    adam_epsilon: float = Field(default=1e-5, gt=0, description="added to the root")
    adam_form: Literal["torch", "tensorflow"] = Field(
        default="torch", description="whether epsilon comes after or before the bias correction"
    )
    gradient_clip: float = Field(default=1.0, gt=0, description="largest norm of a step's gradient")

    beta: float = Field(default=0.05, ge=0, description="weight of the KL, at first or always")
    target_kl: float | None = Field(
        default=6.0, gt=0, description="KL that beta is adapted to, nats an answer; None: it stays"
    )
    horizon: float = Field(default=10_000, gt=0, description="episodes in which beta adapts")
    step_kl: float | None = Field(
        default=0.05, gt=0, description="target KL of a whole update, nats a token; 1.5 of it stop"
    )

    discount: float = Field(default=1.0, ge=0, le=1, description="gamma of the advantages")
    trace: float = Field(default=0.95, ge=0, le=1, description="lambda of the advantages")
    clip: float = Field(default=0.2, gt=0, description="of the ratio of new and old policy")
    value_clip: float = Field(default=0.2, gt=0, description="of the change of a value")
    value_weight: float = Field(default=0.1, ge=0, description="of the value loss")
    value_warmup: int = Field(default=5, ge=0, description="first updates, of the value head alone")
    leave_one_out: bool = Field(
        default=False, description="advantages are less those of other answers to the prompt"
    )
    whiten_advantages: bool = Field(default=True, description="to mean 0 and variance 1")
    whiten_rewards: bool = Field(default=False, description="to variance 1, the mean stays")

    missing_end: float = Field(default=-1.0, description="score of an answer that was cut off")
    score_clip: float = Field(default=10.0, gt=0, description="largest score, of either sign")
    sampler_clip: float = Field(
        default=2.0, ge=1, description="largest weight where a sampler of its own drew the answers"
    )
    pretraining: float = Field(default=0.0, ge=0, description="weight of the language-model loss")
    average: float = Field(default=0.992, ge=0, lt=1, description="decay of the weights' average")

    ratio_gap: float = Field(
        default=1e-5, gt=0, description="of the first minibatch's ratio from 1; 1e-3 in bfloat16"
    )
    most_kl: float = Field(default=50.0, gt=0, description="KL that stops a run, nats an answer")
    least_kl: float = Field(default=-0.5, lt=0, description="KL that stops a run, nats an answer")
    least_entropy: float = Field(
        default=1e-4, ge=0, description="mean entropy that stops a run, nats a token"
    )
    save_every: int = Field(default=10, ge=1, description="updates between checkpoints")

    @model_validator(mode="before")
    @classmethod
    def _draws_from_all(cls, values: Any) -> Any:
        found = [name for name in FILTERS if isinstance(values, dict) and name in values]
        if found:
            raise ValueError(
                f"{found[0]} leaves a part of the policy's distribution out, and the KL becomes "
                "that of something else; PPO draws from all of it: remove the setting"
            )
        return values

    @model_validator(mode="after")
    def _fills_minibatches(self) -> PPOSettings:
        if self.episodes % self.answers:
            raise ValueError(
                f"{self.episodes} episodes are not {self.answers} answers to each prompt; draw a "
                "multiple"
            )
        if self.episodes // self.answers < self.minibatches:
            raise ValueError(
                f"{self.episodes} episodes, {self.answers} to a prompt, do not fill "
                f"{self.minibatches} minibatches; draw more"
            )
        return self
