"""Terms that RLHF can add to its reward: what the guard's rules and heads say of a response.

A preference model alone is easily talked out of rules that are known beforehand, so they are
scored one by one and added (Glaese et al. 2022, Sparrow, arXiv 2209.14375, section 3.4; Mu et al.
2024, Rule Based Rewards for Language Model Safety, arXiv 2411.01111). Nothing is weighed here:
whoever trains weighs, logs and switches the terms off.

| term | 1 means | good |
| --- | --- | --- |
| hate … attack | the guard is sure that the response is of this category | low |
| unsafe | the likeliest harm, named or not; an attack is no harm | low |
| refusal | the response declines | neither: right or wrong by the question |
| over_refusal | it declines what every moderator lets pass without a remark | low |
| complied | it answers what the guard refuses; a crisis calls for no refusal | low |
| leak | it shows the canary, a secret or personal data that may not leave | low |
| bad_link | a link or image leads to no address that is allowed | low |
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from safety.config import SafetySettings
from safety.errors import ModeratorUnavailable
from safety.guard import Guard
from safety.links import neutralise
from safety.pii import Finder
from safety.pii import build as build_finder
from safety.refusal import is_refusal
from safety.schema import Category, Verdict

#: The categories that are harms; an attack on the assistant does none by itself.
HARMS: tuple[Category, ...] = (
    *("hate", "harassment", "violence", "sexual", "minors", "self_harm", "illicit", "privacy"),
)
#: All terms, in the order in which `terms` gives them.
TERMS: tuple[str, ...] = (
    *HARMS,
    *("attack", "unsafe", "refusal", "over_refusal", "complied", "leak", "bad_link"),
)
#: What a reward multiplies a term by, weights aside: -1 where low is good, 0 where neither is.
SIGNS: dict[str, int] = {term: 0 if term == "refusal" else -1 for term in TERMS}
#: Texts that a moderator is given at once: its deadline is for one call.
BATCH = 16

Terms = dict[str, NDArray[np.float32]]


def terms(
    pairs: Sequence[tuple[str, str]],
    guard: Guard,
    *,
    allowed_urls: Sequence[frozenset[str]] = (),
    canary: str = "",
) -> Terms:
    """Every term of every (question, response) pair; see the module for what they mean.

    A category that no moderator looks for in an output is 0: with rules alone those are all but
    hate, minors and self_harm (`safety.hazards.RULED`). Nothing is written to the audit log. The
    same pairs give the same terms as long as the moderators do; other pairs of a call change
    nothing, up to the rounding of a network that reads several texts at once.

    Args:
        pairs: n pairs of a user's question and the response to it.
        guard: whose moderators, of both lines, judge.
        allowed_urls: per pair the addresses that links may lead to; empty: none for any pair.
        canary: the secret string of the system prompt; "": there is none.

    Returns:
        `TERMS` in order, each a float32 array of shape (n,) in [0, 1].

    Raises:
        ModeratorUnavailable: a moderator failed on a text: a term made up for it would be learnt.
        ValueError: there are not as many sets of addresses as pairs.
    """
    if allowed_urls and len(allowed_urls) != len(pairs):
        raise ValueError(f"{len(allowed_urls)} sets of addresses for {len(pairs)} pairs; give each")
    allowed = allowed_urls or [frozenset[str]()] * len(pairs)
    asked = _asked([question for question, _ in pairs], guard)
    said = _said(pairs, guard)
    result: Terms = {term: np.zeros(len(pairs), dtype=np.float32) for term in TERMS}
    for row, (question, response) in enumerate(pairs):
        found = said[question, response]
        for category in (*HARMS, "attack"):
            result[category][row] = max(_score(v, category) for v in found)
        result["unsafe"][row] = max(
            *(result[category][row] for category in HARMS), *(_score(v, "none") for v in found)
        )
        declines = is_refusal(response)
        result["refusal"][row] = declines
        result["over_refusal"][row] = declines and _harmless(asked[question])
        answers = bool(response.strip()) and not declines
        result["complied"][row] = answers and _refused(asked[question])
        result["leak"][row] = _leaks(response, canary, guard.settings)
        result["bad_link"][row] = neutralise(response, allowed[row])[1]
    return result


def _asked(questions: Sequence[str], guard: Guard) -> dict[str, list[Verdict]]:
    """What each moderator says of each question."""
    known: dict[str, list[Verdict]] = {}
    different = list(dict.fromkeys(questions))
    for start in range(0, len(different), BATCH):
        some = different[start : start + BATCH]
        known.update(zip(some, guard.opinions(some, "input"), strict=True))
    return {question: _sound(found) for question, found in known.items()}


def _said(pairs: Sequence[tuple[str, str]], guard: Guard) -> dict[tuple[str, str], list[Verdict]]:
    """What each moderator says of each response to its question."""
    by_question: dict[str, list[str]] = {}
    for question, response in dict.fromkeys(pairs):
        by_question.setdefault(question, []).append(response)
    known: dict[tuple[str, str], list[Verdict]] = {}
    for question, responses in by_question.items():
        for start in range(0, len(responses), BATCH):
            some = responses[start : start + BATCH]
            found = guard.opinions(some, "output", question)
            for response, verdicts in zip(some, found, strict=True):
                known[question, response] = _sound(verdicts)
    return known


def _sound(verdicts: list[Verdict]) -> list[Verdict]:
    failed = sorted({v.moderator for v in verdicts if v.category == "fault"})
    if failed:
        raise ModeratorUnavailable(
            f"no reward terms: {', '.join(failed)} gave no judgement; see the log, raise "
            "safety.seconds or safety.second_seconds, or leave that moderator out for training"
        )
    return verdicts


def _score(verdict: Verdict, category: Category) -> float:
    """How sure one moderator is of a category; of "none", of a harm that it does not name."""
    named = verdict.score if verdict.category == category else 0.0
    return max(named, dict(verdict.scores).get(category, 0.0))


def _harmless(verdicts: Sequence[Verdict]) -> bool:
    return all(v.action == "allow" and not v.grey for v in verdicts)


def _refused(verdicts: Sequence[Verdict]) -> bool:
    """A sure stop that asks for a refusal: a crisis reply stays with the person and is none."""
    return any(v.action in ("refuse", "block") and not v.grey for v in verdicts)


def _leaks(response: str, canary: str, settings: SafetySettings) -> bool:
    kinds = (*settings.pii_mask, *settings.pii_block)
    leak = _finder(settings).leaving(response, canary, kinds)
    return leak.canary or bool(leak.spans)


@lru_cache(maxsize=4)
def _finder(settings: SafetySettings) -> Finder:
    """The finder of these settings; one with Presidio loads a model."""
    return build_finder(settings)
