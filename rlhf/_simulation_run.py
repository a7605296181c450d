"""A simulated cycle from end to end: users, log, reward model, PPO, gates, and what came of it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from assistant.config import GateSettings, TrainSettings
from assistant.policy._quoting import Layout
from assistant.policy.quote import calibration
from rlhf import feedme
from rlhf._intervals import bootstrap
from rlhf._loop_gates import Network, divergence
from rlhf._loop_pupil import Quoting
from rlhf._loop_reward import Judge
from rlhf._loop_status import Board, new
from rlhf._loop_tasks import Task
from rlhf.actor_quote import QuoteActor
from rlhf.config import PPOSettings
from rlhf.fit._reward_log import comparisons
from rlhf.fit._reward_rows import gathered
from rlhf.fit.reward import Plan, Trainer, begun, drawn
from rlhf.loop import MODEL, Cycle, Parts
from rlhf.preferences import PreferenceStore
from rlhf.registry import Registry
from rlhf.scoring import Array, Pair, RewardModel, Scale, render
from rlhf.simulation import Annotator, Crowd, Floats, Spot, best_of, collect, spot
from safety.guard import Guard

#: Sizes of the best of n, points of PPO's curve, and held prompts that a point is measured on.
SIZES, POINTS, SEEN = (1, 2, 4, 8, 16), 10, 128
#: What is imitated for comparison: the best answers to so many prompts, in so many steps.
IMITATED, STEPS = 640, 80
BUCKETS, WIDTH = 4096, 16


class Bag(nn.Module):
    """A small reward model for simulations: words in buckets, their number, and a head."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.words = nn.Embedding(BUCKETS, WIDTH)
        nn.init.normal_(self.words.weight, std=0.05)
        self.head = nn.Parameter(torch.zeros(WIDTH + 1, 1))
        begun(self.head, seed)

    def forward(self, ids: Sequence[Sequence[int]], device: str, parts: int) -> Tensor:
        """Logits (n, 1)."""
        rows = [
            torch.cat((self.words(torch.tensor(row)).mean(0), torch.tensor([len(row) / 20])))
            for row in ids
        ]
        return torch.stack(rows) @ self.head


def buckets(pair: Pair) -> tuple[int, ...]:
    """Buckets of a reply's characters by threes; never empty."""
    text = f" {render(*pair).partition(' >>> ')[2]} "
    found = (text[n : n + 3] for n in range(len(text) - 2))
    return tuple(int.from_bytes(x.encode()[:8], "big") % BUCKETS for x in found) or (0,)


def learnt(store: PreferenceStore, folder: Path, seed: int) -> RewardModel:
    """A reward model of the log's comparisons, one epoch, on the scale of the log's answers."""
    rows = gathered(comparisons(store))
    bag = Bag(seed)
    plan = Plan(prompts=8, at_once=8, rate=2e-2, head_rate=2e-2, save_every=10_000,
                check_every=10_000, seed=seed).over(len(rows.kept))  # fmt: skip
    trainer = Trainer(bag, bag, rows, buckets, plan, "cpu", folder)
    for _ in trainer.run():
        pass

    def logits(texts: Sequence[str]) -> Array:
        pairs: list[Pair] = []
        for text in texts:
            question, _, reply = text.partition(" >>> ")
            pairs.append((question, reply))
        return trainer.logits(pairs)

    model = RewardModel(logits, Scale(), "simulated")
    return model.normalised(drawn(rows.kept, 400, seed))


@dataclass(frozen=True)
class World:
    """What a simulation takes place in.

    Attributes:
        start: folder of the policy, `model` its network, `layout` of its prompts.
        tasks: what users ask and PPO learns on.
        held: what nothing learns on.
        annotator: who judges.
        judge: makes the loop's reward of a reward model.
        reward: learns a reward model from a log into a folder.
        guard: judges rules; None where nobody does.
        calibrate: makes the calibration of a trained network.
        dtype: of the matrix products while it learns.
    """

    start: Path
    model: Any
    layout: Layout
    tasks: Sequence[Task]
    held: Sequence[Task]
    annotator: Annotator
    judge: Callable[[RewardModel | None], Judge]
    reward: Callable[[PreferenceStore, Path, int], RewardModel] = learnt
    guard: Guard | None = None
    calibrate: Callable[[Any], dict[str, dict[str, float]]] = field(default=lambda model: {})
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a simulation. Intervals are of 95 %, over the held prompts.

    `gold_ci` is of the gain in gold reward; `right` and `safety` are shares (right where there is
    an answer and refused where there is none; answers that break no rule), `taste` the share of
    answers to the annotator's taste; each (before, after).
    """

    minutes: float
    crowd: Crowd
    gold: tuple[float, float]
    gold_ci: tuple[float, float]
    right: tuple[float, float]
    safety: tuple[float, float]
    taste: tuple[float, float]
    kl: float
    curve: tuple[Spot, ...]
    rivals: tuple[Spot, ...]
    candidate: str
    failing: tuple[str, ...]


def simulate(
    world: World,
    home: Path,
    turns: int,
    settings: TrainSettings,
    ppo: PPOSettings,
    gates: GateSettings,
    tell: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Have simulated users fill the log of `home`, run the loop, and measure."""
    began = time.monotonic()
    store = PreferenceStore(home / "preferences.db")
    before = QuoteActor(copy.deepcopy(world.model), dtype=world.dtype)
    crowd = collect(
        before, world.tasks, world.annotator, store.add_turn, store.add_feedback, turns,
        seed=settings.seed,
    )  # fmt: skip
    tell(f"{crowd.picks} picks, {crowd.ties} ties and {crowd.thumbs} thumbs of {turns} turns")
    curve: list[Spot] = []
    models: list[RewardModel] = []
    proxies: list[Judge] = []

    def judge(model: RewardModel | None) -> Judge:
        made = world.judge(model)
        proxies.append(made)
        return made

    def load(folder: Path) -> RewardModel:
        if not models:
            models.append(world.reward(store, folder, settings.seed))
        return models[0]

    def train(folder: Path) -> Iterator[str]:
        load(folder)
        yield "step 1/1, the reward model of the simulated comparisons"

    parts = Parts(
        _pupil(world), world.tasks, world.held, judge,
        Network(before.model, world.layout, calibration(world.start)), "",
        world.guard, train, load_reward=load, watch=_watch(world, curve, ppo.updates),
    )  # fmt: skip
    registry, board = Registry(home), Board(new(home))
    for line in Cycle(board, parts, store, registry, settings, gates, ppo).run():
        tell(line)
    minutes = (time.monotonic() - began) / 60
    after = QuoteActor(world.model, dtype=world.dtype)
    after._before = before.model  # the KL is from where the run began
    fits = calibration(board.folder / MODEL)
    sides = [parts.live, Network(world.model, world.layout, fits)]
    said = [[side.answer(task) for task in world.held] for side in sides]
    blind = unlabelled(world.judge(models[0] if models else None))
    rivals = _rivals(world, before, proxies[0], blind, board.folder, ppo.rate)
    store.close()
    return _outcome(world, minutes, crowd, said, after, curve, rivals, registry, board)


