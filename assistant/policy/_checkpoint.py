"""A checkpoint folder: found, refused where it is not plain data, and identified. No torch here."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

from huggingface_hub import snapshot_download

from assistant.errors import ModelNotFound

logger = logging.getLogger(__name__)

_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
_BLOCK = 4096


def revision(folder: Path) -> str:
    """SHA-256 (hex) over a checkpoint, cheap at any size.

    Of each file go in its name and size, of small ones all bytes, of weights the safetensors
    header and 64 blocks spread evenly over the rest.
    """
    whole = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors")):
        size = path.stat().st_size
        whole.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            if path.suffix == ".json":
                whole.update(file.read())
                continue
            header = int.from_bytes(file.read(8), "little")
            whole.update(file.read(min(header, size)))
            for part in range(64):
                file.seek(max(0, (size - _BLOCK) * part // 63))
                whole.update(file.read(_BLOCK))
    return whole.hexdigest()


def tokenizing(folder: Path) -> str:
    """SHA-256 (hex) over what turns messages into token ids: tokenizer and chat template."""
    whole = hashlib.sha256()
    names = ("tokenizer", "chat_template", "vocab", "merges", "special_tokens", "added_tokens")
    for path in sorted(p for p in folder.iterdir() if p.name.startswith(names) and p.is_file()):
        whole.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        whole.update(path.read_bytes())
    return whole.hexdigest()


def find(model: str) -> Path:
    """Find the folder of `model`: a folder, or a hub name in the local cache, or fetched now.

    Raises:
        ModelNotFound: it is none of these, or `HF_HUB_OFFLINE` forbids fetching.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if model.count("/") > 1 or model.startswith((".", "/", "~")) or "\\" in model:
        raise ModelNotFound(f"no model folder {model}; check policy.model")
    try:
        return Path(snapshot_download(model, local_files_only=True, allow_patterns=_FILES))
    except (OSError, ValueError):
        logger.info("model not in the local cache model=%s", model)
    try:
        return Path(snapshot_download(model, allow_patterns=_FILES))
    except (OSError, ValueError) as error:
        raise ModelNotFound(
            f"model {model!r} is no folder, not in the local hub cache, and cannot be fetched "
            f"({type(error).__name__}); give a folder, or fetch it once with HF_HUB_OFFLINE unset"
        ) from error


def check(folder: Path, kind: str) -> None:
    """Refuse a "model" or "adapter" that is incomplete, pickled, or brings code of its own.

    Raises:
        ModelNotFound: says what is missing or not allowed.
    """
    name = "config.json" if kind == "model" else "adapter_config.json"
    if not (folder / name).is_file():
        raise ModelNotFound(f"{folder} has no {name}; it is no {kind} in the transformers format")
    if not any(folder.glob("*.safetensors")):
        raise ModelNotFound(
            f"{folder} has no .safetensors file; save the {kind} in that format, pickled weights "
            "are not read"
        )
    for path in folder.glob("*.json"):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelNotFound(f"cannot read {path}: {error}") from error
        if isinstance(values, dict) and values.get("auto_map"):
            raise ModelNotFound(
                f"{path} asks to run code of its own (auto_map), which is never done; choose a "
                "model that transformers knows"
            )
