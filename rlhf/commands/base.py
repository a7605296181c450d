"""What the commands of this folder share."""

from __future__ import annotations

from assistant.config import Settings
from rlhf.preferences import PreferenceStore
from safety import pii


def preferences(settings: Settings) -> PreferenceStore:
    """The preference log of a home, kept and masked as the settings say; the caller closes it.

    Raises:
        RlhfError: it cannot be opened.
    """
    mask, kinds = pii.build(settings.safety).mask, settings.safety.pii_logs
    return PreferenceStore(
        settings.home / "preferences.db",
        settings=settings.preferences,
        redact=lambda text: mask(text, kinds),
    )
