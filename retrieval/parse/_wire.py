"""What parent and child send each other: a length, then JSON."""

from __future__ import annotations

import struct
from typing import Any

from retrieval.parse.base import REMEDIES

#: Bytes of the JSON that follows, big-endian.
LENGTH = struct.Struct(">Q")


def failure(reason: str, detail: str, remedy: str = "", worn: bool = False) -> dict[str, Any]:
    """Build the answer for a file that was not read; `worn` asks for a fresh child."""
    return {
        "reason": reason,
        "detail": detail,
        "remedy": remedy or REMEDIES[reason],
        "worn": worn,
    }
