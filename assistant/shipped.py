"""The weights that come with the product: each is what its card says, to the bit.

A card names the SHA-256 of the files beside it (`SHA-256 of FILE: HEX`); safetensors and JSON have
no checksum of their own, and a changed weight loads as well as the right one.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path

from retrieval.errors import ModelUntrusted

MODELS = Path(__file__).resolve().parent.parent / "models"
CARD = "card.md"
_LINE = re.compile(r"SHA-256 of ([\w.-]+): ([0-9a-f]{64})")


def check(models: Path = MODELS) -> None:
    """Compare every file that a card names; those that did not change since are not read again.

    Raises:
        ModelUntrusted: a file is missing or is not the one of its card.
    """
    for card in sorted(models.glob(f"*/{CARD}")):
        for name, wanted in named(card).items():
            path = card.parent / name
            if not path.is_file():
                raise ModelUntrusted(f"{path} is missing; get it from the repository again")
            about = path.stat()
            if _digest(path, about.st_mtime_ns, about.st_size) != wanted:
                raise ModelUntrusted(
                    f"{path} is damaged: its SHA-256 is not the one in {card.name} beside it; "
                    "get both from the repository again, or train them anew"
                )


def complete(models: Path, since: float) -> None:
    """Let the cards written `since` (seconds of the epoch) name every file beside them."""
    for card in models.glob(f"*/{CARD}"):
        if card.stat().st_mtime < since:
            continue
        known = named(card)
        lines = [
            f"\nSHA-256 of {path.name}: {hashlib.sha256(path.read_bytes()).hexdigest()}.\n"
            for path in sorted(card.parent.iterdir())
            if path.is_file() and path != card and path.name not in known
        ]
        with card.open("a", encoding="utf-8") as file:
            file.writelines(lines)


def named(card: Path) -> dict[str, str]:
    """The files that a card names, with their SHA-256."""
    return dict(_LINE.findall(card.read_text(encoding="utf-8")))


@lru_cache(maxsize=64)
def _digest(path: Path, _changed: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
