"""A rule policy: phrase groups and rules, read from TOML, checked, hashed.

A rule fires where its `parts` (groups, alternatives joined by `|`) follow one another within
`within` characters of one sentence, and no group of `unless` occurs in that sentence (with
`excuse_within`, at most so many characters away). Scope `text` lets the chain and the excuse
range over the whole text; `any_order` drops the order. A rule may have a `pattern` (a regular
expression on lower-case text) instead of parts.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from safety.errors import PolicyInvalid
from safety.lexicon import Hit, Lexicon, Sentences, chain, near
from safety.schema import Action, Category, Side, Span

VERSION = 1
_FIELDS = frozenset(
    [
        *["id", "category", "sides", "action", "score", "parts", "pattern", "within", "scope"],
        *["any_order", "unless", "excuse_within"],
    ]
)
#: A repeated group with an open end inside it backtracks without bound.
_EXPLOSIVE = re.compile(r"[*+}]\)[*+{]|\.[*+]")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; see the module's docstring for what the fields mean."""

    id: str
    category: Category
    sides: tuple[Side, ...]
    action: Action
    score: float
    parts: tuple[tuple[str, ...], ...]
    pattern: re.Pattern[str] | None
    within: int
    whole_text: bool
    any_order: bool
    unless: tuple[str, ...]
    excuse_within: int | None


@dataclass(frozen=True, slots=True)
class Match:
    """A rule that fired, and where in the text it was given."""

    rule: Rule
    spans: tuple[Span, ...]


class Policy:
    """Groups and rules together, ready to match; `sha256` is over the files' bytes."""

    def __init__(self, groups: dict[str, list[str]], rules: Sequence[Rule], sha256: str) -> None:
        self.rules = tuple(rules)
        self.sha256 = sha256
        used = {g for r in rules for part in r.parts for g in part} | {
            g for r in rules for g in r.unless
        }
        self._lexicons: dict[Side, Lexicon] = {}
        self._sides: dict[Side, tuple[Rule, ...]] = {}
        for side in get_args(Side):
            mine = tuple(r for r in rules if side in r.sides)
            names = {g for r in mine for part in r.parts for g in part}
            names |= {g for r in mine for g in r.unless}
            self._sides[side] = mine
            self._lexicons[side] = Lexicon({g: groups[g] for g in sorted(names & used)})

    def match(self, text: str, side: Side) -> list[Match]:
        """The rules of `side` that fire on `text`, which must be lower case."""
        hits = self._lexicons[side].find(text)
        sentences: Sentences | None = None
        out = []
        for rule in self._sides[side]:
            if rule.pattern is None:
                if not all(any(g in hits for g in part) for part in rule.parts):
                    continue
                sentences = sentences or Sentences(text)
                found = self._chains(rule, hits, sentences)
            else:
                found = [m.span() for m in rule.pattern.finditer(text)]
            if found and rule.unless and any(g in hits for g in rule.unless):
                sentences = sentences or Sentences(text)
                found = _excused(rule, found, hits, sentences)
            if found:
                out.append(Match(rule, tuple(Span(s, e, rule.id) for s, e in found[:16])))
        return out

    @staticmethod
    def _chains(rule: Rule, hits: dict[str, list[Hit]], sentences: Sentences) -> list[Hit]:
        parts = [
            hits.get(part[0], []) if len(part) == 1 else _merged(part, hits) for part in rule.parts
        ]
        bound = None if rule.whole_text else sentences
        return (near if rule.any_order else chain)(parts, rule.within, bound)


def _merged(groups: Sequence[str], hits: dict[str, list[Hit]]) -> list[Hit]:
    return sorted({hit for g in groups for hit in hits.get(g, ())})


def _excused(
    rule: Rule, found: list[Hit], hits: dict[str, list[Hit]], sentences: Sentences
) -> list[Hit]:
    """The stretches that no excuse stands beside."""
    if rule.whole_text:
        return []
    excuses = _merged(rule.unless, hits)
    if rule.excuse_within is not None:
        return [h for h in found if not near([[h], excuses], rule.excuse_within, sentences)]
    excused = {sentences.of(start) for start, _ in excuses}
    return [hit for hit in found if sentences.of(hit[0]) not in excused]


