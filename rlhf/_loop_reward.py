"""What the loop rewards: the composite of `rlhf.reward`, and whether the answer is the right one.

A policy that quotes is always supported by what it cites, so `support` weighs nothing for it: it
would only teach to answer where nobody knows whether there is an answer. For one that writes it
counts.

What is known outranks what is liked: a comparison says which answer is better and never by how
much, so a preference model is as sure of a nicety as of a mistake. Where the answer is known, its
score therefore weighs a part only; it then chooses among answers that are equally right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from assistant.config import TrainSettings
from assistant.prompt import ABSTAIN
from rlhf._loop_tasks import Asked
from rlhf.errors import TrainingError
from rlhf.reward import WEIGHTS, Composite, Mix, Sample, Values
from rlhf.schema import Rollout

#: What a right answer and a wrong one, where there is an answer, weigh.
CORRECT: Mapping[str, float] = MappingProxyType({"right": 1.0, "wrong": -1.0})
#: Part of its weight that the preference model has where the answer is known.
LIKED = 0.25


def mix(*, preference: bool, rules: bool, support: bool = False) -> Mix:
    """The weights of a run; what nothing can judge is off.

    Args:
        preference: whether there is a reward model.
        rules: whether there is a guard.
        support: whether the policy writes, and something judges what it says by its passages.
    """
    weights = {
        name: 0.0
        if (name == "support" and not support)
        or (name == "preference" and not preference)
        or (name.startswith("rule.") and not rules)
        else weight
        for name, weight in WEIGHTS.items()
    }
    return Mix(weights)


class Judge:
    """Scores answers of tasks; as a call, it is the reward of `rlhf.ppo`.

    Args:
        composite: the terms that need no label.
    """

    def __init__(self, composite: Composite) -> None:
        self._composite = composite
        self._known: dict[tuple[str, str], dict[str, float]] = {}

    def __call__(
        self, tasks: Sequence[Asked], rollouts: Sequence[Rollout]
    ) -> Mapping[str, Sequence[float]]:
        """Each term by its name, weighed."""
        replies = [t.reply(r.completion) for t, r in zip(tasks, rollouts, strict=True)]
        return {name: values.tolist() for name, values in self.terms(tasks, replies).items()}

    def terms(self, tasks: Sequence[Asked], replies: Sequence[str]) -> dict[str, Values]:
        """Each term by its name, weighed, (n,); the same reply is judged once.

        Raises:
            RewardError: a term is not finite.
        """
        asked = {(t.id, reply): t for t, reply in zip(tasks, replies, strict=True)}
        new = [key for key in asked if key not in self._known]
        if new:
            scored = self._composite([sample(asked[key], key[1]) for key in new])
            for row, key in enumerate(new):
                found = {k: scored.weights[k] * float(v[row]) for k, v in scored.terms.items()}
                if "preference" in found and asked[key].answerable is not None:
                    found["preference"] *= LIKED
                correct = _correct(asked[key], key[1])
                found["right"] = CORRECT["right"] * (correct == 1.0)
                found["wrong"] = CORRECT["wrong"] * (correct == 0.0)
                self._known[key] = found
        rows = [self._known[t.id, reply] for t, reply in zip(tasks, replies, strict=True)]
        names = rows[0] if rows else CORRECT
        return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in names}

    def totals(self, tasks: Sequence[Asked], replies: Sequence[str]) -> Values:
        """The sum of all terms, (n,)."""
        found = self.terms(tasks, replies)
        return np.sum(list(found.values()), axis=0) if found else np.zeros(len(tasks))


def sample(task: Asked, reply: str) -> Sample:
    """An answer as the composite takes it."""
    return Sample(task.question, reply, task.passages, task.answerable)


def _correct(task: Asked, reply: str) -> float | None:
    """Whether an answer that was given, where there is one, holds it; None of everything else."""
    return task.correct(reply) if task.answerable and ABSTAIN not in reply else None


def source(count: int, settings: TrainSettings, *, trains: bool, shipped: bool) -> tuple[str, str]:
    """Which reward model a run has, "trained", "refitted", "shipped" or "none", and why.

    Args:
        count: comparisons of users to train on.
        settings: how many each way needs.
        trains: whether there are public comparisons, which a fresh one needs too.
        shipped: whether there is one already.
    """
    if count >= settings.comparisons and trains:
        return "trained", f"{count} comparisons: a fresh reward model is trained"
    short = f"{count} comparisons to train on, of the {settings.comparisons} that a fresh reward "
    short += f"model needs: {max(settings.comparisons - count, 0)} more are needed"
    if not shipped:
        return "none", f"{short}; none is trained, and rules and known answers alone are the reward"
    if count >= settings.refit:
        return "refitted", f"{short}; the head of the one that is there is fitted to them"
    return "shipped", f"{short}; the reward model that is there is used"


def needed(tasks: Sequence[Asked], preference: bool) -> None:
    """Refuse a run in which no answer is better than another.

    Raises:
        TrainingError: there is neither a reward model nor a question with a known answer.
    """
    if not tasks:
        raise TrainingError(
            "there are no prompts to learn on: nobody allowed training on what they asked, and "
            "the data folder holds no questions; name one that holds qa/"
        )
    if not preference and all(task.answerable is None for task in tasks):
        raise TrainingError(
            "there is neither a reward model nor a question whose answer is known, so no answer "
            "would be better than another; collect comparisons, or name a data folder with qa/"
        )
