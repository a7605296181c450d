"""Trains the support check's heads: `python app.py train support --data FOLDER`.

Linear heads on the encoder's extended network with a low-rank change of their own, which starts
from the reranker's where there is one: that has learnt to read two texts as one. Binary
cross-entropy over the labels that are known: two heads on a sentence and a window
(`_support_rows`), one on a question and a window (`_answers_rows`). Sources are drawn in fixed
shares.
On groups held out (whole articles, whole passages) a logistic fit for each head and language pair
makes logits probabilities, and the level is the probability that a given share of the unsupported
rows reaches.

Checkpoints are kept in .runs/support; an interrupted run goes on. Data, all train-allowed: train
rows of qa/ (squad, squadshifts, nq_oracle, cmrc2018, drcd/dev, covidqa, pubmedqa, clapnq's train
answers), sft/lfrqa, text/, the translated questions of `train encoder`, support/*.tsv
and answers/*.tsv.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from assistant.config import Settings
from assistant.errors import ConfigError
from assistant.fit._answers_rows import rows as answers
from assistant.fit._measures import area
from assistant.fit._support_places import asked, texts
from assistant.fit._support_rows import NO, UNKNOWN, YES, Row, rows
from assistant.support import COLUMN, HEADS, KINDS, joined
from retrieval.embed import _weights
from retrieval.embed.heads import HEAD, MAX_TOKENS
from retrieval.fit._checkpoint import named
from retrieval.fit._loop import Loop
from retrieval.fit._student import LowRank, Scorer, precision, stored, write
from retrieval.rerank.minilm import WEIGHTS as RERANKER

WORK = Path(".runs") / "support"
PARTS = 4
#: How often a row of a source is drawn, against a row of weight 1.
WEIGHTS = {"written": 5.0, "switched": 0.7, "translated": 1.5, "aligned": 1.2, "forum": 0.7}
#: The same for questions; those that only look answered are the scarcest.
ASKED = {"impossible": 5.0, "asked": 3.5, "beside": 1.0, "elsewhere": 0.4, "exchanged": 0.6}
#: A window with the answer in it, against one without; questions against sentences.
ANSWERED, QUESTIONS = 2.0, 1.3
#: Rows that contradict count for more: an edit of one word is what the check is for.
OPPOSED = 1.2
#: The share of unsupported rows that may be believed, by which the level is set.
BELIEVED = 0.08
#: Held-out rows of either label that a fit of one kind needs; else all kinds share one.
FEWEST = 40

Matrix = NDArray[np.float64]
Lines = dict[str, list[list[float]]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast. Defaults are what the shipped weights are made with."""

    steps: int = 2400
    texts: int = 48
    rank: int = 32
    rate: float = 4e-4
    head_rate: float = 2e-3
    warmup: int = 60
    seed: int = 7
    save_every: int = 50
    check_every: int = 200


def run(data: Path, out: Path, limit: int | None, settings: Settings) -> Iterator[str]:
    """Make the heads and write them, the calibration and the card to `out`; yields lines to show.

    Args:
        data: folder that holds qa/, sft/ and text/.
        out: folder of the weights.
        limit: steps, where not the plan's.
        settings: name the device.

    Raises:
        ConfigError: a training file is missing or malformed, or there is no Chinese extension.
    """
    extension = _weights.extension()
    if extension is None:
        raise ConfigError("no models/encoder to build on; run `train encoder` first")
    plan = Plan() if limit is None else Plan(steps=limit, warmup=min(60, limit))
    WORK.mkdir(parents=True, exist_ok=True)
    found = gathered(data, plan.seed)
    kept, held = [r for r in found if not r.held_out], [r for r in found if r.held_out]
    yield f"{len(kept)} rows to train on, {len(held)} held out"
    device = settings.retrieval.embed.device
    scorer = Scorer(extension, len(HEADS), plan.rank, plan.seed, device, precision(device))
    begun = begin(scorer.change, RERANKER, extension.revision)
    yield "begins with the reranker's change" if begun else "begins with no change"
    trainer = Trainer(kept, held, scorer, extension, plan, device)
    yield from trainer.run()
    logits = trainer.logits(held)
    lines = calibrated(held, logits)
    scores = probabilities(held, logits, lines)
    levels = levels_of(held, scores)
    out.mkdir(parents=True, exist_ok=True)
    changes = stored(scorer.change)
    changes[HEAD] = scorer.head.detach().cpu().numpy().astype(np.float16)
    write(changes, out / "heads.safetensors", {"encoder": extension.revision})
    parts = {"heads": list(HEADS), "lines": lines, "levels": levels}
    (out / "calibration.json").write_text(json.dumps(parts, indent=1) + "\n", encoding="utf-8")
    report = reported(held, scores, levels)
    (out / "card.md").write_text(_card(out, plan, kept, held, report), encoding="utf-8")
    yield from report
    yield f"written to {out}"


