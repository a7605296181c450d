"""The registry of candidates: which there are, which one answers, and every decision on that.

    home/policies/ID/manifest.json    a candidate and what is known of it; see `Manifest`
    home/policies/live.json           who answers; replaced atomically, see `assistant.policy`
    home/policies/decisions.jsonl     one line a decision, each with the SHA-256 of the one before

The pointer is the truth. It holds the decision that made it, so that a crash between pointer and
log loses nothing: the next writer adds the line. A running chat sees a new pointer by itself.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from assistant.config import PromotionSettings
from assistant.errors import ModelNotFound
from assistant.policy._promoted import (
    FOLDER,
    MANIFEST,
    POINTER,
    Decision,
    Pointer,
    Ref,
    Trial,
    file_sha256,
    pointer_bytes,
    read_pointer,
    verify,
)
from rlhf import _decisions, _durable
from rlhf._manifest import Manifest, as_bytes, names, read
from rlhf.errors import CandidateBroken, NotPromotable, RegistryBusy, RegistryError
from rlhf.gates import Gate, failing

logger = logging.getLogger(__name__)

LOG = "decisions.jsonl"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the list: `state` is live, trial, before, candidate or broken; `error` says why."""

    id: str
    state: str
    manifest: Manifest | None
    error: str = ""


