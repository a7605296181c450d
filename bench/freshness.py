"""How soon a change answers, on a store of some size: `python -m bench.freshness`.

A knowledge base is filled with generated or given text, a folder of it is watched, and then

* files are edited: seconds from the end of the write to the first search that returns the new text;
* files are deleted while readers search without pause: passages of a deleted file that a search
  returned which began after the deletion;
* everything is synchronised again, nothing having changed: chunks embedded, and seconds.

`--embedder hashing` takes the encoder without weights, for trying the benchmark out.
"""

from __future__ import annotations

import argparse
import gzip
import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from assistant import load
from bench.common import report, scratch
from retrieval.chunk import Piece
from retrieval.config import RetrievalSettings
from retrieval.embed.base import Embedder
from retrieval.knowledge import KnowledgeBase, open_knowledge
from retrieval.schema import IngestSummary
from retrieval.sources import files
from retrieval.store import NewVersion, Store
from retrieval.store_sources import SourceRecord, SourceTable

#: Bulk text is stored under this name, beside the watched folder.
BULK = "bulk"
PATIENCE = 60.0
SYLLABLES = "ka lo mi ne ru ta vo shi den fa gor hul pim que sor tri wex yal zun bri".split()


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill, watch, edit, delete, synchronise again, report."""
    parser = argparse.ArgumentParser(description="freshness of a knowledge base")
    parser.add_argument("--chunks", type=int, default=100_000, help="chunks in the store")
    parser.add_argument("--files", type=int, default=10_000, help="files of the watched folder")
    parser.add_argument("--edits", type=int, default=200, help="files edited one by one")
    parser.add_argument("--deletes", type=int, default=200, help="files deleted one by one")
    parser.add_argument("--text", type=Path, help="folder of .txt, .md or .txt.gz to fill with")
    parser.add_argument("--embedder", default="", help="a file of retrieval/embed/, e.g. hashing")
    options = parser.parse_args(arguments)
    with scratch() as folder:
        overrides = {"home": str(folder / "home"), "docs": "false"}
        if options.embedder:
            overrides["retrieval.embed.backend"] = options.embedder
        settings = load(overrides=overrides).retrieval
        docs = folder / "docs"
        write(docs, options.files, options.text)
        fill(folder / "home", settings, options.chunks, options.text)
        knowledge = open_knowledge(folder / "home", settings)
        first = run(knowledge, docs)
        knowledge.search("warm-up", 1)
        again = run(knowledge, docs)
        walks: list[str] = []
        knowledge.keep_fresh(lambda root, _: walks.append(root))
        wait_for(lambda: bool(walks))
        edits = edit(knowledge, docs, options.edits)
        moved = replace(knowledge, docs, options.edits // 4)
        stale, searches = delete(knowledge, docs, options.deletes)
        chunks = knowledge.status().chunks
        knowledge.close()
    show(first, again, edits, moved, stale, searches, chunks, options)


def show(
    first: IngestSummary,
    again: IngestSummary,
    edits: list[float],
    moved: list[float],
    stale: int,
    searches: int,
    chunks: int,
    options: argparse.Namespace,
) -> None:
    """Print the table and the JSON line."""
    p50, p95 = (float(np.quantile(edits, q)) for q in (0.5, 0.95))
    p95_moved = float(np.quantile(moved, 0.95)) if moved else float("nan")
    rows = [
        ("store", f"{chunks} chunks", f"{first.documents} files watched"),
        ("edit → answerable", f"p50 {p50:.2f} s, p95 {p95:.2f} s", f"{len(edits)} edits"),
        ("replaced by rename", f"p95 {p95_moved:.2f} s", f"{len(moved)} files"),
        ("stale after delete", str(stale), f"{options.deletes} deletes, {searches} searches"),
        ("unchanged re-sync", f"{again.seconds:.2f} s", f"{again.embedded} embedded"),
    ]
    values = {
        "chunks": chunks,
        "files": first.documents,
        "edits": len(edits),
        "edit_p50_s": round(p50, 3),
        "edit_p95_s": round(p95, 3),
        "rename_p95_s": round(p95_moved, 3),
        "stale_after_delete": stale,
        "searches_during_deletes": searches,
        "resync_embeddings": again.embedded,
        "resync_s": round(again.seconds, 3),
    }
    report("freshness", rows, values)


def words(seed: int) -> Iterator[str]:
    """Endless made-up words, some frequent and most rare, as in a language."""
    draw = random.Random(seed)
    while True:
        rank = int(draw.paretovariate(0.8)) % 200_000
        yield "".join(SYLLABLES[(rank // 20**i) % 20] for i in range(1 + rank % 4))


def paragraphs(text: Path | None, seed: int) -> Iterator[str]:
    """Endless paragraphs: of the folder's texts, over and over, or made up."""
    found = (
        sorted(p for p in text.rglob("*") if p.name.endswith((".txt", ".md", ".txt.gz")))
        if (text)
        else []
    )
    while found:
        for path in found:
            opened = gzip.open if path.suffix == ".gz" else open
            with opened(path, "rt", encoding="utf-8", errors="replace") as file:
                yield from (line.strip() for line in file if len(line) > 200)
    source = words(seed)
    while True:
        yield " ".join(next(source) for _ in range(100)) + "."


