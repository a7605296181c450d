"""Trains the reranker: `python app.py train rerank --data FOLDER`.

A cross-encoder (Nogueira and Cho 2019) on the encoder's extended network: a low-rank change to
every matrix and a linear score on the first token. Loss: the right text of a group against its
wrong ones (softmax), and each text for itself (logistic), so that a score also means something
across questions. A logistic line fitted on held-out groups makes it a probability. What the groups
hold, and where the wrong texts come from, is said in `_groups`.

Checkpoints and groups are kept in .runs/rerank; an interrupted run goes on from there. Data, all
train-allowed: qa/squadshifts (train split), qa/pubmedqa, qa/covidqa, qa/clapnq (train answers),
sft/lfrqa, qa/drcd/dev, qa/cmrc2018/trial, the parallel pairs of `train encoder`, and the translated
questions of asked.tsv.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize
from tokenizers import Tokenizer
from torch import Tensor, nn

from retrieval.config import RetrievalSettings
from retrieval.embed import _weights
from retrieval.errors import ModelNotFound
from retrieval.fit._checkpoint import named
from retrieval.fit._glossary import asked
from retrieval.fit._groups import WRONG, Group, groups, rows
from retrieval.fit._loop import Loop
from retrieval.fit._student import Scorer, precision, stored, write
from retrieval.fit.encoder import WORK as ENCODER_WORK
from retrieval.fit.encoder import mined
from retrieval.rerank.minilm import joined

WORK = Path(".runs") / "rerank"
#: A step's texts go through the network in so many parts of like length.
PARTS = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast. Defaults are what the shipped weights were made with.

    `held` groups are kept for checking and for the logistic line.
    """

    steps: int = 1300
    groups: int = 10
    held: int = 300
    tokens: int = 192
    rank: int = 32
    rate: float = 4e-4
    head_rate: float = 2e-3
    warmup: int = 60
    pointwise: float = 0.3
    seed: int = 7
    save_every: int = 50
    check_every: int = 250


def run(data: Path, out: Path, limit: int | None, settings: RetrievalSettings) -> Iterator[str]:
    """Make the reranker and write rerank.safetensors and card.md; yields lines to show.

    Args:
        data: folder that holds text/, docs/, qa/ and sft/.
        out: folder of the weights.
        limit: steps, where not the plan's.
        settings: name the device.

    Raises:
        FileNotFoundError: a training file is missing.
        ModelNotFound: there is no Chinese extension to build on.
    """
    extension = _weights.extension()
    if extension is None:
        raise ModelNotFound("no models/encoder to build on; run `train encoder` first")
    plan = Plan() if limit is None else Plan(steps=limit)
    WORK.mkdir(parents=True, exist_ok=True)
    found = yield from _collected(data, settings, plan)
    device = settings.embed.device
    scorer = Scorer(extension, 1, plan.rank, plan.seed, device, precision(device))
    trainer = Trainer(found, scorer, _weights.tokenizer(extension.spellings), plan, device)
    yield from trainer.run()
    line, check = trainer.line(), trainer.check()
    out.mkdir(parents=True, exist_ok=True)
    ship(scorer, line, extension.revision, out / "rerank.safetensors")
    (out / "card.md").write_text(_card(out, plan, len(found), check, extension), encoding="utf-8")
    yield f"written to {out}: {check}"


