"""Teaches the policy to quote: `python app.py train sft --data FOLDER`; goes to OUT/policy.

The second of the policy's stages, after `train pretrain`. Lessons are made once (`_lessons`, the
real retrieval over all training paragraphs) and kept in .runs/policy/lessons; every epoch looks at
them another way (`_drills`). They are of questions as people asked them, and of the kinds that
`_kinds` makes: bare words, two questions in one, follow-ups, summaries, and what is answered from
the phrase book. Everything follows from the data, `said.tsv` and the plan's seed. At each decision
the loss is the negative log of the probability of all tokens that are right, over those that are
allowed: the mean over decisions of a step.

It begins with the newest pretraining checkpoint of .runs/policy, else with the weights in
OUT/policy, else with random ones. At the end the confidence is calibrated for each language
(logistic regression of "the evidence answers" on the logit of quoting), the threshold set where
with 95 % confidence at most one in twenty answerable questions is refused, and the probability at
which a further sentence is said so that answers stay short, all on articles that were never trained
on. `train calibrate` does this alone, for a linear ranker that was fitted anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from assistant.config import Settings
from assistant.policy._decode import decisions
from assistant.policy._quoting import Layout
from assistant.policy._signs import LANGUAGES
from assistant.policy.extract import Weights, ranker
from assistant.policy.quote import CALIBRATION
from retrieval.fit._checkpoint import named
from retrieval.fit._loop import Loop
from retrieval.fit._student import precision
from rlhf.errors import TrainingError
from rlhf.fit._drills import Drill, varied
from rlhf.fit._exam import Exam, Mark, report
from rlhf.fit._lessons import Lesson, make, readers, taught
from rlhf.fit._network import configuration, export, network, parts
from rlhf.fit.pretrain import WORK
from rlhf.fit.tokenizer import load, revision

#: The phrases that the network learns, in the order of their signs.
PHRASEBOOK = ("greeting", "thanks", "farewell", "capability", "clarify")


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast. A step reads `rows` drills, `at_once` of them together.

    `questions` are made lessons of; `spoken` is whether an answer holds the quoted tokens.
    """

    questions: int = 5200
    steps: int = 800
    rows: int = 32
    at_once: int = 8
    rate: float = 6e-4
    decay: float = 0.1
    warmup: int = 50
    seed: int = 7
    save_every: int = 50
    check_every: int = 100
    spoken: bool = False


