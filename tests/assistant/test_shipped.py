from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from assistant.shipped import CARD, MODELS, check, complete, named
from retrieval.errors import ModelUntrusted

#: Files of which a changed bit would go unnoticed; vocabularies are checked by who reads them.
WEIGHTS = ("*.safetensors", "weights.json", "calibration.json")


def test_a_card_is_completed_when_it_is_written(tmp_path: Path) -> None:
    """It then names every file beside it, those it names already once; older cards are let be."""
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.json").write_text("{}", encoding="utf-8")
        (tmp_path / name / "more.json").write_text("[]", encoding="utf-8")
        (tmp_path / name / CARD).write_text("# weights", encoding="utf-8")
    os.utime(tmp_path / "old" / CARD, (1.0, 1.0))
    complete(tmp_path, 2.0)
    complete(tmp_path, 2.0)
    text = (tmp_path / "new" / CARD).read_text(encoding="utf-8")
    assert text.count("SHA-256 of weights.json") == text.count("SHA-256 of more.json") == 1
    assert named(tmp_path / "old" / CARD) == {}
    check(tmp_path)
    (tmp_path / "new" / "more.json").write_text("[ ]", encoding="utf-8")
    with pytest.raises(ModelUntrusted, match=r"more\.json"):
        check(tmp_path)


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
