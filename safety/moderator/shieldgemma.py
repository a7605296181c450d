"""ShieldGemma (2B, 9B, 27B): the probability that each of four policies is broken; English.

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
    return moderator("shieldgemma", settings)
