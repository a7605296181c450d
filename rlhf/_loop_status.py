"""What a run of the loop says of itself: files any process can read, and one that it is told by.

    home/training/RUN/status.json    where the run is; replaced whole
    home/training/RUN/updates.jsonl  one line an update of PPO (`rlhf.ppo`)
    home/training/RUN/gold.jsonl     one line a measurement by another judge
    home/training/RUN/cancel         made by whoever wants the run to end

At most one run is at work in a home: it holds the lock beside the runs.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from assistant.training import STAGES, RunState
from rlhf import _durable
from rlhf.errors import Cancelled, TrainingError

FOLDER, STATUS, CANCEL, GOLD, UPDATES = (
    *("training", "status.json", "cancel", "gold.jsonl", "updates.jsonl"),
)
NAME = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{4}")


@dataclass(frozen=True, slots=True)
class Status:
    """Where a run is: `assistant.training.Run` without what follows from it."""

    state: RunState = "running"
    stage: str = STAGES[0]
    step: int = 0
    of: int = 0
    text: str = ""
    started: float = 0.0
    ended: float = 0.0
    reason: str = ""
    candidate: str = ""
    pid: int = 0


class Board:
    """The status of one run, for the process that does it.

    Args:
        folder: of the run; made where missing.
        clock: the time, in seconds since the epoch.

    Raises:
        TrainingError: the status cannot be read.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder, self._clock = folder, clock
        folder.mkdir(parents=True, exist_ok=True)
        before = read(folder)
        started = before.started if before is not None and before.started else clock()
        self.status = replace(
            before or Status(), state="running", started=started, ended=0.0, reason="",
            pid=os.getpid(),
        )  # fmt: skip
        begun = before is not None and before.state == "running" and before.pid == os.getpid()
        if not begun:  # else whoever started this process may have asked already
            (folder / CANCEL).unlink(missing_ok=True)
        self._put()

    def at(self, stage: str, step: int = 0, of: int = 0, text: str = "") -> None:
        """Say where the run is; ends it where that was asked for.

        Raises:
            Cancelled: somebody asked.
            TrainingError: the status cannot be written.
        """
        same = stage == self.status.stage
        text = text or (self.status.text if same else "")
        self.status = replace(self.status, stage=stage, step=step, of=of, text=text)
        self._put()
        if (self.folder / CANCEL).exists():
            raise Cancelled(f"cancelled at {stage}, step {step}; what was done is kept")

    def candidate(self, name: str) -> None:
        """Say what the run made."""
        self.status = replace(self.status, candidate=name)
        self._put()

    def end(self, state: RunState, reason: str = "") -> None:
        """Say that the run is over, and why where it was not done."""
        self.status = replace(self.status, state=state, reason=reason, ended=self._clock())
        self._put()

    def _put(self) -> None:
        text = json.dumps(asdict(self.status), ensure_ascii=False)
        try:
            _durable.write(self.folder / STATUS, text.encode() + b"\n")
        except OSError as error:
            raise TrainingError(
                f"cannot write {self.folder / STATUS}: {error}; make room and start again, the "
                "run goes on"
            ) from error


def read(folder: Path) -> Status | None:
    """The status of a run as its file says, None where there is none.

    Raises:
        TrainingError: the file is no status.
    """
    path = folder / STATUS
    try:
        return Status(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(f"cannot read {path}: {error}; delete the folder of the run") from error


def write(folder: Path, status: Status) -> None:
    """Put a status in its place, for a process that has begun no run yet."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(status), ensure_ascii=False)
    _durable.write(folder / STATUS, text.encode() + b"\n")


def alive(status: Status) -> bool:
    """Whether the process of a run is there."""
    if status.pid <= 0:
        return False
    try:
        os.kill(status.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True


def state(folder: Path, status: Status) -> RunState:
    """The state of a run: its status, unless its process is gone or it was asked to end."""
    if status.state != "running":
        return status.state
    if not alive(status):
        return "interrupted"
    return "cancelling" if (folder / CANCEL).exists() else "running"


def runs(home: Path) -> list[Path]:
    """The folders of all runs, the newest first."""
    root = home / FOLDER
    if not root.is_dir():
        return []
    found = (path for path in root.iterdir() if path.is_dir() and NAME.fullmatch(path.name))
    return sorted(found, key=lambda path: path.name, reverse=True)


def new(home: Path, clock: Callable[[], float] = time.time) -> Path:
    """A folder for a run that begins now; it is not made."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(clock()))
    return home / FOLDER / f"{stamp}-{uuid4().hex[:4]}"


def unfinished(home: Path) -> Path | None:
    """The last run, where it was broken off or cancelled; None where the last one came to its end.

    Raises:
        TrainingError: its status cannot be read.
    """
    for folder in runs(home)[:1]:
        status = read(folder)
        if status is not None and state(folder, status) in ("interrupted", "cancelled"):
            return folder
    return None


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Hold the lock of all runs of a home.

    Raises:
        TrainingError: another run is at work.
    """
    root = home / FOLDER
    root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise TrainingError(
            f"another run is at work in {root}; wait for it, or cancel it on the Train page"
        ) from error


def add(path: Path, row: Mapping[str, object]) -> None:
    """Append a line of JSON.

    Raises:
        TrainingError: it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise TrainingError(f"cannot write {path}: {error}; make room") from error


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of lines; half a line at its end is passed over."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
