"""How fast the encoder is: `python -m bench.encode PATH… [--limit N]`.

Both sides in one process, block by block in turn, on the same chunks of the documents under PATH:
the product's encoder as configured, and sentence-transformers as it comes (the same weights,
float32, its default batch). `min_cosine` is the product's least cosine to its own float32 in torch,
Chinese included; `ratio` compares the times.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from assistant import load
from bench.common import report
from retrieval import menu
from retrieval.chunk import chunk
from retrieval.config import EmbedSettings, RetrievalSettings
from retrieval.embed import _weights
from retrieval.embed.base import Vectors
from retrieval.errors import ParseError
from retrieval.parse.worker import ParserPool, supported_suffixes
from retrieval.rerank.base import presented
from retrieval.sources import files

#: Texts a side embeds before the other has its turn, and those that the cosine is taken over.
BLOCK, CHECKED = 500, 1000


def main(arguments: Sequence[str] | None = None) -> None:
    """Time both sides and report."""
    parser = argparse.ArgumentParser(description="encoder speed")
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, default=5000, help="chunks")
    parser.add_argument("--runtime", default="auto", help="auto, openvino or torch")
    options = parser.parse_args(arguments)
    settings = load().retrieval
    texts = chunks(options.paths, settings, options.limit)
    embed = settings.embed.model_copy(update={"runtime": options.runtime})
    ours = menu.load("retrieval.embed", "minilm").build(embed)
    theirs = SentenceTransformer(str(_weights.packaged()), device="cpu", local_files_only=True)
    exact = menu.load("retrieval.embed", "minilm").build(
        EmbedSettings(runtime="torch", dtype="float32")
    )
    step = max(1, len(texts) // CHECKED)
    cosine = cosines(ours.embed(texts[::step], "passage"), exact.embed(texts[::step], "passage"))
    library: Callable[[Sequence[str]], object] = lambda part: theirs.encode(  # noqa: E731
        list(part), show_progress_bar=False
    )
    mine, other = race(texts, lambda part: ours.embed(part, "passage"), library)
    query = [one(lambda: ours.embed(["How do I write a custom directive?"], "query"))]
    query.append(one(lambda: theirs.encode(["How do I write a custom directive?"])))
    speed, their_speed = len(texts) / mine, len(texts) / other
    rows = [
        ("chunks", str(len(texts)), f"{np.mean([len(t) for t in texts]):.0f} characters each"),
        ("ours", f"{speed:.1f} chunks/s", f"{ours.id}, one query {query[0]:.1f} ms"),
        ("sentence-transformers", f"{their_speed:.1f} chunks/s", f"one query {query[1]:.1f} ms"),
        ("ratio", f"{speed / their_speed:.2f}", "target 4"),
        ("least cosine", f"{cosine:.5f}", f"over {len(texts[::step])} chunks; target 0.999"),
    ]
    values = {
        "chunks": len(texts),
        "ratio": round(speed / their_speed, 2),
        "chunks_per_s": round(speed, 1),
        "their_chunks_per_s": round(their_speed, 1),
        "min_cosine": round(cosine, 5),
        "query_ms": round(query[0], 2),
        "their_query_ms": round(query[1], 2),
    }
    report("encode", rows, values)


def chunks(paths: Sequence[Path], settings: RetrievalSettings, limit: int) -> list[str]:
    """Texts as ingestion embeds them."""
    return [text for text, _ in zip(_texts(paths, settings), range(limit), strict=False)]


def race(
    texts: Sequence[str],
    left: Callable[[Sequence[str]], object],
    right: Callable[[Sequence[str]], object],
) -> tuple[float, float]:
    """Seconds of both over all texts, taking turns; the first block is run once before."""
    seconds = [0.0, 0.0]
    for side in (left, right):
        side(texts[:BLOCK])
    for number, at in enumerate(range(0, len(texts), BLOCK)):
        order = ((0, left), (1, right)) if number % 2 == 0 else ((1, right), (0, left))
        for place, side in order:
            began = time.perf_counter()
            side(texts[at : at + BLOCK])
            seconds[place] += time.perf_counter() - began
    return seconds[0], seconds[1]


def one(call: Callable[[], object], rounds: int = 30) -> float:
    """Median milliseconds of a call."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return float(np.median(times)) * 1000


def cosines(left: Vectors, right: Vectors) -> float:
    """The least cosine of rows that belong together."""
    return float((left * right).sum(axis=1).min())


def _texts(paths: Sequence[Path], settings: RetrievalSettings) -> Iterator[str]:
    pool = ParserPool(settings.parse)
    try:
        for path in paths:
            for item in files.walk(path):
                if item.path.suffix.lower() not in supported_suffixes():
                    continue
                try:
                    parsed = pool.parse(item.path)
                except ParseError:
                    continue
                for piece in chunk(parsed, settings.chunk):
                    text = parsed.text[piece.start : piece.end]
                    yield presented(parsed.title, piece.headings, text)
    finally:
        pool.close()


if __name__ == "__main__":
    main()
