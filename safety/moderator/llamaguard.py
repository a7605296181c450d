"""Llama Guard 3 (1B, 8B) and 4 (12B): the MLCommons hazards S1 to S14; no Chinese.

`guard_model` is the model's folder, or its hub name where the local cache holds it.
"""

from __future__ import annotations

from safety.config import SafetySettings
from safety.moderator._causal import moderator
from safety.moderator._plugin import Plugin


def build(settings: SafetySettings) -> Plugin:
    """Load the model.

    Raises:
        ModelUnusable: the folder is missing, damaged, untrusted, or another kind of model.
    """
    return moderator("llamaguard", settings)
