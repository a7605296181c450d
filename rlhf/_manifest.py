"""The manifest of a candidate: what it is, and what is known of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from assistant.errors import ModelNotFound
from assistant.policy._promoted import FORMAT, MANIFEST, NAME, verify
from rlhf.errors import CandidateBroken, RegistryError, UnknownCandidate
from rlhf.gates import Gate


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a candidate is and what is known of it.

    `policy` is what is laid over the settings of who answers: a backend of `assistant.policy`, and
    "." or "./NAME" where its model or adapter lies in the candidate's own folder. `files` are
    paths in the folder with their SHA-256 (hex). `parent` is the version trained from, `against`
    the one that the gates were measured beside; "" is the settings' own policy. `created` is in
    seconds since the epoch.
    """

    id: str
    parent: str
    created: float
    policy: dict[str, Any]
    files: dict[str, str]
    data_sha256: str
    config: dict[str, Any]
    seeds: tuple[int, ...]
    metrics: dict[str, float] = field(default_factory=dict)
    gates: tuple[Gate, ...] = ()
    against: str = ""
    format: int = FORMAT


_manifest = TypeAdapter(Manifest)


def read(root: Path, name: str, manifest_sha256: str = "") -> tuple[Manifest, str]:
    """Read a candidate's manifest and check all its files; returns the manifest's SHA-256 too.

    Raises:
        UnknownCandidate: there is no such folder.
        CandidateBroken: a file is missing or changed, or the manifest is not `manifest_sha256`.
    """
    if not NAME.fullmatch(name) or not (root / name).is_dir():
        raise UnknownCandidate(f"no candidate {name!r}; `policy list` shows those there are")
    try:
        _, raw = verify(root, name, manifest_sha256)
        return _manifest.validate_json(raw), hashlib.sha256(raw).hexdigest()
    except (ModelNotFound, ValidationError) as error:
        raise CandidateBroken(str(error)) from error


def as_bytes(manifest: Manifest) -> bytes:
    """A manifest as it is written.

    Raises:
        RegistryError: it holds a number that is not finite, or what JSON has no word for.
    """
    bad = [name for name, value in manifest.metrics.items() if not math.isfinite(value)]
    if bad:
        raise RegistryError(f"metric {bad[0]!r} is {manifest.metrics[bad[0]]}; leave it out")
    values = dataclasses.asdict(manifest)
    try:
        text = json.dumps(values, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise RegistryError(f"{MANIFEST} cannot be written: {error}") from error
    return text.encode() + b"\n"


def names(root: Path) -> list[str]:
    """The ids of all candidates, the newest first."""
    if not root.is_dir():
        return []
    found = (p.name for p in root.iterdir() if p.is_dir() and NAME.fullmatch(p.name))
    return sorted(found, reverse=True)
