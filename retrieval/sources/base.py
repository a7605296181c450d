"""What a source hands to ingestion."""

from __future__ import annotations

import os
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
        return storable(Path(self.name or self.path.name).stem)


def belongs(source: str, root: str) -> bool:
    """Whether `source` is `root` or lies below it (paths, and names like `upload:NAME`)."""
    below = root.rstrip(os.sep) + os.sep if os.path.isabs(root) else root + ":"
    return source == root or source.startswith(below)


def storable(name: str) -> str:
    """`name` as the database can hold it: bytes of a file name that are not UTF-8 as escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
