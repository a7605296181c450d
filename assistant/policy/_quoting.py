"""How a question and its evidence are laid out for a model that quotes.

One layout for serving, SFT, reward model and PPO: language, question, evidence, and then the
assistant's turn:

    <bos> <en> <user> Question? <end> <evidence>
    <heading> Title > Section <sentence> A sentence. <e6> <r12> <r9> <s1>
    Another one. <e0> <r3> <r9> <s4>
    <e5> <r9> <assistant>

The sentences are the best ones by the linear ranker (`_ranker`), in the order of their passages.
Behind each stand the linear model's probability that it is the one (`e`), what the reranker makes
of it (`r`), what the answerability head makes of the stretch it stands in (`r` again), and its
label, which is its rank by the linear model. Without a reranker there is no `r`, without a head no
second one. The question stands first and the label last because the network is causal: so what it
holds at a label is question, sentence and scores together, and the label to be said is one look
back; the ranks let it begin with the linear model's choice. The last `e` and `r` are the linear
model's probability that any sentence answers, in coarse and in fine steps. An answer is `<cite>
<s2> <end>`, with up to three labels, or `<abstain> <end>`. Texts are cut here; what is quoted is
whole.

Where the phrase book is offered, an answer may also be one of its phrases, `<phrase> <reserved0>
<end>`; which reserved sign is which phrase is kept beside the weights (calibration.json).
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from assistant.policy._ranker import ANSWERS, READ, Candidate, Evidence, answerable
from assistant.policy._signs import LABELS, RESERVED, SCORES, SECOND_SCORES, Sign, encode, sign
from assistant.policy._trie import Path, Paths
from assistant.policy.extract import MOST, Fitted, Weights, inside, quotes, tongue
from assistant.schema import Prompt
from retrieval.schema import Passage

#: Sentences that are shown, and tokens of each, of a heading, and of the question. The answer is
#: among 8 sentences for 98.4 % of English and 99.0 % of Chinese training questions, among 12 for
#: 99.6 and 99.5, which take half as much time again.
KEPT, TEXT, HEADING, QUESTION = 8, 40, 16, 96
#: Where one step of a score ends and the next begins: logits, and probabilities.
#: Chosen so that each step holds some of the sentences of training questions.
READ_BORDERS = tuple(np.linspace(-5.0, 4.0, SCORES - 1).tolist())
CHANCE_BORDERS = (0.005, 0.02, 0.06, 0.15, 0.3, 0.55, 0.8)
SURE_BORDERS = (0.05, 0.2, 0.5, 0.8, 0.95, 0.99, 0.998)

#: The phrase book speaks where it is more probable than quoting and abstaining together.
SPOKEN = 0.5
_SURE = 1e-6

assert len(READ_BORDERS) == SCORES - 1
assert len(CHANCE_BORDERS) == len(SURE_BORDERS) == SECOND_SCORES - 1


@dataclass(frozen=True, slots=True)
class Line:
    """A sentence as it is shown.

    `passage` tells sentences of one passage from those of others; `read` is the reranker's logit,
    None where there is no reranker; `chance` is the linear model's probability in [0, 1] that it
    is the one that answers; `answers` is the answerability head's logit, None where there is none.
    """

    passage: int
    heading: str
    text: str
    read: float | None
    chance: float
    answers: float | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown of the evidence: the candidates `kept`, in order, their lines and labels.

    Labels count from 1, the best by the linear ranker. `sure` is the linear model's probability in
    [0, 1] that any sentence answers.
    """

    kept: tuple[int, ...]
    lines: tuple[Line, ...]
    labels: tuple[int, ...]
    sure: float


@dataclass(frozen=True, slots=True)
class Offer:
    """A prompt as ids, and the answers there are: option n of `paths` quotes candidate n.

    `sure` is the linear model's probability that any sentence answers.
    """

    ids: Path
    paths: Paths
    candidates: tuple[Candidate, ...]
    sure: float = 0.5


