"""People who are not there: an annotator whose taste is known, to judge the whole loop by.

Everything here is a simulation and says so: users are called `simulated-N`, their surface is
"simulation". The annotator knows which sentences answer (labels of questions that may be trained
on), wants rules kept, and has a taste of its own that nothing else is told of. Of two answers it
picks the one it likes better, and now and then the other one. It gives its picks through the chat
log's own interface; the loop sees what the log holds and nothing more.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from assistant.prompt import ABSTAIN, fingerprint, mark_of, render
from assistant.schema import (
    Consent,
    Feedback,
    PolicyCard,
    Reply,
    Sampling,
    TurnRecord,
    Understanding,
)
from rlhf import objectives
from rlhf._loop_gates import AT_ONCE
from rlhf._loop_tasks import Task
from rlhf.actors import Actor
from rlhf.schema import Rollout

SURFACE, USER = "simulation", "simulated-"
ALLOWED = Consent(train=True, evaluate=True)
CARD = PolicyCard("quote", "simulation")
#: Answers that are drawn of a turn, for two that differ.
DRAWN = 4
#: How often the annotator picks the worse one.
NOISE = 0.25
#: What the taste adds or takes away at the most; a right answer is worth 1, a wrong one -1.
TASTE = 0.5

Taste = Literal["brief", "newest"]
Floats = NDArray[np.float64]
#: Scores of answers to tasks, (n,).
Judge = Callable[[Sequence[Task], Sequence[str]], Floats]


@dataclass(frozen=True)
class Annotator:
    """Who judges.

    Attributes:
        taste: "brief" wants one sentence, "newest" wants what the newest passage says.
        noise: how often it picks the worse answer.
        rules: what breaking rules costs, (n,), 0 where none is broken; None looks at none.
    """

    taste: Taste = "brief"
    noise: float = NOISE
    rules: Judge | None = None

    def gold(self, tasks: Sequence[Task], replies: Sequence[str]) -> Floats:
        """What answers are truly worth, (n,)."""
        found = np.array([self._worth(t, r) for t, r in zip(tasks, replies, strict=True)])
        return found + (0.0 if self.rules is None else self.rules(tasks, replies))

    def picks(self, task: Task, replies: tuple[str, str], dice: random.Random) -> int:
        """0 or 1, the one it picks; -1 where it likes both alike."""
        first, second = self.gold([task, task], replies)
        if first == second:
            return -1
        better = int(second > first)
        return 1 - better if dice.random() < self.noise else better

    def follows(self, task: Task, reply: str) -> bool | None:
        """Whether an answer is to the annotator's taste; None where there is nothing to taste."""
        if ABSTAIN in reply or not task.answerable:
            return None
        if self.taste == "brief":
            return _quotes(task, reply) == 1
        newest = _newest(task)
        return None if newest is None else any(task.texts[n] in reply for n in newest)

    def _worth(self, task: Task, reply: str) -> float:
        correct = task.correct(reply)
        value = 0.0 if correct is None else 2 * correct - 1
        if ABSTAIN in reply:
            return value
        if self.taste == "brief":
            return value - TASTE * (_quotes(task, reply) > 1)
        liked = self.follows(task, reply)
        return value + (0.0 if liked is None else TASTE * (1.0 if liked else -1.0))


@dataclass(frozen=True, slots=True)
class Crowd:
    """What was given to the log: turns, picks, ties, and answers that were the same (thumbs)."""

    turns: int
    picks: int
    ties: int
    thumbs: int


def collect(
    actor: Actor[Task],
    tasks: Sequence[Task],
    annotator: Annotator,
    on_turn: Callable[[TurnRecord], object],
    on_feedback: Callable[[Feedback], object],
    turns: int,
    users: int = 80,
    seed: int = 7,
) -> Crowd:
    """Have simulated users ask and judge, through what the chat itself calls.

    Of every turn a few answers are drawn; the first and the next that differs from it are shown in
    an order by lot. Where none differs, the answer gets a thumb in place of a pick.

    Args:
        actor: the policy that answers.
        tasks: what is asked, again from the start where there are fewer than turns.
        annotator: every user's mind.
        on_turn, on_feedback: of the chat log.
        turns: how many.
        users: among whom the turns are shared out.
        seed: of all that is drawn.
    """
    dice, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    order = [n % len(tasks) for n in range(turns)]
    dice.shuffle(order)
    picks = ties = thumbs = 0
    for at in range(0, turns, 64):
        places = order[at : at + 64]
        asked = [tasks[n] for n in places]
        with torch.no_grad():
            pool = actor.draw([*asked] * DRAWN, 1.0, generator)
        for number, task in enumerate(asked, start=at):
            mine = pool[number - at :: len(asked)]
            said = [task.reply(rollout.completion) for rollout in mine]
            other = next((n for n, text in enumerate(said) if text != said[0]), 1)
            drawn, replies = [mine[0], mine[other]], (said[0], said[other])
            # everybody has questions of their own, so that no question is in two splits
            whose = places[number - at]
            turn, user, talk = f"{USER}{seed}-{number}", f"{USER}{whose % users}", f"c-{whose}"
            same = replies[0] == replies[1]
            for place, rollout in enumerate(drawn[:1] if same else drawn):
                on_turn(record(task, rollout, turn, user, talk, place))
            blank = Feedback(turn, talk, user, "thumb", surface=SURFACE,
                             language=task.language)  # fmt: skip
            if same:
                good = annotator.gold([task], replies[:1])[0] > 0
                value = 1 if good != (dice.random() < annotator.noise) else -1
                on_feedback(_with(blank, candidate_ids=(f"{turn}-0",), value=value))
                thumbs += 1
                continue
            shown = [0, 1] if dice.random() < 0.5 else [1, 0]
            value = annotator.picks(task, (replies[shown[0]], replies[shown[1]]), dice)
            names = tuple(f"{turn}-{place}" for place in shown)
            pick = {"kind": "ab_pick", "candidate_ids": names, "order_randomised": True}
            on_feedback(_with(blank, value=value, **pick))
            ties += value < 0
            picks += value >= 0
    return Crowd(turns, picks, ties, thumbs)


