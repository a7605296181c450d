"""Fits the sentence ranker of the extract policy: `python app.py train extract --data FOLDER`.

Two models a language, for no reranker, for the one that the settings name, and for that one with
the answerability head. Ranking: conditional logit over a question's candidate sentences (McFadden
1974), a sentence is right when it holds a gold answer and lies in the gold context. Answerability:
logistic regression over question-level features, on the same questions with the whole base
(answerable) and with half of the articles left out (those questions are not), and on questions that
only look as if a paragraph answered them (`_answers_rows.held`). Both by L-BFGS with an L2 penalty,
deterministic with the seed. The threshold follows from how sure fits are of articles that they have
not seen. Half an hour on a CPU, for the questions (`_extract_rows`).

Data, train-allowed and unseen by encoder, reranker and head, whose scores would else be trusted too
much: English squadshifts/new_wiki (test split) and the articles of squad2_dev's train split that
the head does not learn from, Chinese drcd/test (first half), cmrc2018/trial (test split) and such
articles of cmrc2018 and drcd/dev. The rows that `bench.answers` reports on are not among them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from assistant.build import supporter_of
from assistant.config import Settings
from assistant.fit._answers_rows import held
from assistant.fit._extract_rows import SEED, Example, Marks, examples
from assistant.fit.base import answerable, bounded, read
from assistant.policy._ranker import ANSWERABLE, FEATURES, Matrix
from assistant.policy._ranker import answerable as question_features
from retrieval.knowledge import build_reranker

#: One language's part of weights.json.
Part = dict[str, list[float] | float]

FILES = {
    "en": ("squadshifts/new_wiki.jsonl.gz",),
    "zh": ("drcd/test.jsonl.gz", "cmrc2018/trial.jsonl.gz"),
}
#: Splits of those files that nothing else was trained on.
SPLITS = ("test", "first")
#: Questions of each set, where no other number is asked for.
QUESTIONS = 1200
L2 = 1e-2
#: Parts of the articles, of which each is judged by a fit on the others.
FOLDS = 5


def run(data: Path, out: Path, limit: int | None, settings: Settings) -> Iterator[str]:
    """Fit both languages and write weights.json and card.md to `out`; yields lines to show.

    Raises:
        ConfigError: a training file is missing or malformed.
    """
    limit = limit or QUESTIONS
    fits: dict[tuple[str, str], dict[str, Part]] = {}
    report = []
    for backend in dict.fromkeys(("none", settings.retrieval.rerank.backend)):
        chosen = _with_reranker(settings, backend)
        reader = build_reranker(chosen.retrieval)
        answerer = supporter_of(chosen) if reader else None
        for tongue, names in FILES.items():
            questions = [
                [q for q in answerable(read(data / "qa" / name)) if q.split in SPLITS]
                for name in names
            ]
            looking = held(data, tongue)
            questions += [[q for q in looking if not q.impossible]]
            hard = [q for q in looking if q.impossible]
            whole = list(examples([*questions, hard], limit, chosen, answerer, absent=False))
            yield f"{backend}, {tongue}: {len(whole)} questions with the whole base"
            half = list(examples(questions, limit, chosen, answerer, absent=True))
            yield f"{backend}, {tongue}: {len(half)} questions with half of it"
            for known in ("", answerer.id) if answerer else ("",):
                seen = [e if known else e.without for e in (*whole, *half)]
                part, line = fit(seen)
                fits.setdefault((reader.id if reader else "", known), {})[tongue] = part
                kind = f"reranker {backend}, {'with' if known else 'without'} answerability head"
                report.append(f"- {kind}, {tongue}: {line}; files {', '.join(names)}")
                yield report[-1]
    values: dict[str, object] = {
        "features": list(FEATURES),
        "answerable": list(ANSWERABLE),
        "fits": [
            {"reranker": one, "answers": two, "languages": parts}
            for (one, two), parts in fits.items()
        ],
    }
    text = json.dumps(values, sort_keys=True)
    revision = hashlib.sha256(text.encode()).hexdigest()[:12]
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"revision": revision, **values}, indent=1)
    (out / "weights.json").write_text(text + "\n", encoding="utf-8")
    (out / "card.md").write_text(_card(revision, limit, report), encoding="utf-8")
    yield f"written to {out}, revision {revision}"


def _with_reranker(settings: Settings, backend: str) -> Settings:
    rerank = settings.retrieval.rerank.model_copy(update={"backend": backend})
    retrieval = settings.retrieval.model_copy(update={"rerank": rerank})
    return settings.model_copy(update={"retrieval": retrieval})


@dataclass(frozen=True, slots=True)
class Model:
    """What is fitted for one language: `part` of weights.json, less the threshold."""

    part: Part

    def scores(self, example: Example) -> Matrix:
        """(n,), of the example's candidates."""
        p = self.part
        rows = (example.evidence.matrix - np.array(p["mean"])) / np.array(p["scale"])
        return np.asarray(rows @ np.array(p["weight"]))

    def sure(self, examples: Sequence[Example]) -> Matrix:
        """(len(examples),), the probability that the evidence answers."""
        p = self.part
        rows = np.array([question_features(e.evidence, self.scores(e)) for e in examples])
        made = (rows - np.array(p["answer_mean"])) / np.array(p["answer_scale"])
        margin = made @ np.array(p["answer_weight"]) + p["answer_bias"]
        return np.asarray(1 / (1 + np.exp(-margin)))


