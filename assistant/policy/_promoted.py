"""What a promoted policy leaves behind: a folder with a manifest, and a pointer that names it.

    home/policies/live.json          the pointer: which candidate answers, which is on trial
    home/policies/ID/manifest.json   what the candidate is, with the SHA-256 of each of its files

The pointer holds the SHA-256 of the manifest and the manifest that of every file, so one changed
byte anywhere is found before anything is loaded. Only `rlhf.registry` writes here; this module
reads. No torch here.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from assistant.config import PolicySettings, Settings
from assistant.errors import ModelNotFound

FOLDER = "policies"
POINTER = "live.json"
MANIFEST = "manifest.json"
FORMAT = 1

#: What a candidate's id may look like: it is the name of a folder.
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
#: Settings that belong to the machine and its keys; no candidate may bring them.
MACHINE = frozenset({"api_key", "url", "device", "follow", "seconds", "connect_seconds", "retries"})
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Ref:
    """One candidate, to the byte: its id and the SHA-256 (hex) of its manifest."""

    id: str
    manifest_sha256: str


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate that answers a `share` in (0, 1) of the conversations, since then (epoch, s)."""

    ref: Ref
    share: float
    since: float

    def takes(self, conversation_id: str) -> bool:
        """Whether it answers this conversation: always the same for the same two ids."""
        digest = hashlib.sha256(f"{self.ref.id}\0{conversation_id}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.share * 2**64


@dataclass(frozen=True, slots=True)
class Decision:
    """One change of the pointer: what, when (epoch, seconds), by whom, why, on which numbers.

    `ref` is what the action is about and `live` what answers afterwards; None is the policy that
    the settings name.
    """

    sequence: int
    at: float
    action: str
    ref: Ref | None
    live: Ref | None
    who: str
    reason: str
    facts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pointer:
    """Who answers. None, as `live` and in `before`, is the policy that the settings name.

    `since` is when `live` began (epoch, seconds); `before` is who answered earlier, the last one
    first; `decision` is the change that made this pointer.
    """

    sequence: int = 0
    live: Ref | None = None
    since: float = 0.0
    before: tuple[Ref | None, ...] = ()
    trial: Trial | None = None
    decision: Decision | None = None
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Passport:
    """The part of a manifest that an assistant reads; what else it says is rlhf's."""

    format: int
    id: str
    policy: dict[str, Any]
    files: dict[str, str]


_pointer = TypeAdapter(Pointer)
_passport = TypeAdapter(Passport)


def read_pointer(root: Path) -> Pointer:
    """Read the pointer of a folder of policies; the first one there is where there is no file.

    Raises:
        ModelNotFound: it cannot be read, or a newer plumbline wrote it.
    """
    path = root / POINTER
    try:
        pointer = _pointer.validate_json(path.read_bytes())
    except FileNotFoundError:
        return Pointer()
    except (OSError, ValidationError) as error:
        raise ModelNotFound(f"cannot read {path}: {_brief(error)}; restore it") from error
    if pointer.format != FORMAT:
        raise ModelNotFound(
            f"{path} has format {pointer.format}, this plumbline reads {FORMAT}; upgrade plumbline"
        )
    return pointer


def pointer_bytes(pointer: Pointer) -> bytes:
    """Write a pointer as `read_pointer` reads it."""
    return _pointer.dump_json(pointer, indent=1) + b"\n"


def verify(root: Path, name: str, manifest_sha256: str = "") -> tuple[Passport, bytes]:
    """Check a candidate to the last byte; returns its passport and the manifest as it stands.

    Args:
        root: the folder of policies.
        name: the candidate's id.
        manifest_sha256: what the manifest's hash must be, "" for any.

    Raises:
        ModelNotFound: says which file is missing, changed, or not listed.
    """
    if not NAME.fullmatch(name):
        raise ModelNotFound(f"{name!r} is no candidate's id; see `policy list`")
    folder = root / name
    path = folder / MANIFEST
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ModelNotFound(f"no candidate {name}: {path} cannot be read ({error})") from error
    if manifest_sha256 and hashlib.sha256(raw).hexdigest() != manifest_sha256:
        raise ModelNotFound(f"{path} is not the manifest that was promoted; {_REMEDY}")
    try:
        passport = _passport.validate_json(raw)
    except ValidationError as error:
        raise ModelNotFound(f"{path} is no manifest: {_brief(error)}; {_REMEDY}") from error
    if (passport.format, passport.id) != (FORMAT, name):
        raise ModelNotFound(
            f"{path} is of {passport.id!r} in format {passport.format}, not of {name!r} in "
            f"{FORMAT}; {_REMEDY}"
        )
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}
    strange = present - passport.files.keys() - {MANIFEST}
    if strange:
        raise ModelNotFound(f"{folder} has {min(strange)}, which its manifest lacks; {_REMEDY}")
    for file, digest in passport.files.items():
        if file not in present:
            raise ModelNotFound(f"{folder} lacks {file}, which its manifest lists; {_REMEDY}")
        if file_sha256(folder / file) != digest:
            raise ModelNotFound(f"{folder / file} is not what its manifest says; {_REMEDY}")
    return passport, raw


_REMEDY = "restore the folder from a backup, or roll back"


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a whole file.

    Raises:
        ModelNotFound: it cannot be read, or is a link.
    """
    whole = hashlib.sha256()
    try:
        if path.is_symlink():
            raise ModelNotFound(f"{path} is a link; a candidate's files lie in its own folder")
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                whole.update(block)
    except OSError as error:
        raise ModelNotFound(f"cannot read {path}: {error}; {_REMEDY}") from error
    return whole.hexdigest()


def settings_of(passport: Passport, folder: Path, settings: Settings) -> Settings:
    """Lay what a candidate says of who answers over the settings.

    A `model` or `adapter` of "." or "./NAME" lies in the candidate's own folder.

    Raises:
        ModelNotFound: it names a setting that does not exist or is the machine's, or a bad value.
    """
    values = dict(passport.policy)
    strange = {k for k in values if k not in PolicySettings.model_fields or k in MACHINE}
    if strange or "backend" not in values:
        wrong = f"policy.{min(strange)} set by it" if strange else "no policy.backend"
        raise ModelNotFound(f"candidate {passport.id} cannot be served: {wrong}; make it anew")
    own = {"model": "", "adapter": "", **values}
    for key in ("model", "adapter"):
        value = str(own[key])
        if value == "." or value.startswith("./"):
            if ".." in Path(value).parts:
                raise ModelNotFound(f"candidate {passport.id}: policy.{key} leaves its folder")
            own[key] = str((folder / value).resolve())
    try:
        policy = PolicySettings.model_validate({**dict(settings.policy), **own})
    except ValidationError as error:
        raise ModelNotFound(f"candidate {passport.id} cannot be served: {_brief(error)}") from error
    return settings.model_copy(update={"policy": policy})


def _brief(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
