"""Trains the guard's heads: `python app.py train guard --data FOLDER`.

1. Heads on the encoder's extended network with a low-rank change of their own (LoRA, Hu et al.
   2021): binary cross-entropy over the labels that are known (`_guard_rows`). Sources are drawn in
   fixed shares, the hard negatives more often than their number.
2. A linear model over hashed character n-grams, by stochastic gradient descent, a head at a time.
3. On rows held out (whole groups: a contrast line, a jailbreak's topic), a logistic fit a head and
   language joins both logits to a probability.
4. The guard made of these judges the harmless ones of those rows, each on the side where such a
   text arrives, through views and windows as it will; the probabilities that given shares of them
   reach become the levels that policy files speak of.

Checkpoints are kept in .runs/guard; an interrupted run goes on. Data, all train-allowed:
safety/*/train, dialogue/{clinc150,banking77,crosswoz-user}/train, questions and passages of qa/
and talk of sft/ (train rows), messages of preference/hh_harmless_base (train rows), text/, this
folder's contrast/, and what people decided on appeal in the home at hand (reviewed.jsonl), where
there is any. A text that equals one of an evaluation file of safety/ or dialogue/ is left out.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import SGDClassifier
from torch import Tensor, nn

from assistant.config import Settings
from assistant.errors import ConfigError
from assistant.fit._guard_labels import UNKNOWN, YES, Row, read
from assistant.fit._guard_levels import RATES, joint, levels_of, reported, screen_of
from assistant.fit._guard_rows import cases, rows
from assistant.fit._measures import area
from retrieval.embed import _weights
from retrieval.embed.heads import HEAD, MAX_TOKENS, load
from retrieval.fit._checkpoint import named
from retrieval.fit._loop import Loop
from retrieval.fit._student import Scorer, precision, stored, write
from safety import levels
from safety._ngrams import BUCKETS, Linear, buckets
from safety.moderator.classifier import HEADS, Calibration, Classifier, plain

WORK = Path(".runs") / "guard"
PARTS = 4
#: Share of the tokens that a thinned text loses, and the tokens that a text needs for it.
DROPPED, FEW = 0.15, 8
#: How often a row of a source is drawn, against a row of weight 1.
WEIGHTS = {
    "contrast": 4.0, "contrast-attack": 4.0, "statement": 3.0, "coconot": 5.0, "bipia": 5.0,
    "benign-prompts": 5.0, "jailbreak": 3.0, "advbench": 3.0, "catqa": 4.0, "harmfulqa": 3.0,
    "jade": 1.5, "rtp": 1.5, "surge": 1.5, "edos": 0.5, "davidson": 0.5, "cold": 0.5,
    "jailbench": 0.5, "clinc150": 0.4, "banking77": 0.4, "crosswoz": 0.5, "questions": 0.6,
    "forum": 0.7, "talk": 0.4, "oasst": 0.7, "windows": 0.7, "responses": 2.0, "answers": 0.5,
    "jade-pairs": 2.0, "diasafety": 0.7, "reviewed": 5.0, "redteam": 4.0, "letters": 3.0,
    "pages": 4.0,
}  # fmt: skip
NONE = np.zeros(0, dtype=np.float32)
Labels = NDArray[np.int8]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast. Defaults are what the shipped weights were made with."""

    steps: int = 2800
    texts: int = 64
    rank: int = 32
    rate: float = 4e-4
    head_rate: float = 2e-3
    warmup: int = 100
    seed: int = 7
    save_every: int = 100
    check_every: int = 400


def run(data: Path, out: Path, limit: int | None, settings: Settings) -> Iterator[str]:
    """Make the heads and write them, the n-gram model, the calibration and the card to `out`.

    Args:
        data: folder that holds safety/, dialogue/, qa/.
        out: folder of the weights.
        limit: steps, where not the plan's.
        settings: name the device.

    Raises:
        ConfigError: a training file is missing or malformed, or there is no Chinese extension.
    """
    extension = _weights.extension()
    if extension is None:
        raise ConfigError("no models/encoder to build on; run `train encoder` first")
    plan = Plan() if limit is None else Plan(steps=limit)
    WORK.mkdir(parents=True, exist_ok=True)
    found = unique(chain(rows(data), cases(settings.home / "reviewed.jsonl")), barred(data))
    held = [row for row in found if row.held_out]
    kept = [row for row in found if not row.held_out]
    yield f"{len(kept)} rows to train on, {len(held)} held out"
    weights, bias = ngrams(kept, plan.seed)
    yield "n-grams done"
    device = settings.retrieval.embed.device
    scorer = Scorer(extension, len(HEADS), plan.rank, plan.seed, device, precision(device))
    trainer = Trainer(kept, held, scorer, extension, plan, device)
    yield from trainer.run()
    scale, grams = quantised(weights)
    linear = Linear(grams, scale.astype(np.float32), bias.astype(np.float32))
    network = trainer.logits(held)
    shallow = grams_of(held) @ (grams.astype(np.float64) * scale) + bias
    lines = joint(held, np.stack([network, shallow], axis=2))
    screen = screen_of(held, shallow)
    _save(out, scorer, linear, extension.revision)
    yield "counting levels on what is harmless"
    own = {k: np.array(v, dtype=np.float32) for k, v in lines.items()}
    guard = Classifier(
        load(out / "heads.safetensors", device=device),
        linear,
        Calibration(own, NONE, {}, screen),
        levels.load("default"),
    )
    reached = levels_of(held, guard)
    report = reported(held, guard, reached)
    found_out = {"rates": list(RATES), "levels": reached, "screen": screen}
    text = json.dumps({"heads": list(HEADS), "lines": lines, **found_out}, indent=1)
    (out / "calibration.json").write_text(text + "\n", encoding="utf-8")
    (out / "card.md").write_text(_card(out, plan, kept, held, report), encoding="utf-8")
    yield from report
    yield f"written to {out}"


