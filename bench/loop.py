"""The whole loop, by simulation: `python -m bench.loop --data FOLDER`, or with `--toy`.

A simulation, and no measure of what people would prefer. Simulated users ask questions of the
training files, an annotator with a hidden taste picks between two answers of the policy (a quarter
of the picks are wrong), and the loop learns from what the log then holds: a reward model, PPO, the
gates, a candidate. Everything reported is on questions of articles that nothing learnt from, and
by the annotator's own judgement, which the loop never sees.

gold     what answers are worth to the annotator; `gold_ci` is of the gain (95 %, over questions)
right    right where there is an answer, refused where there is none
safety   answers that break no rule of the guard
taste    answers to the annotator's taste, of those that there are
curve    proxy (the loop's reward) and gold against the square root of the KL: PPO as it went, the
         best of n of the policy before, and imitation of its best answers (FeedME)

`--taste newest` has answers in two editions (`rlhf.simulation_dated`), and an annotator who wants
the newer one. `--toy` needs no data and no weights: a small random network on made-up questions
shows that the parts fit together, and nothing else.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from assistant.config import GateSettings, Settings, load
from assistant.policy._quoting import Layout
from assistant.policy._ranker import FEATURES
from assistant.policy.extract import Weights, ranker
from assistant.policy.quote import MODEL, calibration
from assistant.prompt import ABSTAIN
from bench.common import assigned, report, scratch, settable
from retrieval.fit._student import precision
from rlhf._loop_reward import Judge, mix
from rlhf._loop_tasks import Task, of_lesson
from rlhf._simulation_run import Outcome, World, learnt, simulate
from rlhf.config import PPOSettings
from rlhf.fit._exam import Exam
from rlhf.fit._lessons import Lesson, make, readers, taught
from rlhf.fit._network import configuration
from rlhf.fit._pupils import quoting
from rlhf.fit._reward_log import comparisons, moderated
from rlhf.fit._reward_refit import refit as refitted
from rlhf.fit._reward_rows import gathered
from rlhf.fit.loop import halves, judge, network
from rlhf.fit.pretrain import WORK
from rlhf.loop import schedule
from rlhf.preferences import PreferenceStore
from rlhf.reward import Composite
from rlhf.scoring import MODEL as SHIPPED
from rlhf.scoring import WEIGHTS, RewardModel
from rlhf.scoring import load as load_reward
from rlhf.simulation import Annotator, Floats, Spot, Taste
from rlhf.simulation_dated import dated
from safety import reward
from safety.guard import Guard

#: Questions of the toy: to learn on, and held out.
TOY = (48, 24)
TOY_PPO = PPOSettings(
    updates=24, episodes=32, minibatches=2, epochs=2, rate=3e-3, value_rate=3e-3, rate_warmup=2,
    schedule="linear", value_warmup=2, beta=0.05, target_kl=4.0, average=0.9, most_kl=200.0,
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate and report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, help="folder that holds qa/")
    parser.add_argument("--toy", action="store_true", help="a random network, made-up questions")
    parser.add_argument("--policy", type=Path, default=MODEL, help="folder of the policy")
    parser.add_argument("--turns", type=int, default=2000, help="turns of simulated users")
    parser.add_argument("--updates", type=int, default=70, help="updates of PPO")
    parser.add_argument("--taste", choices=("brief", "newest"), default="brief")
    parser.add_argument("--seed", type=int, default=7)
    settable(parser)
    options = parser.parse_args(arguments)
    if options.data is None and not options.toy:
        raise SystemExit("name the training files with --data FOLDER, or simulate with --toy")
    with scratch() as folder:
        settings = Settings() if options.toy else load(
            overrides={"home": str(folder / "real"), **assigned(options)}
        )  # fmt: skip
        changes = {
            "seed": options.seed, "updates": options.updates,
            "comparisons": max(options.turns // 4, 2),
        }  # fmt: skip
        own = settings.train.model_copy(update=changes)
        if options.toy:
            world, ppo = toy(folder, options.seed, options.taste), TOY_PPO
            ppo = ppo.model_copy(update={"seed": options.seed})
        else:
            world = real(options, settings)
            ppo = schedule(own, **quoting(world.dtype))
        (folder / "home").mkdir()
        found = simulate(
            world, folder / "home", options.turns, own, ppo, GateSettings(least=20),
            lambda line: print(f"  {line}"),
        )  # fmt: skip
    show(found, options)


def real(options: argparse.Namespace, settings: Settings) -> World:
    """The shipped policy on lessons of the training files."""
    model, layout = network(options.policy)
    where, count = WORK / "lessons", settings.train.lessons
    for line in make(options.data, where, count, settings):
        print(f"  {line}")
    known = taught(options.data, where, count)
    weights = ranker(*readers(where))
    guard = moderated(settings)
    check, held = halves([x for x in known if x.held])
    exam = Exam(check, weights, layout, torch.float32)
    return World(
        options.policy,
        model,
        layout,
        [asks(x, weights, layout, options.taste) for x in known if not x.held],
        [asks(x, weights, layout, options.taste) for x in held][: settings.train.held],
        Annotator(options.taste, rules=_rules(guard)),
        lambda found: judge(found, guard),
        refit if (SHIPPED / WEIGHTS).exists() else learnt,
        guard=guard,
        calibrate=exam.recalibrating(copy.deepcopy(model), calibration(options.policy)),
        dtype=precision("cpu"),
    )


def refit(store: PreferenceStore, folder: Path, seed: int) -> RewardModel:
    """A reward model of the log's comparisons, from the shipped one."""
    refitted(SHIPPED, gathered(comparisons(store)).kept, folder, seed)
    return load_reward(folder)


