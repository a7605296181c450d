"""The trained guard: eight categories and their union, in English and Chinese, calibrated.

Two models read each text: linear heads on the embedded encoder's network (handed in: `scorer`) and
a linear model over character n-grams. A logistic fit per head and language joins the two logits
to a probability. The text and every view that the normaliser gives are scored character for
character in plain form, in windows where a text is long; the highest probability counts. An answer
is read once more behind its question. What a probability leads to is in the policy file
(`safety/levels.py`).
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from safety._language import language_of
from safety._ngrams import BUCKETS, Linear
from safety.config import SafetySettings
from safety.errors import ModelUnusable
from safety.levels import Levels, load
from safety.normalize import folded, views
from safety.schema import SEVERITY, Action, Category, Side, Span, Verdict
from safety.schema import WINDOW as WHOLE

WEIGHTS = Path(__file__).resolve().parents[2] / "models" / "guard"
#: The network's file, which whoever builds a guard is asked for as a scorer.
NETWORK = WEIGHTS / "heads.safetensors"
#: What the heads say, column by column. `unsafe` is any harm, named or not; `reply` reads an answer
#: behind its question (`joined`), and says nothing of other texts. Both count as likeliest harm.
HEADS = (
    *("hate", "harassment", "violence", "sexual", "self_harm", "illicit", "privacy", "attack"),
    *("unsafe", "reply"),
)
REPLY, ATTACK = HEADS.index("reply"), HEADS.index("attack")
HARMS: tuple[Category, ...] = (
    *("hate", "harassment", "violence", "sexual", "self_harm", "illicit", "privacy"),
)
#: The probability from which a harm is worth its name.
LIKELY = 0.2
#: What parts question and answer, and the characters of a question that are read.
ASKS = " >>> "
ASKED = {"en": 200, "zh": 60}
LANGUAGES = ("en", "zh")
#: Characters of a window, by language, and of the step from one to the next.
WINDOW = {"en": (480, 360), "zh": (120, 90)}
#: Passages are looked at in smaller windows: an instruction hides among other sentences.
CLOSE = {"en": (220, 160), "zh": (70, 50)}
#: Windows of one text that are scored; of a longer one, every other window and so on.
MOST = 48
#: Views of one text that are scored, and windows of an answer that are read with its question.
VIEWS, REPLIES = 6, 8
_PLAIN = re.compile(r"\s+")

Scores = NDArray[np.float32]


class Scorer(Protocol):
    """Logits of texts: (len(texts), len(HEADS)) float32."""

    @property
    def id(self) -> str:
        """Name and revision of the weights."""
        ...

    def __call__(self, texts: Sequence[str]) -> Scores:
        """Score at most 128 tokens of each text."""
        ...


@dataclass(frozen=True, slots=True)
class Calibration:
    """`lines[language]` (heads, 3): weights of both logits and an offset, to a probability.

    `levels[side][language]` (heads, rates): the probability that a share `rates` of the harmless
    calibration texts of that side reach. `screen[language]`: the n-grams' logit of `attack` below
    which a window of a passage is not shown to the network; nearly no attack is below it.
    """

    lines: dict[str, Scores]
    rates: Scores
    levels: dict[str, dict[str, Scores]]
    screen: dict[str, float]

    def threshold(self, side: Side, language: str, head: int, rate: float) -> float:
        """The probability that this share of harmless texts reaches; between, on a log scale."""
        known = np.log(np.maximum(self.rates, 1e-9))
        found = self.levels[side][language][head]
        return float(np.interp(np.log(max(rate, 1e-9)), known, found))


@dataclass(frozen=True, slots=True)
class _Piece:
    """A window as the models read it; its place is the original's, its language its view's."""

    text: str
    start: int
    end: int
    language: str


class Classifier:
    """The moderator."""

    name = "classifier"

    def __init__(
        self, scorer: Scorer, ngrams: Linear, calibration: Calibration, levels: Levels
    ) -> None:
        """Join the parts; `scorer` is the network, the others come from models/guard."""
        self._scorer, self._ngrams = scorer, ngrams
        self._calibration, self._levels = calibration, levels
        judged = {category for side, category, _ in levels.table if side == "passage"}
        #: Reading passages for one thing only, most of which the n-grams rule out, is cheap.
        self._only_attacks = judged <= {"attack"}
        digest = hashlib.sha256(f"{scorer.id} {calibration.screen}".encode())
        for part in (ngrams.weights, ngrams.scale, ngrams.bias, *calibration.lines.values()):
            digest.update(np.ascontiguousarray(part).tobytes())
        for side in sorted(calibration.levels):
            for part in calibration.levels[side].values():
                digest.update(np.ascontiguousarray(part).tobytes())
        #: SHA-256 over all that a probability is made with: network, n-grams, calibration.
        self.model = digest.hexdigest()
        #: SHA-256 over that and the policy file: what a decision was made with.
        self.policy = hashlib.sha256(f"{levels.sha256} {self.model}".encode()).hexdigest()

    def probabilities(
        self, texts: Sequence[str], side: Side, question: str = ""
    ) -> tuple[Scores, list[Span]]:
        """(len(texts), len(HEADS)) of the worst window of each text, and where that one lies."""
        found, spans = self._worst(texts, side, question)
        return found.max(1), spans

    def _worst(self, texts: Sequence[str], side: Side, question: str) -> tuple[Scores, list[Span]]:
        """(len(texts), len(LANGUAGES), len(HEADS)): worst of the windows that read as a language.

        What a disguise hides has the language that it is found in, whatever the disguise looks
        like: each language has its own levels.
        """
        behind = question if side == "output" else ""
        owners = [_pieces(text, side) for text in texts]
        answers = [_behind(behind, text) if behind else [] for text in texts]
        known = list(dict.fromkeys(p.text for mine in [*owners, *answers] for p in mine))
        scored = self.pieces(known, screened=side == "passage" and self._only_attacks)
        found = dict(zip(known, scored, strict=True))
        result = np.zeros((len(texts), len(LANGUAGES), len(HEADS)), dtype=np.float32)
        spans = []
        for row, (mine, replies) in enumerate(zip(owners, answers, strict=True)):
            worst, where = -1.0, Span(0, 0, WHOLE)
            for heads, pieces in ((slice(REPLY), mine), (slice(REPLY, REPLY + 1), replies)):
                for piece in pieces:
                    scores = found[piece.text][heads]
                    mark = result[row, LANGUAGES.index(piece.language), heads]
                    np.maximum(mark, scores, out=mark)
                    if float(scores.max()) > worst:
                        worst = float(scores.max())
                        where = Span(piece.start, piece.end, WHOLE)
            spans.append(where)
        return result, spans

    def pieces(self, texts: Sequence[str], *, screened: bool = False) -> Scores:
        """Probabilities (len(texts), len(HEADS)) of short texts in plain form.

        Where they are `screened`, those in which the n-grams see no attack at all get 0.
        """
        result = np.zeros((len(texts), len(HEADS)), dtype=np.float32)
        languages = [language_of(text) for text in texts]
        shallow = self._ngrams(texts)
        rows = list(range(len(texts)))
        if screened:
            least = self._calibration.screen
            rows = [row for row in rows if shallow[row, ATTACK] >= least[languages[row]]]
        if not rows:
            return result
        logits = np.stack([self._scorer([texts[row] for row in rows]), shallow[rows]], axis=2)
        lines = np.stack([self._calibration.lines[languages[row]] for row in rows])
        value = (logits * lines[:, :, :2]).sum(2) + lines[:, :, 2]
        result[rows] = 1 / (1 + np.exp(-np.clip(value, -30, 30)))
        return result

    def scores(self, texts: Sequence[str], side: Side) -> list[dict[Category, float]]:
        """Calibrated probability of each category."""
        found, _ = self.probabilities(texts, side)
        return [_by_category(row) for row in found]

    def judge(self, texts: Sequence[str], side: Side, question: str = "") -> list[Verdict]:
        """One verdict per text: the most severe action that a category's level calls for."""
        begin = time.perf_counter()
        found, spans = self._worst(texts, side, question)
        seconds = (time.perf_counter() - begin) / max(1, len(texts))
        return [
            self._verdict(text, side, row, span, seconds)
            for text, row, span in zip(texts, found, spans, strict=True)
        ]

    def _verdict(self, text: str, side: Side, rows: Scores, span: Span, seconds: float) -> Verdict:
        best = Verdict("allow", "none", 0.0, side, self.name, safe_text=text, seconds=seconds)
        for language, row in zip(LANGUAGES, rows, strict=True):
            for head in np.flatnonzero(row > 0):
                found = self._of_head(side, language, row, int(head))
                if found is None:
                    continue
                action, category, score, sure = found
                if (SEVERITY.index(action), score) > (SEVERITY.index(best.action), best.score):
                    best = Verdict(
                        action,
                        category,
                        score,
                        side,
                        self.name,
                        reason=f"{category}.model" if sure else f"{category}.grey",
                        safe_text=text,
                        spans=(span,),
                        seconds=seconds,
                        grey=not sure,
                    )
        return replace(best, scores=tuple(_by_category(rows.max(0)).items()))

    def _of_head(
        self, side: Side, language: str, row: Scores, head: int
    ) -> tuple[Action, Category, float, bool] | None:
        """What the levels of a language make of one head's probability; None below them."""
        category, score = category_of(HEADS[head], row), float(row[head])
        level = self._levels.of(side, category, language)
        if level is None:
            return None
        stop = self._calibration.threshold(side, language, head, level.stop)
        stop = max(stop, level.least)
        if score < min(stop, self._calibration.threshold(side, language, head, level.grey)):
            return None
        sure = score >= stop
        return level.action if sure else "annotate", category, score, sure


