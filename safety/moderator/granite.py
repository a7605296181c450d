"""Granite Guardian 3.0 to 3.3: yes or no to named risks, with jailbreaks; English.

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
    return moderator("granite", settings)