def load(paths: Sequence[Path]) -> Policy:
    """Read the policy files; later files may use the groups of earlier ones.

    Raises:
        PolicyInvalid: names the file or the rule, and the reason.
    """
    groups: dict[str, list[str]] = {}
    rules: list[Rule] = []
    digest = hashlib.sha256()
    for path in paths:
        try:
            data = path.read_bytes()
            table = tomllib.loads(data.decode("utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise PolicyInvalid(f"policy {path.name} cannot be read: {error}") from error
        digest.update(len(data).to_bytes(8, "big") + data)
        if table.get("version") != VERSION:
            raise PolicyInvalid(
                f"policy {path.name}: version is {table.get('version')!r}, must be {VERSION}"
            )
        _read_groups(table.get("groups", {}), groups, path.name)
        for row in table.get("rule", []):
            rule = _read_rule(row, groups, path.name)
            if any(r.id == rule.id for r in rules):
                raise PolicyInvalid(f"rule {rule.id!r}: the id is used twice")
            rules.append(rule)
    if not rules:
        raise PolicyInvalid("the policy has no rule")
    return Policy(groups, rules, digest.hexdigest())


def _read_groups(table: Any, groups: dict[str, list[str]], name: str) -> None:
    for group, phrases in table.items():
        if group in groups:
            raise PolicyInvalid(f"policy {name}: group {group!r} is defined twice")
        if not isinstance(phrases, list) or not all(isinstance(p, str) for p in phrases):
            raise PolicyInvalid(f"policy {name}: group {group!r} must be a list of strings")
        out: list[str] = []
        for phrase in phrases:
            if not phrase.startswith("@"):
                out.append(phrase)
            elif phrase[1:] in groups:
                out += groups[phrase[1:]]
            else:
                raise PolicyInvalid(f"policy {name}: group {group!r} names unknown {phrase!r}")
        try:
            Lexicon({group: out})
        except ValueError as error:
            raise PolicyInvalid(f"policy {name}: {error}") from error
        groups[group] = out


def _read_rule(row: dict[str, Any], groups: dict[str, list[str]], name: str) -> Rule:
    rid = row.get("id")
    if not isinstance(rid, str) or not re.fullmatch(r"[a-z_]+(\.[a-z0-9_]+)+", rid):
        raise PolicyInvalid(f"policy {name}: rule id {rid!r} must read category.name")

    def need(good: bool, reason: str) -> None:
        if not good:
            raise PolicyInvalid(f"rule {rid!r}: {reason}")

    unknown = sorted(set(row) - _FIELDS)
    need(not unknown, f"unknown field {', '.join(unknown)}")
    category: Any = row.get("category", rid.split(".")[0])
    action: Any = row.get("action")
    need(category in get_args(Category), f"unknown category {category!r}")
    need(action in get_args(Action) and action != "allow", f"unknown action {action!r}")
    sides = tuple(row.get("sides", ()))
    need(bool(sides) and set(sides) <= set(get_args(Side)), f"sides are {sides!r}")
    score, within = row.get("score", 0.9), row.get("within", 40)
    need(isinstance(score, float) and 0 < score <= 1, f"score {score!r} is not in (0, 1]")
    need(isinstance(within, int) and within > 0, f"within {within!r} is not a positive integer")
    excuse = row.get("excuse_within")
    need(excuse is None or (isinstance(excuse, int) and excuse >= 0), f"excuse_within {excuse!r}")
    need(row.get("scope", "sentence") in ("sentence", "text"), f"scope {row.get('scope')!r}")
    need(("parts" in row) != ("pattern" in row), "needs either parts or pattern")
    parts = tuple(tuple(p.split("|")) for p in row.get("parts", ()))
    unless = tuple(row.get("unless", ()))
    for group in [g for part in parts for g in part] + list(unless):
        need(group in groups, f"unknown group {group!r}")
    need("pattern" in row or len(parts) > 0, "parts are empty")
    pattern = None
    if "pattern" in row:
        need(not _EXPLOSIVE.search(row["pattern"]), "an unbounded gap; write {0,n} instead")
        try:
            pattern = re.compile(row["pattern"])
        except re.error as error:
            raise PolicyInvalid(f"rule {rid!r}: pattern does not compile: {error}") from error
    return Rule(
        rid, category, sides, action, score, parts, pattern, within,
        row.get("scope") == "text", bool(row.get("any_order", False)), unless, excuse,
    )  # fmt: skip
