"""What a source hands to ingestion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Item:
    """One file to take in.

    `source` is its stable name in the store (the same file gets the same name next time), `path`
    where its bytes lie now, `named` whether the user gave this very file (then a format nobody
    reads is a failure; found in a folder it is only counted), `name` what people call it.
    """

    source: str
    path: Path
    named: bool = False
    name: str = ""

    @property
    def stem(self) -> str:
        """A title for a document that has none: its file name without the suffix."""
        return Path(self.name or self.path.name).stem