def run(data: Path, out: Path, limit: int | None, settings: Settings) -> Iterator[str]:
    """Train and calibrate, and write weights, calibration and card; yields lines to show.

    Args:
        data: folder that holds qa/.
        out: the weights lie in the folder `policy` beside it, where the tokenizer is.
        limit: steps, where not the plan's; as many questions are made lessons of, or the plan's.
        settings: of the retrieval that brings the evidence; they name the device.

    Raises:
        TrainingError: there is no tokenizer, or a training file is missing or malformed.
    """
    folder = out.with_name("policy")
    made = load(folder)
    plan = Plan()
    if limit is not None:
        few = min(plan.questions, max(limit, 40))
        plan = dataclasses.replace(plan, steps=limit, warmup=max(1, limit // 10), questions=few)
    where = WORK / "lessons"
    yield from make(data, where, plan.questions, settings)
    known = taught(data, where, plan.questions, phrases=True)
    weights = ranker(*readers(where))
    trainer = Trainer(WORK, made, known, weights, plan, settings.policy.device, folder)
    yield f"{len(known)} lessons; {trainer.origin}; {trainer.path.name}"
    yield from trainer.run()
    marks = trainer.exam.marks(trainer.model)
    export(trainer.model, folder)
    calibrated(trainer.exam, trainer.model, PHRASEBOOK, folder)
    (folder / "card.md").write_text(_card(folder, plan, known, trainer, marks), encoding="utf-8")
    yield f"written to {folder}"


def calibrated(
    exam: Exam, model: LlamaForCausalLM, phrases: Sequence[str], folder: Path
) -> dict[str, dict[str, float]]:
    """Write calibration.json of a network that learnt these phrases; returns its fits."""
    fits = exam.calibration(model)
    text = json.dumps({"languages": fits, "phrases": phrases}, indent=1, sort_keys=True)
    (folder / CALIBRATION).write_text(text + "\n", encoding="utf-8")
    return fits


class Trainer:
    """One run: the network and where it stands.

    Args:
        folder: of checkpoints.
        made: the tokenizer.
        known: the lessons, those of held-out articles among them.
        weights: the linear ranker's, by language.
        plan: the run's length.
        device: a torch device.
        start: a model folder, for weights where `folder` has no pretraining checkpoint.
        config: of the network, where it is not the shipped one.
    """

    def __init__(
        self,
        folder: Path,
        made: Tokenizer,
        known: Sequence[Lesson],
        weights: dict[str, Weights],
        plan: Plan,
        device: str,
        start: Path,
        config: LlamaConfig | None = None,
    ) -> None:
        self._plan, self._dtype, self._weights = plan, precision(device), weights
        self._layout = Layout(made, spoken=plan.spoken, phrases=PHRASEBOOK)
        self._taught = {
            lang: [x for x in known if x.lang == lang and not x.held] for lang in LANGUAGES
        }
        if not all(self._taught.values()):
            raise TrainingError("there are no lessons in one of the languages; make more of them")
        held = [x for x in known if x.held]
        #: What is asked of the network on articles that it has not seen.
        self.exam = Exam(held, weights, self._layout, self._dtype)
        config = config or configuration(made)
        self.model: LlamaForCausalLM = network(config, plan.seed, device)
        #: Where the first weights come from.
        self.origin = begin(self.model, folder, start)
        about = [
            dataclasses.asdict(plan),
            config.to_dict(),
            self.origin,
            len(known),
            made.to_str(),
            [d.ids for d in self.drills(0)],  # the layout and the ranker
        ]
        #: The checkpoint.
        self.path = named(folder, "sft", about)
        self.loop = Loop(self.model, parts(self.model, plan.rate, plan.decay), plan, self.path)

    def run(self) -> Iterator[str]:
        """Train to the end; yields lines to show."""
        yield from self.loop.run(self._loss, lambda: report(self.exam.marks(self.model)))

    def drills(self, step: int) -> list[Drill]:
        """What a step reads, as many of each language; depends on seed and step alone."""
        each = self._plan.rows // len(LANGUAGES)
        found = []
        for lang in LANGUAGES:
            mine = self._taught[lang]
            for number in range(step * each, (step + 1) * each):
                epoch, at = divmod(number, len(mine))
                order = np.random.default_rng((self._plan.seed, epoch)).permutation(len(mine))
                dice = random.Random(f"{self._plan.seed} {lang} {number}")
                lesson = mine[int(order[at])]
                found.append(varied(lesson, self._chosen(lesson), self._layout, dice))
        return found

    def _chosen(self, lesson: Lesson) -> Weights:
        return self._weights[lesson.lang]

    def _loss(self, step: int) -> Iterator[Tensor]:
        """Parts of the step's loss; rows of about one length go together."""
        drills = sorted(self.drills(step), key=lambda drill: len(drill.ids))
        count = sum(len(drill.targets) for drill in drills)
        for at in range(0, len(drills), self._plan.at_once):
            part = drills[at : at + self._plan.at_once]
            yield loss(self.model, part, self._dtype) / count


def loss(model: LlamaForCausalLM, drills: Sequence[Drill], dtype: torch.dtype) -> Tensor:
    """Sum over all decisions with a target of -log p(any right token)."""
    with torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32):
        made = decisions(
            model, [d.ids for d in drills], [d.answer for d in drills], [d.paths for d in drills]
        )
    total = torch.zeros((), device=model.device)
    for decision in made:
        wanted = drills[decision.row].targets.get(decision.at, frozenset())
        right = [n for n, token in enumerate(decision.allowed) if token in wanted]
        if right:
            total = total - torch.logsumexp(decision.logprobs[right], 0)
    return total


def begin(model: LlamaForCausalLM, folder: Path, start: Path) -> str:
    """Take the first weights and say where from: checkpoint, model folder, or chance.

    Raises:
        TrainingError: they are of another network.
    """
    checkpoints = sorted(folder.glob("pretrain-*.safetensors"), key=lambda p: p.stat().st_mtime)
    if checkpoints:
        path = checkpoints[-1]
        state = load_file(path)
        step = int(state["step"])
        found = {k.removeprefix("weight."): v for k, v in state.items() if k.startswith("weight.")}
        origin = f"begins with step {step} of {path.name}"
    elif (start / "model.safetensors").exists():
        path = start / "model.safetensors"
        found = load_file(path)
        origin = f"begins with {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    else:
        return "begins with random weights"
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            value = found.get(name)
            if value is None or value.shape != parameter.shape:
                raise TrainingError(f"{path} has other weights than {name}; pretrain again")
            parameter.copy_(value)
    return origin


def _card(
    folder: Path, plan: Plan, known: Sequence[Lesson], trainer: Trainer, marks: Sequence[Mark]
) -> str:
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    path = folder / "card.md"
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    earlier = before.split("\n## Pretraining\n")[-1].split("\n", 1)[-1].strip() if before else ""
    kinds = sorted({x.kind for x in known})
    counts = (f"{kind} {sum(x.kind == kind for x in known)}" for kind in kinds)
    lines = [
        "# policy: a bilingual GPT that quotes",
        "",
        f"SHA-256 of model.safetensors: {digest}; tokenizer.json: {revision(folder)}. Made by "
        f"`python app.py train sft --data FOLDER` ({trainer.origin}): {plan}.",
        "",
        f"Lessons: {', '.join(counts)}; {sum(x.held for x in known)} of them of articles that "
        "were not trained on.",
        "",
        f"At the end, {report(marks)}.",
        "",
        "Data: SQuAD 2.0 dev (CC BY-SA 4.0), NQ-open with gold passages (MIT; Wikipedia CC BY-SA), "
        "SQuADShifts (CC BY 4.0), CMRC 2018 (CC BY-SA 4.0), DRCD test (CC BY-SA 3.0), COVID-QA "
        "(Apache-2.0; articles CC BY), CANARD (CC BY-SA 4.0): training rows only; requests and "
        "small talk written for the project (rlhf/fit/said.tsv).",
        "",
        "Licence of the weights: Apache-2.0, as the project.",
        "",
    ]
    return "\n".join([*lines, *(("## Pretraining", "", earlier, "") if earlier else ())])