def _save(out: Path, scorer: Scorer, linear: Linear, revision: str) -> None:
    """Write both models."""
    out.mkdir(parents=True, exist_ok=True)
    changes = stored(scorer.change)
    changes[HEAD] = scorer.head.detach().cpu().numpy().astype(np.float16)
    write(changes, out / "heads.safetensors", {"encoder": revision})
    arrays: dict[str, NDArray[np.generic]] = {
        "weights": linear.weights,
        "scale": linear.scale,
        "bias": linear.bias,
    }
    write(arrays, out / "ngrams.safetensors")


def barred(data: Path) -> frozenset[str]:
    """The plain texts of all evaluation files, lower-case: nobody may learn one by heart."""
    found: set[str] = set()
    for part in ("safety", "dialogue"):
        for path in (data / part).glob("*/*.jsonl.gz"):
            if path.name.startswith(("eval", "heldout")):
                found.update(plain(row["text"]) for row in read(path))
    return frozenset(found)


def unique(found: Iterable[Row], left_out: Collection[str] = ()) -> list[Row]:
    """Each text once, none of `left_out`; where two sources disagree on a label, it is unknown."""
    known: dict[str, Row] = {}
    for row in found:
        key = row.plain
        if not key or key in left_out:
            continue
        before = known.get(key)
        if before is None:
            known[key] = row
        elif before.labels != row.labels:
            both = zip(before.labels, row.labels, strict=True)
            merged = tuple(max(a, b) if a == b or min(a, b) < 0 else UNKNOWN for a, b in both)
            known[key] = replace(before, labels=merged)
    return list(known.values())


class Trainer:
    """One run: the scorer and where it stands."""

    def __init__(
        self,
        kept: Sequence[Row],
        held: Sequence[Row],
        scorer: Scorer,
        extension: _weights.Extension,
        plan: Plan,
        device: str,
    ) -> None:
        self._kept, self._held, self._scorer = kept, held, scorer
        self._plan, self._device = plan, device
        self._tokenizer = _weights.tokenizer(extension.spellings)
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._labels = torch.tensor([row.labels for row in kept], device=device)
        drawn = np.array([WEIGHTS.get(row.source, 1.0) for row in kept])
        self._drawn = drawn / drawn.sum()
        parts = [([*scorer.change.parameters()], plan.rate, 0.01)]
        parts.append(([scorer.head], plan.head_rate, 0.0))
        about = [asdict(plan), extension.revision, *([r.text, r.labels] for r in kept)]
        self.loop = Loop(scorer, parts, plan, named(WORK, "guard", about))

    def run(self) -> Iterator[str]:
        """Train to the end; yields lines to show."""
        yield from self.loop.run(self._loss, self.check)

    def check(self) -> str:
        """Area under the curve of each head, on up to 3,000 held-out rows."""
        part = [self._held[i] for i in np.random.default_rng(1).permutation(len(self._held))[:3000]]
        logits = self.logits(part)
        labels = np.array([row.labels for row in part])
        areas = [f"{name} {area(labels[:, h], logits[:, h]):.3f}" for h, name in enumerate(HEADS)]
        return "held out: " + ", ".join(areas)

    def logits(self, part: Sequence[Row]) -> Matrix:
        """(len(part), heads)."""
        found = []
        with torch.inference_mode():
            for at in range(0, len(part), 256):
                ids = self._ids(part[at : at + 256])
                found.append(self._scorer(ids, self._device, 8).cpu().numpy())
        return np.concatenate(found).astype(np.float64)

    def _loss(self, step: int) -> Tensor:
        random = np.random.default_rng((self._plan.seed, step))
        drawn = random.choice(len(self._kept), self._plan.texts, p=self._drawn)
        ids = [self._thinned(row, random) for row in self._ids([self._kept[i] for i in drawn])]
        logits = self._scorer(ids, self._device, PARTS)
        labels = self._labels[torch.from_numpy(drawn)].to(logits)
        known = (labels >= 0).float()
        loss = nn.functional.binary_cross_entropy_with_logits(
            logits, labels.clamp(min=0), reduction="none"
        )
        # heads count alike, however few of their labels are known
        return ((loss * known).sum(0) / known.sum(0).clamp(min=1)).sum()

    def _thinned(self, ids: list[int], random: np.random.Generator) -> list[int]:
        """Half of the texts lose a part of their tokens: no single word may tell."""
        if random.random() < 0.5 or len(ids) < FEW:
            return ids
        stay = random.random(len(ids)) >= DROPPED
        stay[[0, -1]] = True
        return [token for token, keep in zip(ids, stay, strict=True) if keep]

    def _ids(self, part: Sequence[Row]) -> list[list[int]]:
        return [list(e.ids) for e in self._tokenizer.encode_batch([row.plain for row in part])]


