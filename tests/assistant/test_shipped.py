from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from assistant.shipped import CARD, MODELS, check, named
from retrieval.errors import ModelUntrusted

#: Files of which a changed bit would go unnoticed; vocabularies are checked by who reads them.
WEIGHTS = ("*.safetensors", "weights.json", "calibration.json")


@pytest.mark.parametrize("folder", sorted(p.parent.name for p in MODELS.glob(f"*/{CARD}")))
def test_a_flipped_bit_in_any_weights_is_refused(folder: str, tmp_path: Path) -> None:
    """Every file of weights is named by its card; one bit of it changed, nothing starts."""
    shutil.copytree(MODELS / folder, tmp_path / "models" / folder)
    own = tmp_path / "models" / folder
    files = [path for pattern in WEIGHTS for path in own.glob(pattern)]
    assert {path.name for path in files} <= named(own / CARD).keys()
    check(tmp_path / "models")
    for path in files:
        before = path.read_bytes()
        changed = bytearray(before)
        changed[len(changed) // 2] ^= 4
        path.write_bytes(changed)
        with pytest.raises(ModelUntrusted, match=path.name):
            check(tmp_path / "models")
        path.write_bytes(before)
    path.unlink()
    with pytest.raises(ModelUntrusted, match="missing"):
        check(tmp_path / "models")
