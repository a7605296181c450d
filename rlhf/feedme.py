"""FeedME: supervised learning from the policy's own best answers and from people's (no PPO).

What people liked, picked or wrote better is imitated, and so is what a reward rates highest of
several answers that the policy drew (OpenAI's "feedback made easy": demonstrations, and samples
that people rated 7 of 7). Only rows of training users enter, and none below the threshold. The loss
is over the tokens that the policy chose; prompts, evidence and forced tokens teach nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from assistant.policy._trie import Path as Tokens
from assistant.policy._trie import Paths
from assistant.prompt import ABSTAIN
from retrieval.fit._checkpoint import named
from retrieval.fit._loop import Loop
from rlhf._loop_tasks import Task
from rlhf.actors import Actor
from rlhf.errors import TrainingError
from rlhf.preferences import PreferenceStore
from rlhf.samples import decided, gather
from rlhf.schema import Rollout, Sample, Split

TaskT = TypeVar("TaskT")
#: Prompts that are drawn to at once.
AT_ONCE = 64
#: What an answer is worth that a person liked, picked or wrote, and one that they did not.
LIKED, DISLIKED = 1.0, 0.0


@dataclass(frozen=True, slots=True)
class Rated:
    """An answer and how good it is; `split` is that of its user, "train" of nobody's."""

    rollout: Rollout
    rating: float
    split: Split = "train"
    user: str = ""


@dataclass(frozen=True, slots=True)
class FeedMESettings:
    """How long and how fast; `least` is the rating from which an answer is imitated."""

    steps: int = 200
    rows: int = 32
    micro: int = 8
    rate: float = 1e-4
    decay: float = 0.0
    warmup: int = 10
    seed: int = 7
    save_every: int = 25
    check_every: int = 10_000
    least: float = LIKED


def chosen(rows: Iterable[Rated], least: float) -> list[Rated]:
    """Those to imitate: of training users, rated `least` or better, with something to learn."""
    return [
        row
        for row in rows
        if row.split == "train" and row.rating >= least and any(row.rollout.actions)
    ]


def of_log(
    store: PreferenceStore, lay: Callable[[Sample], Task | None], split: Split = "train"
) -> Iterator[Rated]:
    """Answers of the log that people judged: liked or not, picked or not, and written better.

    What is no answer that the policy can give (a user's own words) is left out. No other split is
    read than the one named.
    """
    for sample in gather(store, "label", split):
        yield from _rated(sample, 0, LIKED if sample.label else DISLIKED, lay)
    for sample in gather(store, "demonstration", split):
        yield from _rated(sample, 0, LIKED, lay)
    for sample in gather(store, "comparison", split):
        best = {better for better, _ in decided(sample)} - {worse for _, worse in decided(sample)}
        for place in sorted(best):
            if sample.source == "pick":
                yield from _rated(sample, place, LIKED, lay)


def of_policy(
    actor: Actor[TaskT],
    tasks: Sequence[TaskT],
    score: Callable[[Sequence[TaskT], Sequence[Rollout]], Sequence[float]],
    n: int,
    generator: torch.Generator,
    temperature: float = 1.0,
) -> list[Rated]:
    """The best of `n` answers to each task, rated by its score.

    Raises:
        ValueError: n is below 1.
    """
    if n < 1:
        raise ValueError(f"the best of {n} answers is none; draw 1 or more")
    pools: list[list[Rollout]] = [[] for _ in range(n)]
    for at in range(0, len(tasks), AT_ONCE):
        part = tasks[at : at + AT_ONCE]
        with torch.no_grad():  # all answers to a prompt at once: it is read once
            drawn = actor.draw([*part] * n, temperature, generator)
        for number, pool in enumerate(pools):
            pool += drawn[number * len(part) : (number + 1) * len(part)]
    scores = np.array([score(tasks, pool) for pool in pools], dtype=np.float64)
    best = scores.argmax(0) if len(tasks) else []
    return [Rated(pools[b][i], float(scores[b, i])) for i, b in enumerate(best)]


