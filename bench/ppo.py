"""Our PPO beside TRL's: `python -m bench.ppo --setup` once, then `python -m bench.ppo`.

The same checkpoint, reward model, prompts in the same order, losses, rates, epsilon, KL weight and
number of optimiser steps (counted in both, and compared), float32, on processors (`bench.ppo_task`
says what is learnt). Each run is a process of its own; the systems take turns, and every second
repeat goes through them backwards. The first update of a run is left out of its times.

ours_same   plumbline with a critic of its own, as TRL's: the same algorithm
ours_best   plumbline with a value head on the policy's trunk, and what a critic would begin with,
            the reward model's scores of an answer's beginnings, as the potential of its rewards
trl         PPO of TRL 1.12.0, the last release that had it
trl_whole   the same, reading the batch at once instead of in parts of --micro
rloo        RLOO of TRL 1.16.0: several answers a prompt, no critic; another algorithm
dpo, kto    DPO and KTO of the same: answers of the first policy alone, judged once; they are told
            which of two is better, or which are above the mean (`bench.ppo_offline`)

same_ratio  seconds of an update: trl over ours_same, median of the repeats
best_ratio  the same, the faster of trl and trl_whole over ours_best
kl_*        what the last policy of a run has spent: the whole KL from the first policy
            (`bench.ppo_spent`); mean over the repeats
reward_*    the mean score where both of a repeat have spent the same KL: the most that both reached
reward_gain the same as a difference, with its interval
last_*      mean score of the last policies

KL and score are measured by our own code on all sides alike, of the policy after each update, on
prompts that nothing learnt on. What the sides log while they train is not compared: the log-ratio
of an answer deviates by the square root of twice the KL, so 64 answers at a KL of 2 leave a
standard error of 0.25. With --natural an answer without an end loses 1 on both sides; TRL puts the
score one token behind the end, ours on it.

TRL lives in environments of their own below the user's cache, which `--setup` makes: they see this
one's packages, so that both sides compute with the same torch, and hold TRL alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from sysconfig import get_path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from bench.common import scratch
from bench.ppo_clock import PHASES
from bench.ppo_spent import weigh
from bench.ppo_task import Shape, make, prompts

ROOT = Path(__file__).resolve().parent.parent
#: The environment of each opponent, with what is installed there.
HOMES = {"trl": "trl==1.12.0", "rloo": "trl==1.16.0"}
#: System: (module and its argument, environment, a critic of its own, in parts).
SYSTEMS: dict[str, tuple[tuple[str, ...], str, bool, bool]] = {
    "ours_same": (("bench.ppo_ours",), "", True, True),
    "trl": (("bench.ppo_trl", "ppo"), "trl", True, True),
    "ours_best": (("bench.ppo_ours",), "", False, True),
    "trl_whole": (("bench.ppo_trl", "ppo"), "trl", True, False),
    "rloo": (("bench.ppo_trl", "rloo"), "rloo", False, True),
    "dpo": (("bench.ppo_offline", "dpo"), "rloo", False, True),
    "kto": (("bench.ppo_offline", "kto"), "rloo", False, True),
}
#: What both sides are told; the ends of prompts and the sizes come from the command line.
LEARNT = {
    "epochs": 4, "rate": 1e-4, "betas": (0.9, 0.95), "epsilon": 1e-5, "beta": 0.05, "trace": 0.95,
    "clip": 0.2, "value_weight": 0.1,
}  # fmt: skip
QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
#: Sizes that show that everything runs: an update takes seconds.
QUICK = {"episodes": 16, "micro": 8, "answer": 12, "updates": 3, "repeats": 2, "held": 64}
#: Distance of the seeds of prompts that are learnt on and of those that the last policies get.
HELD = 100_000

Runs = dict[str, list[dict[str, Any]]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Set up, or run and report."""
    options = _options(arguments)
    if options.setup:
        for name in HOMES:
            set_up(name, options.homes)
        return
    names = [name for name in SYSTEMS if name in options.systems]
    missing = sorted({SYSTEMS[n][1] for n in names if not python(n, options.homes).is_file()})
    if missing:
        raise SystemExit(
            f"there is no environment for {', '.join(missing)} in {options.homes}; make it with: "
            "python -m bench.ppo --setup"
        )
    quiet: Any = disable_progress_bar
    quiet()  # of each policy that is read
    shape = Shape(options.layers, options.width, options.vocabulary, 8, 32, options.answer)
    with scratch() as folder:
        ids = make(folder, shape, options.natural)
        runs: Runs = {name: [] for name in names}
        for repeat in range(options.repeats):
            for name in names if repeat % 2 == 0 else names[::-1]:
                final = {"folder": str(folder), "final": str(folder / "final")}
                job = told(options, shape, ids, repeat) | final
                run = started(name, job, options.homes)
                held = prompts(shape, options.held, HELD + repeat)
                run["spent"] = [weigh(folder, at, held, job) for at in written(folder)]
                runs[name].append(run)
        counted = {}
        for name in names:
            job = told(options, shape, ids, 0, updates=1) | {"folder": str(folder), "flops": True}
            counted[name] = started(name, job, options.homes)["flops"]
    same_steps(runs)
    show(runs, counted, options)


