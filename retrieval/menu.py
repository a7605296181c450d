"""A folder of backends is a menu: the file's name is the backend's name.

Dropping a file into the folder adds a backend; only names of files there are accepted, so a
settings file cannot import arbitrary code.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from retrieval.errors import BackendMissing

#: Library (import name) to the extra that installs it; others come with the base install.
EXTRAS = {
    "openvino": "openvino",
    "peft": "adapters",
    "prometheus_client": "operation",
    "opentelemetry": "operation",
}
OURS = ("assistant", "retrieval", "safety", "rlhf")


def available(package: str) -> tuple[str, ...]:
    """Names of the backends in `package` (dotted), `base` left out."""
    folder = importlib.import_module(package)
    names = (m.name for m in pkgutil.iter_modules(folder.__path__))
    return tuple(sorted(n for n in names if n != "base" and not n.startswith("_")))


def load(package: str, name: str) -> ModuleType:
    """Import the backend `name` of `package`.

    Raises:
        BackendMissing: no such file, or a library it needs is not installed.
    """
    names = available(package)
    if name not in names:
        raise BackendMissing(f"no backend {name!r} in {package}; there are: {', '.join(names)}")
    return implementation(package, name)


def implementation(package: str, name: str) -> ModuleType:
    """Import one of several implementations that code chose by itself, not a user by its name.

    Raises:
        BackendMissing: a library it needs is not installed.
    """
    try:
        return importlib.import_module(f"{package}.{name}")
    except ModuleNotFoundError as error:
        library = (error.name or "").split(".")[0]
        if library in OURS:
            raise
        extra = EXTRAS.get(library)
        remedy = f"plumbline[{extra}]" if extra else "plumbline"
        raise BackendMissing(f"{package}.{name} needs {library!r}; install {remedy}") from error
