"""A last look before a passage is shown: is the file that it was read from still there?

A deleted file must not answer, not even in the moment before the deletion has been taken in. Where
the whole folder is missing, a drive is more likely unplugged: its documents go on answering.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from retrieval.ledger import FILES, Ledger
from retrieval.schema import Passage
from retrieval.sources.base import belongs


def deleted(passages: Sequence[Passage], ledger: Ledger) -> frozenset[int]:
    """Ids of the chunks whose file was deleted from a folder that is there.

    Costs one look at the disk for each document; the sources are asked for only if one is missing.
    """
    missing = {source for source in {p.source for p in passages} if _missing(source)}
    if not missing:
        return frozenset()
    folders = [r.root for r in ledger.sources.all() if r.kind == FILES and os.path.isdir(r.root)]
    gone = {source for source in missing if any(belongs(source, folder) for folder in folders)}
    return frozenset(p.chunk.id for p in passages if p.source in gone)


def _missing(source: str) -> bool:
    # a name that is not text is stored escaped, and so cannot be looked for
    if not os.path.isabs(source) or "\\udc" in source:
        return False
    try:
        os.lstat(source)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