def written(folder: Path) -> list[Path]:
    """The first policy and those that a run wrote, in their order."""
    each = sorted((folder / "final").iterdir(), key=lambda path: int(path.name))
    return [folder / "policy", *each]


def set_up(name: str, homes: Path) -> None:
    """Make the environment of an opponent; one that is there is left as it is."""
    home, wanted = homes / name, HOMES[name]
    print(f"{home}: {wanted}")
    if not (home / "bin" / "python").is_file():
        venv.create(home, with_pip=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = home / "lib" / version / "site-packages"
    # behind its own packages stand this environment's
    (own / "zz_plumbline.pth").write_text(get_path("purelib") + "\n", encoding="utf-8")
    install = [str(home / "bin" / "python"), "-m", "pip", "install", "-q", wanted, "datasets>=4.7"]
    subprocess.run(install, check=True)


def python(system: str, homes: Path) -> Path:
    """The interpreter of a system."""
    home = SYSTEMS[system][1]
    return homes / home / "bin" / "python" if home else Path(sys.executable)


def told(
    options: argparse.Namespace, shape: Shape, ids: Mapping[str, int], repeat: int, updates: int = 0
) -> dict[str, Any]:
    """A job for any system: a repeat is a seed, with prompts of its own."""
    count = options.episodes * (updates or options.updates)
    tasks = prompts(shape, count + options.episodes, repeat)
    # ours shuffles all it is given; the others get the same order
    order = np.random.default_rng((repeat, 0)).permutation(len(tasks)).tolist()
    return {
        **LEARNT,
        **ids,
        "seed": repeat,
        "updates": updates or options.updates,
        "episodes": options.episodes,
        "micro": options.micro,
        "answer": options.answer,
        "natural": options.natural,
        "threads": options.threads,
        "rate": options.rate,
        "tasks": tasks,
        "drawn": [tasks[at] for at in order[:count]],
        "flops": False,
    }


def started(name: str, job: dict[str, Any], homes: Path) -> dict[str, Any]:
    """Run a system on a job in its process, and read what it measured."""
    module, _, critic, parted = SYSTEMS[name]
    folder = Path(job["folder"])
    job = job | {"critic": critic, "result": str(folder / "result.json")}
    if not parted:
        job["micro"] = job["episodes"]
    path = folder / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    Path(job["result"]).unlink(missing_ok=True)
    shutil.rmtree(job.get("final", folder / "final"), ignore_errors=True)
    threads = {"OMP_NUM_THREADS": str(job["threads"]), "PYTHONPATH": str(ROOT)}
    command = [str(python(name, homes)), "-m", module[0], str(path), *module[1:]]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **QUIET, **threads}, capture_output=True, text=True
    )
    if done.returncode or not Path(job["result"]).is_file():
        said = (done.stderr or done.stdout).strip().splitlines()
        raise SystemExit(f"{name} failed: " + "\n".join(said[-12:]))
    found: dict[str, Any] = json.loads(Path(job["result"]).read_text(encoding="utf-8"))
    each = [seconds(row) for row in found["updates"]]
    print(f"{name} seed {job['seed']}: {', '.join(f'{value:.2f}' for value in each)} s", flush=True)
    return found