def gathered(data: Path, seed: int = 7) -> list[Row]:
    """All rows, each pair once: sentences with windows, then questions with windows.

    Raises:
        ConfigError: a training file is missing or malformed.
    """
    places = [*asked(data), *texts(data)]
    found = chain(rows(places, data, seed), answers(places, data, seed))
    return list({(row.claim, row.window): row for row in found}.values())


def begin(change: LowRank, path: Path, revision: str) -> bool:
    """Start from another file's change where it is of this shape and encoder; whether it is."""
    if not path.exists() or not change.matrices:
        return False
    names = {key: key.replace("/", ".") for key in change.down}
    found = _weights.factors(load_file(path))
    for key, name in names.items():
        shapes = tuple(change.up[key].shape), tuple(change.down[key].shape)
        if name not in found or tuple(side.shape for side in found[name]) != shapes:
            return False
    with torch.no_grad():
        for key, name in names.items():
            for side, array in zip((change.up, change.down), found[name], strict=True):
                side[key].copy_(torch.from_numpy(array))
    return True


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
        drawn = np.array([_weight(row) for row in kept])
        self._drawn = drawn / drawn.sum()
        parts = [([*scorer.change.parameters()], plan.rate, 0.01)]
        parts.append(([scorer.head], plan.head_rate, 0.0))
        about = [asdict(plan), extension.revision, *([r.claim, r.window, r.labels] for r in kept)]
        self.loop = Loop(scorer, parts, plan, named(WORK, "support", about))

    def run(self) -> Iterator[str]:
        """Train to the end; yields lines to show."""
        yield from self.loop.run(self._loss, self.check)

    def check(self) -> str:
        """Area under the curve of each head and kind, on up to 2,000 held-out rows."""
        part = [self._held[i] for i in np.random.default_rng(1).permutation(len(self._held))[:2000]]
        logits = self.logits(part)
        lines = []
        for kind in KINDS:
            mine = np.array([row.kind == kind for row in part])
            for head, name in enumerate(HEADS):
                labels = np.array([row.labels[head] for row in part])
                lines.append(f"{kind} {name} {area(labels[mine], logits[mine, head]):.3f}")
        return "held out: " + ", ".join(lines)

    def logits(self, part: Sequence[Row]) -> Matrix:
        """(len(part), heads)."""
        found = [np.zeros((0, len(HEADS)))]
        with torch.inference_mode():
            for at in range(0, len(part), 256):
                ids = self._ids(part[at : at + 256])
                found.append(self._scorer(ids, self._device, 8).cpu().numpy())
        return np.concatenate(found).astype(np.float64)

    def _loss(self, step: int) -> Tensor:
        random = np.random.default_rng((self._plan.seed, step))
        drawn = random.choice(len(self._kept), self._plan.texts, p=self._drawn)
        logits = self._scorer(self._ids([self._kept[i] for i in drawn]), self._device, PARTS)
        labels = self._labels[torch.from_numpy(drawn)].to(logits)
        known = (labels >= 0).float()
        loss = nn.functional.binary_cross_entropy_with_logits(
            logits, labels.clamp(min=0), reduction="none"
        )
        return ((loss * known).sum(0) / known.sum(0).clamp(min=1)).sum()

    def _ids(self, part: Sequence[Row]) -> list[list[int]]:
        texts = [joined(row.claim, row.window) for row in part]
        return [list(e.ids) for e in self._tokenizer.encode_batch(texts)]


def _weight(row: Row) -> float:
    if row.labels[COLUMN] != UNKNOWN:
        answered = ANSWERED if row.labels[COLUMN] == YES and row.source != "asked" else 1.0
        return QUESTIONS * ASKED.get(row.source, 1.0) * answered
    return WEIGHTS.get(row.source, 1.0) * (OPPOSED if row.labels[1] == YES else 1.0)


def calibrated(held: Sequence[Row], logits: Matrix) -> Lines:
    """The logistic fit of each kind and head: slope and offset."""
    kinds = np.array([row.kind for row in held])
    labels = np.array([row.labels for row in held]).reshape(len(held), len(HEADS))
    lines: Lines = {kind: [] for kind in KINDS}
    for kind in KINDS:
        for head in range(len(HEADS)):
            known = (labels[:, head] != UNKNOWN) & (kinds == kind)
            counts = Counter((labels[known, head] == YES).tolist())
            if min(counts[True], counts[False]) < FEWEST:
                known = labels[:, head] != UNKNOWN
            if len(set(labels[known, head].tolist())) < 2:
                raise ConfigError(
                    f"held-out rows tell nothing of {HEADS[head]!r}; give the whole data folder"
                )
            model = LogisticRegression(C=10.0).fit(
                logits[known, head : head + 1], labels[known, head]
            )
            lines[kind].append([float(model.coef_[0, 0]), float(model.intercept_[0])])
    return lines


def probabilities(held: Sequence[Row], logits: Matrix, lines: Lines) -> Matrix:
    """(len(held), heads), calibrated."""
    found = np.array([lines[row.kind] for row in held]).reshape(len(held), len(HEADS), 2)
    return np.asarray(1 / (1 + np.exp(-(logits * found[:, :, 0] + found[:, :, 1]))))