class Registry:
    """The candidates of a home. Safe for several threads and processes.

    Args:
        home: the folder of the data.
        settings: how many candidates are kept.
        clock: the time, in seconds since the epoch.
    """

    def __init__(
        self,
        home: Path,
        settings: PromotionSettings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.root = home / FOLDER
        self._settings = settings or PromotionSettings()
        self._clock = clock

    # candidates ---------------------------------------------------------------------------------

    def add(
        self,
        source: Path,
        *,
        policy: Mapping[str, Any],
        data_sha256: str,
        config: Mapping[str, Any],
        seeds: Sequence[int],
        parent: str = "",
        metrics: Mapping[str, float] | None = None,
        gates: Sequence[Gate] = (),
        against: str = "",
    ) -> Manifest:
        """Copy the files of `source` in as a new candidate, all or nothing.

        Raises:
            RegistryError: a file is a link or cannot be copied, a number is not finite, or there
                is no room.
        """
        files = {
            path.relative_to(source).as_posix(): path
            for path in sorted(source.rglob("*"))
            if not path.is_dir() and path.name != MANIFEST
        }
        now = self._clock()
        try:
            hashes = {name: file_sha256(path) for name, path in files.items()}
            made = Manifest(
                "",
                parent,
                now,
                dict(policy),
                hashes,
                data_sha256,
                dict(config),
                tuple(seeds),
                dict(metrics or {}),
                tuple(gates),
                against,
            )
            digest = hashlib.sha256(as_bytes(made)).hexdigest()
            stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
            made = replace(made, id=f"{stamp}-{digest[:8]}")
            with self._writing():
                _durable.place(self.root / made.id, files, {MANIFEST: as_bytes(made)})
                self._check(made.id)  # a file that changed while it was copied is found here
                self._prune(self.pointer())
        except (OSError, ModelNotFound) as error:
            raise RegistryError(f"cannot keep {source} as a candidate: {error}") from error
        logger.info("candidate added id=%s parent=%s", made.id, parent)
        return made

    def measured(
        self, name: str, gates: Sequence[Gate], against: str, metrics: Mapping[str, float]
    ) -> Manifest:
        """Write what was measured into the manifest of a candidate that does not answer.

        Raises:
            RegistryError: it answers, is on trial or answered before: its manifest is pinned.
        """
        with self._writing():
            old = self._check(name)
            if name in _pinned(self.pointer()):
                raise RegistryError(f"candidate {name} is in use, its manifest stays as it is")
            new = replace(
                old,
                gates=tuple(gates),
                against=against,
                metrics={**old.metrics, **metrics},
            )
            _durable.write(self.root / name / MANIFEST, as_bytes(new))
        return new

    def load(self, name: str) -> Manifest:
        """Read a candidate and check it to the last byte.

        Raises:
            UnknownCandidate: there is no such folder.
            CandidateBroken: a file is missing or changed.
        """
        return self._check(name)

    def folder(self, name: str) -> Path:
        """Where a candidate's files are."""
        return self.root / name

    def entries(self) -> list[Entry]:
        """Every candidate, the newest first, each checked."""
        pointer = self.pointer()
        trial = pointer.trial.ref.id if pointer.trial is not None else ""
        live = pointer.live.id if pointer.live is not None else ""
        before = {ref.id for ref in pointer.before if ref is not None}
        found = []
        for name in names(self.root):
            state = "live" if name == live else "trial" if name == trial else "candidate"
            state = "before" if state == "candidate" and name in before else state
            try:
                found.append(Entry(name, state, self._check(name)))
            except CandidateBroken as error:
                found.append(Entry(name, "broken", None, str(error)))
        return found

    # decisions ----------------------------------------------------------------------------------

    def pointer(self) -> Pointer:
        """Who answers.

        Raises:
            RegistryError: the pointer file cannot be read.
        """
        try:
            return read_pointer(self.root)
        except ModelNotFound as error:
            raise RegistryError(str(error)) from error

    def promote(
        self,
        name: str,
        *,
        who: str,
        reason: str = "",
        force: bool = False,
        facts: Mapping[str, float] | None = None,
    ) -> Decision:
        """Make a candidate the one that answers; a trial ends with it.

        One on trial has passed its gates, or was let in without. `force` promotes another whatever
        its gates say; the log keeps that.

        Raises:
            NotPromotable: a gate did not pass, or another policy answers than the gates saw.
            CandidateBroken: its files are not what its manifest says.
        """
        with self._writing():
            pointer, ref = self.pointer(), Ref(name, read(self.root, name)[1])
            if pointer.live == ref:
                raise RegistryError(f"candidate {name} answers already")
            if pointer.trial is None or pointer.trial.ref != ref:
                self._gated(name, pointer, force)
            before = tuple(r for r in (pointer.live, *pointer.before) if r != ref)
            before = before[: self._settings.keep]
            changed = replace(pointer, live=ref, since=self._clock(), before=before, trial=None)
            action = "promote by force" if force else "promote"
            return self._decide(changed, action, ref, who, reason, facts)

    def rollback(
        self, *, who: str, reason: str = "", facts: Mapping[str, float] | None = None
    ) -> Decision:
        """Let the one answer that did before; one whose files are broken is passed over.

        Raises:
            RegistryError: nobody answered before.
        """
        with self._writing():
            pointer = self.pointer()
            if pointer.live is None:
                raise RegistryError("no candidate answers, so there is nothing to roll back")
            left = list(pointer.before)
            while left:
                target = left.pop(0)
                try:
                    if target is not None:
                        verify(self.root, target.id, target.manifest_sha256)
                    break
                except ModelNotFound as error:
                    reason = f"{reason}; {target and target.id} passed over: {error}".strip("; ")
            else:
                target = None
            changed = replace(
                pointer, live=target, since=self._clock(), before=tuple(left), trial=None
            )
            return self._decide(changed, "rollback", pointer.live, who, reason, facts)

    def begin_trial(
        self, name: str, share: float, *, who: str, reason: str = "", force: bool = False
    ) -> Decision:
        """Let a candidate answer a share in (0, 1) of the conversations.

        Raises:
            NotPromotable: as `promote`.
            RegistryError: it answers already, another is on trial, or the share is out of range.
        """
        if not 0 < share < 1:
            raise RegistryError(f"a trial takes a share between 0 and 1, not {share:g}")
        with self._writing():
            pointer, ref = self.pointer(), Ref(name, read(self.root, name)[1])
            if pointer.trial is not None:
                raise RegistryError(f"{pointer.trial.ref.id} is on trial; end that first")
            if pointer.live == ref:
                raise RegistryError(f"candidate {name} answers already")
            self._gated(name, pointer, force)
            changed = replace(pointer, trial=Trial(ref, share, self._clock()))
            action = "trial by force" if force else "trial"
            return self._decide(changed, action, ref, who, reason, {"share": share})

    def end_trial(
        self, *, who: str, reason: str = "", facts: Mapping[str, float] | None = None
    ) -> Decision:
        """Take the candidate on trial back.

        Raises:
            RegistryError: none is on trial.
        """
        with self._writing():
            pointer = self.pointer()
            if pointer.trial is None:
                raise RegistryError("no candidate is on trial")
            ref = pointer.trial.ref
            changed = replace(pointer, trial=None)
            return self._decide(changed, "take back", ref, who, reason, facts)

    def decisions(self) -> list[Decision]:
        """Every decision, oldest first, the chain of their hashes checked.

        Raises:
            RegistryError: a line was changed, removed or added, or the end was cut off.
        """
        return _decisions.read(self.root / LOG, self.pointer().decision)

    # inside -------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root / ".lock", timeout=self._settings.busy_seconds):
                _durable.sweep(self.root)
                _decisions.mend(self.root / LOG, self.pointer().decision)
                yield
        except Timeout as error:
            raise RegistryBusy(
                f"another process has been changing {self.root} for over "
                f"{self._settings.busy_seconds:g} s; try again"
            ) from error
        except OSError as error:
            raise RegistryError(f"cannot write {self.root}: {error}") from error

    def _decide(
        self,
        pointer: Pointer,
        action: str,
        ref: Ref | None,
        who: str,
        reason: str,
        facts: Mapping[str, float] | None,
    ) -> Decision:
        numbers = {name: float(value) for name, value in (facts or {}).items()}
        sequence = pointer.sequence + 1
        made = Decision(sequence, self._clock(), action, ref, pointer.live, who, reason, numbers)
        new = replace(pointer, sequence=sequence, decision=made)
        _durable.write(self.root / POINTER, pointer_bytes(new))
        _decisions.mend(self.root / LOG, made)
        self._prune(new)
        logger.warning("policy decision=%s id=%s by=%s", action, ref.id if ref else "", who)
        return made

    def _prune(self, pointer: Pointer) -> None:
        """Remove what is neither in use nor among the last that answered or were made."""
        used = {ref.id for ref in (pointer.live, pointer.trial and pointer.trial.ref) if ref}
        answered = [ref.id for ref in pointer.before if ref is not None]
        others = [name for name in names(self.root) if name not in {*used, *answered}]
        most = self._settings.keep
        kept = used | set(answered[:most]) | set(others[:most])
        for name in set(names(self.root)) - kept:
            _durable.remove(self.root / name)
            logger.info("candidate removed id=%s", name)

    def _gated(self, name: str, pointer: Pointer, force: bool) -> None:
        manifest = self._check(name)
        live = pointer.live.id if pointer.live is not None else ""
        wrong = failing(manifest.gates)
        if manifest.against != live:
            seen = manifest.against or "the settings' policy"
            wrong.insert(0, f"measured against {seen}, but {live or 'that'} answers now")
        if wrong and not force:
            raise NotPromotable(f"candidate {name} is not promoted: {'; '.join(wrong)}")

    def _check(self, name: str) -> Manifest:
        pinned = _pinned(self.pointer()).get(name, "")
        return read(self.root, name, pinned)[0]


def _pinned(pointer: Pointer) -> dict[str, str]:
    """The manifests that a pointer holds to their hashes, by id."""
    trial = pointer.trial.ref if pointer.trial is not None else None
    refs = (pointer.live, trial, *pointer.before)
    return {ref.id: ref.manifest_sha256 for ref in refs if ref is not None}