def _watch(
    world: World, curve: list[Spot], updates: int
) -> Callable[[int, QuoteActor, Judge], dict[str, float] | None]:
    """Adds a point to the curve now and then."""
    every = max(updates // POINTS, 1)

    def watch(update: int, actor: QuoteActor, proxy: Judge) -> dict[str, float] | None:
        if update < 0 or (update % every and update + 1 < updates):
            return None
        some = world.held[:SEEN]
        curve.append(spot(f"PPO {update}", actor, some, proxy.totals, world.annotator.gold))
        return {"gold": curve[-1].gold}

    return watch


def _pupil(world: World) -> Quoting:
    actor = QuoteActor(world.model, dtype=world.dtype)
    return Quoting(world.start, world.model, world.layout, world.calibrate, actor=actor)


def unlabelled(judge: Judge) -> Callable[[Sequence[Task], Sequence[str]], Floats]:
    """The totals of a judge of its own that is not told what is right: as when somebody asks."""

    def totals(tasks: Sequence[Task], replies: Sequence[str]) -> Floats:
        return judge.totals([replace(task, answerable=None) for task in tasks], replies)

    return totals


def _rivals(
    world: World,
    before: QuoteActor,
    proxy: Judge,
    blind: Callable[[Sequence[Task], Sequence[str]], Floats],
    folder: Path,
    rate: float,
) -> list[Spot]:
    """Best of n of the policy that PPO began with, and imitation of the best of four."""
    gold = world.annotator.gold
    held = world.held[:SEEN]
    found = [*best_of(before, held, blind, proxy.totals, gold, SIZES)]

    def score(tasks: Sequence[Task], rollouts: Sequence[Any]) -> list[float]:
        replies = [t.reply(r.completion) for t, r in zip(tasks, rollouts, strict=True)]
        return [float(value) for value in proxy.totals(tasks, replies)]

    pupil = QuoteActor(copy.deepcopy(before.model), dtype=world.dtype)
    tasks = world.tasks[:IMITATED]
    pool = feedme.of_policy(pupil, tasks, score, 4, torch.Generator().manual_seed(1))
    least = float(np.quantile([row.rating for row in pool], 0.25))
    settings = feedme.FeedMESettings(
        steps=min(STEPS, max(8, len(pool) // 2)), least=least, rate=rate
    )
    for _ in feedme.FeedME(pupil, pool, settings, folder).run():
        pass
    return [*found, spot("FeedME", pupil, held, proxy.totals, gold)]


def _outcome(
    world: World,
    minutes: float,
    crowd: Crowd,
    said: Sequence[Sequence[str]],
    after: QuoteActor,
    curve: Sequence[Spot],
    rivals: Sequence[Spot],
    registry: Registry,
    board: Board,
) -> Outcome:
    held, annotator = world.held, world.annotator
    gold: list[Floats] = [annotator.gold(held, replies) for replies in said]
    right = [[t.correct(r) for t, r in zip(held, replies, strict=True)] for replies in said]
    tastes = [[annotator.follows(t, r) for t, r in zip(held, replies, strict=True)]
              for replies in said]  # fmt: skip
    broken = [
        np.zeros(len(held)) if annotator.rules is None else annotator.rules(held, replies)
        for replies in said
    ]
    manifest = registry.load(board.status.candidate)

    def pair(rows: Sequence[Sequence[float | bool | None]]) -> tuple[float, float]:
        known = [[float(v) for v in side if v is not None] for side in rows]
        old, new_ = (float(np.mean(side)) if side else float("nan") for side in known)
        return old, new_

    return Outcome(
        minutes,
        crowd,
        (float(gold[0].mean()), float(gold[1].mean())),
        bootstrap(gold[1] - gold[0], 0.95, 2000),
        pair(right),
        pair([[bool(v == 0) for v in side] for side in broken]),
        pair(tastes),
        float(np.mean(divergence(after, held, 1))),
        tuple(curve),
        tuple(rivals),
        manifest.id,
        tuple(gate.name for gate in manifest.gates if not gate.passed),
    )
