"""How well the policy decides on articles it has not seen, beside the linear ranker on the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import rankdata
from transformers import LlamaForCausalLM

from assistant.fit.base import bounded
from assistant.policy._decode import Reader, decisions, sample
from assistant.policy._quoting import Layout, logit
from assistant.policy._ranker import answerable
from assistant.policy._signs import LANGUAGES
from assistant.policy._trie import Path
from assistant.policy.extract import MOST, Weights
from assistant.policy.quote import Calibration
from rlhf.fit._drills import Drill, plain
from rlhf.fit._lessons import Lesson

Array = NDArray[np.float64]

LEAST_SCALE = 0.05
#: Sentences of an answer to a question that one sentence answers, on average at the most.
SENTENCES = 1.4
#: Drills read together.
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Mark:
    """What came of one lesson, by the network and by the linear ranker.

    Attributes:
        lang: of the question.
        answerable: whether a sentence of the evidence answers.
        first: whether the sentence each would quote first does, (network, ranker).
        among: whether one of the first three does.
        sure: how sure each is that there is an answer, as a logit.
        said: the phrase that the network would say, "" for none, and the one that is right.
        kind: where the question comes from.
        unseen: whether nothing that answers has learnt from its article.
    """

    lang: str
    answerable: bool
    first: tuple[bool, bool]
    among: tuple[bool, bool]
    sure: tuple[float, float]
    said: tuple[str, str] = ("", "")
    kind: str = ""
    unseen: bool = False


class Exam:
    """Lessons that are not trained on.

    Args:
        held: the lessons.
        weights: the linear ranker's, by language.
        layout: of prompts.
        dtype: of the matrix products.
    """

    def __init__(
        self,
        held: Sequence[Lesson],
        weights: dict[str, Weights],
        layout: Layout,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._layout, self._dtype = layout, dtype
        self._drills = [plain(x, weights[x.lang], layout) for x in held]
        self._ranked = [ranked(x, weights[x.lang]) for x in held]
        self._lessons = held

    def marks(self, model: LlamaForCausalLM) -> list[Mark]:
        """Ask everything."""
        found = []
        rows = zip(self._lessons, self._drills, self._ranked, self._asked(model), strict=True)
        for lesson, drill, (first, among, sure), (order, quoting, said) in rows:
            hits = [token in drill.right for token in order]
            found.append(
                Mark(
                    lesson.lang,
                    any(lesson.right) or bool(lesson.needed),
                    (hits[0], first),
                    (any(hits[:MOST]), among),
                    (quoting, sure),
                    (said, lesson.phrase),
                    lesson.kind,
                    lesson.unseen,
                )
            )
        return found

    def calibration(self, model: LlamaForCausalLM) -> dict[str, dict[str, float]]:
        """What calibration.json says of a network, by language; see `calibrate` and `further`."""
        fits = calibrate(self.marks(model))
        going = self.going(model)
        return {lang: fit | {"more": further(going[lang])} for lang, fit in fits.items()}

    def recalibrating(
        self, start: LlamaForCausalLM, before: Mapping[str, Calibration]
    ) -> Callable[[LlamaForCausalLM], dict[str, dict[str, float]]]:
        """Makes the calibration of what a run of the loop makes of `start`; `more` is not in it.

        The lessons of a run are too few to bound what is wrongly refused, and a threshold that
        bounds it nevertheless refuses next to nothing. So the share of answerable questions that
        it refuses stays that of `start` with its own calibration, `before`.
        """

        def made(model: LlamaForCausalLM) -> dict[str, dict[str, float]]:
            return calibrate(self.marks(model), refused(self.marks(start), before))

        return made

    def going(self, model: LlamaForCausalLM) -> dict[str, list[list[float]]]:
        """How probable it is after each sentence that a further one is needed, by language.

        Of the likeliest sentences of questions that one sentence answers, on articles that nothing
        which answers has learnt from, or else on all that are held out.
        """
        found: dict[str, list[list[float]]] = {}
        for lang in LANGUAGES:
            rows = [
                (lesson, drill)
                for lesson, drill in zip(self._lessons, self._drills, strict=True)
                if lesson.lang == lang and any(lesson.right)
            ]
            unseen = [(lesson, drill) for lesson, drill in rows if lesson.unseen]
            found[lang] = [self._going(model, drill) for _, drill in unseen or rows]
        return found

    def _going(self, model: LlamaForCausalLM, drill: Drill) -> list[float]:
        reader, begun = Reader(model, drill.ids), (self._layout.cite,)
        answer = sample(reader, drill.paths, 0.0, 1.0, 0, begun, more=-1.0)
        pieces = drill.paths.pieces(answer.path)
        return [math.exp(answer.logprobs[end]) for _, _, end in pieces[:-1]]

    def _asked(self, model: LlamaForCausalLM) -> Iterator[tuple[list[int], float, str]]:
        """Of each drill the labels, likeliest first, the logit of quoting, and the phrase said."""
        layout = self._layout
        for at in range(0, len(self._drills), AT_ONCE):
            part = self._drills[at : at + AT_ONCE]
            seen = self._seen(model, part, [(layout.cite, drill.labels[0]) for drill in part])
            signs = [t for t in (layout.cite, layout.abstain, layout.book) if t in seen[0, 0]]
            speaking = [
                row
                for row in range(len(part))
                if layout.opening([seen[row, 0][t] for t in signs], abstains=True) == (layout.book,)
            ]
            any_phrase = [layout.phrase(layout.phrases[0]) for _ in speaking]
            heard = self._seen(model, [part[row] for row in speaking], any_phrase)
            said = {
                row: layout.said((layout.book, max(odds, key=lambda token: odds[token])))
                for n, row in enumerate(speaking)
                for odds in [heard[n, 1]]
            }
            for row, drill in enumerate(part):
                first = seen[row, 0]
                labels = seen.get((row, 1), {drill.labels[0]: 0.0})
                order = sorted(labels, key=lambda token: -labels[token])
                yield order, first[layout.cite] - first[layout.abstain], said.get(row, "")

    def _seen(
        self, model: LlamaForCausalLM, part: Sequence[Drill], answers: Sequence[Path]
    ) -> dict[tuple[int, int], dict[int, float]]:
        """The log-probs of what is allowed, by (row, token) of each decision."""
        if not part:
            return {}
        with (
            torch.inference_mode(),
            torch.autocast(model.device.type, self._dtype, enabled=self._dtype != torch.float32),
        ):
            made = decisions(model, [d.ids for d in part], answers, [d.paths for d in part])
        return {(d.row, d.at): dict(zip(d.allowed, d.logprobs.tolist(), strict=True)) for d in made}


def ranked(lesson: Lesson, weights: Weights) -> tuple[bool, bool, float]:
    """Whether the linear ranker's first sentence answers, whether one of three, and how sure."""
    evidence = lesson.evidence(range(len(lesson.texts)))
    scores = weights.scores(evidence.matrix)
    answers = {*np.flatnonzero(lesson.right).tolist(), *lesson.needed}
    hits = [int(i) in answers for i in np.argsort(-scores, kind="stable")[:MOST]]
    sure = weights.confidence(answerable(evidence, scores))
    return hits[0], any(hits), logit(sure)


