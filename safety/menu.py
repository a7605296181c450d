"""The moderators on offer: a file of safety/moderator/ is one, its name is the moderator's.

Only names of files there are accepted, so a settings file cannot import arbitrary code.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from safety.errors import BackendMissing

PACKAGE = "safety.moderator"
#: Library (import name) to the extra that installs it; others come with the base install.
EXTRAS = {"peft": "adapters"}


def available() -> tuple[str, ...]:
    """Names of the moderators, sorted; `base` is their protocol and left out."""
    folder = importlib.import_module(PACKAGE)
    names = (m.name for m in pkgutil.iter_modules(folder.__path__))
    return tuple(sorted(n for n in names if n != "base" and not n.startswith("_")))


def load(name: str) -> ModuleType:
    """Import the moderator `name`; its module has `build(settings) -> Moderator`.

    Raises:
        BackendMissing: no such file, or a library it needs is not installed.
    """
    names = available()
    if name not in names:
        raise BackendMissing(f"no moderator {name!r}; there are: {', '.join(names)}")
    try:
        return importlib.import_module(f"{PACKAGE}.{name}")
    except ModuleNotFoundError as error:
        library = (error.name or "").split(".")[0]
        if library == "safety":
            raise
        extra = EXTRAS.get(library)
        remedy = f"plumbline[{extra}]" if extra else "plumbline"
        raise BackendMissing(f"moderator {name!r} needs {library!r}; install {remedy}") from error