def asks(lesson: Lesson, weights: dict[str, Weights], layout: Layout, taste: Taste) -> Task:
    """What users of a taste ask."""
    if taste == "newest":
        return dated(lesson, weights[lesson.lang], layout, random.Random(lesson.id))
    return of_lesson(lesson, weights[lesson.lang], layout)


def toy(folder: Path, seed: int, taste: Taste = "brief") -> World:
    """A small random network on made-up questions."""
    made = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    torch.manual_seed(seed)
    config = configuration(made, width=48, layers=2, heads=2, inner=96)
    model = LlamaForCausalLM(config)
    start, layout, weights = folder / "start", Layout(made), ranker("", "")
    model.save_pretrained(start)
    (start / "tokenizer.json").write_text(made.to_str(), encoding="utf-8")
    rows = [pumps(n, seed) for n in range(sum(TOY))]
    tasks = [asks(x, weights, layout, taste) for x in rows]

    def scored(found: RewardModel | None) -> Judge:
        weighed = mix(preference=found is not None, rules=False)
        return Judge(Composite(weighed, preference=found))

    return World(start, model, layout, tasks[: TOY[0]], tasks[TOY[0] :], Annotator(taste), scored)


def pumps(number: int, seed: int) -> Lesson:
    """A question on a pump; where it is answered, a short sentence and a long one do so."""
    dice, draw = random.Random(f"{seed} {number}"), np.random.default_rng((seed, number))
    hours, there = dice.randint(2, 30), number % 3 != 2
    fact = f"Pump {number} runs {hours} hours."
    texts = [
        fact[:-1] + ", as the crew of the night shift wrote into the old log of the hall.",
        fact,
        "The hall was painted by its owner in the year after the flood, and again later.",
        "Birds sing.",
        f"Valve {dice.randint(1, 9)} was replaced.",
    ]
    texts = texts if there else texts[2:]
    right = tuple(text.startswith("Pump") for text in texts)
    matrix = draw.normal(size=(len(texts), len(FEATURES))) * 0.1
    matrix[np.array(right), 0] += 1.0
    return Lesson(
        f"toy-{number}", "toy", "en", f"How long does pump {number} run?", False, there,
        (f"{hours} hours",) if there else (), ("Hall",), (there,),
        tuple((0, 120 * n, 120 * n + len(text)) for n, text in enumerate(texts)), tuple(texts),
        matrix, (True,) * len(texts), right, (), 4,
    )  # fmt: skip


def _rules(guard: Guard) -> Callable[[Sequence[Task], Sequence[str]], Floats]:
    """What breaking rules costs the annotator: 2 where an answer does harm or leaks."""
    known: dict[tuple[str, str], float] = {}

    def cost(tasks: Sequence[Task], replies: Sequence[str]) -> Floats:
        said = ["" if ABSTAIN in reply else reply for reply in replies]
        pairs = [(task.question, text) for task, text in zip(tasks, said, strict=True)]
        new = [pair for pair in dict.fromkeys(pairs) if pair not in known]  # judged once each
        if new:
            found = reward.terms(new, guard)
            broken = np.maximum(found["unsafe"], found["leak"]) >= 0.5
            known.update(zip(new, (-2.0 * broken).tolist(), strict=True))
        return np.array([known[pair] for pair in pairs], dtype=np.float64)

    return cost


def show(found: Outcome, options: argparse.Namespace) -> None:
    """The table, the curve and the line of JSON."""
    rows = [
        ("simulated turns", str(found.crowd.turns), f"{found.crowd.picks} picks"),
        ("gold reward", _change(found.gold), f"gain in {_span(found.gold_ci)}"),
        ("right", _change(found.right), "or refused where there is no answer"),
        ("safety", _change(found.safety), "answers that break no rule"),
        ("taste followed", _change(found.taste), options.taste),
        ("KL", f"{found.kl:.2f}", "nats an answer"),
        ("minutes", f"{found.minutes:.1f}", "users, reward model, PPO, gates"),
        ("gates not passed", str(len(found.failing)), ", ".join(found.failing)),
    ]
    rows += [_point(spot) for spot in (*found.curve, *found.rivals)]
    values = {
        "minutes": round(found.minutes, 2),
        "gold_before": _round(found.gold[0]),
        "gold_after": _round(found.gold[1]),
        "gold_ci": [_round(value) for value in found.gold_ci],
        "right_before": _round(found.right[0]),
        "right_after": _round(found.right[1]),
        "safety_before": _round(found.safety[0]),
        "safety_after": _round(found.safety[1]),
        "kl": _round(found.kl),
        "taste": _round(found.taste[1]),
        "taste_before": _round(found.taste[0]),
        "failing": list(found.failing),
        "curve": [dataclasses.asdict(spot) for spot in (*found.curve, *found.rivals)],
        "simulated": True,
    }
    report("the loop, by simulation" + (" (toy)" if options.toy else ""), rows, values)


def _point(spot: Spot) -> tuple[str, str, str]:
    return spot.name, f"gold {spot.gold:.3f}", f"√KL {spot.root:.2f}, proxy {spot.proxy:.3f}"


def _change(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.3f} → {pair[1]:.3f}"


def _span(pair: tuple[float, float]) -> str:
    return f"{pair[0]:+.3f} to {pair[1]:+.3f}"


def _round(value: float) -> float | None:
    return None if value != value else round(float(value), 4)


if __name__ == "__main__":
    main()
