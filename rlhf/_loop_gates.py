"""What a candidate is measured by: its answers beside the live policy's, on the same held prompts.

Both answer as they are served, without chance. Who judges is who marked the questions (`labels`),
never the reward model that the candidate learnt from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from assistant.config import GateSettings
from assistant.phrases import say
from assistant.policy import quote
from assistant.policy._decode import Reader
from assistant.policy._quoting import Layout
from assistant.policy.base import Policy
from assistant.prompt import ABSTAIN
from assistant.schema import Sampling
from retrieval.text import content_words
from rlhf import _loop_reward
from rlhf._loop_tasks import Asked, Task
from rlhf.gates import Evidence, Gate, Paired, decide
from rlhf.preferences import PreferenceStore
from rlhf.reward import words
from rlhf.scoring import RewardModel, asked
from safety import reward as rules
from safety.guard import Guard

#: Rules of which an answer either breaks one or not, and from which term on it does.
RULES, BROKEN = ("unsafe", "complied", "leak", "bad_link"), 0.5
JUDGE = "labels"
#: Held prompts that are drawn to at once.
AT_ONCE = 64


class Side(Protocol):
    """One of the two policies that are compared; a network takes its own kind of tasks."""

    def answer(self, task: Any) -> str:
        """The reply to a task, with `[n]` marks; the word for abstaining where it does."""
        ...


class Network:
    """A network that quotes, answering as `assistant.policy.quote` does.

    Args:
        model: in evaluation mode.
        layout: of its prompts.
        calibration: of each language; a language without one is never cut off by confidence.
        minimum: confidence below which it abstains; negative takes the calibrated threshold.
        beams: answers kept side by side; 1 is greedy.
    """

    def __init__(
        self,
        model: Any,
        layout: Layout,
        calibration: Mapping[str, quote.Calibration],
        minimum: float = -1.0,
        beams: int = 1,
    ) -> None:
        self._model, self._layout, self._calibration = model, layout, calibration
        self._minimum, self._beams = minimum, beams

    def answer(self, task: Task) -> str:
        """The likeliest answer, after the confidence has decided whether there is one."""
        fit, minimum = quote.calibrated_for(
            self._calibration, task.question, task.sure, self._minimum
        )
        reader = Reader(self._model, task.ids)
        found, _ = quote.decide(
            reader, task.paths, self._layout, fit, minimum, self._beams, Sampling()
        )
        return task.reply(found.path)


class Served:
    """Any policy; it answers prompts with their passages.

    Args:
        policy: that answers.
        sampling: how; without chance where nothing else is said.
    """

    def __init__(self, policy: Policy, sampling: Sampling | None = None) -> None:
        self._policy, self._sampling = policy, sampling or Sampling()

    def answer(self, task: Asked) -> str:
        """All its deltas; quotes with their citations, what is written piece by piece."""
        deltas = [*self._policy.stream(task.prompt(), self._sampling)]
        if deltas[-1].phrase:
            return say(deltas[-1].phrase, task.language)
        text = "".join(f" {d.text} [{d.quote[0]}]" if d.quote else d.text for d in deltas).strip()
        return ABSTAIN if not text or deltas[-1].finish == "abstain" else text


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of it: gates, numbers for the manifest, and the answers of both sides."""

    gates: tuple[Gate, ...]
    metrics: dict[str, float]
    old: tuple[str, ...]
    new: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Court:
    """All that the gates need beside the candidate.

    Attributes:
        held: prompts that nothing was trained on.
        live: who answers now, and `against`, its version.
        judge: the reward of the run, the proxy.
        guard: judges rules; None where there is none.
        model: the reward model of the run; None where none took part.
        before: the reward model before it, None where there was none or it is the same.
        store: whose test users' comparisons the reward model is asked about.
        settings: of the gates.
        modelling: losses on plain text before the run and after it; None where not measured.
    """

    held: Sequence[Asked]
    live: Side
    against: str
    judge: _loop_reward.Judge
    guard: Guard | None
    model: RewardModel | None
    before: RewardModel | None
    store: PreferenceStore
    settings: GateSettings
    modelling: Paired | None = None

    def measure(
        self,
        new: Side,
        actor: Any,
        seed: int,
        tell: Callable[[int, int], None] = lambda step, of: None,
    ) -> Measured:
        """Ask both sides everything, and decide every gate.

        Args:
            new: the candidate, as it would be served.
            actor: the candidate, as it draws.
            seed: of what it draws.
            tell: called with each prompt that was asked, and of how many.
        """
        old_said, new_said = [], []
        for number, task in enumerate(self.held):
            tell(number, len(self.held))
            old_said.append(self.live.answer(task))
            new_said.append(new.answer(task))
        evidence = self._evidence(old_said, new_said, divergence(actor, self.held, seed))
        settings = self.settings
        if self.model is None:  # there is nothing that these two could be about
            more = ("reward_accuracy", "reward_ece")
            settings = settings.model_copy(update={"optional": (*settings.optional, *more)})
        gates = decide(evidence, settings)
        metrics = {gate.name: gate.value for gate in gates if gate.value is not None and gate.n}
        known = [t for t in self.held if t.answerable is not None]
        metrics |= {"held": float(len(self.held)), "labelled": float(len(known))}
        return Measured(gates, metrics, tuple(old_said), tuple(new_said))

    def _evidence(self, old: Sequence[str], new: Sequence[str], kl: Sequence[float]) -> Evidence:
        held = self.held
        labelled = [i for i, task in enumerate(held) if task.answerable is not None]
        there = [i for i in labelled if held[i].answerable]
        right = Paired(*(
            [held[i].correct(said[i]) or 0.0 for i in labelled] for said in (old, new)
        ))  # fmt: skip
        gaps = np.asarray(right.candidate) - np.asarray(right.live)
        proxy = self.judge.totals(held, new) - self.judge.totals(held, old)
        return Evidence(
            against=self.against,
            wins=(int((gaps > 0).sum()), int((gaps == 0).sum()), int((gaps < 0).sum())),
            judge=JUDGE,
            reward_model=self.model.id if self.model is not None else "",
            preferred=None if self.model is None else preferred(self.model, self.store),
            preferred_before=None if self.before is None else preferred(self.before, self.store),
            violations=self._violations(old, new),
            refused=_both(lambda i, said: float(ABSTAIN in said[i]), there, old, new),
            grounded=_both(lambda i, said: grounded(held[i], said[i]), range(len(held)), old, new),
            answers=right,
            lengths=_both(lambda i, said: _length(said[i]), range(len(held)), old, new),
            kl=kl,
            gold=gaps,
            proxy=proxy[labelled],
            modelling=self.modelling,
        )

    def _violations(self, old: Sequence[str], new: Sequence[str]) -> dict[str, Paired]:
        if self.guard is None:
            return {}
        sides = []
        for said in (old, new):
            pairs = [
                (task.question, "" if ABSTAIN in reply else reply)
                for task, reply in zip(self.held, said, strict=True)
            ]
            sides.append(rules.terms(pairs, self.guard))
        live, candidate = sides
        return {
            rule: Paired(
                *((side[rule] >= BROKEN).astype(float).tolist() for side in (live, candidate))
            )
            for rule in RULES
        }