def model(examples: Sequence[Example]) -> Model:
    """Fit ranking, and then answerability on what is ranked first."""
    ranked = [e for e in examples if e.right.any()]
    stacked = np.concatenate([e.evidence.matrix for e in ranked])
    mean, scale = stacked.mean(0), stacked.std(0) + 1e-6
    weight = _logit([((e.evidence.matrix - mean) / scale, e.right) for e in ranked])
    part: Part = {"mean": mean.tolist(), "scale": scale.tolist(), "weight": weight.tolist()}
    first = Model(part)
    rows = np.array([question_features(e.evidence, first.scores(e)) for e in examples])
    a_mean, a_scale = rows.mean(0), rows.std(0) + 1e-6
    a_weight, bias = _logistic((rows - a_mean) / a_scale, np.array([e.present for e in examples]))
    answering: Part = {
        "answer_mean": a_mean.tolist(),
        "answer_scale": a_scale.tolist(),
        "answer_weight": a_weight.tolist(),
        "answer_bias": bias,
    }
    return Model(part | answering)


def fit(examples: Sequence[Example]) -> tuple[Part, str]:
    """Fit one language; returns its part of weights.json and a line about the fit."""
    made = model(examples)
    present = np.array([e.present for e in examples])
    looks = np.array([e.looks for e in examples])
    files = np.array([e.file for e in examples])
    sure = unseen(examples)
    threshold = min(  # of the file that is hardest to be sure of
        bounded(sure[present & (files == file)])
        for file in sorted({e.file for e in examples if e.present})
    )
    first = np.mean([e.right[int(np.argmax(made.scores(e)))] for e in examples if e.present])
    refused = {
        f"{int(of.sum())} {name}": f"{(sure[of] < threshold).mean():.3f}"
        for name, of in (("absent", ~present & ~looks), ("that only look answered", looks))
        if of.any()
    }
    area = _area(sure[present], sure[~present])
    line = (
        f"{int(present.sum())} answered questions, first sentence right {first:.3f} (in sample); "
        f"of articles that a fit has not seen, area {area:.3f}, and at the threshold "
        f"{(sure[present] < threshold).mean():.3f} are wrongly refused, and of "
        f"{', of '.join(f'{name} {share}' for name, share in refused.items())}"
    )
    return made.part | {"threshold": threshold}, line


def unseen(examples: Sequence[Example]) -> Matrix:
    """(len(examples),), how sure a fit is that has seen all but a fifth of the articles."""
    folds = np.array([_fold(e, number) for number, e in enumerate(examples)])
    sure = np.empty(len(examples))
    for fold in range(FOLDS):
        asked = [e for e, of in zip(examples, folds, strict=True) if of == fold]
        if asked:
            rest = [e for e, of in zip(examples, folds, strict=True) if of != fold]
            sure[folds == fold] = model(rest).sure(asked)
    return sure


def _fold(example: Example, number: int) -> int:
    name = example.title or str(number)
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % FOLDS


def _area(high: Matrix, low: Matrix) -> float:
    """How often one of `high` is above one of `low`."""
    order = np.sort(low)
    ties = np.searchsorted(order, high, "left") + np.searchsorted(order, high, "right")
    return float(ties.mean() / 2 / len(low))


def _logit(examples: list[tuple[Matrix, Marks]]) -> Matrix:
    def loss(weight: Matrix) -> tuple[float, Matrix]:
        total, slope = 0.0, np.zeros_like(weight)
        for matrix, right in examples:
            scores = matrix @ weight
            odds = np.exp(scores - scores.max())
            share = odds / odds.sum()
            hit = share * right
            total -= float(np.log(hit.sum() + 1e-12))
            slope -= matrix.T @ (hit / (hit.sum() + 1e-12) - share)
        n = len(examples)
        return total / n + L2 * float(weight @ weight), slope / n + 2 * L2 * weight

    start = np.zeros(examples[0][0].shape[1])
    return np.asarray(minimize(loss, start, jac=True, method="L-BFGS-B").x)


def _logistic(rows: Matrix, labels: Marks) -> tuple[Matrix, float]:
    """Balanced logistic regression: both classes weigh the same, whatever their numbers."""
    weights = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
    signs = np.where(labels, 1.0, -1.0)
    design = np.hstack([rows, np.ones((len(rows), 1))])

    def loss(theta: Matrix) -> tuple[float, Matrix]:
        margin = signs * (design @ theta)
        value = float(weights @ np.logaddexp(0, -margin)) + L2 / 10 * float(theta[:-1] @ theta[:-1])
        slope = -design.T @ (weights * signs / (1 + np.exp(margin)))
        slope[:-1] += L2 / 5 * theta[:-1]
        return value, slope

    theta = minimize(loss, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B").x
    return theta[:-1], float(theta[-1])


def _card(revision: str, limit: int, report: list[str]) -> str:
    return "\n".join(
        (
            "# extract: linear sentence ranker",
            "",
            f"Revision {revision}. Made by `python app.py train extract --data FOLDER "
            f"--limit {limit}` (seed {SEED}).",
            "",
            "Data: squadshifts/new_wiki, test split (CC BY 4.0; text Wikipedia, CC BY-SA), SQuAD "
            "2.0 dev, articles of our train split that the head does not learn from (CC BY-SA "
            "4.0), DRCD test, first half (CC BY-SA 3.0), CMRC 2018 trial, test split (CC BY-SA "
            "4.0), and questions on CMRC and DRCD that were written for this project by a language "
            "model: rows that encoder, reranker and head have not seen. The weights are a few "
            "dozen numbers; no text is in them.",
            "",
            *report,
            "",
        )
    )