def auroc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Probability that a positive scores above a negative; NaN without both."""
    marks = np.array(positive)
    up, down = int(marks.sum()), int((~marks).sum())
    if not up or not down:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[marks].sum() - up * (up + 1) / 2) / (up * down))


def report(marks: Sequence[Mark]) -> str:
    """A line on both; `a (b)` is the network and, on the same evidence, the linear ranker."""
    parts = []
    for lang in LANGUAGES:
        mine = _searched(marks, lang)
        there = [m for m in mine if m.answerable]
        if not there:
            continue
        first, among = (
            [np.mean([getattr(m, name)[who] for m in there]) for who in (0, 1)]
            for name in ("first", "among")
        )
        told = [auroc([m.sure[who] for m in mine], [m.answerable for m in mine]) for who in (0, 1)]
        parts.append(
            f"{lang} {len(there)} answerable of {len(mine)}: first sentence right {first[0]:.3f} "
            f"({first[1]:.3f}), one of three {among[0]:.3f} ({among[1]:.3f}), "
            f"AUROC of abstaining {told[0]:.3f} ({told[1]:.3f})"
        )
    spoken = [m for m in marks if m.said[1]]
    if spoken:
        right = np.mean([m.said[0] == m.said[1] for m in spoken])
        others = [m for m in marks if not m.said[1]]
        wrong = np.mean([bool(m.said[0]) for m in others]) if others else 0.0
        parts.append(
            f"phrase book: right of {len(spoken)} {right:.3f}, said of {len(others)} others "
            f"{wrong:.3f}"
        )
    return "held out: " + "; ".join(parts)


def _searched(marks: Sequence[Mark], lang: str) -> list[Mark]:
    """Those of a language that the evidence is to answer."""
    return [m for m in marks if m.lang == lang and not m.said[1]]


def calibrate(
    marks: Sequence[Mark], refusing: Mapping[str, float] = MappingProxyType({})
) -> dict[str, dict[str, float]]:
    """What `assistant.policy.quote.Calibration` keeps, of each language with both kinds.

    Args:
        marks: of lessons that were not trained on; see `_judged`.
        refusing: the share of answerable questions that the threshold refuses, by language;
            without one it refuses what `bounded` allows.
    """
    found = {}
    for lang in LANGUAGES:
        mine = _judged(marks, lang)
        rows = np.array([m.sure for m in mine])
        there = np.array([m.answerable for m in mine], dtype=bool)
        if not there.any() or there.all():
            continue
        signs = np.where(there, 1.0, -1.0)
        bounds = ((LEAST_SCALE, None), (0.0, None), (None, None))  # never less probable
        start = np.array([1.0, 0.0, 0.0])
        fit = minimize(_cost, start, (signs, rows), method="L-BFGS-B", bounds=bounds)
        scale, ranked, offset = map(float, fit.x)
        sure = 1 / (1 + np.exp(-(rows @ fit.x[:2] + offset)))
        fits = {"scale": scale, "ranked": ranked, "offset": offset}
        if lang in refusing:
            mine = [m for m in _searched(marks, lang) if m.answerable]
            sure = np.sort(_sure(mine, Calibration(**fits)))
            bar = float(sure[min(round(refusing[lang] * len(sure)), len(sure) - 1)])
        else:
            bar = bounded(sure[there])
        found[lang] = fits | {"threshold": bar}
    return found


def refused(marks: Sequence[Mark], fits: Mapping[str, Calibration]) -> dict[str, float]:
    """The share of answerable questions that a calibration refuses, by language.

    Of all of them, seen or not: what is trusted too much is so before a run and after it.
    """
    found = {}
    for lang, fit in fits.items():
        there = [m for m in _searched(marks, lang) if m.answerable]
        if there:
            found[lang] = float((_sure(there, fit) < fit.threshold).mean())
    return found


def _sure(marks: Sequence[Mark], fit: Calibration) -> Array:
    """Confidences; the network's logit is that of one less the probability of abstaining."""
    odds = [fit.scale * m.sure[0] + fit.ranked * m.sure[1] + fit.offset for m in marks]
    return np.asarray(1 / (1 + np.exp(-np.clip(odds, -50, 50))))


def _judged(marks: Sequence[Mark], lang: str) -> list[Mark]:
    """Those of a language that a calibration is fitted on.

    Only articles count that reranker and answerability head have not learnt from either, whose
    scores would else be trusted too much; where these lack one of the kinds, all of them do.
    """
    mine = _searched(marks, lang)
    unseen = [m for m in mine if m.unseen]
    return unseen if len({m.answerable for m in unseen}) == 2 else mine


def further(going: Sequence[Sequence[float]], mean: float = SENTENCES) -> float:
    """The least probability in [0, 1] to go on at, so that answers have `mean` sentences at most.

    Args:
        going: of each answer, how probable it is after each sentence that a further one is needed.
        mean: sentences of an answer, on average.
    """
    least = [min(chances[: at + 1]) for chances in going for at in range(len(chances))]
    extra = int((mean - 1) * len(going))
    return sorted(least, reverse=True)[extra] if extra < len(least) else 0.0


def _cost(values: Array, signs: Array, rows: Array) -> float:
    """Of a logistic regression; the scale is held near one where there is little to fit it on."""
    margin = signs * (rows @ values[:2] + values[2])
    return float(np.logaddexp(0, -margin).mean()) + 1e-3 * float((values[0] - 1) ** 2)
