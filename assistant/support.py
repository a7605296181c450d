"""Whether a passage says what a sentence says: linear heads on the embedded encoder, calibrated.

Sentence and passage are read together, `sentence >>> window`, in windows of up to four sentences of
the passage around those that share most with the sentence; the best window counts. Its sentences
are then read one by one, to tell which of them says so, or says the opposite. A sentence that is
too long to be read whole is read in pieces, and its weakest piece counts. `python app.py train
support` fits the weights of models/support.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from assistant.errors import ModelNotFound
from retrieval.text import count_tokens, is_stop, language, sentences, terms

WEIGHTS = Path(__file__).resolve().parents[1] / "models" / "support"
#: The network's file, which is loaded by whoever has the encoder.
NETWORK = WEIGHTS / "heads.safetensors"
#: What the heads say of a sentence and a window, and of a question and a window, column by column.
HEADS = ("supported", "contradicted", "answers")
#: The column of a question's head; see `assistant.answering`.
COLUMN = HEADS.index("answers")
#: A pair's languages, each with a calibration of its own.
KINDS = ("en", "zh", "cross")
ASKS = " >>> "
#: Tokens of a sentence and of a window that are read, as `count_tokens` estimates them.
CLAIM, ROOM = 56, 62
#: Sentences of a window; windows of a passage, and of one in the other language.
MOST, WINDOWS, CROSSED = 4, 4, 8
#: Pieces of a sentence that are read; one with more is too long to be believed.
PIECES = 4
#: A sentence of a window stands for it from this share of its probability.
ALONE = 0.6

Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Found:
    """What a passage says about a sentence.

    `probability` that it says so, `level` from which that is believed, `against` the probability
    that it says the opposite; [start, end) of the sentence or window of the passage that says so,
    or that says the opposite where this is likelier.
    """

    probability: float
    level: float
    against: float
    start: int
    end: int

    @property
    def supported(self) -> bool:
        """Whether the passage is believed to say so."""
        return self.probability >= self.level


class Supporter(Protocol):
    """The trained second opinion, or a double of it."""

    @property
    def id(self) -> str:
        """Name and revision."""
        ...

    def score(self, claims: Sequence[str], passages: Sequence[str]) -> list[Found]:
        """What `passages[i]` says about the sentence `claims[i]`."""
        ...


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
    """`lines[kind]` (heads, 2): slope and offset to a probability; `levels[kind]` to believe it."""

    lines: dict[str, Scores]
    levels: dict[str, float]


class Trained:
    """The heads of models/support. Safe for several threads."""

    def __init__(self, scorer: Scorer, calibration: Calibration) -> None:
        """Join network and calibration."""
        self.id = scorer.id
        self._scorer, self._calibration = scorer, calibration

    def score(self, claims: Sequence[str], passages: Sequence[str]) -> list[Found]:
        """What each passage says about its sentence; see `Supporter`."""
        asked = [(c, p) for claim, p in zip(claims, passages, strict=True) for c in pieces(claim)]
        found = iter(self._whole(asked))
        results = []
        for claim, passage in zip(claims, passages, strict=True):
            mine = [next(found) for _ in pieces(claim)]
            weakest = min(mine, key=lambda f: f.probability, default=None)
            if weakest is None:
                weakest = Found(0.0, self._calibration.levels[kind(claim, passage)], 0.0, 0, 0)
            results.append(weakest)
        return results

    def answers(self, question: str, stretches: Sequence[str]) -> NDArray[np.float64]:
        """Calibrated logits that stretches answer a question; see `assistant.answering`."""
        if not stretches:
            return np.zeros(0)
        logits = self._scorer([joined(question, text) for text in stretches])[:, COLUMN]
        lines = np.stack(
            [self._calibration.lines[kind(question, text)][COLUMN] for text in stretches]
        )
        return np.asarray(logits * lines[:, 0] + lines[:, 1], dtype=np.float64)

    def _whole(self, asked: Sequence[tuple[str, str]]) -> list[Found]:
        """The best window of each pair, then the sentence in it that stands for it."""
        held = [windows(claim, passage) for claim, passage in asked]
        scores = self._read(
            [(claim, p[a:b], kind(claim, p)) for (claim, p), w in zip(asked, held, strict=True)
             for a, b in w]
        )  # fmt: skip
        best: list[tuple[int, int, float, float]] = []
        at = 0
        for mine in held:
            part = scores[at : at + len(mine)]
            at += len(mine)
            if not len(part):
                best.append((0, 0, 0.0, 0.0))
                continue
            # a window that says so outweighs one that seems to say the opposite
            row = int(part[:, 0].argmax())
            against = int(part[:, 1].argmax())
            shown = row if part[row, 0] >= part[against, 1] else against
            best.append((*mine[shown], float(part[row, 0]), float(part[against, 1])))
        return self._located(asked, best)

    def _located(
        self,
        asked: Sequence[tuple[str, str]],
        best: Sequence[tuple[int, int, float, float]],
    ) -> list[Found]:
        inner = [
            [(s, e) for s, e in units(p) if a <= s and e <= b]
            for (_, p), (a, b, _, _) in zip(asked, best, strict=True)
        ]
        inner = [spans if len(spans) > 1 else [] for spans in inner]
        scores = self._read(
            [(claim, p[s:e], kind(claim, p)) for (claim, p), spans in zip(asked, inner, strict=True)
             for s, e in spans]
        )  # fmt: skip
        found, at = [], 0
        for (claim, passage), spans, (a, b, yes, no) in zip(asked, inner, best, strict=True):
            level = self._calibration.levels[kind(claim, passage)]
            head = 0 if yes >= no else 1
            part = scores[at : at + len(spans), head]
            at += len(spans)
            if len(part) and part.max() >= ALONE * (yes, no)[head]:
                a, b = spans[int(part.argmax())]
            found.append(Found(yes, level, no, a, b))
        return found

    def _read(self, parts: Sequence[tuple[str, str, str]]) -> Scores:
        """Probabilities (len(parts), heads) of (sentence, window, kind)."""
        if not parts:
            return np.zeros((0, len(HEADS)), dtype=np.float32)
        logits = self._scorer([joined(claim, window) for claim, window, _ in parts])
        lines = np.stack([self._calibration.lines[k] for _, _, k in parts])
        value = logits * lines[:, :, 0] + lines[:, :, 1]
        return np.asarray(1 / (1 + np.exp(-np.clip(value, -30, 30))), dtype=np.float32)


def joined(claim: str, window: str) -> str:
    """Sentence and window as the heads read them."""
    return f"{' '.join(claim.split())}{ASKS}{' '.join(window.split())}"


def kind(claim: str, passage: str) -> str:
    """The languages of a pair: en, zh, or cross."""
    own = language(claim)
    return own if language(passage[:2_000]) == own else "cross"


def pieces(claim: str) -> list[str]:
    """The sentence, or its stretches where it is too long to be read whole; [] where far too."""
    found = _cut(claim, 0, len(claim), CLAIM)
    return [claim[a:b] for a, b in found] if len(found) <= PIECES else []


@functools.lru_cache(maxsize=256)
def units(passage: str) -> tuple[tuple[int, int], ...]:
    """The passage's sentences, [start, end); long ones in stretches that can be read whole."""
    return tuple(
        part for a, b in sentences(passage) for part in _cut(passage, a, b, ROOM)
    )  # fmt: skip


