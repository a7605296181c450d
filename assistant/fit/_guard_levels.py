"""From logits to probabilities, and from probabilities to levels, on rows held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from assistant.fit._guard_labels import UNKNOWN, YES, Row
from assistant.fit._measures import area, error
from safety.levels import EVEN
from safety.moderator.classifier import ASKS, ATTACK, HEADS, LANGUAGES, Classifier
from safety.schema import Side

#: Shares of harmless texts whose probabilities are noted.
RATES = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.12, 0.25)
#: The harmless rows that levels are counted on, side by side.
SPOKEN: dict[Side, frozenset[str]] = {
    "input": frozenset(
        "contrast contrast-attack coconot benign-prompts clinc150 banking77 crosswoz questions "
        "statement forum talk reviewed".split()
    ),
    "passage": frozenset(["passages"]),
    "output": frozenset(["passages", "answers", "responses"]),
}
#: Held-out rows of either label that a fit of one language needs; else both languages share one.
FEWEST = 25

#: Share of the attacks that may be lost before the network sees them.
MISSED = 0.005
NEVER = -1e9

Matrix = NDArray[np.float64]
#: levels[side][language], a list of probabilities a head.
Levels = dict[Side, dict[str, list[list[float]]]]


def joint(held: Sequence[Row], logits: Matrix) -> dict[str, list[list[float]]]:
    """The logistic fit of each language and head: weights of both logits, and an offset.

    Args:
        held: rows not trained on.
        logits: (rows, heads, 2), of the network and of the n-grams.
    """
    labels = np.array([row.labels for row in held])
    tongue = np.array([row.lang for row in held])
    lines: dict[str, list[list[float]]] = {language: [] for language in LANGUAGES}
    for language in LANGUAGES:
        for head in range(len(HEADS)):
            known = (labels[:, head] != UNKNOWN) & (tongue == language)
            counts = Counter((labels[known, head] == YES).tolist())
            if min(counts[True], counts[False]) < FEWEST:
                known = labels[:, head] != UNKNOWN
            model = LogisticRegression(C=10.0)
            model.fit(logits[known, head], labels[known, head] == YES)
            lines[language].append([*model.coef_[0].tolist(), float(model.intercept_[0])])
    return lines


def screen_of(held: Sequence[Row], shallow: Matrix) -> dict[str, float]:
    """The n-grams' logit of `attack` that all but `MISSED` of the attacks held out reach."""
    tongue = np.array([row.lang for row in held])
    attack = np.array([row.labels[ATTACK] == YES for row in held])
    return {
        language: float(np.quantile(of, MISSED)) if len(of) else NEVER
        for language in LANGUAGES
        for of in [shallow[attack & (tongue == language), ATTACK]]
    }


def levels_of(held: Sequence[Row], guard: Classifier) -> Levels:
    """levels[side][language] (heads, rates): what those shares of the harmless rows reach."""
    found: Levels = {}
    for side, sources in SPOKEN.items():
        found[side] = {}
        for language in LANGUAGES:
            part = [r for r in held if r.source in sources and r.lang == language]
            part = [row for row in part if max(row.labels) <= 0]
            scores = probabilities(guard, part, side)
            labels = np.array([row.labels for row in part]).reshape(len(part), len(HEADS))
            found[side][language] = [
                np.quantile(of, 1 - np.array(RATES)).tolist() if len(of) else [1.0] * len(RATES)
                for of in (scores[labels[:, h] == 0, h] for h in range(len(HEADS)))
            ]
    return found


def probabilities(guard: Classifier, part: Sequence[Row], side: Side) -> Matrix:
    """(len(part), heads), as the guard finds them; answers are read behind their questions."""
    found = []
    plainly = [row.text for row in part if ASKS not in row.text]
    for at in range(0, len(plainly), 64):
        found.append(guard.probabilities(plainly[at : at + 64], side)[0])
    scores = iter(np.concatenate(found) if found else np.zeros((0, len(HEADS))))
    rows = []
    for row in part:
        question, _, answer = row.text.partition(ASKS)
        rows.append(guard.probabilities([answer], side, question)[0][0] if answer else next(scores))
    return np.array(rows, dtype=np.float64).reshape(len(part), len(HEADS))


def reported(held: Sequence[Row], guard: Classifier, reached: Levels) -> list[str]:
    """A line a language and head on how well the guard tells, for the card."""
    labels = np.array([row.labels for row in held])
    tongue = np.array([row.lang for row in held])
    scores = np.concatenate(
        [guard.pieces([row.plain for row in held[at : at + 64]]) for at in range(0, len(held), 64)]
    ).astype(np.float64)
    lines = []
    for language in LANGUAGES:
        for head, name in enumerate(HEADS):
            truth = (labels[:, head] != UNKNOWN) & (tongue == language)
            yes = labels[truth, head] == YES
            side: Side = "output" if name == "reply" else "input"
            level = max(reached[side][language][head][RATES.index(0.004)], EVEN)
            caught = scores[truth, head][yes] >= level
            lines.append(
                f"- {language}, {name}: {int(yes.sum())} with, {int((~yes).sum())} without; area "
                f"{area(labels[truth, head], scores[truth, head]):.3f}, expected calibration error "
                f"{error(labels[truth, head], scores[truth, head]):.3f}, caught at 0.4 % of the "
                f"harmless: {float(caught.sum()) / max(1, len(caught)):.2f}"
            )
    return lines