def rollout_of(task: Task, text: str) -> Rollout | None:
    """The answer of a task that says what a text says, in its order; None where there is none."""
    if ABSTAIN in text:
        wanted = [len(task.texts)]
    else:
        found = sorted((text.find(said), n) for n, said in enumerate(task.texts) if said in text)
        wanted = [n for _, n in found]
    path: Tokens | None = ()
    for piece in wanted:
        path = None if path is None else _further(task.paths, path, piece)
    if not wanted or path is None:
        return None
    ends = [token for token in task.paths.allowed(path) if not task.paths.allowed((*path, token))]
    whole = (*path, *ends[:1])
    allowed = [*task.paths.along(whole)][:-1]
    actions = tuple(len(choice) > 1 for choice in allowed)
    return Rollout(task.ids, whole, actions, tuple(allowed), "stop")


def _further(paths: Paths, path: Tokens, piece: int) -> Tokens | None:
    """`path` with one more piece, the one with this number; None where it may not follow."""
    before, left = len(paths.chosen(path)), [path]
    while left:
        grown = left.pop()
        chosen_now = paths.chosen(grown)
        if len(chosen_now) > before:
            if chosen_now[-1] == piece:
                return grown
            continue
        left += ((*grown, token) for token in paths.allowed(grown))
    return None


class FeedME:
    """One run of imitation; a run that was broken off is taken up.

    Args:
        actor: the policy; it is changed in place.
        rows: what may be imitated (`chosen` picks).
        settings: of the run.
        folder: of the checkpoint.

    Raises:
        TrainingError: no row is good enough.
    """

    def __init__(
        self,
        actor: Actor[TaskT],
        rows: Iterable[Rated],
        settings: FeedMESettings,
        folder: Path,
    ) -> None:
        self._look: Callable[[Sequence[Rollout]], Tensor] = lambda some: (
            actor.look(some, 1.0).logprobs
        )
        self._settings = settings
        #: What is imitated.
        self.rows = chosen(rows, settings.least)
        if not self.rows:
            raise TrainingError(
                f"no answer of a training user is rated {settings.least:g} or better; collect "
                "more, or lower `least`"
            )
        held = nn.ParameterList([*actor.policy.values()])
        about = [asdict(settings), [(r.rollout.prompt, r.rollout.completion) for r in self.rows]]
        parts = [([*held], settings.rate, settings.decay)]
        self.loop = Loop(held, parts, settings, named(folder, "feedme", about))

    def run(self) -> Iterator[str]:
        """Train to the end; yields lines to show."""
        yield from self.loop.run(self.loss, lambda: f"{len(self.rows)} answers are imitated")

    def loss(self, step: int) -> Iterator[Tensor]:
        """Parts of the step's loss: the mean of -log p over the tokens that were chosen."""
        rows = self._batch(step)
        count = sum(sum(row.rollout.actions) for row in rows)
        for at in range(0, len(rows), self._settings.micro):
            part = [row.rollout for row in rows[at : at + self._settings.micro]]
            found = self._look(part)
            mask = torch.zeros_like(found)
            for number, rollout in enumerate(part):
                for place, action in enumerate(rollout.actions):
                    mask[number, place] = action
            yield -(found * mask).sum() / count

    def _batch(self, step: int) -> list[Rated]:
        """Depends on seed and step alone; every row once before any of them again."""
        size, found = self._settings.rows, []
        for number in range(step * size, (step + 1) * size):
            epoch, at = divmod(number, len(self.rows))
            order = np.random.default_rng((self._settings.seed, epoch)).permutation(len(self.rows))
            found.append(self.rows[int(order[at])])
        return sorted(found, key=lambda row: len(row.rollout.prompt))


def _rated(
    sample: Sample, place: int, rating: float, lay: Callable[[Sample], Task | None]
) -> Iterator[Rated]:
    task = lay(sample)
    rollout = None if task is None else rollout_of(task, sample.completions[place])
    if rollout is not None:
        yield Rated(rollout, rating, sample.split, sample.user)
