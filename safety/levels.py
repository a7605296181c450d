"""What a score leads to: a versioned, hashed policy file of levels by side, category, language.

A level is a rate, not a score: the share of harmless calibration texts that may reach it. So a
file means the same with the next weights, whose scores lie elsewhere. A lowest probability stands
beside it, for texts of kinds of which there were few among those.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from safety.errors import PolicyInvalid
from safety.schema import Action, Category, Side

PACKS = Path(__file__).resolve().parent / "packs"
VERSION = 1
LANGUAGES = ("en", "zh")
_FIELDS = {"action", "stop", "grey"}
#: Below even chances nothing is stopped, however few harmless texts get there.
EVEN = 0.5


@dataclass(frozen=True, slots=True)
class Level:
    """`action` from the score that `stop` of the harmless texts reach; `grey` is the wider rate.

    Below the probability `least` nothing is stopped, whatever the rates say.
    """

    action: Action
    stop: float
    grey: float
    least: float = EVEN


@dataclass(frozen=True, slots=True)
class Levels:
    """A policy file; `sha256` is over its bytes."""

    name: str
    sha256: str
    table: dict[tuple[str, str, str], Level]

    def of(self, side: Side, category: Category, language: str) -> Level | None:
        """The level that holds; None: this category is not judged on this side."""
        found = self.table.get((side, category, language))
        return found or self.table.get((side, category, ""))


def load(name: str) -> Levels:
    """Read a pack of this folder by its name, or a file by its path.

    Raises:
        PolicyInvalid: there is no such file, or it does not say what it must.
    """
    path = PACKS / f"{name}.toml" if name.isidentifier() else Path(name)
    try:
        raw = path.read_bytes()
        values = tomllib.loads(raw.decode("utf-8"))
    except (OSError, ValueError) as error:
        packs = ", ".join(sorted(p.stem for p in PACKS.glob("*.toml")))
        raise PolicyInvalid(f"policy {name!r}: {error}; name a file, or one of {packs}") from error
    if values.pop("version", None) != VERSION:
        raise PolicyInvalid(f"{path}: version must be {VERSION}")
    table: dict[tuple[str, str, str], Level] = {}
    for side, categories in values.items():
        if side not in get_args(Side) or not isinstance(categories, dict):
            raise PolicyInvalid(f"{path}: {side!r} is no side; there are {get_args(Side)}")
        for category, found in categories.items():
            if category not in get_args(Category) or not isinstance(found, dict):
                raise PolicyInvalid(f"{path}: {side}.{category} is no category")
            plain = {k: v for k, v in found.items() if k not in LANGUAGES}
            if plain:
                table[side, category, ""] = _level(plain, f"{path}: {side}.{category}")
            for language in LANGUAGES:
                if language in found:
                    values_ = plain | found[language]
                    where = f"{path}: {side}.{category}.{language}"
                    table[side, category, language] = _level(values_, where)
    return Levels(path.stem, hashlib.sha256(raw).hexdigest(), table)


def _level(found: dict[str, Any], where: str) -> Level:
    if set(found) - {"least"} != _FIELDS:
        raise PolicyInvalid(f"{where}: needs {', '.join(sorted(_FIELDS))}, and may have least")
    if found["action"] not in get_args(Action):
        raise PolicyInvalid(f"{where}: {found['action']!r} is no action; {get_args(Action)}")
    stop, grey = found["stop"], found["grey"]
    if not all(isinstance(rate, float) and 0 <= rate <= 1 for rate in (stop, grey)) or stop > grey:
        raise PolicyInvalid(f"{where}: rates must be 0 <= stop <= grey <= 1, not {stop}, {grey}")
    least = found.get("least", EVEN)
    if not isinstance(least, float) or not 0 <= least <= 1:
        raise PolicyInvalid(f"{where}: least is a probability from 0 to 1, not {least}")
    return Level(found["action"], stop, grey, least)