def heading(passage: Passage) -> str:
    """A passage's title and headings, as one line."""
    parts = (passage.title, *passage.chunk.headings)
    return " > ".join(dict.fromkeys(part for part in parts if part))


def shown(evidence: Evidence, headings: Sequence[str], weights: Weights, *, reads: bool) -> Shown:
    """Choose what is shown.

    Args:
        evidence: at least one candidate.
        headings: of each passage.
        weights: of the question's language.
        reads: whether a reranker has read the sentences.
    """
    scores = weights.scores(evidence.matrix)
    odds = np.exp(scores - scores.max())
    odds /= odds.sum()
    best = np.argsort(-scores, kind="stable")[:KEPT]
    kept = tuple(sorted(int(i) for i in best))
    labels = tuple(best.tolist().index(i) + 1 for i in kept)
    found = evidence.candidates
    heard = bool(evidence.matrix[:, ANSWERS].any())
    lines = tuple(
        Line(
            found[i].passage,
            headings[found[i].passage],
            found[i].text,
            float(evidence.matrix[i, READ]) if reads else None,
            float(odds[i]),
            float(evidence.matrix[i, ANSWERS]) if heard else None,
        )
        for i in kept
    )
    return Shown(kept, lines, labels, weights.confidence(answerable(evidence, scores)))


