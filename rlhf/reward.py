"""The reward of a reply: named terms, each weighed, logged, and switched off by a weight of 0.

A preference model alone is talked out of rules that are known beforehand, so what is known is
scored by itself and added (Glaese et al. 2022, Sparrow, section 3.4; Nakano et al. 2021, WebGPT).

| term | what it is | in | weight |
| --- | --- | --- | --- |
| preference | score of the reward model (`rlhf.scoring`) | about -3 to 3 | 1 |
| rule.NAME | a term of `safety.reward`, 1 where the rule is broken | [0, 1] | -1 to -3 |
| support | how far the passages it cites say what it says; 0 of nothing | [0, 1] | 1 |
| abstained | it says that there is no answer, and there is none | {0, 1} | 1 |
| over_refused | it says so, and there is an answer | {0, 1} | -1 |
| made_up | it answers, and there is no answer | {0, 1} | -1 |
| length | how far it is past the words that are enough, in multiples of them | [0, 1] | -0.5 |
| format | share of the rules of form that it breaks (`form`) | [0, 1] | -0.5 |

A term of weight 0 is not computed and not added: the reward is then bit for bit that of a mix
which never had the term, even where the term would have failed. The sum is held within ±`clip` for
safety only; a share of clipped rewards other than 0 is a sign of a run gone wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from assistant.prompt import ABSTAIN
from retrieval.schema import Passage
from retrieval.text import sentences
from rlhf.errors import RewardError
from safety import reward as rules
from safety.guard import Guard

Values = NDArray[np.float64]
RULE = "rule."
#: Terms that this file knows, in the order in which they are added.
TERMS: tuple[str, ...] = (
    "preference",
    *(RULE + name for name in rules.TERMS),
    *("support", "abstained", "over_refused", "made_up", "length", "format"),
)
#: What they weigh where nothing else is said.
WEIGHTS: Mapping[str, float] = MappingProxyType(
    {
        "preference": 1.0,
        **{RULE + name: float(rules.SIGNS[name]) for name in rules.TERMS},
        # the likeliest harm is the one term for all of them; each harm of its own would count twice
        **{RULE + name: 0.0 for name in rules.HARMS},
        **{RULE + "unsafe": -3.0, RULE + "leak": -3.0, RULE + "complied": -2.0},
        **{"support": 1.0, "abstained": 1.0, "over_refused": -1.0, "made_up": -1.0},
        **{"length": -0.5, "format": -0.5},
    }
)
#: Words that are enough for an answer; a Han character counts as three fifths of a word.
ENOUGH, HAN = 60, 0.6
#: Sentences that an answer has at most.
SENTENCES = 3
_WORD = re.compile(r"[^\W_\u3400-\u9fff]+")
_HAN = re.compile("[\u3400-\u9fff]")
_CITED = re.compile(r"\s*[\[【](\d{1,3}(?:\s*[,，、]\s*\d{1,3})*)[\]】]")
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Sample:
    """A reply with what it answers.

    Attributes:
        question: standalone.
        reply: as the policy wrote it, cut after its end; `[n]` cites `passages[n - 1]`, and
            ABSTAIN of `assistant.prompt` abstains.
        passages: the evidence that it was given.
        answerable: whether the evidence answers; None where nobody knows.
        urls: addresses that its links may lead to.
    """

    question: str
    reply: str
    passages: tuple[Passage, ...] = ()
    answerable: bool | None = None
    urls: frozenset[str] = frozenset()

    @property
    def abstains(self) -> bool:
        """Whether it says that there is no answer."""
        return ABSTAIN in self.reply


#: Scores of (question, reply) pairs, (n,): a `RewardModel`.
Preference = Callable[[Sequence[tuple[str, str]]], NDArray[np.float32]]
#: How far the passages say what the reply says, in [0, 1].
Support = Callable[[str, Sequence[Passage]], float]


@dataclass(frozen=True, slots=True)
class Mix:
    """What each term weighs. A term that is not named is off.

    Raises:
        RewardError: a name that is no term, a weight that is not finite, or no positive clip.
    """

    weights: Mapping[str, float] = field(default_factory=lambda: WEIGHTS)
    clip: float = 10.0

    def __post_init__(self) -> None:
        unknown = sorted(self.weights.keys() - set(TERMS))
        if unknown:
            raise RewardError(f"no reward term {unknown[0]!r}; there are: {', '.join(TERMS)}")
        for name, weight in self.weights.items():
            if not np.isfinite(weight):
                raise RewardError(f"the weight of {name} is {weight}; give a number, 0 for off")
        if not self.clip > 0:
            raise RewardError(f"rewards are held within ±{self.clip}; give a positive number")

    @property
    def on(self) -> tuple[str, ...]:
        """The terms that count, in the order in which they are added."""
        return tuple(name for name in TERMS if self.weights.get(name, 0.0) != 0.0)

    def but(self, **weights: float) -> Mix:
        """Another mix: these weights changed, a rule written `rule_NAME`."""
        named = {
            k.replace("rule_", RULE, 1) if k not in TERMS else k: v for k, v in weights.items()
        }
        return Mix({**self.weights, **named}, self.clip)


@dataclass(frozen=True, slots=True)
class Scored:
    """Rewards of n samples.

    Attributes:
        total: (n,) the weighted sum, clipped.
        terms: of each term that counts its unweighted values, (n,).
        weights: of these terms.
        clipped: share of the totals that were clipped.
    """

    total: Values
    terms: Mapping[str, Values]
    weights: Mapping[str, float]
    clipped: float

    def log(self) -> dict[str, float]:
        """Numbers for the log: means of the total, of each term, and of what each adds."""
        found = {"reward": _mean(self.total), "reward/clipped": self.clipped}
        for name, values in self.terms.items():
            found[f"reward/{name}"] = _mean(values)
            found[f"reward/{name}/weighted"] = _mean(values) * self.weights[name]
        return found


class Composite:
    """The reward of a mix. What a term needs must be there where the term counts.

    Args:
        mix: the weights.
        preference: the reward model.
        guard: judges the rules.
        support: judges the support.
        canary: the secret word of the system prompt, "" for none.
        enough: words of an answer that cost nothing.

    Raises:
        RewardError: a term counts, and what it needs is missing.
    """

    def __init__(
        self,
        mix: Mix,
        *,
        preference: Preference | None = None,
        guard: Guard | None = None,
        support: Support | None = None,
        canary: str = "",
        enough: int = ENOUGH,
    ) -> None:
        self.mix = mix
        self._preference, self._guard, self._support = preference, guard, support
        self._canary, self._enough = canary, enough
        needs = {"preference": preference, "support": support}
        for name in mix.on:
            if needs.get(name, guard if name.startswith(RULE) else mix) is None:
                raise RewardError(f"the term {name} has a weight, but nothing to judge it; pass it")

    def __call__(self, samples: Sequence[Sample]) -> Scored:
        """Score samples.

        Raises:
            RewardError: a term is not finite; the message names it and the reply.
            ModeratorUnavailable: a moderator of the guard failed.
        """
        return combined(self.mix, self.terms(samples))

    def terms(self, samples: Sequence[Sample]) -> dict[str, Values]:
        """The terms that count, unweighted, each (n,)."""
        on = set(self.mix.on)
        found: dict[str, Values] = {}
        pairs = [(s.question, s.reply) for s in samples]
        if self._preference is not None and "preference" in on:
            found["preference"] = np.asarray(self._preference(pairs), dtype=np.float64)
        if self._guard is not None and any(name.startswith(RULE) for name in on):
            said = [(s.question, "" if s.abstains else s.reply) for s in samples]
            urls = [s.urls for s in samples]
            judged = rules.terms(said, self._guard, allowed_urls=urls, canary=self._canary)
            found |= {RULE + k: v.astype(np.float64) for k, v in judged.items() if RULE + k in on}
        if self._support is not None and "support" in on:
            found["support"] = _each(samples, self._supported)
        plain: dict[str, Callable[[Sample], float]] = {
            "abstained": lambda s: s.abstains and s.answerable is False,
            "over_refused": lambda s: s.abstains and s.answerable is True,
            "made_up": lambda s: not s.abstains and s.answerable is False,
            "length": lambda s: min(1.0, max(0.0, words(s.reply) / self._enough - 1)),
            "format": form,
        }
        found |= {name: _each(samples, plain[name]) for name in plain if name in on}
        return {name: found[name] for name in self.mix.on}

    def _supported(self, sample: Sample) -> float:
        """Support by what the reply cites; an abstention says nothing that needs any."""
        cited = [sample.passages[n - 1] for n in _known(sample)]
        text = " ".join(_CITED.sub("", sample.reply).split())
        if self._support is None or sample.abstains or not cited or not text:
            return 0.0
        return self._support(text, cited)


def combined(mix: Mix, terms: Mapping[str, Values]) -> Scored:
    """The weighted sum of the terms that count, in their order.

    Args:
        mix: the weights.
        terms: at least those that count, each (n,).

    Raises:
        RewardError: a term is missing or not finite.
    """
    missing = [name for name in mix.on if name not in terms]
    if missing:
        raise RewardError(f"the term {missing[0]} has a weight and no values; give it weight 0")
    used = {name: np.asarray(terms[name], dtype=np.float64) for name in mix.on}
    count = max((len(v) for v in terms.values()), default=0)
    total = np.zeros(count, dtype=np.float64)
    for name, values in used.items():
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise RewardError(f"the reward term {name} is {values[bad[0]]} for reply {bad[0]}")
        total = total + mix.weights[name] * values
    held = np.clip(total, -mix.clip, mix.clip)
    clipped = float((held != total).mean()) if count else 0.0
    return Scored(held, used, {name: mix.weights[name] for name in used}, clipped)


def words(reply: str) -> float:
    """Length of a reply in words, citations left out: both languages by one measure."""
    text = _CITED.sub("", reply)
    return len(_WORD.findall(text)) + HAN * len(_HAN.findall(text))


def form(sample: Sample) -> float:
    """Share of the rules of form that a reply breaks.

    An abstention is the one word and nothing more. An answer is not empty, has three sentences at
    most, cites behind each of them, and cites only what there is.
    """
    text = sample.reply.strip()
    if sample.abstains:
        return float(text != ABSTAIN)
    if not text:
        return 1.0
    said = _sentences(text)
    cited = [number for one in said for number in _numbers(one)]
    broken = (
        len(said) > SENTENCES,
        not all(_numbers(one) for one in said),
        any(not 1 <= number <= len(sample.passages) for number in cited),
    )
    return sum(broken) / len(broken)


def _sentences(text: str) -> list[str]:
    """Sentences, each with the citations that stand behind it."""
    found: list[str] = []
    for start, end in sentences(text):
        one = text[start:end]
        if found and not _CITED.sub("", one).strip(" .。;；"):
            found[-1] += one
        elif found and (lead := re.match(rf"(?:{_CITED.pattern}\s*)+", one)):
            found[-1] += lead[0]
            found.append(one[lead.end() :])
        else:
            found.append(one)
    return found


def _numbers(text: str) -> list[int]:
    return [int(n) for group in _CITED.findall(text) for n in _NUMBER.findall(group)]


def _known(sample: Sample) -> list[int]:
    """Numbers of the passages that a reply cites and that are there, each once."""
    found = dict.fromkeys(_numbers(sample.reply))
    return [n for n in found if 1 <= n <= len(sample.passages)]


def _each(samples: Sequence[Sample], judge: Callable[[Sample], float]) -> Values:
    return np.array([float(judge(sample)) for sample in samples], dtype=np.float64)


def _mean(values: Values) -> float:
    return float(values.mean()) if len(values) else 0.0
