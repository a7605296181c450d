"""Which hazards are looked for, by what, and a verdict under OpenAI's names.

The base is the MLCommons AI safety taxonomy, S1 to S14 as Llama Guard numbers them, and two kinds
of ours that it has no number for. A hazard with no or few training rows counts as not covered by
the built-in model; fixed rules or a guard model serve it, or nothing does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from safety.config import SafetySettings
from safety.moderator._hazards import ALSO, GUARDS, MISTRAL, OPENAI, Table
from safety.schema import Category, Side, Verdict


@dataclass(frozen=True, slots=True)
class Coverage:
    """One hazard, and what of this package knows it.

    `id` is MLCommons' number, or the category where it has none; `names` are English and Chinese.
    `trained` says whether the built-in model learnt it: "few" is fewer than a hundred rows that a
    source labels so, too few to rely on and not measured. `rules` are the languages in which the
    fixed rules stop a plain request of that kind.
    """

    id: str
    category: Category
    names: tuple[str, str]
    trained: Literal["yes", "few", "no"]
    rules: tuple[str, ...] = ()

    @property
    def numbered(self) -> bool:
        """Whether MLCommons has a number for it."""
        return bool(re.fullmatch(r"S\d+", self.id))

    @property
    def label(self) -> tuple[str, str]:
        """Number and name, English and Chinese."""
        number = f"{self.id} " if self.numbered else ""
        return number + self.names[0], number + self.names[1]


BOTH = ("en", "zh")
#: Rows by source: S3 human trafficking (catqa, jade); S5 reputation (jade); S8 theft of
#: intellectual property (catqa); S9 weapon making and hazardous material (catqa). No row is used
#: that a source labels S4, S6, S13 or S14. A test counts them where the data is.
HAZARDS: tuple[Coverage, ...] = (
    Coverage("S1", "violence", ("violent crimes", "暴力犯罪"), "yes", BOTH),
    Coverage("S2", "illicit", ("non-violent crimes", "非暴力犯罪"), "yes", BOTH),
    Coverage("S3", "sexual", ("sex-related crimes", "性犯罪"), "few", BOTH),
    Coverage("S4", "minors", ("child sexual exploitation", "儿童性剥削"), "no", BOTH),
    Coverage("S5", "harassment", ("defamation", "诽谤"), "few", ("zh",)),
    Coverage("S6", "illicit", ("specialised advice", "专业建议"), "no"),
    Coverage("S7", "privacy", ("privacy", "隐私"), "yes", BOTH),
    Coverage("S8", "illicit", ("intellectual property", "知识产权"), "few", ("zh",)),
    Coverage("S9", "illicit", ("indiscriminate weapons", "大规模杀伤性武器"), "few", BOTH),
    Coverage("S10", "hate", ("hate", "仇恨"), "yes", BOTH),
    Coverage("S11", "self_harm", ("suicide and self-harm", "自杀与自伤"), "yes", BOTH),
    Coverage("S12", "sexual", ("sexual content", "色情内容"), "yes", BOTH),
    Coverage("S13", "illicit", ("elections", "选举"), "no", BOTH),
    Coverage("S14", "attack", ("code interpreter abuse", "滥用代码解释器"), "no"),
    Coverage("harassment", "harassment", ("harassment and insults", "骚扰与侮辱"), "yes", BOTH),
    Coverage("attack", "attack", ("attacks on the assistant", "对助手的攻击"), "yes", BOTH),
)
#: Categories that the rules look for on each side; every other one is not judged there by them.
RULED: dict[Side, frozenset[Category]] = {
    "input": frozenset(
        [
            *("hate", "harassment", "violence", "sexual", "minors", "self_harm", "illicit"),
            *("privacy", "attack"),
        ]
    ),
    "passage": frozenset(["attack"]),
    "output": frozenset(["hate", "minors", "self_harm"]),
}


def named(hazard: Coverage, guard: str) -> tuple[str, ...]:
    """What a guard of `GUARDS`, or "mistral", calls the hazard; empty where it has no name."""
    table = MISTRAL if guard == "mistral" else GUARDS[guard]
    return tuple(
        name
        for name, (number, category) in table.items()
        if (number == hazard.id if hazard.numbered else (number, category) == ("", hazard.category))
        or hazard.id in ALSO.get((guard, name), ())
    )


def served(hazard: Coverage, settings: SafetySettings) -> tuple[str, ...]:
    """The moderators set up, of both lines, that look for the hazard; the first ones come first.

    The built-in model counts where it was trained for it. A guard model counts where it has a
    name for it that `guard_ignored` does not leave out. Rules of one language only name it:
    "rules (zh)".
    """
    partly = f" ({', '.join(hazard.rules)})" if hazard.rules != BOTH else ""
    return tuple(
        name + (partly if name == "rules" else "")
        for name in dict.fromkeys((*settings.moderators, *settings.second))
        if _looks(name, hazard, settings)
    )


def _looks(moderator: str, hazard: Coverage, settings: SafetySettings) -> bool:
    if moderator == "rules":
        return bool(hazard.rules)
    if moderator == "classifier":
        return hazard.trained == "yes"
    if moderator == "chat_guard":
        moderator = settings.guard_family
    elif moderator == "openai" and "mistral" in settings.guard_model.lower():
        moderator = "mistral"
    if moderator not in (*GUARDS, "mistral") or hazard.id in settings.guard_ignored:
        return False
    return not set(named(hazard, moderator)) <= set(settings.guard_ignored)


@dataclass(frozen=True, slots=True)
class Mark:
    """What is known of one of OpenAI's names.

    `flagged` is True where the text was stopped for it, False where it was not, None where that
    cannot be said (None counts as not flagged in an `if`). `score` in [0, 1], or None where no
    moderator gives one. `why`: "judged"; "part", the name is a part of a category of ours and no
    moderator tells it from the rest; "uncovered", no moderator asked looks for it.
    """

    flagged: bool | None
    score: float | None
    why: Literal["judged", "part", "uncovered"]


#: OpenAI's names that are parts of another of them.
PARTS: dict[str, str] = {
    "harassment/threatening": "harassment",
    "hate/threatening": "hate",
    "illicit/violent": "illicit",
    "self-harm/intent": "self-harm",
    "self-harm/instructions": "self-harm",
    "violence/graphic": "violence",
}
#: Rules that say which part it is: a statement about oneself, urging another, buying weapons.
EXACT: dict[str, str] = {
    "self_harm.present": "self-harm/intent",
    "self_harm.present_zh": "self-harm/intent",
    "self_harm.urge": "self-harm/instructions",
    "illicit.explosive": "illicit/violent",
    "illicit.explosive_direct": "illicit/violent",
    "illicit.weapon": "illicit/violent",
}
#: What the guard adds to a reason when it weighs earlier turns or a missing second opinion.
_ADDED = re.compile(r"(?:\.turns|\.unconfirmed)+\Z")


def openai_view(verdicts: Verdict | Sequence[Verdict]) -> dict[str, Mark]:
    """The thirteen names of OpenAI's moderation API, from one or several verdicts on one text.

    A verdict of `Guard.screen` carries the scores of the moderator that decided; the verdicts of
    `Guard.opinions` on the text together say more. A score of 0 stands only where the rules
    looked and none fired. A part of a category ("hate/threatening") is False where the whole is
    not flagged, True where a rule or the endpoint says so by name, and otherwise unknown: the
    built-in model scores the whole only. Our categories `privacy` and `attack` have no name
    there and show nowhere in the view.
    """
    given = [verdicts] if isinstance(verdicts, Verdict) else list(verdicts)
    view: dict[str, Mark] = {}
    for name, (_, category) in OPENAI.items():
        if name not in PARTS:
            looks = [look for v in given if (look := _look(v, category)) is not None]
            view[name] = _together(looks)
    for name, whole in PARTS.items():
        sure = [v.score for v in given if _acts(v) and _exact(v) == name]
        if sure:
            view[name] = Mark(True, max(sure), "judged")
        elif view[whole].why == "uncovered":
            view[name] = view[whole]
        else:
            view[name] = Mark(None if view[whole].flagged is not False else False, None, "part")
    return {name: view[name] for name in OPENAI}


def _look(verdict: Verdict, category: Category) -> tuple[bool | None, float | None] | None:
    """(flagged, score) by one verdict; None where its moderator does not look for that."""
    scores = dict(verdict.scores)
    if verdict.category == "fault":
        return None
    if verdict.category == category:
        return _acts(verdict), scores.get(category, verdict.score)
    if category not in _looked(verdict):
        return None
    if _acts(verdict):  # stopped for something else: whether for this as well is not told
        return None, scores.get(category)
    silent = verdict.moderator == "rules" and verdict.action == "allow"
    return False, scores.get(category, 0.0 if silent else None)


def _together(looks: Sequence[tuple[bool | None, float | None]]) -> Mark:
    if not looks:
        return Mark(None, None, "uncovered")
    flags = [flag for flag, _ in looks]
    flagged = True if True in flags else None if None in flags else False
    return Mark(flagged, max((s for _, s in looks if s is not None), default=None), "judged")


def _looked(verdict: Verdict) -> frozenset[str]:
    """The categories that the moderator of a verdict looked for."""
    if verdict.moderator == "rules":
        return frozenset(RULED[verdict.side])
    held = _categories(GUARDS.get(verdict.moderator, {}))
    if verdict.moderator == "openai":  # a verdict does not tell which service was asked
        held &= _categories(MISTRAL)
    return frozenset(held.union(category for category, _ in verdict.scores))


def _categories(table: Table) -> set[str]:
    return {category for _, category in table.values()}


def _acts(verdict: Verdict) -> bool:
    return verdict.action not in ("allow", "annotate")


def _exact(verdict: Verdict) -> str:
    """OpenAI's name that a reason tells, "" where it tells none."""
    reason = _ADDED.sub("", verdict.reason)
    name = EXACT.get(reason, "")
    if verdict.moderator == "openai":
        slug = reason.rsplit(".", 1)[-1]
        name = next((n for n in OPENAI if re.sub(r"[^a-z0-9]+", "_", n) == slug), "")
    return name if name and OPENAI[name][1] == verdict.category else ""