class Trainer:
    """One run: the scorer, its optimiser, and where it stands."""

    def __init__(
        self,
        found: Sequence[Group],
        scorer: Scorer,
        tokenizer: Tokenizer,
        plan: Plan,
        device: str,
    ) -> None:
        self._plan, self._device, self._scorer = plan, device, scorer
        self._tokenizer = tokenizer
        order = np.random.default_rng(plan.seed).permutation(len(found))
        self._held = [found[i] for i in order[: plan.held]]
        self._groups = [found[i] for i in order[plan.held :]]
        parts = [([*scorer.change.parameters()], plan.rate, 0.01)]
        parts.append(([scorer.head], plan.head_rate, 0.0))
        about = [asdict(plan), *([g.question, *g.texts] for g in found)]
        self._loop = Loop(scorer, parts, plan, named(WORK, "rerank", about))

    def run(self) -> Iterator[str]:
        """Train to the end; yields lines to show."""
        yield from self._loop.run(self._loss, self.check)

    def check(self) -> str:
        """How often the right text comes first in held-out groups."""
        scores = self._scores()
        first = np.mean([s[0] >= s.max() for s in scores])
        return f"held out: the right text first in {first:.3f} of {len(scores)} groups"

    def line(self) -> tuple[float, float]:
        """Slope and offset that make held-out logits probabilities (Platt 1999)."""
        scores = self._scores()
        values = np.concatenate(scores).ravel()
        labels = np.concatenate([np.arange(len(s)) == 0 for s in scores])
        signs = np.where(labels, 1.0, -1.0)

        def loss(theta: np.ndarray) -> float:
            return float(np.logaddexp(0, -signs * (theta[0] * values + theta[1])).mean())

        found = minimize(loss, np.array([1.0, 0.0]), method="Nelder-Mead").x
        return float(found[0]), float(found[1])

    def _scores(self) -> list[np.ndarray]:
        found = []
        with torch.inference_mode():
            for at in range(0, len(self._held), 20):
                part = self._held[at : at + 20]
                logits = self._scorer(self._ids(part), self._device, PARTS).cpu().numpy()
                sizes = np.cumsum([len(g.texts) for g in part])[:-1]
                found += np.split(logits, sizes)
        return found

    def _loss(self, step: int) -> Tensor:
        plan = self._plan
        per_epoch = len(self._groups) // plan.groups
        epoch, at = divmod(step, per_epoch)
        order = np.random.default_rng((plan.seed, epoch)).permutation(len(self._groups))
        part = [self._groups[i] for i in order[at * plan.groups : (at + 1) * plan.groups]]
        logits = self._scorer(self._ids(part), self._device, PARTS).view(len(part), -1)
        right = torch.zeros(len(part), dtype=torch.long, device=logits.device)
        labels = torch.zeros_like(logits)
        labels[:, 0] = 1.0
        alone = nn.functional.binary_cross_entropy_with_logits(logits, labels)
        return nn.functional.cross_entropy(logits, right) + plan.pointwise * alone

    def _ids(self, part: Sequence[Group]) -> list[list[int]]:
        limit = self._plan.tokens
        return [ids for g in part for ids in joined(self._tokenizer, g.question, g.texts, limit)]


def ship(scorer: Scorer, line: tuple[float, float], encoder: str, path: Path) -> None:
    """Write the change and the head as float16, and the line."""
    found = stored(scorer.change)
    found["head"] = scorer.head.detach().cpu().numpy().astype(np.float16)
    found["line"] = np.array(line, dtype=np.float32)
    write(found, path, {"encoder": encoder})


def _collected(
    data: Path, settings: RetrievalSettings, plan: Plan
) -> Generator[str, None, list[Group]]:
    path = WORK / "groups.jsonl"
    if not path.exists():
        found = []
        both = [(row.en, row.zh) for row in asked(data)]
        translated = dict(both) | {zh: en for en, zh in both}
        pairs = mined(data, ENCODER_WORK)
        for group in groups(rows(data), pairs, translated, settings, plan.seed):
            found.append(json.dumps(astuple(group), ensure_ascii=False))
            if len(found) % 1000 == 0:
                yield f"{len(found)} groups"
        path.write_text("\n".join(found) + "\n", encoding="utf-8")
    with path.open(encoding="utf-8") as file:
        return [Group(q, tuple(t)) for q, t in map(json.loads, file)]


def _card(out: Path, plan: Plan, count: int, check: str, extension: _weights.Extension) -> str:
    digest = hashlib.sha256((out / "rerank.safetensors").read_bytes()).hexdigest()
    return "\n".join(
        (
            "# rerank: cross-encoder on the embedded encoder",
            "",
            f"SHA-256 of rerank.safetensors: {digest}, for encoder {extension.revision}. Made by "
            f"`python app.py train rerank --data FOLDER`: {plan}.",
            "",
            f"{count} groups of one right and {WRONG} wrong texts, passages and "
            f"sentences. {check}.",
            "",
            "Data: squadshifts/new_wiki, train split (CC BY 4.0; text Wikipedia, CC BY-SA), "
            "PubMedQA PQA-L (MIT), COVID-QA (Apache-2.0; articles CC BY), CLAPNQ train answers "
            "(Apache-2.0; Wikipedia, CC BY-SA), LFRQA (Apache-2.0), DRCD dev (CC BY-SA 3.0), "
            "CMRC 2018 trial (CC BY-SA 4.0), and the parallel pairs of the encoder's card. No "
            "text is in the weights.",
            "",
            "Licence of the weights: Apache-2.0, as the project and the English encoder.",
            "",
        )
    )
