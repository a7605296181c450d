"""A model folder: found on disk or in the hub's local cache, refused where it is not plain data.

Weights are safetensors; pickled ones are not even fetched, and code that comes with a checkpoint is
never run. The network is used only where a setting says so.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache, partial
from pathlib import Path

from huggingface_hub import snapshot_download

from retrieval.errors import ModelNotFound, ModelUntrusted

FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]


def find(model: str, revision: str, download: bool, setting: str) -> tuple[Path, str]:
    """Return the folder of `model` and its identity, `name@revision`.

    Args:
        model: a folder, or a hub name.
        revision: of a hub name; "" is the newest one that the cache (or the hub) knows.
        download: whether the hub may be asked for what is not in the cache.
        setting: where the name comes from, for messages, such as "retrieval.embed".

    The revision of a folder is a digest of its content, of a hub model its commit.

    Raises:
        ModelNotFound: it is none of these.
        ModelUntrusted: pickled weights, or a checkpoint that brings code.
    """
    if not model:
        raise ModelNotFound(f"{setting}.model is empty; name a folder or a hub model")
    path = Path(model).expanduser()
    if path.is_dir():
        check(path)
        return path, f"{path.resolve().name}@{fingerprint(path)[:12]}"
    if model.count("/") > 1 or model.startswith((".", "/", "~")) or "\\" in model:
        raise ModelNotFound(f"{model}: no such folder; check {setting}.model")
    folder = _snapshot(model, revision, download, setting)
    check(folder)
    return folder, f"{model}@{folder.name[:12]}"


def check(folder: Path) -> None:
    """Refuse what is incomplete, pickled or brings code.

    Raises:
        ModelNotFound: there is no model in the folder.
        ModelUntrusted: see above.
    """
    if not (folder / "config.json").is_file():
        raise ModelNotFound(f"{folder} has no config.json; it holds no transformers model")
    if not any(folder.glob("*.safetensors")):
        raise ModelUntrusted(
            f"{folder} has no .safetensors file, and pickled weights are not read; name a revision "
            "that has one, or save the model in that format"
        )
    for path in sorted(folder.rglob("*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelNotFound(f"cannot read {path} ({error}); fetch the model again") from error
        if isinstance(values, dict) and values.get("auto_map"):
            raise ModelUntrusted(
                f"{path} asks to run code of its own (auto_map), which is never done; choose a "
                "model that transformers knows"
            )


def fingerprint(folder: Path) -> str:
    """SHA-256 (hex) over names and bytes of all files that are read from the folder."""
    whole = hashlib.sha256()
    for path in sorted(p for pattern in FILES for p in folder.rglob(pattern)):
        state = path.stat()
        digest = _sha256(path, state.st_mtime_ns, state.st_size)
        whole.update(f"{path.relative_to(folder).as_posix()}\0{digest}\0".encode())
    return whole.hexdigest()


@lru_cache(maxsize=256)
def _sha256(path: Path, modified: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _snapshot(model: str, revision: str, download: bool, setting: str) -> Path:
    asked = partial(snapshot_download, model, revision=revision or None, allow_patterns=FILES)
    try:
        return Path(asked(local_files_only=True))
    except (OSError, ValueError) as error:
        if not download:
            raise ModelNotFound(
                f"model {model!r} is no folder and not in the local hub cache; name a folder, or "
                f"allow fetching it once: {setting}.download=true"
            ) from error
    try:
        return Path(asked())
    except (OSError, ValueError) as error:
        raise ModelNotFound(
            f"model {model!r} could not be fetched ({type(error).__name__}); check the name, the "
            "connection and HF_HUB_OFFLINE, or name a folder"
        ) from error