def grams_of(part: Sequence[Row]) -> sparse.csr_matrix:
    """Rows of unit length, (len(part), BUCKETS)."""
    found = [buckets(row.plain) for row in part]
    sizes = np.array([len(f) for f in found])
    values = np.repeat(1 / np.sqrt(np.maximum(sizes, 1)), sizes)
    edges = np.concatenate([[0], np.cumsum(sizes)])
    return sparse.csr_matrix((values, np.concatenate(found), edges), shape=(len(part), BUCKETS))


def ngrams(part: Sequence[Row], seed: int) -> tuple[Matrix, Matrix]:
    """(weights (BUCKETS, heads), bias (heads,)) of the linear model."""
    features = grams_of(part)
    labels = np.array([row.labels for row in part])
    often = np.array([WEIGHTS.get(row.source, 1.0) for row in part])
    weights, bias = np.zeros((BUCKETS, len(HEADS))), np.zeros(len(HEADS))
    for head in range(len(HEADS)):
        known = labels[:, head] != UNKNOWN
        model = SGDClassifier(
            loss="log_loss", alpha=2e-6, average=True, max_iter=12, tol=None, random_state=seed
        )
        model.fit(features[known], labels[known, head] == YES, sample_weight=often[known])
        weights[:, head], bias[head] = model.coef_[0], model.intercept_[0]
    return weights, bias


def quantised(weights: Matrix) -> tuple[Matrix, NDArray[np.int8]]:
    """(scale (heads,), weights as int8)."""
    # the largest thousandth is cut, so that the rest keeps its steps
    scale = np.maximum(np.quantile(np.abs(weights), 0.9995, axis=0), 1e-9) / 127
    return scale, np.clip(np.round(weights / scale), -127, 127).astype(np.int8)


def _card(
    out: Path, plan: Plan, kept: Sequence[Row], held: Sequence[Row], report: Sequence[str]
) -> str:
    digest = hashlib.sha256((out / "heads.safetensors").read_bytes()).hexdigest()
    counts = Counter(row.source for row in kept)
    return "\n".join(
        (
            "# guard: heads for moderation on the embedded encoder",
            "",
            f"SHA-256 of heads.safetensors: {digest}. Made by `python app.py train guard --data "
            f"FOLDER`: {plan}.",
            "",
            f"{len(kept)} rows, {len(held)} held out for calibration: "
            + ", ".join(f"{name} {count}" for name, count in counts.most_common())
            + ".",
            "",
            "Data: COLD, DiaSafety, catqa, harmfulqa (Apache-2.0), Davidson, AdvBench, JADE, "
            "JailBench, CoCoNot, BIPIA, Surge toxicity, jailbreaks in the wild (MIT), EDOS (CC0), "
            "RealToxicityPrompts by way of DecodingTrust (CC BY-SA 4.0), BELLE (ODC-By 1.0), "
            "self-instruct (Apache-2.0), CLINC150 (CC BY 3.0), Banking77 (CC BY 4.0), CrossWOZ "
            "(Apache-2.0), SQuADShifts, DRCD, CMRC 2018, SGD (CC BY(-SA)), HH-RLHF (MIT), RAG-QA "
            "Arena, KdConv, OASST (Apache-2.0), Topical-Chat (CDLA-Sharing-1.0), and manuals, "
            "books, speeches and laws under their own open licences. Contrast pairs, statements "
            "and the labels of single messages were written for this project by a language "
            "model. Nothing on sexual content with minors is among them; that is served by "
            "rules. No text is in the weights.",
            "",
            "On the rows held out, in sample for the calibration:",
            "",
            *report,
            "",
            "Licence of the weights: Apache-2.0, as the project and the English encoder.",
            "",
        )
    )