def same_steps(runs: Runs) -> None:
    """Every run has taken the same number of optimiser steps.

    Raises:
        SystemExit: one has not; nothing that follows would be a comparison.
    """
    steps = {name: sorted({run["steps"] for run in found}) for name, found in runs.items()}
    if len({tuple(found) for found in steps.values()}) > 1:
        raise SystemExit(f"the optimiser steps differ, so there is nothing to compare: {steps}")


def seconds(row: Mapping[str, float]) -> float:
    """Of an update."""
    return sum(row[phase] for phase in PHASES)


def timed(run: Mapping[str, Any]) -> dict[str, float]:
    """Means of a run over its updates but the first: seconds, by phase, and tokens a second."""
    rows = run["updates"][1:] or run["updates"]
    found = {phase: float(np.mean([row[phase] for row in rows])) for phase in PHASES}
    found["cpu"] = float(np.mean([row["cpu"] for row in rows]))
    found["seconds"] = sum(found[phase] for phase in PHASES)
    tokens = float(np.mean([row["tokens"] for row in rows]))
    found["drawn_s"] = tokens / max(found["generate"], 1e-9)
    found["tokens_s"] = tokens / found["seconds"]
    return found


def at_equal_kl(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[float, float, float]:
    """The scores of two runs where both have spent the same KL, and that KL.

    It is the most that both reached; scores between two updates are drawn straight.
    """
    most = min(max(row["kl"] for row in run["spent"]) for run in (one, other))
    found = []
    for run in (one, other):
        spent, scores = zip(
            *sorted((row["kl"], row["reward"]) for row in run["spent"]), strict=True
        )
        found.append(float(np.interp(most, spent, scores)))
    return found[0], found[1], most


def paired(runs: Runs, above: Sequence[str], below: str, measure: str = "seconds") -> list[float]:
    """Ratios by repeat: the best of `above` over `below`."""
    rows = zip(*(runs[name] for name in (*above, below)), strict=True)
    values = [[timed(run)[measure] for run in row] for row in rows]
    return [min(row[:-1]) / row[-1] for row in values]


def summary(runs: Runs, counted: Mapping[str, float]) -> dict[str, object]:
    """What the last line says; None where a side was not run."""
    found: dict[str, object] = dict.fromkeys(
        ("same_ratio", "best_ratio", "reward_ours", "reward_trl", "kl_ours", "kl_trl")
    )
    found["repeats"] = max(map(len, runs.values()), default=0)
    rivals = [name for name in ("trl", "trl_whole") if runs.get(name)]
    for name, ours, theirs in (
        ("same", "ours_same", rivals[:1]), ("best", "ours_best", rivals),
    ):  # fmt: skip
        if not rivals or not runs.get(ours):
            continue
        for measure, suffix in (("seconds", ""), ("cpu", "_cpu")):
            ratios = paired(runs, theirs, ours, measure)
            found[f"{name}_ratio{suffix}"] = round(float(np.median(ratios)), 3)
        flops = min(counted[rival] for rival in theirs) / counted[ours]
        found[f"{name}_ratio_flops"] = round(flops, 3)
        level = [at_equal_kl(a, b) for a, b in zip(runs[ours], runs[theirs[0]], strict=True)]
        gains = [mine - other for mine, other, _ in level]
        suffix = "" if name == "same" else "_best"
        low, high = _interval(gains)
        found[f"last_ours{suffix}"] = _last(runs[ours], "reward")
        found[f"reward_gain{suffix}"] = [round(v, 3) for v in (float(np.mean(gains)), low, high)]
        found[f"reward_ours{suffix}"] = round(float(np.mean([mine for mine, _, _ in level])), 3)
        found[f"kl_ours{suffix}"] = _last(runs[ours], "kl")
        if name == "same":
            found["reward_trl"] = round(float(np.mean([other for _, other, _ in level])), 3)
            found["kl_equal"] = round(float(np.mean([kl for *_, kl in level])), 3)
            rival = runs[theirs[0]]
            found["kl_trl"], found["last_trl"] = _last(rival, "kl"), _last(rival, "reward")
            gaps = [a["spent"][-1]["kl"] - b["spent"][-1]["kl"]
                    for a, b in zip(runs[ours], rival, strict=True)]  # fmt: skip
            found["kl_gap"] = [round(v, 3) for v in (float(np.mean(gaps)), *_interval(gaps))]
    return found


def show(runs: Runs, counted: Mapping[str, float], options: argparse.Namespace) -> None:
    """Print the table and the JSON line."""
    names = ("s/update", "IQR", "CPU s", *PHASES, "drawn/s", "tokens/s", "MiB", "GFLOP", "score",
             "KL", "version")  # fmt: skip
    table = Table("system", *names)
    table.title = (
        f"{options.episodes} answers of {options.answer} an update, {options.updates} updates, "
        f"{options.repeats} repeats, {options.threads} threads"
        + (", answers end by themselves" if options.natural else "")
    )
    for name, found in runs.items():
        each = [timed(run) for run in found]
        middle = {key: float(np.median([row[key] for row in each])) for key in each[0]}
        low, high = np.quantile([row["seconds"] for row in each], [0.25, 0.75])
        grown = np.median([run["peak_mib"] - run["base_mib"] for run in found])
        table.add_row(
            name, f"{middle['seconds']:.2f}", f"{low:.2f}-{high:.2f}", f"{middle['cpu']:.2f}",
            *[f"{middle[phase]:.2f}" for phase in PHASES], f"{middle['drawn_s']:.0f}",
            f"{middle['tokens_s']:.0f}", f"{grown:.0f}", f"{counted[name] / 1e9:.0f}",
            f"{_last(found, 'reward'):.3f}", f"{_last(found, 'kl'):.3f}", found[0]["version"],
        )  # fmt: skip
    Console(width=160).print(table)
    print(json.dumps(summary(runs, counted)))


def _last(found: Sequence[Mapping[str, Any]], name: str) -> float:
    """Of the last policies, mean over the repeats."""
    return round(float(np.mean([run["spent"][-1][name] for run in found])), 3)


def _interval(values: Sequence[float], rounds: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of a mean over repeats."""
    draws = np.random.default_rng(0).integers(0, len(values), (rounds, len(values)))
    low, high = np.quantile(np.asarray(values)[draws].mean(1), [0.025, 0.975])
    return float(low), float(high)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--setup", action="store_true", help="make TRL's environments, and end")
    parser.add_argument("--homes", type=Path, default=cache / "plumbline" / "bench-ppo")
    parser.add_argument("--systems", nargs="+", choices=[*SYSTEMS], default=[*SYSTEMS])
    parser.add_argument("--quick", action="store_true", help="the smallest sizes, to try it")
    parser.add_argument("--natural", action="store_true", help="answers end by themselves")
    sizes = {
        "episodes": 64, "micro": 16, "answer": 48, "updates": 4, "repeats": 5, "threads": 2,
        "layers": 4, "width": 256, "vocabulary": 8192, "held": 256,
    }  # fmt: skip
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=None, help=f"{value} by default")
    parser.add_argument("--rate", type=float, default=LEARNT["rate"])
    options = parser.parse_args(arguments)
    for name, value in (sizes | (QUICK if options.quick else {})).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.episodes % options.micro:
        parser.error(f"--micro {options.micro} does not divide --episodes {options.episodes}")
    return options


if __name__ == "__main__":
    main()