def divergence(actor: Any, tasks: Sequence[Asked], seed: int) -> list[float]:
    """KL (k1) of the policy from its reference, nats an answer, of one answer to each task."""
    generator = torch.Generator().manual_seed(seed)
    found: list[float] = []
    with torch.no_grad():
        for at in range(0, len(tasks), AT_ONCE):
            drawn = actor.draw(tasks[at : at + AT_ONCE], 1.0, generator)
            gap = actor.look(drawn, 1.0).logprobs - actor.reference(drawn, 1.0)
            found += gap.sum(1).tolist()
    return found


def preferred(model: RewardModel, store: PreferenceStore) -> list[float]:
    """P(chosen over rejected) of the pairs of test users."""
    pairs = [(asked(p.prompt), p.chosen, p.rejected) for p in store.pairs("test")]
    if not pairs:
        return []
    better = model([(question, chosen) for question, chosen, _ in pairs])
    worse = model([(question, rejected) for question, _, rejected in pairs])
    return [float(value) for value in model.chance(better, worse)]


def grounded(task: Asked, reply: str) -> float:
    """Share of a reply's words that the passages hold; an abstention says nothing without."""
    said = [] if ABSTAIN in reply else content_words(reply)
    there = {word for p in task.passages for word in content_words(p.chunk.text)}
    said = [word for word in said if not word.isdigit()] or said
    return sum(word in there for word in said) / len(said) if said else 1.0


def pairs_of(
    tasks: Sequence[Asked], old: Sequence[str], new: Sequence[str]
) -> list[dict[str, Any]]:
    """Answers that differ, for blind picks; of questions that no user asked."""
    return [
        {
            "id": task.id,
            "question": task.question,
            "language": task.language,
            "old": _shown(task, before),
            "new": _shown(task, after),
        }
        for task, before, after in zip(tasks, old, new, strict=True)
        if before != after and not task.user
    ]


def _shown(task: Asked, reply: str) -> dict[str, Any]:
    if ABSTAIN in reply:
        return {"text": "", "evidence": []}
    return {"text": reply, "evidence": task.shown(reply)}


def _both(
    value: Callable[[int, Sequence[str]], float],
    rows: Sequence[int],
    old: Sequence[str],
    new: Sequence[str],
) -> Paired:
    return Paired([value(i, old) for i in rows], [value(i, new) for i in rows])


def _length(reply: str) -> float:
    return 0.0 if ABSTAIN in reply else words(reply)