def levels_of(held: Sequence[Row], scores: Matrix) -> dict[str, float]:
    """The probability of each kind that a share `BELIEVED` of its unsupported rows reaches."""
    found = {}
    for kind in KINDS:
        wrong = [
            s
            for r, s in zip(held, scores[:, 0], strict=True)
            if r.kind == kind and r.labels[0] == NO
        ]
        level = float(np.quantile(wrong, 1 - BELIEVED)) if wrong else 0.5
        found[kind] = min(max(level, 0.05), 0.95)
    return found


def reported(held: Sequence[Row], scores: Matrix, levels: dict[str, float]) -> list[str]:
    """A line for each kind, and for what was written by hand, on how well the heads tell."""
    lines = []
    claims = [r.labels[0] != UNKNOWN for r in held]
    parts = [
        (kind, [r.kind == kind and c for r, c in zip(held, claims, strict=True)]) for kind in KINDS
    ]
    parts += [
        (f"written, {kind}", [r.kind == kind and r.source == "written" for r in held])
        for kind in KINDS
    ]
    for name, chosen in parts:
        mine = np.array(chosen, dtype=bool)
        part = [row for row, there in zip(held, chosen, strict=True) if there]
        said = np.array([row.labels[0] for row in part], dtype=int)
        against = np.array([row.labels[1] for row in part], dtype=int)
        level = np.array([levels[row.kind] for row in part])
        believed = scores[mine, 0] >= level
        lines.append(
            f"- {name}: {int((said == YES).sum())} supported, {int((said != YES).sum())} not; area "
            f"{area(said, scores[mine, 0]):.3f}, contradiction {area(against, scores[mine, 1]):.3f}"
            f"; at the level {_share(believed[said == YES])} of the supported are believed, "
            f"{_share(believed[said != YES])} of the others"
        )
    return [*lines, *_answering(held, scores)]


def _answering(held: Sequence[Row], scores: Matrix) -> list[str]:
    """A line for each kind and sort of question that is not answered, against all that are."""
    lines = []
    for kind in KINDS:
        column = [(r, s) for r, s in zip(held, scores[:, COLUMN], strict=True) if r.kind == kind]
        yes = np.array([s for r, s in column if r.labels[COLUMN] == YES])
        for source in sorted({r.source for r, _ in column if r.labels[COLUMN] == NO}):
            no = np.array([s for r, s in column if r.labels[COLUMN] == NO and r.source == source])
            if not len(yes) or not len(no):
                continue
            labels = np.repeat([YES, NO], [len(yes), len(no)])
            level = float(np.quantile(yes, 0.1))
            lines.append(
                f"- answers, {kind}: {len(yes)} answered, {len(no)} not ({source}); area "
                f"{area(labels, np.concatenate([yes, no])):.3f}; {_share(no < level)} of these "
                "refused where 0.10 of the answered are"
            )
    return lines


def _share(found: NDArray[np.bool_]) -> str:
    return f"{found.mean():.2f}" if len(found) else "none"


def _card(
    out: Path, plan: Plan, kept: Sequence[Row], held: Sequence[Row], report: Sequence[str]
) -> str:
    digest = hashlib.sha256((out / "heads.safetensors").read_bytes()).hexdigest()
    counts = Counter(row.source for row in kept)
    return "\n".join(
        (
            "# support: whether a passage says what a sentence says, on the embedded encoder",
            "",
            f"SHA-256 of heads.safetensors: {digest}. Made by `python app.py train support --data "
            f"FOLDER`: {plan}.",
            "",
            f"{len(kept)} rows, {len(held)} held out for calibration (whole articles): "
            + ", ".join(f"{name} {count}" for name, count in counts.most_common())
            + ".",
            "",
            "Data: SQuAD 1.1 and 2.0 dev, CMRC 2018 (CC BY-SA 4.0), DRCD dev (CC BY-SA 3.0), "
            "SQuADShifts new Wikipedia (CC BY 4.0), passages of NQ (CC BY-SA 3.0), PubMedQA (MIT), "
            "COVID-QA (Apache-2.0, articles CC BY), CLAPNQ train answers, RAG-QA Arena "
            "(Apache-2.0), OpenStax, React, d2l (CC BY(-SA) 4.0), 18F, US speeches (public "
            "domain), Milvus, Helm, SOFAStack, Paddle (MIT, Apache-2.0), PRC laws (no copyright), "
            "LCTT (CC BY-SA 4.0), Python documentation (PSF; translations CC0). Sentences were put "
            "in other words and made false by rule; the written pairs and the translated questions "
            "were written for this project by a language model. No text is in the weights.",
            "",
            "On the rows held out, in sample for calibration and levels:",
            "",
            *report,
            "",
            "Licence of the weights: Apache-2.0, as the project and the English encoder.",
            "",
        )
    )
