"""How each guard model is asked and what its answers mean; how a query travels is not said here.

A family is a function: it asks as often as it needs and returns what it found. An answer that is
not of the form the model was trained to give is no judgement. Text that is judged cannot pose as
the frame around it: the marks that the models' templates use are broken first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from safety.config import SafetySettings
from safety.errors import ModeratorUnavailable
from safety.moderator._hazards import (
    GRANITE,
    LLAMAGUARD,
    QWEN3GUARD,
    SHIELDGEMMA,
    Finding,
    Hazard,
    by_score,
    hazard,
    level,
)
from safety.schema import Side


@dataclass(frozen=True, slots=True)
class Query:
    """(role, text) messages, options of the chat template, and how long the answer may be."""

    messages: tuple[tuple[str, str], ...]
    tokens: int
    options: Mapping[str, Any] = field(default_factory=dict)

    def shorter(self) -> Query | None:
        """The query with half of the user's question; None where no question is left to cut."""
        (role, asked), *rest = self.messages
        if not rest or not asked:
            return None
        return replace(self, messages=((role, cut(asked, len(asked) // 2)), *rest))


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model wrote; `pieces` are (start, end, probability) of its tokens, if known."""

    text: str
    pieces: tuple[tuple[int, int, float], ...] = ()

    def chance(self, start: int, end: int) -> float:
        """Probability of the stretch [start, end); 1 where no probabilities are known."""
        chance = 1.0
        for first, last, probability in self.pieces:
            if first < end and last > start:
                chance *= probability
        return chance


Ask = Callable[[Query], Answer]


class Family(Protocol):
    """Judges one text; `question` is what it answers, on the output side."""

    def __call__(
        self, ask: Ask, text: str, side: Side, settings: SafetySettings, question: str = ""
    ) -> Finding:
        """What was found; raises ModeratorUnavailable where the answer is no judgement."""
        ...


#: Control tokens and frame marks of the four families' templates.
_FRAME = re.compile(
    r"<(?=/?(?:\|[^<>|\s]{1,40}\||(?:BEGIN|END) [A-Z ]{1,40}|"
    r"(?:start|end)_of_(?:turn|risk_definition)|guardian|think|no-think|score|confidence|bos|eos|s)"
    r"\s*>)",
    re.IGNORECASE,
)
#: How the templates name the turns of a conversation that they quote.
_TURN = re.compile(
    r"^([^\S\n]*(?:user|assistant|agent|human question|chatbot response)[^\S\n]*):",
    re.IGNORECASE | re.MULTILINE,
)
#: What stands for the cut-out middle of a long question.
_GAP = " … "
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)


def plain(text: str) -> str:
    """The text with no mark in it that a template could take for its own."""
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return _FRAME.sub("‹", clean)


def cut(text: str, most: int) -> str:
    """Beginning and end of a text, `most` characters together; "" where there is no room."""
    if len(text) <= most:
        return text
    keep = (most - len(_GAP)) // 2
    return f"{text[:keep]}{_GAP}{text[-keep:]}" if keep > 0 else ""


def qwen3guard(
    ask: Ask, text: str, side: Side, settings: SafetySettings, question: str = ""
) -> Finding:
    """Qwen3Guard-Gen: "Safety: Safe|Controversial|Unsafe", "Categories: …" (card, quickstart)."""
    answer = ask(Query(_messages(text, side, question), 96))
    said = _unthought(answer.text)
    labels = list(re.finditer(r"^\s*Safety:\s*(Safe|Unsafe|Controversial)\s*$", said, re.M))
    lines = re.findall(r"^\s*Categories:\s*(.*?)\s*$", said, re.M)
    if len(labels) != 1 or len(lines) != 1:
        raise _malformed("Qwen3Guard", said)
    names = [n.strip() for n in lines[0].split(",") if n.strip() not in ("", "None")]
    hazards = _named(QWEN3GUARD, names, "Qwen3Guard", said)
    label = labels[0][1]
    chance = answer.chance(*labels[0].span(1))
    if label == "Safe" and not hazards:
        return Finding("safe", score=1 - chance)
    if not hazards:
        raise _malformed("Qwen3Guard", said)
    if label == "Unsafe":
        return Finding(level(max(chance, settings.guard_low), settings), hazards, chance)
    return Finding("unsure", hazards, 0.5)


def llamaguard(
    ask: Ask, text: str, side: Side, settings: SafetySettings, question: str = ""
) -> Finding:
    """Llama Guard 3 and 4: "safe", or "unsafe" and a line of hazards (card, prompt format)."""
    answer = ask(Query(_messages(text, side, question), 32))
    found = re.fullmatch(r"\s*(safe|unsafe\s*\n\s*(S\d+(?:\s*,\s*S\d+)*))\s*", answer.text)
    if found is None:
        raise _malformed("Llama Guard", answer.text)
    start = found.start(1)
    if found[2] is None:
        return Finding("safe", score=1 - answer.chance(start, start + 4))
    hazards = _named(LLAMAGUARD, re.findall(r"S\d+", found[2]), "Llama Guard", answer.text)
    chance = answer.chance(start, start + 6)
    return Finding(level(max(chance, settings.guard_low), settings), hazards, chance)


#: ShieldGemma's guidelines, worded as it was trained on them (its model card, both use cases).
GUIDELINES = {
    "Dangerous Content": (
        "harming oneself and/or others (e.g., accessing or building firearms and explosive "
        "devices, promotion of terrorism, instructions for suicide)."
    ),
    "Harassment": (
        "is malicious, intimidating, bullying, or abusive content targeting another individual "
        "(e.g., physical threats, denial of tragic events, disparaging victims of violence)."
    ),
    "Hate Speech": (
        "targeting identity and/or protected attributes (e.g., racial slurs, promotion of "
        "discrimination, calls to violence against protected groups) or "
        "dehumanizing/belittling/vilifying on the bases of race, ethnicity, religion, disability, "
        "age, nationality, veteran status, sexual orientation, gender, gender identity, caste, or "
        "any other protected status. We do allow content that includes a reference to a protected "
        "individual or group in a positive manner."
    ),
    "Sexually Explicit Information": (
        "contains references to sexual acts or other lewd content (e.g., sexually graphic "
        "descriptions, content aimed at causing arousal). Medical or scientific terms related to "
        "human anatomy or sex education are permitted."
    ),
}


def shieldgemma(
    ask: Ask, text: str, side: Side, settings: SafetySettings, question: str = ""
) -> Finding:
    """ShieldGemma: one question per policy, the probability of "Yes" is the score (card)."""
    subject = "The prompt shall not contain or seek generation of content that"
    if side == "output":
        subject = "The chatbot shall not generate content that"
    scores: list[tuple[float, Hazard]] = []
    for name, body in GUIDELINES.items():
        options = {"guideline": f'"No {name}": {subject} {body}'}
        answer = ask(Query(_messages(text, side, question), 4, options))
        scores.append((_yes(answer, "ShieldGemma"), hazard(SHIELDGEMMA, name)))
    return _scored(scores, settings)


def granite(
    ask: Ask, text: str, side: Side, settings: SafetySettings, question: str = ""
) -> Finding:
    """Granite Guardian 3.x: yes or no to a named risk; 3.3 says it in <score> tags (cards).

    `harm` is asked first; the risks under it only where it is not clearly absent.
    """

    def asked(risk: str) -> tuple[float, Hazard]:
        # 3.0 to 3.2 name it risk_name, 3.3 criteria_id
        options = {"guardian_config": {"risk_name": risk, "criteria_id": risk}, "think": False}
        answer = ask(Query(_messages(text, side, question), 32, options))
        return _yes(answer, "Granite Guardian"), hazard(GRANITE, risk)

    scores = [asked("harm")]
    if scores[0][0] >= settings.guard_low:
        parts = [asked(r) for r in GRANITE if r not in ("harm", "jailbreak")]
        known = by_score([part for part in parts if part[0] >= settings.guard_low])
        # the union decides how bad it is, its parts what it is
        scores = [(scores[0][0], h) for h in known] or scores
    if side != "output":
        scores.append(asked("jailbreak"))
    return _scored(scores, settings)


FAMILIES: dict[str, Family] = {
    "qwen3guard": qwen3guard,
    "llamaguard": llamaguard,
    "shieldgemma": shieldgemma,
    "granite": granite,
}

_YES = re.compile(
    r"\s*(?:<score>\s*(yes|no)\s*</score>|(yes|no)\b\.?)\s*"
    r"(?:<confidence>\s*(high|low)\s*</confidence>)?\s*",
    re.IGNORECASE,
)


def _yes(answer: Answer, model: str) -> float:
    """Probability of yes; one given with low confidence counts half-way at most."""
    said = _unthought(answer.text)
    found = _YES.fullmatch(said) if model != "ShieldGemma" else _YES.match(said)
    if found is None:
        raise _malformed(model, said)
    group = 1 if found[1] else 2
    chance = answer.chance(*found.span(group))
    score = chance if found[group].lower() == "yes" else 1 - chance
    return 0.5 if (found[3] or "").lower() == "low" else score


def _scored(scores: list[tuple[float, Hazard]], settings: SafetySettings) -> Finding:
    top = max(score for score, _ in scores)
    found = level(top, settings)
    if found == "safe":
        return Finding("safe", score=top)
    return Finding(found, by_score([s for s in scores if level(s[0], settings) == found]), top)


def _named(table: Mapping[str, Any], names: list[str], model: str, said: str) -> tuple[Hazard, ...]:
    try:
        return tuple(dict.fromkeys(hazard(dict(table), name) for name in names))
    except KeyError:
        raise _malformed(model, said) from None


def _unthought(text: str) -> str:
    """The answer with its reasoning blanked, so that offsets hold."""
    return _THOUGHT.sub(lambda m: " " * len(m[0]), text)


def _messages(text: str, side: Side, question: str) -> tuple[tuple[str, str], ...]:
    """An answer is judged as the assistant's, after its question; all else as the user's.

    A question cannot pose as a conversation, with an answer and another question in it.
    """
    if side == "output":
        return (("user", _TURN.sub(r"\1›", plain(question))), ("assistant", plain(text)))
    return (("user", plain(text)),)


def _malformed(model: str, said: str) -> ModeratorUnavailable:
    return ModeratorUnavailable(
        f"{model} answered {len(said)} characters that are no judgement; check that guard_model "
        "is a model of that family"
    )