class Layout:
    """Lays out with one tokenizer.

    Args:
        made: a tokenizer that has our signs.
        spoken: whether an answer holds a quoted sentence's tokens after its label; they are
            forced, so they cost time and change what follows, nothing else.
        phrases: keys of `assistant.phrases.PHRASES` that an answer may be, in the order in which
            the network learnt them; none where the phrase book is not offered.

    Raises:
        ValueError: there are more phrases than signs for them.
    """

    def __init__(
        self, made: Tokenizer, *, spoken: bool = False, phrases: Sequence[str] = ()
    ) -> None:
        if len(phrases) > RESERVED:
            raise ValueError(f"{len(phrases)} phrases; there are {RESERVED} signs for them")
        self._made, self._spoken = made, spoken
        #: The phrases offered.
        self.phrases = tuple(phrases)
        self.book = sign(made, "phrase")
        self.end, self.abstain, self.cite = (sign(made, n) for n in ("end", "abstain", "cite"))
        self.labels = tuple(sign(made, f"s{n}") for n in range(1, LABELS + 1))

    def prompt(
        self, question: str, lines: Sequence[Line], sure: float, labels: Sequence[int]
    ) -> list[int]:
        """Ids of a prompt.

        Args:
            question: standalone; the middle of a very long one is left out.
            lines: sentences of one passage side by side.
            sure: see `Shown`.
            labels: of each line, from 1.
        """
        made = self._made
        asked = made.encode(question).ids
        if len(asked) > QUESTION:
            asked = [*asked[: QUESTION // 2], *asked[-QUESTION // 2 :]]
        begun = encode(made, [Sign("bos"), Sign(tongue(question)), Sign("user")])
        found = [*begun, *asked, self.end, sign(made, "evidence")]
        last = None
        for line, label in zip(lines, labels, strict=True):
            if line.heading and line.passage != last:
                words = made.encode(line.heading).ids[:HEADING]
                found += [sign(made, "heading"), *words, sign(made, "sentence")]
            last = line.passage
            signs = [Sign(f"e{bisect(CHANCE_BORDERS, line.chance)}")]
            if line.read is not None:
                scores = (line.read, line.answers)
                signs += [_step(score) for score in scores if score is not None]
            found += [*self._text(line.text), *encode(made, [*signs, Sign(f"s{label}")])]
        known = [Sign(f"e{bisect(SURE_BORDERS, sure)}"), _step(logit(sure))]
        return [*found, *encode(made, [*known, Sign("assistant")])]

    def option(self, label: int, text: str) -> Path:
        """The tokens that quote a sentence."""
        return (self.cite, self.labels[label - 1], *(self._text(text) if self._spoken else ()))

    def phrase(self, key: str) -> Path:
        """The tokens that say a phrase."""
        return (self.book, sign(self._made, f"reserved{self.phrases.index(key)}"))

    def said(self, path: Sequence[int]) -> str:
        """The key of the phrase that an answer is, "" where it is none."""
        wanted = tuple(path[:2])
        return next((key for key in self.phrases if self.phrase(key) == wanted), "")

    def opening(self, logits: Sequence[float], *, abstains: bool, drawn: bool = False) -> Path:
        """How an answer begins, where that is not left to chance.

        Args:
            logits: of quoting, abstaining and the phrase book as the first decision.
            abstains: whether the confidence is too low to quote.
            drawn: whether tokens are drawn; then only abstaining is decided here.
        """
        odds = np.exp(np.array(logits, dtype=np.float64) - max(logits))
        if self.phrases and odds[2] > SPOKEN * odds.sum():
            return () if drawn else (self.book,)
        if abstains:
            return (self.abstain,)
        return () if drawn else (self.cite,)

    def paths(
        self,
        texts: Sequence[str],
        labels: Sequence[int],
        clashes: Sequence[frozenset[int]] = (),
    ) -> Paths:
        """The answers there are about sentences with these labels."""
        options = [self.option(n, text) for n, text in zip(labels, texts, strict=True)]
        alone = [(self.abstain,), *(self.phrase(key) for key in self.phrases)]
        return Paths(options, alone, self.end, MOST, clashes)

    def offer(
        self,
        prompt: Prompt,
        evidence: Evidence,
        fitted: Fitted,
        barred: Sequence[tuple[int, int, int]] = (),
    ) -> Offer:
        """Lay out a prompt.

        Args:
            prompt: question and passages.
            evidence: of the prompt.
            fitted: the linear ranker.
            barred: spans (passage number, start, end) that must not be quoted again.
        """
        headings = [heading(p) for p in prompt.passages]
        weights = fitted.weights[tongue(prompt.question)]
        reads = fitted.resources.reranker is not None
        seen = shown(evidence, headings, weights, reads=reads)
        found = [evidence.candidates[i] for i in seen.kept]
        labels = seen.labels
        ids = self.prompt(prompt.question, seen.lines, seen.sure, labels)
        spans = [quotes(prompt, [c])[0] for c in found]
        taken = [any(inside(c, s) for s in barred) for c in found]
        left = [i for i, gone in enumerate(taken) if not gone]
        clashes = [
            frozenset(
                n
                for n, j in enumerate(left)
                if j != i and (inside(found[j], spans[i]) or inside(found[i], spans[j]))
            )
            for i in left
        ]
        kept = tuple(found[i] for i in left)
        paths = self.paths([c.text for c in kept], [labels[i] for i in left], clashes)
        return Offer(tuple(ids), paths, kept, seen.sure)

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self._made.encode(text).ids)

    def _text(self, text: str) -> list[int]:
        ids: list[int] = self._made.encode(text).ids[:TEXT]
        return ids


def _step(score: float) -> Sign:
    """The sign of a logit."""
    return Sign(f"r{bisect(READ_BORDERS, score)}")


def logit(chance: float) -> float:
    """Of a probability, which is kept from 0 and 1."""
    held = min(max(chance, _SURE), 1 - _SURE)
    return math.log(held / (1 - held))


def quoted(prompt: Prompt, offer: Offer, path: Sequence[int]) -> list[tuple[int, int, int]]:
    """(passage number, start, end) of what an answer quotes; neighbours become one quote.

    Raises:
        ValueError: `path` is no answer to the offer.
    """
    count = len(offer.candidates)
    chosen = [offer.candidates[n] for n in offer.paths.chosen(path) if n < count]
    return quotes(prompt, chosen)
