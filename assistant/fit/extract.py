"""Fits the sentence ranker of the extract policy: `python app.py train extract --data FOLDER`.

Two models a language, for no reranker, for the one that the settings name, and for that one with
the answerability head. Ranking: conditional logit over a question's candidate sentences (McFadden
1974), a sentence is right when it holds a gold answer and lies in the gold context. Answerability:
logistic regression over question-level features, on the same questions with the whole base
(answerable) and with half of the articles left out (those questions are not), and on questions that
only look as if a paragraph answered them (`_answers_rows.held`). Both by L-BFGS with an L2 penalty;
minutes on a CPU, deterministic with the seed.

Data, train-allowed and unseen by encoder, reranker and head, whose scores would else be trusted too
much: English squadshifts/new_wiki (test split) and the articles of squad2_dev's train split that
the head does not learn from, Chinese drcd/test (first half), cmrc2018/trial (test split) and such
articles of cmrc2018 and drcd/dev. The rows that `bench.answers` reports on are not among them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from assistant.answering import Answerer
from assistant.build import supporter_of
from assistant.config import Settings
from assistant.fit._answers_rows import held
from assistant.fit.base import Question, answerable, fill, left_out, read, sample
from assistant.policy._ranker import (
    ANSWERABLE,
    ANSWERS,
    FEATURES,
    Evidence,
    Matrix,
    weigh,
)
from assistant.policy._ranker import answerable as question_features
from assistant.policy.base import Resources
from assistant.schema import Prompt
from retrieval.knowledge import build_reranker, open_knowledge
from retrieval.schema import Passage

Marks = NDArray[np.bool_]
#: One language's part of weights.json.
Part = dict[str, list[float] | float]

FILES = {
    "en": ("squadshifts/new_wiki.jsonl.gz",),
    "zh": ("drcd/test.jsonl.gz", "cmrc2018/trial.jsonl.gz"),
}
#: Splits of those files that nothing else was trained on.
SPLITS = ("test", "first")
SEED = 7
#: Questions of each set, where no other number is asked for.
QUESTIONS = 1200
L2 = 1e-2
#: Share of the answerable questions of any one file that the threshold may refuse.
WRONGLY_REFUSED = 0.05


@dataclass(frozen=True, slots=True)
class Example:
    """A question with its candidates' features; `right` marks candidates with the answer.

    `looks`: its own paragraph only looks as if it answered. `file`: which file it is of.
    """

    evidence: Evidence
    right: Marks
    present: bool
    looks: bool = False
    file: int = 0

    @property
    def without(self) -> Example:
        """As it were without the answerability head."""
        matrix = self.evidence.matrix.copy()
        matrix[:, ANSWERS] = 0.0
        return replace(self, evidence=replace(self.evidence, matrix=matrix))


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
            whole = list(_examples([*questions, hard], limit, chosen, answerer, absent=False))
            yield f"{backend}, {tongue}: {len(whole)} questions with the whole base"
            half = list(_examples(questions, limit, chosen, answerer, absent=True))
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


def fit(examples: Sequence[Example]) -> tuple[Part, str]:
    """Fit one language; returns its part of weights.json and a line about the fit."""
    ranked = [e for e in examples if e.right.any()]
    stacked = np.concatenate([e.evidence.matrix for e in ranked])
    mean, scale = stacked.mean(0), stacked.std(0) + 1e-6
    weight = _logit([((e.evidence.matrix - mean) / scale, e.right) for e in ranked])

    def scores(e: Example) -> Matrix:
        return np.asarray(((e.evidence.matrix - mean) / scale) @ weight)

    rows = np.array([question_features(e.evidence, scores(e)) for e in examples])
    present = np.array([e.present for e in examples])
    looks = np.array([e.looks for e in examples])
    a_mean, a_scale = rows.mean(0), rows.std(0) + 1e-6
    a_weight, bias = _logistic((rows - a_mean) / a_scale, present)
    sure = 1 / (1 + np.exp(-(((rows - a_mean) / a_scale) @ a_weight + bias)))
    files = np.array([e.file for e in examples])
    threshold = min(  # of the file that is hardest to be sure of
        float(np.quantile(sure[present & (files == file)], WRONGLY_REFUSED))
        for file in sorted({e.file for e in examples if e.present})
    )
    first = np.mean([e.right[int(np.argmax(scores(e)))] for e in examples if e.present])
    part: Part = {
        "mean": mean.tolist(),
        "scale": scale.tolist(),
        "weight": weight.tolist(),
        "answer_mean": a_mean.tolist(),
        "answer_scale": a_scale.tolist(),
        "answer_weight": a_weight.tolist(),
        "answer_bias": bias,
        "threshold": threshold,
    }
    refused = {
        f"{int(of.sum())} {name}": f"{(sure[of] < threshold).mean():.3f}"
        for name, of in (("absent", ~present & ~looks), ("that only look answered", looks))
        if of.any()
    }
    line = (
        f"{int(present.sum())} answered questions, first sentence right {first:.3f}; at the "
        f"threshold {(sure[present] < threshold).mean():.3f} are wrongly refused, and of "
        f"{', of '.join(f'{name} {share}' for name, share in refused.items())} (in sample)"
    )
    return part, line


def _examples(
    files: list[list[Question]],
    limit: int,
    settings: Settings,
    answerer: Answerer | None,
    absent: bool,
) -> Iterator[Example]:
    """With `absent`, half of the articles are not in the base; only their questions count."""
    questions = [q for rows in files for q in rows]
    gone = left_out(questions) if absent else frozenset()
    kept = [q for q in questions if q.title not in gone]
    asked = sample([[q for q in r if not absent or q.title in gone] for r in files], limit, SEED)
    folder = Path(tempfile.mkdtemp(prefix="plumbline-fit-"))
    knowledge = open_knowledge(folder / "home", settings.retrieval)
    lent = Resources(knowledge.embedder, knowledge.rarity, knowledge.reranker, answerer)
    file = {id(q): number for number, rows in enumerate(files) for q in rows}
    try:
        where, _ = fill(knowledge, kept, folder / "docs")
        for question in asked:
            passages = knowledge.search(question.text, settings.policy.passages)
            example = _example(question, passages, where, lent, not absent)
            if example is not None:
                yield replace(example, file=file[id(question)])
    finally:
        knowledge.close()
        shutil.rmtree(folder, ignore_errors=True)


def _example(
    question: Question,
    passages: Sequence[Passage],
    where: dict[str, str],
    lent: Resources,
    there: bool,
) -> Example | None:
    evidence = weigh(Prompt((), question.text, tuple(passages), "en"), lent)
    if evidence is None:
        return None
    present = there and not question.impossible
    right = [
        present
        and where[passages[c.passage].source] == question.context
        and any(answer in c.text for answer in question.answers)
        for c in evidence.candidates
    ]
    return Example(evidence, np.array(right), present, question.impossible)


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
