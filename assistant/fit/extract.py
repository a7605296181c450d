"""Fits the sentence ranker of the extract policy: `python app.py train extract --data FOLDER`.

Two models a language, once for no reranker and once for the one that the settings name. Ranking:
conditional logit over a question's candidate sentences (McFadden 1974), a sentence is right when it
holds a gold answer and lies in the gold context. Answerability: logistic regression over
question-level features, on the same questions with the whole base (answerable) and with half of the
articles left out (those questions are not). Both by L-BFGS with an L2 penalty; minutes on a CPU,
deterministic with the seed.

Data, train-allowed and unseen by encoder and reranker, whose scores would else be trusted too much:
English squadshifts/new_wiki (test split), Chinese drcd/test and
cmrc2018/trial (test split). The files that `bench.answers` reports
on are not among them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from assistant.config import Settings
from assistant.fit.base import Question, answerable, fill, left_out, read, sample
from assistant.policy._ranker import (
    ANSWERABLE,
    FEATURES,
    Evidence,
    Matrix,
    weigh,
)
from assistant.policy._ranker import answerable as question_features
from assistant.policy.base import Resources
from assistant.schema import Prompt
from retrieval.knowledge import KnowledgeBase, build_reranker, open_knowledge

Marks = NDArray[np.bool_]

FILES = {
    "en": ("squadshifts/new_wiki.jsonl.gz",),
    "zh": ("drcd/test.jsonl.gz", "cmrc2018/trial.jsonl.gz"),
}
SEED = 7
#: Questions of each set, where no other number is asked for.
QUESTIONS = 1200
L2 = 1e-2
#: Share of answerable training questions that the threshold may refuse.
WRONGLY_REFUSED = 0.06


@dataclass(frozen=True, slots=True)
class Example:
    """A question with its candidates' features; `right` marks candidates with the answer."""

    evidence: Evidence
    right: Marks
    present: bool


def run(data: Path, out: Path, limit: int | None, settings: Settings) -> Iterator[str]:
    """Fit both languages and write weights.json and card.md to `out`; yields lines to show.

    Raises:
        ConfigError: a training file is missing or malformed.
    """
    limit = limit or QUESTIONS
    fits, report = [], []
    for backend in dict.fromkeys(("none", settings.retrieval.rerank.backend)):
        chosen = _with_reranker(settings, backend)
        reader = build_reranker(chosen.retrieval)
        languages = {}
        for tongue, names in FILES.items():
            questions = [
                [q for q in answerable(read(data / name)) if q.split != "train"] for name in names
            ]
            whole = list(_examples(questions, limit, chosen, absent=False))
            yield f"{backend}, {tongue}: {len(whole)} questions with the whole base"
            half = list(_examples(questions, limit, chosen, absent=True))
            yield f"{backend}, {tongue}: {len(half)} questions with half of it"
            languages[tongue], line = fit(whole, half)
            report.append(f"- reranker {backend}, {tongue}: {line}; files {', '.join(names)}")
            yield report[-1]
        fits.append({"reranker": reader.id if reader else "", "languages": languages})
    text = json.dumps(fits, sort_keys=True)
    revision = hashlib.sha256(text.encode()).hexdigest()[:12]
    out.mkdir(parents=True, exist_ok=True)
    values = {
        "revision": revision,
        "features": list(FEATURES),
        "answerable": list(ANSWERABLE),
        "fits": fits,
    }
    (out / "weights.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    (out / "card.md").write_text(_card(revision, limit, report), encoding="utf-8")
    yield f"written to {out}, revision {revision}"


def _with_reranker(settings: Settings, backend: str) -> Settings:
    rerank = settings.retrieval.rerank.model_copy(update={"backend": backend})
    retrieval = settings.retrieval.model_copy(update={"rerank": rerank})
    return settings.model_copy(update={"retrieval": retrieval})


def fit(whole: list[Example], half: list[Example]) -> tuple[dict[str, list[float] | float], str]:
    """Fit one language; returns its part of weights.json and a line about the fit."""
    ranked = [e for e in whole if e.right.any()]
    stacked = np.concatenate([e.evidence.matrix for e in ranked])
    mean, scale = stacked.mean(0), stacked.std(0) + 1e-6
    weight = _logit([((e.evidence.matrix - mean) / scale, e.right) for e in ranked])

    def level(e: Example) -> Matrix:
        scores = ((e.evidence.matrix - mean) / scale) @ weight
        return question_features(e.evidence, scores)

    rows = np.array([level(e) for e in (*whole, *half)])
    labels = np.array([e.present for e in (*whole, *half)])
    a_mean, a_scale = rows.mean(0), rows.std(0) + 1e-6
    a_weight, bias = _logistic((rows - a_mean) / a_scale, labels)
    sure = 1 / (1 + np.exp(-(((rows - a_mean) / a_scale) @ a_weight + bias)))
    threshold = float(np.quantile(sure[labels], WRONGLY_REFUSED))
    refused = float((sure[~labels] < threshold).mean())
    first = np.mean(
        [e.right[int(np.argmax(((e.evidence.matrix - mean) / scale) @ weight))] for e in whole]
    )
    part: dict[str, list[float] | float] = {
        "mean": mean.tolist(),
        "scale": scale.tolist(),
        "weight": weight.tolist(),
        "answer_mean": a_mean.tolist(),
        "answer_scale": a_scale.tolist(),
        "answer_weight": a_weight.tolist(),
        "answer_bias": bias,
        "threshold": threshold,
    }
    line = (
        f"{len(whole)} + {len(half)} questions, first sentence right {first:.3f}, at the threshold "
        f"{WRONGLY_REFUSED:.2f} wrongly refused and {refused:.3f} of the absent refused (in sample)"
    )
    return part, line


def _examples(
    files: list[list[Question]], limit: int, settings: Settings, absent: bool
) -> Iterator[Example]:
    """With `absent`, half of the articles are not in the base; only their questions count."""
    questions = [q for rows in files for q in rows]
    gone = left_out(questions) if absent else frozenset()
    kept = [q for q in questions if q.title not in gone]
    asked = sample([[q for q in r if not absent or q.title in gone] for r in files], limit, SEED)
    folder = Path(tempfile.mkdtemp(prefix="plumbline-fit-"))
    knowledge = open_knowledge(folder / "home", settings.retrieval)
    try:
        where, _ = fill(knowledge, kept, folder / "docs")
        for question in asked:
            example = _example(question, knowledge, where, settings.policy.passages, not absent)
            if example is not None:
                yield example
    finally:
        knowledge.close()
        shutil.rmtree(folder, ignore_errors=True)


def _example(
    question: Question, knowledge: KnowledgeBase, where: dict[str, str], k: int, present: bool
) -> Example | None:
    passages = knowledge.search(question.text, k)
    prompt = Prompt((), question.text, tuple(passages), "en")
    resources = Resources(knowledge.embedder, knowledge.rarity, knowledge.reranker)
    evidence = weigh(prompt, resources)
    if evidence is None:
        return None
    right = [
        present
        and where[passages[c.passage].source] == question.context
        and any(answer in c.text for answer in question.answers)
        for c in evidence.candidates
    ]
    return Example(evidence, np.array(right), present)


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
            "Data: squadshifts/new_wiki, test split (CC BY 4.0; text Wikipedia, CC BY-SA), "
            "DRCD test (CC BY-SA 3.0), CMRC 2018 trial, test split (CC BY-SA 4.0): rows that "
            "encoder and reranker have not seen. The weights "
            "are a few dozen numbers; no text is in them.",
            "",
            *report,
            "",
        )
    )
