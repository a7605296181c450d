"""A run that imitates in place of PPO (`train.method = "feedme"`; see `rlhf.feedme`).

What people liked, picked or wrote is learnt, and the best of several answers that the policy draws
by itself, as far as the run's own reward finds them good. Draws follow from the seed alone, so a
run that was broken off has the same ones again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assistant.config import TrainSettings
from rlhf import feedme
from rlhf._loop_reward import Judge
from rlhf._loop_status import Board
from rlhf._loop_tasks import Asked
from rlhf.feedme import FeedMESettings, Rated
from rlhf.schema import Rollout

#: Prompts that the policy draws to, of the newest; share of its own best answers that are dropped.
MOST, DROPPED = 640, 0.25
#: Answers of a step, and that are read at once.
ROWS, MICRO = 32, 8


def imitate(
    actor: Any,
    tasks: Sequence[Asked],
    judge: Judge,
    liked: Sequence[Rated],
    settings: TrainSettings,
    folder: Path,
    board: Board,
) -> Iterator[str]:
    """Imitate for `settings.updates` steps; yields lines to show.

    Args:
        actor: the policy; it is changed in place.
        tasks: prompts to draw to.
        judge: the reward of the run.
        liked: answers that people judged.
        settings: of the run; `answers` are drawn to each prompt.
        folder: of the checkpoint.
        board: says where the run is.

    Raises:
        Cancelled: somebody asked; what was done is kept.
        TrainingError: nothing is good enough to be imitated.
    """
    board.at("ppo", 0, settings.updates, "the policy answers, for the best to be imitated")

    def score(some: Sequence[Asked], rollouts: Sequence[Rollout]) -> list[float]:
        replies = [t.reply(r.completion) for t, r in zip(some, rollouts, strict=True)]
        return [float(value) for value in judge.totals(some, replies)]

    generator = torch.Generator().manual_seed(settings.seed)
    pool = feedme.of_policy(actor, tasks[-MOST:], score, settings.answers, generator)
    least = float(np.quantile([row.rating for row in pool], DROPPED)) if pool else 0.0
    own = [replace(row, rating=feedme.LIKED) for row in pool if row.rating >= least]
    about = FeedMESettings(
        steps=settings.updates, rows=ROWS, micro=MICRO, rate=settings.rate, seed=settings.seed,
        warmup=min(10, max(1, settings.updates // 4)), save_every=5,
    )  # fmt: skip
    made = feedme.FeedME(actor, [*liked, *own], about, folder)
    people = len(feedme.chosen(liked, feedme.LIKED))
    yield f"{len(made.rows)} answers to imitate, {people} of them that people liked"
    for line in made.run():  # a line comes with each checkpoint, so nothing is lost
        yield line
        board.at("ppo", made.loop.step, settings.updates, line)
