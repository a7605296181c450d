"""Documents as files of token ids, and which of them a step reads.

A file holds the ids of one language's documents in a shuffled order, end to end, as uint16; it is
mapped, not read. A window is a stretch of `context` targets; the windows of an epoch cover the file
exactly once, in an order drawn from seed and epoch, from a start drawn likewise, so that documents
are not cut at the same places in every epoch. What a step reads depends on seed and step alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from assistant.policy._signs import LANGUAGES, NAMES, sign
from retrieval.fit._glossary import Switch, glossary
from rlhf.errors import TrainingError
from rlhf.fit._lookup import Stretch, lookups, stretches
from rlhf.fit._text import Document, documents
from rlhf.fit.tokenizer import whole

#: Of all tokens of a language, those of documents that teach to point at sentences.
LOOKUPS = 0.15
#: Such documents made of held-out text, for checking.
HELD_LOOKUPS = 64
#: Changes whenever the same data would be packed otherwise.
VERSION = 2
_BATCH = 512

Tokens = NDArray[np.uint16]


def pack(data: Path, folder: Path, made: Tokenizer, revision: str, seed: int) -> Iterator[str]:
    """Write LANGUAGE.bin, held-LANGUAGE.bin and lookup-LANGUAGE.bin, unless they are up to date.

    Args:
        data: folder that holds text/, qa/, sft/.
        folder: of the files.
        made: the tokenizer.
        revision: names the tokenizer.
        seed: of the order and of the lookups.
    """
    about = folder / "packed.json"
    state = {"version": VERSION, "tokenizer": revision, "data": listing(data), "seed": seed}
    if about.exists() and json.loads(about.read_text(encoding="utf-8"))["state"] == state:
        return
    about.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    found = list(documents(data))
    switch = Switch(glossary())
    counts: dict[str, int] = {}
    for lang in LANGUAGES:
        mine = [d for d in found if d.lang == lang]
        kept, held = [d for d in mine if not d.held_out], [d for d in mine if d.held_out]
        plain = ids(made, kept)
        most = int(sum(map(len, plain)) * LOOKUPS / (1 - LOOKUPS))
        switched = switch if lang == "en" else None
        made_up = until(most, made, [*_of(kept)], lang, seed, switched)
        counts |= {lang: write(shuffled([*plain, *made_up], seed), folder / f"{lang}.bin")}
        counts |= {f"lookup documents {lang}": len(made_up)}
        counts |= {f"documents {lang}": len(plain)}
        whole_held = ids(made, held)
        counts |= {f"held {lang}": write(whole_held, folder / f"held-{lang}.bin")}
        checks = ids(made, [*lookups([*_of(held)], lang, HELD_LOOKUPS, seed, switched)])
        write(checks, folder / f"lookup-{lang}.bin")
        taught = sum(map(len, made_up))
        yield (
            f"packed {lang}: {counts[lang]} tokens of {len(plain)} documents, {taught} of them of "
            f"{len(made_up)} lookup documents"
        )
    values = {"state": state, "counts": counts}
    about.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def listing(data: Path) -> str:
    """Names, sizes and times of all files that may be read, hashed."""
    paths = sorted(p for part in ("text", "qa", "sft") for p in (data / part).rglob("*.gz"))
    found = [(str(p.relative_to(data)), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def ids(made: Tokenizer, found: Sequence[Document]) -> list[Tokens]:
    """Ids of each document, its beginning and end among them."""
    return [np.array(whole(made, document), dtype=np.uint16) for document in found]


def until(
    most: int,
    made: Tokenizer,
    found: Sequence[Stretch],
    lang: str,
    seed: int,
    switch: Switch | None,
) -> list[Tokens]:
    """Lookup documents of about `most` tokens together."""
    out: list[Tokens] = []
    size = 0
    if len(found) > 3:
        for document in lookups(found, lang, most, seed + 1, switch):
            if size >= most:
                break
            out += ids(made, [document])
            size += len(out[-1])
    return out


def shuffled(found: Sequence[Tokens], seed: int) -> list[Tokens]:
    """In an order drawn from the seed."""
    return [found[i] for i in np.random.default_rng((seed, len(found))).permutation(len(found))]


def write(found: Iterable[Tokens], path: Path) -> int:
    """Write all documents end to end; returns how many tokens."""
    part, size = path.with_suffix(".part"), 0
    with part.open("wb") as file:
        for tokens in found:
            file.write(tokens.tobytes())
            size += len(tokens)
    part.replace(path)
    return size


def mapped(path: Path) -> Tokens:
    """The tokens of a file.

    Raises:
        TrainingError: it holds none.
    """
    if not path.exists() or not path.stat().st_size:
        raise TrainingError(f"no tokens in {path}; give more text, or delete it to pack again")
    return np.memmap(path, dtype=np.uint16, mode="r")


def window(tokens: Tokens, context: int, seed: int, number: int) -> Tokens:
    """Window `number` of a run: (context + 1,) ids, the first of which is no target.

    Windows wrap around the file's end, so each token is a target once an epoch; where the file is
    no multiple of `context`, a few are twice.
    """
    each = -(-len(tokens) // context)
    epoch, at = divmod(number, each)
    random = np.random.default_rng((seed, epoch))
    place = int(random.permutation(each)[at])
    start = int(random.integers(len(tokens))) + place * context
    return np.take(tokens, np.arange(start, start + context + 1), mode="wrap")


def rows(
    files: Sequence[Tokens], context: int, count: int, seed: int, step: int
) -> NDArray[np.int64]:
    """(count, context + 1) ids of a step, as many windows of each file."""
    each = count // len(files)
    found = [
        window(tokens, context, seed * len(files) + number, step * each + i)
        for number, tokens in enumerate(files)
        for i in range(each)
    ]
    return np.stack(found).astype(np.int64)


def positions(ids: NDArray[np.int64], first: int) -> NDArray[np.int64]:
    """Place of each token in its document, (rows, length); documents begin with the id `first`.

    What a window cuts off counts from the window's beginning.
    """
    place = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    begun = np.maximum.accumulate(np.where(ids == first, place, 0), axis=1)
    return place - begun


def lengths(made: Tokenizer) -> NDArray[np.int64]:
    """Bytes of text each id stands for; special tokens stand for none."""
    plain = range(sign(made, NAMES[0]))
    found = np.zeros(made.get_vocab_size(), dtype=np.int64)
    found[plain] = [len(str(made.id_to_token(n))) for n in plain]  # one character a byte
    return found


def _of(found: Iterable[Document]) -> Iterator[Stretch]:
    """Stretches of all that is no conversation."""
    for document in found:
        if document.parts[0] != "user":
            yield from stretches(document)