def write(docs: Path, count: int, text: Path | None) -> None:
    """The folder that is watched: one paragraph a file, hundreds of files a folder."""
    source = paragraphs(text, 1)
    for number in range(count):
        path = place(docs, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# Note {number}\n\n{next(source)[:600]}\n", encoding="utf-8")


def place(docs: Path, number: int) -> Path:
    """Where a file lies."""
    return docs / f"{number // 250:03}" / f"note-{number}.md"


def fill(home: Path, settings: RetrievalSettings, count: int, text: Path | None) -> None:
    """Bulk chunks with random unit vectors: what is timed does not depend on what they mean."""
    knowledge = open_knowledge(home, settings)
    embedder: Embedder = knowledge.embedder
    knowledge.close()
    store = Store(
        home / "knowledge.db", embedder.id, embedder.dim, settings.embed.model_dump_json()
    )
    draw = np.random.default_rng(0)
    source = paragraphs(text, 2)
    from_one = 200
    try:
        for number in range(0, count, from_one):
            store.put(bulk(number, min(from_one, count - number), source, draw, embedder.dim))
        SourceTable(store).save(SourceRecord(BULK, "memory", checked=time.time()))
    finally:
        store.close()


def bulk(
    number: int, size: int, source: Iterator[str], draw: np.random.Generator, dim: int
) -> NewVersion:
    """One document of `size` chunks."""
    texts = [next(source)[:700] for _ in range(size)]
    starts = np.cumsum([0, *(len(t) + 2 for t in texts)])
    vectors = draw.standard_normal((size, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pieces = tuple(
        Piece(int(start), int(start) + len(text), ())
        for start, text in zip(starts, texts, strict=False)
    )
    return NewVersion(
        source=f"{BULK}:{number}",
        root=BULK,
        title=f"Bulk {number}",
        text="\n\n".join(texts),
        lang="en",
        version=str(number),
        made_by="bench",
        modified=0.0,
        stamp="",
        pieces=pieces,
        digests=tuple(f"{number}:{row}" for row in range(size)),
        vectors=vectors,
    )


def run(knowledge: KnowledgeBase, docs: Path) -> IngestSummary:
    """One whole run."""
    *_, summary = knowledge.ingest([docs])
    assert isinstance(summary, IngestSummary)
    return summary


def wait_for(condition: object) -> None:
    """Wait, at most `PATIENCE`."""
    assert callable(condition)
    ends = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > ends:
            raise SystemExit(f"waited {PATIENCE:g} s in vain")
        time.sleep(0.005)


def answers(knowledge: KnowledgeBase, word: str, path: Path) -> bool:
    """Whether a search for the word returns the file."""
    found = knowledge.search(f"What is {word}?", 5)
    source = files.root(path)
    return any(p.source == source and word in p.chunk.text for p in found)


def edit(knowledge: KnowledgeBase, docs: Path, count: int) -> list[float]:
    """Seconds from each edit to its answer."""
    seconds = []
    for number in range(count):
        path, word = place(docs, number), f"zyx{number}wvu"
        path.write_text(f"# Note {number}\n\nThe {word} is a thing of its own.\n", encoding="utf-8")
        began = time.monotonic()
        wait_for(lambda word=word, path=path: answers(knowledge, word, path))
        seconds.append(time.monotonic() - began)
    return seconds


def replace(knowledge: KnowledgeBase, docs: Path, count: int) -> list[float]:
    """The same for files that an editor writes beside and renames over."""
    seconds = []
    for number in range(count):
        path, word = place(docs, number), f"rst{number}qpo"
        part = path.with_name(f".{path.name}.part")
        part.write_text(f"# Note {number}\n\nThe {word} came by renaming.\n", encoding="utf-8")
        os.replace(part, path)
        began = time.monotonic()
        wait_for(lambda word=word, path=path: answers(knowledge, word, path))
        seconds.append(time.monotonic() - began)
    return seconds


def delete(knowledge: KnowledgeBase, docs: Path, count: int) -> tuple[int, int]:
    """Delete files under readers: (stale passages seen, searches made)."""
    gone: set[str] = set()
    stale: list[str] = []
    searches = [0, 0]
    stop = threading.Event()
    count = min(count, sum(1 for _ in files.walk(docs)))

    def read(me: int) -> None:
        draw = random.Random(me)
        while not stop.is_set():
            number = draw.randrange(count)
            before = set(gone)
            found = knowledge.search(f"What is zyx{number}wvu? Note {number}", 8)
            stale.extend({p.source for p in found} & before)
            searches[me] += 1

    readers = [threading.Thread(target=read, args=(me,)) for me in range(len(searches))]
    for reader in readers:
        reader.start()
    for number in range(count):
        path = place(docs, number)
        name = files.root(path)
        before = sum(searches)
        path.unlink()
        gone.add(name)
        wait_for(lambda before=before: sum(searches) > before)
    enough = sum(searches) + count  # readers go on while the deletions are taken in
    wait_for(lambda: sum(searches) > enough)
    stop.set()
    for reader in readers:
        reader.join()
    return len(stale), sum(searches)


if __name__ == "__main__":
    main()
