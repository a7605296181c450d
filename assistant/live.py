"""Who answers now, and how that changes while people chat.

Every turn takes a lease on one policy and keeps it to its end. Between turns the pointer that the
registry writes is looked at (one `stat`); where it changed, what it names is loaded beside the old
policy by a thread that lives no longer than that, and one assignment makes it the one that the
next turns get. The old one is closed when its last reply has ended. What cannot be verified, loaded
or asked is refused with its reason, and the old one goes on.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from assistant.config import Settings
from assistant.errors import PolicyError
from assistant.policy._promoted import (
    FOLDER,
    POINTER,
    Pointer,
    Ref,
    Trial,
    read_pointer,
    settings_of,
    verify,
)
from assistant.policy.base import Policy
from assistant.prompt import mark_of, render
from assistant.schema import PolicyCard, Sampling
from assistant.support import Supporter
from retrieval.schema import Chunk, Passage

logger = logging.getLogger(__name__)

#: What was refused, one JSON object a line: at, id, reason, process.
REFUSED = "refused.jsonl"
#: What a new policy is asked before it is served; any answer will do, an error will not.
TRIALS = (
    ("When was the tower built?", "The tower was built in 1999. It is tall.", "en"),
    ("塔建于哪一年？", "塔建于1999年。它很高。", "zh"),
)
_SHORT = Sampling(max_tokens=8)

Load = Callable[[Settings], tuple[Policy, Supporter | None]]
_Stamp = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class Served:
    """One policy as turns use it. `version` is its candidate's id, "" that of the settings.

    `settings` are those of the assistant with what the candidate says laid over them.
    """

    version: str
    settings: Settings
    policy: Policy
    supporter: Supporter | None = None

    @property
    def card(self) -> PolicyCard:
        """Who this is, with its version."""
        return replace(self.policy.card, version=self.version)


@dataclass(slots=True)
class _Held:
    served: Served
    users: int = 0
    retired: bool = False


class Live:
    """The policies that answer: one, and during a trial two. Safe for several threads.

    Args:
        first: who answers at first.
        settings: those that name the policy of version "".
        load: makes policies; None where no pointer is followed.
    """

    def __init__(
        self, first: Served, settings: Settings | None = None, load: Load | None = None
    ) -> None:
        self._settings, self._load = settings or first.settings, load
        self._root = self._settings.home / FOLDER
        self._lock = threading.Lock()
        self._held = {first.version: _Held(first)}
        self._now = first.version
        self._trial: Trial | None = None
        self._seen: _Stamp = None
        self._loader: threading.Thread | None = None
        self._closed = False
        #: Why the last policy that was pointed at does not answer, "" where it does.
        self.refused = ""

    @classmethod
    def open(cls, settings: Settings, load: Load) -> Live:
        """Load who answers: as pointed at, else who answered before, else as the settings say.

        Raises:
            AssistantError: the settings' own policy is needed and cannot be loaded.
        """
        if not settings.policy.follow:
            policy, supporter = load(settings)
            return cls(Served("", settings, policy, supporter))
        root, refused = settings.home / FOLDER, ""
        seen, pointer = _stamp(root), Pointer()
        try:
            pointer = read_pointer(root)
        except PolicyError as error:
            refused = _refuse(root, POINTER, error)
        first = None
        for ref in dict.fromkeys((pointer.live, *pointer.before)):
            if ref is None:
                break
            try:
                first = _made(root, ref, settings, load)
                break
            except Exception as error:
                refused = refused or _refuse(root, ref.id, error)
        if first is None:
            first = Served("", settings, *load(settings))
        made = cls(first, settings, load)
        if pointer.trial is not None:
            made._follow(replace(pointer, live=_ref(pointer, first.version)))
        made.refused = refused or made.refused
        made._seen = seen
        return made

    @contextmanager
    def lease(self, conversation_id: str) -> Iterator[Served]:
        """Give the policy that answers a conversation; it stays usable until the lease ends."""
        self._look()
        with self._lock:
            version = self._now
            if self._trial is not None and self._trial.takes(conversation_id):
                version = self._trial.ref.id
            held = self._held[version]
            held.users += 1
        try:
            yield held.served
        finally:
            with self._lock:
                held.users -= 1
                over = self._swept()
            _close(over)

    @property
    def card(self) -> PolicyCard:
        """Who answers now."""
        with self._lock:
            return self._held[self._now].served.card

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions in memory; one that was replaced stays until its last reply has ended."""
        with self._lock:
            return tuple(self._held)

    def settle(self, seconds: float = 60.0) -> None:
        """Look at the pointer and wait until what it names has been taken or refused."""
        self._look()
        loader = self._loader
        if loader is not None:
            loader.join(seconds)

    def close(self) -> None:
        """Give back all policies; nothing is followed afterwards."""
        with self._lock:
            self._closed = True
        if self._loader is not None:
            self._loader.join()
        with self._lock:
            over = [held.served.policy for held in self._held.values()]
        _close(over)

    def _look(self) -> None:
        if self._load is None or _stamp(self._root) == self._seen:
            return
        with self._lock:
            if self._closed or (self._loader is not None and self._loader.is_alive()):
                return
            self._loader = threading.Thread(target=self._catch_up, name="policy", daemon=True)
            self._loader.start()

    def _catch_up(self) -> None:
        while not self._closed and (stamp := _stamp(self._root)) != self._seen:
            try:
                self._follow(read_pointer(self._root))
            except PolicyError as error:
                self.refused = _refuse(self._root, POINTER, error)
            self._seen = stamp

    def _follow(self, pointer: Pointer) -> None:
        """Load what a pointer names and is not here yet, then change over in one step."""
        assert self._load is not None
        ready: dict[str, Served] = {}
        refused = ""
        trial = pointer.trial.ref if pointer.trial is not None else None
        for ref in [pointer.live, *([trial] if trial is not None else [])]:
            version = ref.id if ref is not None else ""
            with self._lock:
                held = self._held.get(version)
                if held is not None:
                    held.retired = False  # called back while its last replies run
                    continue
            try:
                ready[version] = _made(self._root, ref, self._settings, self._load)
            except Exception as error:
                refused = refused or _refuse(self._root, version, error)
        with self._lock:
            self._held.update({version: _Held(served) for version, served in ready.items()})
            wanted = pointer.live.id if pointer.live is not None else ""
            if wanted in self._held and wanted != self._now:
                logger.warning("policy changed from=%r to=%r", self._now, wanted)
                self._now = wanted
            on_trial = trial is not None and trial.id in self._held
            self._trial = pointer.trial if on_trial else None
            kept = {self._now, *([trial.id] if trial is not None else [])}
            for version, held in self._held.items():
                held.retired = version not in kept
            self.refused = refused
            over = self._swept()
        _close(over)

    def _swept(self) -> list[Policy]:
        """Take out the policies that nobody uses any more; the lock is held."""
        gone = [v for v, held in self._held.items() if held.retired and not held.users]
        if self._closed:
            return []
        return [self._held.pop(version).served.policy for version in gone]


