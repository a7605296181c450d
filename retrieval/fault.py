"""Places where a crash is worth a test: the process ends there when the harness says so.

The environment variable is set by `bench.crash` and the tests alone: `name` ends the process the
first time that point is reached, `name:3` the third time, as `kill -9` would.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "RETRIEVAL_FAULT_POINT"
POINTS = (
    "before-commit",
    "after-commit",
    "mid-index-write",
    "before-rename",
    "after-rename",
    "before-directory-sync",
    "before-trim",
)
_counts: dict[str, int] = {}


def reached(point: str) -> None:
    """Say that `point` is reached."""
    name, _, nth = os.environ.get(VARIABLE, "").partition(":")
    if name != point:
        return
    _counts[point] = _counts.get(point, 0) + 1
    if _counts[point] >= int(nth or 1):
        os.kill(os.getpid(), signal.SIGKILL)