def windows(claim: str, passage: str) -> list[tuple[int, int]]:
    """Stretches of the passage around the sentences that share most with the claim, best first."""
    spans = units(passage)
    most = CROSSED if kind(claim, passage) == "cross" else WINDOWS
    if not spans:
        return []
    held = _terms(passage)
    wanted = {t for t in terms(claim[:4_000]) if not is_stop(t)}
    rare = _rarity(passage)
    shares = [sum(rare[t] for t in wanted & mine) for mine in held]
    order = sorted(range(len(spans)), key=lambda i: (-shares[i], i))
    if not any(shares):  # nothing in common: the passage is looked through evenly
        step = max(1, len(spans) // most)
        order = [*range(0, len(spans), step), *order]
    found: list[tuple[int, int]] = []
    for anchor in order:
        a, b = _grown(passage, spans, anchor)
        if not any(x <= spans[anchor][0] and spans[anchor][1] <= y for x, y in found):
            found.append((a, b))
        if len(found) == most:
            break
    return found


def _grown(
    passage: str, spans: Sequence[tuple[int, int]], anchor: int
) -> tuple[int, int]:  # fmt: skip
    """The anchor with its neighbours, the one before it first, while they can be read whole."""
    first = last = anchor
    room = ROOM - count_tokens(passage[slice(*spans[anchor])])
    for before in (True, False, True):
        near = first - 1 if before else last + 1
        if not 0 <= near < len(spans) or last - first + 1 >= MOST:
            continue
        room -= count_tokens(passage[slice(*spans[near])])
        if room < 0:
            break
        first, last = min(first, near), max(last, near)
    return spans[first][0], spans[last][1]


@functools.lru_cache(maxsize=256)
def _terms(passage: str) -> tuple[frozenset[str], ...]:
    return tuple(
        frozenset(t for t in terms(passage[a:b]) if not is_stop(t)) for a, b in units(passage)
    )


@functools.lru_cache(maxsize=256)
def _rarity(passage: str) -> dict[str, float]:
    """How much a term of the passage says there: log of its sentences to those that have it."""
    held = _terms(passage)
    counts = Counter(t for mine in held for t in mine)
    return {t: math.log(1 + len(held) / n) for t, n in counts.items()}


def _cut(text: str, start: int, end: int, room: int) -> list[tuple[int, int]]:
    """[start, end) in stretches of at most about `room` tokens, between words where there are."""
    # no token has fewer characters than one: what is short need not be counted
    if end - start <= room or count_tokens(text[start:end]) <= room:
        return [(start, end)]
    found, at = [], start
    while at < end:
        stop = min(end, at + 6 * room)
        while stop - at > 1 and count_tokens(text[at:stop]) > room:
            stop = at + max(1, (stop - at) * 3 // 4)
        if stop < end:
            edges = [m.end() for m in re.finditer(r"[,;，；、:：]\s*|\s+", text[at:stop])]
            stop = at + edges[-1] if edges and edges[-1] > (stop - at) // 2 else stop
        found.append((at, stop))
        at = stop
    return found


def read(folder: Path = WEIGHTS) -> Calibration:
    """The calibration of a folder of weights.

    Raises:
        ModelNotFound: it is missing or damaged.
    """
    try:
        card: dict[str, Any] = json.loads((folder / "calibration.json").read_text("utf-8"))
        if card["heads"] != list(HEADS):
            raise ValueError(f"made for the heads {card['heads']}")
        lines = {k: np.array(card["lines"][k], dtype=np.float32) for k in KINDS}
        levels = {k: float(card["levels"][k]) for k in KINDS}
        if any(v.shape != (len(HEADS), 2) or not np.isfinite(v).all() for v in lines.values()):
            raise ValueError("its lines do not fit the heads")
        if not all(0 < level < 1 for level in levels.values()):
            raise ValueError(f"levels {levels} are no probabilities")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelNotFound(
            f"the support check's weights in {folder} cannot be read: {error!r}; take models/ from "
            "the repository, or set policy.support to words"
        ) from error
    return Calibration(lines, levels)


def build(scorer: Scorer, folder: Path = WEIGHTS) -> Trained:
    """The trained check on a loaded network.

    Raises:
        ModelNotFound: its calibration is missing or damaged, or the network has other heads.
    """
    calibration = read(folder)
    width = getattr(scorer, "width", len(HEADS))
    if width != len(HEADS):
        raise ModelNotFound(
            f"the network in {folder} has {width} heads, {len(HEADS)} are read; take models/ from "
            "the repository, or set policy.support to words"
        )
    return Trained(scorer, calibration)
