"""A guard model's folder: found on disk or in the hub's local cache, refused if not plain data.

Nothing is fetched from here. Weights are safetensors, and code beside them is never run.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from huggingface_hub import snapshot_download

from safety.errors import ModelUnusable

_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
_BLOCK = 4096


def find(model: str) -> Path:
    """The folder of `guard_model`: a folder, or a hub name that is in the local cache.

    Raises:
        ModelUnusable: it is neither, it is incomplete, pickled, or brings code.
    """
    if not model:
        raise ModelUnusable("safety.guard_model is empty; name the folder of the guard model")
    path = Path(model).expanduser()
    if not path.is_dir():
        if model.count("/") != 1 or model.startswith((".", "/", "~")) or "\\" in model:
            raise ModelUnusable(f"{model}: no such folder; check safety.guard_model")
        path = _cached(model)
    _check(path)
    return path


def identity(folder: Path) -> str:
    """SHA-256 (hex) over a checkpoint, cheap at any size.

    Of each file go in its name and size, of small ones all bytes, of weights the safetensors
    header and 64 blocks spread evenly over the rest.
    """
    whole = hashlib.sha256()
    for path in sorted(p for pattern in _FILES for p in folder.glob(pattern)):
        size = path.stat().st_size
        whole.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            if path.suffix != ".safetensors":
                whole.update(file.read())
                continue
            whole.update(file.read(min(int.from_bytes(file.read(8), "little"), size)))
            for part in range(64):
                file.seek(max(0, (size - _BLOCK) * part // 63))
                whole.update(file.read(_BLOCK))
    return whole.hexdigest()


def _cached(model: str) -> Path:
    try:
        return Path(snapshot_download(model, local_files_only=True, allow_patterns=_FILES))
    except (OSError, ValueError) as error:
        raise ModelUnusable(
            f"guard model {model!r} is no folder and not in the local hub cache, and is not "
            "fetched from here; fetch it once with: hf download " + model
        ) from error


def _check(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ModelUnusable(f"{folder} has no config.json; it holds no transformers model")
    if not any(folder.glob("*.safetensors")):
        raise ModelUnusable(
            f"{folder} has no .safetensors file, and pickled weights are not read; save the model "
            "in that format"
        )
    for path in sorted(folder.rglob("*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelUnusable(f"cannot read {path} ({error}); fetch the model again") from error
        if isinstance(values, dict) and values.get("auto_map"):
            raise ModelUnusable(
                f"{path} asks to run code of its own (auto_map), which is never done; choose a "
                "model that transformers knows"
            )