def record(task: Task, rollout: Rollout, turn: str, user: str, talk: str, place: int) -> TurnRecord:
    """An answer as the chat would have logged it."""
    reply = task.reply(rollout.completion)
    abstains = ABSTAIN in reply
    prompt = render(task.question, task.passages, (), task.language, mark=mark_of(turn))
    made = Reply(
        turn, f"{turn}-{place}", talk, "" if abstains else reply,
        "abstained" if abstains else "answered", task.language, (), task.passages, (), (),
        Understanding("question", task.question, False, task.language, ""), CARD, None, 0.0,
    )  # fmt: skip
    ids = rollout.completion if rollout.logprobs else ()
    return TurnRecord(
        turn, made.candidate_id, made.conversation_id, "", user, SURFACE, task.language,
        time.time(), task.question, prompt.messages, fingerprint(prompt.messages), made,
        Sampling(temperature=1.0), "stop", ids, rollout.logprobs, ALLOWED, place,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spot:
    """A policy on the plane of over-optimisation: KL in nats an answer, proxy and gold rewards."""

    name: str
    kl: float
    proxy: float
    gold: float

    @property
    def root(self) -> float:
        """Square root of the KL, 0 where that was estimated below 0."""
        return math.sqrt(max(self.kl, 0.0))


def spot(
    name: str,
    actor: Actor[Task],
    tasks: Sequence[Task],
    proxy: Judge,
    gold: Judge,
    seed: int = 1,
    draws: int = 1,
) -> Spot:
    """Where a policy stands, by `draws` answers to each task."""
    generator = torch.Generator().manual_seed(seed)
    rows: list[Task] = []
    replies: list[str] = []
    gaps: list[float] = []
    for some in _parts(tasks):
        asked = [task for _ in range(draws) for task in some]
        with torch.no_grad():
            drawn = actor.draw(asked, 1.0, generator)
            gap = actor.look(drawn, 1.0).logprobs - actor.reference(drawn, 1.0)
        gaps += gap.sum(1).tolist()
        rows += asked
        replies += [t.reply(r.completion) for t, r in zip(asked, drawn, strict=True)]
    return Spot(
        name,
        float(np.mean(gaps)),
        float(proxy(rows, replies).mean()),
        float(gold(rows, replies).mean()),
    )


def best_of(
    actor: Actor[Task],
    tasks: Sequence[Task],
    chooses: Judge,
    proxy: Judge,
    gold: Judge,
    sizes: Sequence[int],
    seed: int = 1,
) -> Iterator[Spot]:
    """The best of n of a policy for each n, all from one pool of the most of them.

    `chooses` should know what is known when somebody asks: one that looks up the right answer of a
    held-out question makes of a hard question an easy one, which no policy can.
    """
    generator = torch.Generator().manual_seed(seed)
    judges = (chooses, proxy, gold)
    pools: list[tuple[Floats, ...]] = []
    for some in _parts(tasks):
        asked = [task for task in some for _ in range(max(sizes))]
        with torch.no_grad():
            drawn = actor.draw(asked, 1.0, generator)
        replies = [t.reply(r.completion) for t, r in zip(asked, drawn, strict=True)]
        shape = (len(some), max(sizes))
        pools.append(tuple(judge(asked, replies).reshape(shape) for judge in judges))
    by, *counts = (np.concatenate([pool[side] for pool in pools]) for side in range(len(judges)))
    for n in sizes:
        means = [
            np.mean([objectives.best_of_n(p, v, n) for p, v in zip(by, of, strict=True)])
            for of in counts
        ]
        yield Spot(f"best of {n}", objectives.best_of_n_kl(n), *map(float, means))


def _parts(tasks: Sequence[Task]) -> Iterator[Sequence[Task]]:
    """So many as are read at once; memory is no matter of how many there are."""
    for at in range(0, len(tasks), AT_ONCE):
        yield tasks[at : at + AT_ONCE]


def _with(event: Feedback, **values: object) -> Feedback:
    found = {name: getattr(event, name) for name in Feedback.__slots__}
    return Feedback(**(found | values))


def _quotes(task: Task, reply: str) -> int:
    return sum(text in reply for text in task.texts)


def _newest(task: Task) -> list[int] | None:
    """Options of the newest passage that has an answer; None where only one has any."""
    answering = sorted(task.right, key=lambda n: task.passages[task.places[n] - 1].modified)
    dates = {task.passages[task.places[n] - 1].modified for n in answering}
    if len(dates) < 2:
        return None
    last = max(dates)
    return [n for n in answering if task.passages[task.places[n] - 1].modified == last]
