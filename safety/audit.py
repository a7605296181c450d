"""The audit log: append-only JSON lines, each chained to the one before by SHA-256.

A record never holds text, only its hash and length, where in it what was found, and with which
policy and weights: enough to replay a decision once the text is shown again. Texts that passed
unrecorded are counted in records of their own. A line that a crash tore is sealed by the
next append with a record that names its hash, so that it is reported and never mistaken for
tampering, nor tampering for it. The chain proves that nothing inside the log was changed; to
prove that its end was not cut off, keep `Report.head` somewhere else and compare.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safety.errors import AuditBroken

GENESIS = "0" * 64
_TAIL = 65536
_NEWLINE = b"\n"
#: A line that is no record: its number, its bytes, why.
_Pending = tuple[int, bytes, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision as the log keeps it; hashes are SHA-256 in hex, `length` in code points.

    `user` is a keyed hash. `policy` and `model` are the moderator's own, "" where it has none;
    `language` is the text's; `scores` are (category, probability) as far as the moderator gives
    them; `spans` are (start, end, rule) in code points of the text. `question_sha256` is of the
    question that an output answers, "" where none is known.
    """

    decision: str
    side: str
    action: str
    category: str
    reason: str
    moderator: str
    policy: str
    text_sha256: str
    length: int
    conversation: str = ""
    user: str = ""
    model: str = ""
    language: str = ""
    score: float = 0.0
    scores: tuple[tuple[str, float], ...] = ()
    spans: tuple[tuple[int, int, str], ...] = ()
    question_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` found.

    `line` (from 1) and `error` name the first broken line, 0 and "" where the chain holds;
    `sealed` are line numbers of torn lines that a later append sealed; `torn` is True where the
    last line is incomplete and not yet sealed; `head` is the last good record's hash.
    """

    records: int
    head: str
    line: int = 0
    error: str = ""
    sealed: tuple[int, ...] = ()
    torn: bool = False

    @property
    def ok(self) -> bool:
        """True where no record was changed, removed or added (a torn end is no change)."""
        return self.line == 0


def text_hash(text: str) -> str:
    """SHA-256 (hex) of the UTF-8 bytes; lone surrogates count as themselves."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _canonical(record: dict[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _seal(record: dict[str, Any]) -> tuple[bytes, str]:
    """The record's line (without newline) and its hash, which covers everything else in it."""
    digest = hashlib.sha256(_canonical(record)).hexdigest()
    return _canonical({**record, "hash": digest}), digest


def _parse(line: bytes) -> dict[str, Any]:
    """The record of a line.

    Raises:
        ValueError: not a record, not written canonically, or its own hash does not fit.
    """
    record = json.loads(line)
    if not isinstance(record, dict) or not isinstance(record.get("hash"), str):
        raise ValueError("no record")
    if _canonical(record) != line:
        raise ValueError("not in canonical form")
    body = {k: v for k, v in record.items() if k != "hash"}
    if hashlib.sha256(_canonical(body)).hexdigest() != record["hash"]:
        raise ValueError("its hash does not fit its content")
    return record


class AuditLog:
    """An audit log that several threads and processes may append to."""

    def __init__(self, path: Path, *, sync: bool = True) -> None:
        """`sync`: fsync after each append, so that a power loss keeps it."""
        self.path = path
        self.sync = sync
        path.parent.mkdir(parents=True, exist_ok=True)
        from filelock import FileLock  # on first use: an import of this package stays light

        self._lock = FileLock(str(path) + ".lock")

    def append(self, entries: Sequence[Entry], passed: Mapping[str, int] | None = None) -> None:
        """Write the entries in one append; `passed` counts texts that no entry tells of.

        Raises:
            AuditBroken: the log's end is not a record of ours; nothing was written.
            OSError: the file cannot be written.
        """
        if not entries and not passed:
            return
        with self._lock, self.path.open("a+b") as file:
            previous, torn = _end(file.fileno(), self.path)
            now = datetime.now(UTC).isoformat(timespec="microseconds")
            out = bytearray()
            if torn:
                out += _NEWLINE
                whole = _digest(torn)
                if not whole:
                    digest = hashlib.sha256(torn).hexdigest()
                    seal = {"at": now, "kind": "seal", "prev": previous, "torn_sha256": digest}
                    line, whole = _seal(seal)
                    out += line + _NEWLINE
                previous = whole
            for entry in entries:
                fields = {k: getattr(entry, k) for k in entry.__slots__}
                line, previous = _seal({"at": now, "kind": "decision", "prev": previous, **fields})
                out += line + _NEWLINE
            if passed:
                tally = {"at": now, "kind": "tally", "prev": previous, "passed": dict(passed)}
                line, previous = _seal(tally)
                out += line + _NEWLINE
            file.write(bytes(out))
            file.flush()
            if self.sync:
                os.fsync(file.fileno())


def _digest(line: bytes) -> str:
    """The hash of a whole record, "" for anything else."""
    try:
        return str(_parse(line)["hash"])
    except ValueError:
        return ""


def _end(descriptor: int, path: Path) -> tuple[str, bytes]:
    """Hash of the last whole record, and the torn bytes after it."""
    size = os.fstat(descriptor).st_size
    window = _TAIL
    while True:
        start = max(0, size - window)
        tail = os.pread(descriptor, size - start, start)
        whole, _, torn = tail.rpartition(_NEWLINE)
        if start == 0 or _NEWLINE in whole:
            break
        window *= 4
    if not whole:
        return GENESIS, torn
    last = _digest(whole.rpartition(_NEWLINE)[2])
    if not last:
        raise AuditBroken(
            f"the last record of {path} is damaged; move the file away to keep it as evidence "
            "and start a new log"
        )
    return last, torn


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def verify(path: Path) -> Report:
    """Read the whole log and check every hash and link; a log that is not there is empty."""
    previous, records = GENESIS, 0
    sealed: list[int] = []
    pending: _Pending | None = None
    for number, raw in enumerate(_lines(path) if path.exists() else (), start=1):
        if not raw.endswith(_NEWLINE):
            if pending is None:
                return Report(records, previous, sealed=tuple(sealed), torn=True)
            break
        try:
            record = _parse(raw.rstrip(_NEWLINE))
        except ValueError as error:
            if pending is not None:
                break
            pending = (number, raw.rstrip(_NEWLINE), str(error))
            continue
        problem = _link(record, previous, pending)
        if problem:
            where = pending[0] if pending is not None else number
            return Report(records, previous, where, problem, tuple(sealed))
        if pending is not None:
            sealed.append(pending[0])
            pending = None
        previous, records = str(record["hash"]), records + 1
    if pending is not None:
        return Report(records, previous, pending[0], pending[2], tuple(sealed))
    return Report(records, previous, sealed=tuple(sealed))


def _link(record: dict[str, Any], previous: str, pending: _Pending | None) -> str:
    """Why the record may not stand here, "" where it may."""
    if record.get("prev") != previous:
        return "it does not follow the record before it"
    if (record.get("kind") == "seal") != (pending is not None):
        return "a seal without a torn line" if pending is None else pending[2]
    if pending is not None and hashlib.sha256(pending[1]).hexdigest() != record["torn_sha256"]:
        return "the torn line is not the one that was sealed"
    return ""


def check(path: Path) -> Report:
    """`verify`, for callers that want to stop.

    Raises:
        AuditBroken: names the file, the first broken line and why.
    """
    report = verify(path)
    if not report.ok:
        raise AuditBroken(f"{path} line {report.line}: {report.error}")
    return report


def find(path: Path, decision: str) -> list[dict[str, Any]]:
    """The records of the decisions whose id begins with `decision`, in their order.

    Raises:
        AuditBroken: the log was changed; what it says of a decision cannot be trusted.
    """
    check(path)
    if not path.exists():
        return []
    start = f'"decision":{json.dumps(decision)[:-1]}'.encode()
    found = (line.rstrip(_NEWLINE) for line in _lines(path) if start in line)
    return [_parse(line) for line in found if _digest(line)]
