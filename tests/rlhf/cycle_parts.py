"""A tiny policy that quotes, lessons, and all that a run of the loop works with, in seconds."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from assistant.config import GateSettings, TrainSettings
from assistant.policy._quoting import Layout
from assistant.policy._ranker import FEATURES
from assistant.policy.extract import ranker
from rlhf._loop_gates import Network
from rlhf._loop_pupil import Quoting
from rlhf._loop_reward import Judge, mix
from rlhf._loop_status import CANCEL, Board, new
from rlhf._loop_tasks import Task, of_lesson
from rlhf.config import PPOSettings
from rlhf.fit._lessons import Lesson
from rlhf.loop import Cycle, Parts
from rlhf.preferences import PreferenceStore
from rlhf.registry import Registry
from rlhf.reward import Composite
from rlhf.scoring import RewardModel, Scale
from tests.assistant import quoters

LAYOUT = Layout(quoters.tokenizer())
WEIGHTS = ranker("", "")
#: So many rows are enough here.
GATES = GateSettings(least=4, rounds=200, kl=50.0)
FAST = PPOSettings(
    updates=4, episodes=8, minibatches=2, epochs=1, micro=8, rate=3e-3, value_rate=3e-3,
    rate_warmup=0, value_warmup=1, save_every=1, step_kl=None, average=0.5, most_kl=200.0,
)  # fmt: skip


def lesson(
    number: int, lang: str = "en", size: int = 5, right: Sequence[int] = (0,), *, held: bool = False
) -> Lesson:
    """A question on a pump; the sentences `right` answer it."""
    draw = np.random.default_rng(number)
    texts = tuple(f"Pump {n} of hall {number} runs {n + 3} hours." for n in range(size))
    return Lesson(
        f"q{number}", "squad/squad2_dev", lang, f"How long does pump {number} run?", held,
        bool(right), tuple(f"{n + 3} hours" for n in right), ("Halls", "Pumps"),
        (bool(right), False), tuple((n // 4, 50 * (n % 4), 50 * (n % 4) + len(texts[n]))
        for n in range(size)), texts, draw.normal(size=(size, len(FEATURES))) * 0.1,
        (True,) * size, tuple(n in right for n in range(size)), (), 4,
    )  # fmt: skip


def tasks(count: int, start: int = 0) -> list[Task]:
    """Tasks, a third of which nothing answers."""
    made = [lesson(n, right=() if n % 3 == 2 else (n % 4,)) for n in range(start, start + count)]
    return [of_lesson(x, WEIGHTS[x.lang], LAYOUT) for x in made]


def shorter(texts: Sequence[str]) -> np.ndarray:
    """Logits of a reward model that likes short replies."""
    return np.array([-len(text) / 40 for text in texts], dtype=np.float32)


def parts(folder: Path, *, reward: bool = False, **values: object) -> Parts:
    """A run's parts; with `reward`, there is a reward model that needs no training."""
    start = folder / "start"
    if not start.exists():
        quoters.save(start)
    model = quoters.network()
    found: dict[str, object] = {
        "pupil": Quoting(start, model, LAYOUT),
        "tasks": tasks(12),
        "held": tasks(9, 100),
        "judge": lambda own: Judge(
            Composite(mix(preference=own is not None, rules=False), preference=own)
        ),
        "live": Network(copy.deepcopy(model), LAYOUT, {}),
        "against": "",
    }
    if reward:
        found["shipped"] = folder
        found["load_reward"] = lambda _: RewardModel(shorter, Scale(), "short")
    return Parts(**{**found, **values})  # type: ignore[arg-type]


class Asked(Board):
    """A board that is asked to end when a stage reaches a step."""

    stage = ""
    step = 0

    def at(self, stage: str, step: int = 0, of: int = 0, text: str = "") -> None:
        """Ask in time."""
        if (stage, step) == (self.stage, self.step):
            (self.folder / CANCEL).touch()
        super().at(stage, step, of, text)


def cycle(
    home: Path,
    made: Parts,
    folder: Path | None = None,
    ppo: PPOSettings = FAST,
    ask: tuple[str, int] = ("", 0),
    settings: TrainSettings | None = None,
) -> tuple[Cycle, Board, PreferenceStore, Registry]:
    """A run in a home."""
    home.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    store = PreferenceStore(home / "preferences.db")
    registry = Registry(home)
    board = Asked(folder or new(home))
    board.stage, board.step = ask
    return (
        Cycle(
            board,
            made,
            store,
            registry,
            settings or TrainSettings(comparisons=2),
            GATES,
            None if settings else ppo,
        ),
        board,
        store,
        registry,
    )