def category_of(head: str, row: Scores) -> Category:
    """The category that a head speaks for: its own, or the likeliest harm of a row, if any is."""
    for found in get_args(Category):
        if found == head:
            own: Category = found
            return own
    likeliest = max(HARMS, key=lambda name: float(row[HEADS.index(name)]))
    return likeliest if row[HEADS.index(likeliest)] >= LIKELY else "illicit"


def _by_category(row: Scores) -> dict[Category, float]:
    found: dict[Category, float] = {}
    for name, score in zip(HEADS, row.tolist(), strict=True):
        category = category_of(name, row)
        found[category] = max(score, found.get(category, 0.0))
    return found


def plain(text: str) -> str:
    """A text as the models read it: plain characters, single blanks."""
    return _PLAIN.sub(" ", folded(text)).strip()


def joined(question: str, answer: str) -> str:
    """An answer behind the end of its question, as the head `reply` reads it."""
    question = " ".join(question.split())
    return f"{question[-ASKED[language_of(question)] :]}{ASKS}{answer}"


def _pieces(text: str, side: Side) -> list[_Piece]:
    """Every window of every view."""
    found: dict[str, _Piece] = {}
    first = ""
    for number, view in enumerate(views(text)):
        if number >= VIEWS:
            break
        if number == 0:
            first = folded(text)
        elif view.text == first:
            continue
        language = language_of(view.text)
        for start, end in windows(view.text, side):
            piece = plain(view.text[start:end])
            if piece and piece not in found:
                found[piece] = _Piece(piece, *view.original(start, end), language)
    step = -(-len(found) // MOST) or 1
    return list(found.values())[::step]


def _behind(question: str, text: str) -> list[_Piece]:
    """Windows of an answer, each behind its question; the answer's language counts."""
    found = windows(text, "output")
    step = -(-len(found) // REPLIES)
    language = language_of(text)
    return [_Piece(plain(joined(question, text[a:b])), a, b, language) for a, b in found[::step]]


def windows(text: str, side: Side) -> list[tuple[int, int]]:
    """Stretches [start, end) that overlap; one where the text is short."""
    size, step = (CLOSE if side == "passage" else WINDOW)[language_of(text)]
    if len(text) <= size * 1.3:
        return [(0, len(text))]
    starts = range(0, max(1, len(text) - size + step), step)
    return [(start, min(len(text), start + size)) for start in starts]


def read(folder: Path = WEIGHTS) -> tuple[Linear, Calibration]:
    """The n-gram model and the calibration of a folder of weights.

    Raises:
        ModelUnusable: there are none, or they are damaged.
    """
    try:
        found: dict[str, NDArray[Any]] = load_file(folder / "ngrams.safetensors")
        card = json.loads((folder / "calibration.json").read_text(encoding="utf-8"))
        if card["heads"] != list(HEADS):
            raise ValueError(f"made for the heads {card['heads']}")
        calibration = Calibration(
            {k: np.array(v, dtype=np.float32) for k, v in card["lines"].items()},
            np.array(card["rates"], dtype=np.float32),
            {
                side: {k: np.array(v, dtype=np.float32) for k, v in found_.items()}
                for side, found_ in card["levels"].items()
            },
            {k: float(v) for k, v in card["screen"].items()},
        )
        ngrams = Linear(found["weights"], found["scale"], found["bias"])
        heads, rates = len(HEADS), len(np.atleast_1d(calibration.rates))
        shapes = [calibration.lines[language].shape for language in LANGUAGES]
        sides = get_args(Side)
        levels = [calibration.levels[s][language].shape for s in sides for language in LANGUAGES]
        sound = set(calibration.screen) == set(LANGUAGES)
        sound = sound and ngrams.weights.shape == (BUCKETS, heads) and set(shapes) == {(heads, 3)}
        sound = sound and set(levels) == {(heads, rates)}
        sound = sound and bool(np.isfinite(calibration.rates).all())
        if not sound:
            raise ValueError("its parts do not fit together")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelUnusable(
            f"the guard's weights in {folder} cannot be read: {error}; take models/ from the "
            "repository, or set safety.moderators to rules"
        ) from error
    return ngrams, calibration


def build(settings: SafetySettings, scorer: Scorer | None = None) -> Classifier:
    """The moderator with the shipped weights.

    Raises:
        ModelUnusable: weights or network are missing, or do not fit together.
        PolicyInvalid: the policy file does not say what it must.
    """
    ngrams, calibration = read()
    if scorer is None:
        raise ModelUnusable(
            "moderator 'classifier' needs the encoder's network; give build_guard a loader of it"
        )
    return Classifier(scorer, ngrams, calibration, load(settings.policy))