def try_out(policy: Policy, stopped: Callable[[], bool] = lambda: False) -> bool:
    """Ask the trial questions; False where an answer does not say that it has ended.

    `stopped` is asked at each piece; once it is True, nothing more is.

    Raises:
        PolicyError: as the policy's `stream`.
    """
    for number, (question, text, language) in enumerate(TRIALS, start=1):
        chunk = Chunk(number, number, text, 0, len(text), (), 0)
        passage = Passage(chunk, "trial.md", "Trial", language, "", 0.0, 0.0, 1.0, ())
        mark = mark_of(f"trial {number}")
        prompt = render(question, (passage,), (), language, mark=mark)
        ended = False
        for delta in policy.stream(prompt, _SHORT):
            ended = bool(delta.finish)
            if stopped():
                return False
        if not ended:
            return False
    return True


def _made(root: Path, ref: Ref | None, settings: Settings, load: Load) -> Served:
    """Verify, load and ask one policy.

    Raises:
        Exception: whatever is wrong with it; of our own, an AssistantError.
    """
    if ref is None:
        return Served("", settings, *load(settings))
    passport, _ = verify(root, ref.id, ref.manifest_sha256)
    own = settings_of(passport, root / ref.id, settings)
    policy, supporter = load(own)
    try:
        if not try_out(policy):
            raise PolicyError(f"candidate {ref.id} ends its answer without saying so")
    except BaseException:
        policy.close()
        raise
    return Served(ref.id, own, policy, supporter)


def _refuse(root: Path, name: str, error: Exception) -> str:
    """Note what is wrong with a policy, in the log and beside the candidates."""
    reason = f"{type(error).__name__}: {error}" if not str(error) else str(error)
    logger.error("policy refused version=%s reason=%s", name, reason)
    line = {"at": time.time(), "id": name, "reason": reason, "process": os.getpid()}
    with suppress(OSError), (root / REFUSED).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return f"{name or 'the settings'}: {reason}"


def _ref(pointer: Pointer, version: str) -> Ref | None:
    return next((r for r in (pointer.live, *pointer.before) if r and r.id == version), None)


def _close(policies: list[Policy]) -> None:
    for policy in policies:
        policy.close()


def _stamp(root: Path) -> _Stamp:
    """What tells one pointer file from the next; None where there is none."""
    try:
        found = (root / POINTER).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
