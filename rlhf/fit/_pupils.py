"""The two kinds of policy that `train loop` trains, each with what is made for it alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from assistant.config import PolicySettings
from assistant.policy._quoting import Layout
from assistant.policy.extract import Fitted, Weights
from assistant.policy.quote import calibration
from retrieval.fit._student import precision
from retrieval.schema import Passage
from retrieval.text import sentences
from rlhf import _loop_tasks, _loop_written
from rlhf._loop_pupil import Pupil, Quoting
from rlhf._loop_tasks import Asked
from rlhf._loop_watch import Told
from rlhf.actor_quote import QuoteActor
from rlhf.fit import _plain
from rlhf.fit._causal import Writing
from rlhf.fit._exam import Exam
from rlhf.fit._lessons import Lesson
from rlhf.fit._plain import Plain
from rlhf.fit.pretrain import WORK
from rlhf.schema import Sample

#: Answers of a large model that are read at once, and of the small one.
FEW, MANY = 4, 32
#: Score of an answer of a large model that was cut off: less than a wrong one gets that ended, is
#: too long and of a bad form, and that the reward model puts among its worst twentieth.
CUT = -4.0
#: How far off 1 the first ratio may be in half precision.
COARSE = {"ratio_gap": 1e-3}


def quoting(dtype: torch.dtype) -> Mapping[str, float]:
    """What of PPO's settings is another for the small network, with products of this type."""
    return {"micro": MANY, **({} if dtype == torch.float32 else COARSE)}


class Kind(Protocol):
    """A kind of policy."""

    @property
    def ppo(self) -> Mapping[str, float]:
        """What of PPO's settings is another for it."""

    def pupil(self, check: Sequence[Lesson], weights: dict[str, Weights]) -> Pupil:
        """What a run trains; `check` are lessons that set its confidence, where it has one."""

    def lessons(self, known: Sequence[Lesson], weights: dict[str, Weights]) -> list[Asked]:
        """Lessons as it is asked; those that it cannot be asked are left out."""

    def asked(self, sample: Sample, read: Fitted) -> Told | None:
        """A user's prompt; None where it cannot be asked again."""

    def plain(self, data: Path, seed: int) -> Plain:
        """The loss on plain text of a data folder."""


class Quotes:
    """The small network that quotes.

    Args:
        start: its folder.
        model: its network, in float32.
        layout: of its prompts.
        options: how it is served.
    """

    def __init__(self, start: Path, model: Any, layout: Layout, options: PolicySettings) -> None:
        self._start, self._model, self._layout = start, model, layout
        self._options, self._dtype = options, precision(options.device)
        #: See `Kind`.
        self.ppo = quoting(self._dtype)

    def pupil(self, check: Sequence[Lesson], weights: dict[str, Weights]) -> Pupil:
        """All of its weights learn."""
        exam = Exam(check, weights, self._layout, torch.float32)
        start, before = copy.deepcopy(self._model), calibration(self._start)
        return Quoting(
            self._start,
            self._model,
            self._layout,
            exam.recalibrating(start, before) if check else lambda trained: {},
            self._options,
            QuoteActor(self._model, dtype=self._dtype),
        )

    def lessons(self, known: Sequence[Lesson], weights: dict[str, Weights]) -> list[Asked]:
        """Each with its sentences ranked."""
        return [_loop_tasks.of_lesson(x, weights[x.lang], self._layout) for x in known]

    def asked(self, sample: Sample, read: Fitted) -> Told | None:
        """With the sentences of the passages that were shown then."""
        return _loop_tasks.of_sample(sample, read, self._layout)

    def plain(self, data: Path, seed: int) -> Plain:
        """What it was pretrained on."""
        return _plain.quoting(data, WORK, self._model, self._start, seed)


class Writes:
    """A causal language model.

    Args:
        pupil: it.
    """

    def __init__(self, pupil: Writing) -> None:
        self._pupil = pupil
        #: See `Kind`.
        self.ppo: Mapping[str, float] = {
            "micro": FEW, "missing_end": CUT, **({} if pupil.exact else COARSE),
        }  # fmt: skip

    def pupil(self, check: Sequence[Lesson], weights: dict[str, Weights]) -> Writing:
        """It has no confidence to set."""
        return self._pupil

    def lessons(self, known: Sequence[Lesson], weights: dict[str, Weights]) -> list[Asked]:
        """Each as a chat."""
        made = (_loop_written.of_lesson(x, self._pupil.speech) for x in known)
        return [task for task in made if task is not None]

    def asked(self, sample: Sample, read: Fitted) -> Told | None:
        """The messages that were sent then."""
        return _loop_written.of_sample(sample, self._pupil.speech)

    def plain(self, data: Path, seed: int) -> Plain:
        """By its own tokenizer."""
        speech = self._pupil.speech
        return _plain.writing(data, self._pupil.actor.model, speech.tokenizer, speech.context, seed)


class Found(Protocol):
    """What a passage says about a sentence."""

    @property
    def probability(self) -> float:
        """That it says so."""


class Supporter(Protocol):
    """Judges sentences by passages, pair by pair: `assistant.build.supporter_of`."""

    def score(self, claims: Sequence[str], passages: Sequence[str]) -> Sequence[Found]:
        """What each passage says about its sentence."""


def supports(supporter: Supporter | None) -> Callable[[str, Sequence[Passage]], float] | None:
    """The mean over an answer's sentences of how likely a cited passage says so; None: nobody can.

    Args:
        supporter: the trained support check.
    """
    if supporter is None:
        return None

    def judge(text: str, passages: Sequence[Passage]) -> float:
        said = [text[start:end] for start, end in sentences(text)]
        claims = [claim for claim in said for _ in passages]
        bodies = [p.chunk.text for _ in said for p in passages]
        found = [one.probability for one in supporter.score(claims, bodies)]
        each = [max(found[at : at + len(passages)]) for at in range(0, len(found), len(passages))]
        return sum(each) / len(each) if each else 0.0

    return judge
