"""The log of decisions: a JSON line each, with the SHA-256 of the line before.

What a crash keeps from the log stands in the pointer, so the log is never ahead of it and at most
one line behind.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

from pydantic import TypeAdapter

from assistant.policy._promoted import Decision
from rlhf import _durable
from rlhf.errors import RegistryError

GENESIS = "0" * 64
_decision = TypeAdapter(Decision)


def mend(path: Path, last: Decision | None) -> None:
    """Add the pointer's decision where a crash came between; drop a line that it tore."""
    raw = path.read_bytes() if path.exists() else b""
    whole = raw[: raw.rfind(b"\n") + 1]
    lines = whole.splitlines()
    if last is None or (lines and _sequence(lines[-1]) >= last.sequence):
        return
    if len(whole) < len(raw):
        _durable.write(path, whole)
    previous = hashlib.sha256(lines[-1]).hexdigest() if lines else GENESIS
    record = {**dataclasses.asdict(last), "previous": previous}
    text = json.dumps(record, sort_keys=True, ensure_ascii=False)
    _durable.append(path, text.encode() + b"\n")


def read(path: Path, last: Decision | None) -> list[Decision]:
    """Every decision, oldest first; `last` is the pointer's.

    Raises:
        RegistryError: a line was changed, removed or added, or the end was cut off.
    """
    raw = path.read_bytes() if path.exists() else b""
    found: list[Decision] = []
    previous = GENESIS
    for number, line in enumerate(raw[: raw.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            record = json.loads(line)
            if record.pop("previous") != previous or record["sequence"] != number:
                raise ValueError("it does not follow the line before")
            found.append(_decision.validate_python(record))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise RegistryError(f"{path}, line {number} was changed: {error}") from error
        previous = hashlib.sha256(line).hexdigest()
    if last is None or found[-1:] == [last]:
        return found
    if last.sequence == len(found) + 1:  # a crash came between the pointer and the log
        return [*found, last]
    raise RegistryError(f"{path} does not end with the decision that stands; its end was cut off")


def _sequence(line: bytes) -> int:
    try:
        return int(json.loads(line)["sequence"])
    except (ValueError, KeyError, TypeError):
        return 0  # not ours; reading the log will say so
