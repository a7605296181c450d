from __future__ import annotations

import pytest
from pydantic import ValidationError

from rlhf.config import PreferenceSettings


def test_someone_is_left_to_train_on() -> None:
    """Held-out fractions that leave no training users are refused."""
    with pytest.raises(ValidationError, match="stay below 1"):
        PreferenceSettings(dev_fraction=0.5, test_fraction=0.5)
