"""A last look before a passage is shown: is the file that it was read from still there?

A deleted file must not answer, not even in the moment before the deletion has been taken in. Where
the whole folder is missing, a drive is more likely unplugged: its documents go on answering.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace

from retrieval.ledger import FILES, Ledger
from retrieval.schema import Passage
from retrieval.sources.base import belongs


def deleted(passages: Sequence[Passage], ledger: Ledger) -> frozenset[int]:
    """Ids of the chunks whose file was deleted from a folder that is there.

    Costs one look at the disk for each document; the sources are asked for only if one is missing.
    """
    gone = _gone({p.source for p in passages}, ledger)
    return frozenset(p.chunk.id for p in passages if p.source in gone)


def forgotten(passages: Sequence[Passage], ledger: Ledger) -> list[Passage]:
    """The passages without the copies and older versions whose file was deleted."""
    named = {name for p in passages for name in (*p.also, *(o.source for o in p.older))}
    gone = _gone(named, ledger)
    if not gone:
        return list(passages)
    return [
        replace(
            p,
            also=tuple(name for name in p.also if name not in gone),
            older=tuple(o for o in p.older if o.source not in gone),
        )
        for p in passages
    ]


def _gone(sources: Iterable[str], ledger: Ledger) -> set[str]:
    missing = {source for source in sources if _missing(source)}
    if not missing:
        return set()
    folders = [r.root for r in ledger.sources.all() if r.kind == FILES and os.path.isdir(r.root)]
    return {source for source in missing if any(belongs(source, folder) for folder in folders)}


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
