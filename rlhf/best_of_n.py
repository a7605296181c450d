"""Best of n: several answers are drawn, a reward model scores them, and the best one is given.

At serving time this is a policy around a policy (`BestOf`), by the setting `policy.best_of`. How
good the best of n is, and what KL it spends, say `objectives.best_of_n` and `best_of_n_kl`.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from assistant.config import Settings
from assistant.errors import ModelNotFound
from assistant.phrases import say
from assistant.policy.base import Policy
from assistant.prompt import ABSTAIN
from assistant.schema import Delta, PolicyCard, Prompt, Sampling
from rlhf.errors import RewardError
from rlhf.scoring import MODEL, load

logger = logging.getLogger(__name__)

#: In the home: what was drawn for each prompt, and which place the answer given had.
LOG = "best-of.jsonl"
#: Temperature of the answers that are drawn, where the settings ask for none.
TEMPERATURE = 0.7
#: Scores of (question, reply) pairs, (n,): a reward model.
Score = Callable[[Sequence[tuple[str, str]]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A candidate of one prompt: its deltas, its text as a reward model reads it, its score."""

    deltas: tuple[Delta, ...]
    text: str
    score: float = 0.0


class BestOf:
    """A policy that draws n answers of another and gives the best one.

    What was drawn and how it was ranked goes to the log: `n`, the place of the chosen one among
    those drawn, and all scores; the card says how many are drawn. Another answer to the same turn
    (`Sampling.variant`) is the next best one.

    Args:
        policy: that draws.
        score: the reward model.
        n: how many; 1 changes nothing.
        note: called with what came of each prompt, for a log.
    """

    def __init__(
        self, policy: Policy, score: Score, n: int, note: Callable[[Choice], None] | None = None
    ) -> None:
        self._policy, self._score, self._n = policy, score, n
        self._note = note or _logged
        self.writes = getattr(policy, "writes", True)

    @property
    def card(self) -> PolicyCard:
        """The policy's own, with the number of answers drawn."""
        card = self._policy.card
        engine = f"{card.engine} best of {self._n}".strip()
        return replace(card, engine=engine) if self._n > 1 else card

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Delta]:
        """The best of n answers; nothing comes before all are drawn.

        Raises:
            PolicyError: the policy failed.
        """
        if self._n == 1:
            yield from self._policy.stream(prompt, sampling)
            return
        drawn = self._drawn(prompt, sampling)
        scores = self._score([(prompt.question, one.text) for one in drawn])
        order = ranked([float(value) for value in scores], [one.text for one in drawn])
        chosen = order[min(sampling.variant, len(order) - 1)]
        said = tuple(float(value) for value in scores)
        self._note(Choice(prompt.mark, len(drawn), chosen, order.index(chosen), said))
        yield from drawn[chosen].deltas

    def count_tokens(self, text: str) -> int:
        """By the policy."""
        return self._policy.count_tokens(text)

    def close(self) -> None:
        """Close the policy."""
        self._policy.close()

    def _drawn(self, prompt: Prompt, sampling: Sampling) -> list[Drawn]:
        """The answer as the settings have it, and n - 1 that are drawn."""
        found = []
        plain = replace(sampling, variant=0)
        for number in range(self._n):
            warm = max(sampling.temperature, TEMPERATURE)
            seed = sampling.seed * self._n + number
            own = plain if not number else replace(plain, temperature=warm, seed=seed)
            deltas = tuple(self._policy.stream(prompt, own))
            text = " ".join(d.text for d in deltas if d.text).strip()
            if deltas and deltas[-1].phrase:
                text = say(deltas[-1].phrase, prompt.language)
            abstains = not text or (bool(deltas) and deltas[-1].finish == "abstain")
            found.append(Drawn(deltas, ABSTAIN if abstains else text))
        return found


@dataclass(frozen=True, slots=True)
class Choice:
    """What came of a prompt: `n` drawn, number `chosen` of them given, its `rank` from 0 (best).

    `mark` is the prompt's, which follows from the id of the turn (`assistant.prompt.mark_of`).
    """

    mark: str
    n: int
    chosen: int
    rank: int
    scores: tuple[float, ...]


def ranked(scores: Sequence[float], texts: Sequence[str]) -> list[int]:
    """Numbers of the different texts, the best first; of equal scores the first drawn."""
    first = {text: number for number, text in reversed(list(enumerate(texts)))}
    return sorted(first.values(), key=lambda number: (-scores[number], number))


def wrapped(policy: Policy, settings: Settings, folder: Path = MODEL) -> Policy:
    """The policy as `policy.best_of` has it served; itself where that is 1.

    Raises:
        PolicyError: there is no reward model to choose by.
    """
    if settings.policy.best_of == 1:
        return policy
    own = settings.retrieval.embed
    try:
        score = load(folder, runtime=own.runtime, device=own.device, dtype=own.dtype)
    except RewardError as error:
        policy.close()
        raise ModelNotFound(
            f"policy.best_of = {settings.policy.best_of} needs a reward model: {error}; or set it "
            "to 1"
        ) from error
    return BestOf(policy, score, settings.policy.best_of, Log(settings.home / LOG))


class Log:
    """Adds a line for every prompt; it holds no word of it.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()

    def __call__(self, choice: Choice) -> None:
        """Add a line; a full disk loses the line and no answer."""
        line = json.dumps({"at": time.time(), **asdict(choice)})
        try:
            with self._lock, self._path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            logger.error("best_of_not_logged error=%s", error)


def _logged(choice: Choice) -> None:
    logger.info("best_of n=%d chosen=%d rank=%d", choice.n, choice.chosen, choice.rank)
