"""What guard models call a harm, beside the MLCommons hazard and our category.

The hazards are those of the MLCommons AI safety taxonomy (S1 to S14 as Llama Guard numbers them);
"" is a name that has none there. A guard's own names are matched exactly.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from safety.config import SafetySettings
from safety.schema import SEVERITY, Category, Side, Verdict, stopping

Level = Literal["safe", "unsure", "unsafe"]
Table = dict[str, tuple[str, Category]]

#: Model card of Qwen3Guard-Gen: one of these, or None, after "Categories:".
QWEN3GUARD: Table = {
    "Violent": ("S1", "violence"),
    "Non-violent Illegal Acts": ("S2", "illicit"),
    "Sexual Content or Sexual Acts": ("S12", "sexual"),
    "PII": ("S7", "privacy"),
    "Personally Identifiable Information": ("S7", "privacy"),
    "Suicide & Self-Harm": ("S11", "self_harm"),
    "Unethical Acts": ("S10", "hate"),
    "Politically Sensitive Topics": ("S13", "illicit"),
    "Copyright Violation": ("S8", "illicit"),
    "Jailbreak": ("", "attack"),
}
#: Model cards of Llama Guard 3 and 4.
LLAMAGUARD: Table = {
    "S1": ("S1", "violence"),  # violent crimes
    "S2": ("S2", "illicit"),  # non-violent crimes
    "S3": ("S3", "sexual"),  # sex-related crimes
    "S4": ("S4", "minors"),  # child sexual exploitation
    "S5": ("S5", "harassment"),  # defamation
    "S6": ("S6", "illicit"),  # specialised advice
    "S7": ("S7", "privacy"),
    "S8": ("S8", "illicit"),  # intellectual property
    "S9": ("S9", "illicit"),  # indiscriminate weapons
    "S10": ("S10", "hate"),
    "S11": ("S11", "self_harm"),
    "S12": ("S12", "sexual"),
    "S13": ("S13", "illicit"),  # elections
    "S14": ("S14", "attack"),  # code interpreter abuse
}
#: Model card of ShieldGemma: its four policies.
SHIELDGEMMA: Table = {
    "Dangerous Content": ("S9", "illicit"),
    "Harassment": ("", "harassment"),
    "Hate Speech": ("S10", "hate"),
    "Sexually Explicit Information": ("S12", "sexual"),
}
#: Model cards of Granite Guardian 3.0 to 3.3: its harms; `harm` is their union.
GRANITE: Table = {
    "harm": ("S2", "illicit"),
    "social_bias": ("S10", "hate"),
    "violence": ("S1", "violence"),
    "sexual_content": ("S12", "sexual"),
    "profanity": ("", "harassment"),
    "unethical_behavior": ("S2", "illicit"),
    "jailbreak": ("", "attack"),
}
#: The thirteen categories of OpenAI's moderation endpoint.
OPENAI: Table = {
    "harassment": ("", "harassment"),
    "harassment/threatening": ("S1", "harassment"),
    "hate": ("S10", "hate"),
    "hate/threatening": ("S10", "hate"),
    "illicit": ("S2", "illicit"),
    "illicit/violent": ("S1", "illicit"),
    "self-harm": ("S11", "self_harm"),
    "self-harm/intent": ("S11", "self_harm"),
    "self-harm/instructions": ("S11", "self_harm"),
    "sexual": ("S12", "sexual"),
    "sexual/minors": ("S4", "minors"),
    "violence": ("S1", "violence"),
    "violence/graphic": ("S1", "violence"),
}
#: Those of Mistral's; `sexual` is also one of OpenAI's.
MISTRAL: Table = {
    "sexual": ("S12", "sexual"),
    "hate_and_discrimination": ("S10", "hate"),
    "violence_and_threats": ("S1", "violence"),
    "dangerous_and_criminal_content": ("S2", "illicit"),
    "dangerous": ("S9", "illicit"),
    "criminal": ("S2", "illicit"),
    "selfharm": ("S11", "self_harm"),
    "health": ("S6", "illicit"),
    "financial": ("S6", "illicit"),
    "law": ("S6", "illicit"),
    "pii": ("S7", "privacy"),
    "jailbreaking": ("", "attack"),
}
MODERATIONS: Table = {**OPENAI, **MISTRAL}
#: The tables by the file of safety/moderator/ that asks by them.
GUARDS: dict[str, Table] = {
    "qwen3guard": QWEN3GUARD,
    "llamaguard": LLAMAGUARD,
    "shieldgemma": SHIELDGEMMA,
    "granite": GRANITE,
    "openai": OPENAI,
}
#: Hazards that a guard's name holds beside its own, by the wording it was trained on.
ALSO: dict[tuple[str, str], tuple[str, ...]] = {
    ("shieldgemma", "Dangerous Content"): ("S1", "S11"),
}


@dataclass(frozen=True, slots=True)
class Hazard:
    """One harm that a guard saw: its own name, the MLCommons hazard or "", our category."""

    name: str
    mlcommons: str
    category: Category


@dataclass(frozen=True, slots=True)
class Finding:
    """What a guard says of one text; `score` in [0, 1] is how likely it is unsafe."""

    level: Level
    hazards: tuple[Hazard, ...] = ()
    score: float = 0.0


def hazard(table: Table, name: str) -> Hazard:
    """The row of a name. Raises KeyError where the guard has no such name."""
    return Hazard(name, *table[name])


def by_score(scores: Sequence[tuple[float, Hazard]]) -> tuple[Hazard, ...]:
    """The hazards, likeliest first: among equally severe ones the first names the category."""
    return tuple(h for _, h in sorted(scores, key=lambda pair: -pair[0]))


def level(score: float, settings: SafetySettings) -> Level:
    """Where a score lies: below, in or above the grey band."""
    if score >= settings.guard_high:
        return "unsafe"
    return "unsure" if score >= settings.guard_low else "safe"


def worst(findings: Sequence[Finding]) -> Finding:
    """Of several looks at one text the worst, with the hazards of all that are as bad."""
    order: tuple[Level, ...] = ("safe", "unsure", "unsafe")
    top: Level = max((f.level for f in findings), key=order.index, default="safe")
    same = [f for f in findings if f.level == top]
    seen = dict.fromkeys(h for f in same for h in f.hazards)
    return Finding(top, tuple(seen), max((f.score for f in findings), default=0.0))


def verdict(
    finding: Finding, text: str, side: Side, moderator: str, settings: SafetySettings
) -> Verdict:
    """Our verdict on a finding.

    Hazards in `guard_ignored` do not count; of the others the one whose stop is most severe names
    the category. An unsure finding is grey, and stops or is let pass as `guard_unsure` says.
    """
    ignored = settings.guard_ignored
    counted = [h for h in finding.hazards if h.mlcommons not in ignored and h.name not in ignored]
    if finding.level == "safe" or not counted:
        score = finding.score if finding.level == "safe" else 0.0
        return Verdict("allow", "none", score, side, moderator, safe_text=text)
    chief = max(counted, key=lambda h: SEVERITY.index(stopping(h.category, side)))
    grey = finding.level == "unsure"
    action = stopping(chief.category, side)
    slug = re.sub(r"[^a-z0-9]+", "_", chief.name.lower()).strip("_")
    return Verdict(
        "annotate" if grey and settings.guard_unsure == "pass" else action,
        chief.category,
        finding.score,
        side,
        moderator,
        reason=f"{chief.category}.{moderator}.{slug}",
        safe_text=text,
        grey=grey,
    )
