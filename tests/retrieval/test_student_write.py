from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from retrieval.fit._student import write


def test_an_array_that_lies_by_columns_comes_back_as_it_was(tmp_path: Path) -> None:
    """The file format itself knows rows only."""
    rows = np.arange(12, dtype=np.float16).reshape(2, 6)
    write({"rows": rows, "columns": rows.T}, tmp_path / "found.safetensors", {"of": "a test"})
    found = load_file(tmp_path / "found.safetensors")
    np.testing.assert_array_equal(found["rows"], rows)
    np.testing.assert_array_equal(found["columns"], rows.T)
