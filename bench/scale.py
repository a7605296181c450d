"""A million chunks: `python -m bench.scale [--chunks N] [--data FOLDER]`.

FOLDER holds `*.txt.gz`, one JSON object {"text": …} a line, in English and Chinese. Its texts are
cut into chunks; each is repeated until there are N, every time with a tenth of its terms exchanged
for terms of other chunks (so that the terms keep their frequencies) and a term of its own. Vectors
are those of real chunks by the configured encoder (--embedded of them), a sixth of another chunk's
mixed in and noise added: a copy's cosine to its model is about .9. All of this is written in bulk,
past ingestion; what is measured is what serves: `build_s` is the time to write the index snapshot,
`p50_ms` and `p95_ms` are whole searches (embedding, both stages, passages) of sentences of the
texts in a fresh process, `rss_gib` is that process's resident memory at the end, with the pages of
the index it maps. `recall10` compares the approximate index with exact search over all vectors.

The store is kept in `.runs/scale-N` and used again; --fresh fills it anew.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from assistant import load
from bench.common import assigned, report, settable
from retrieval import menu, store_log
from retrieval.compact import compact
from retrieval.config import RetrievalSettings
from retrieval.embed.base import Embedder, Vectors
from retrieval.search import Retriever
from retrieval.serving import Serving
from retrieval.snapshot import Snapshots
from retrieval.store import Store
from retrieval.store_models import fill
from retrieval.store_tables import CHANGE, CHUNK, CONTENT, DOCUMENT
from retrieval.text import language, sentences, terms

ROOT = Path(__file__).resolve().parent.parent
#: Chunks of a document, and of a transaction; characters of a chunk, English and Chinese.
EACH, BATCH, SIZE = 10, 5_000, {"en": 600, "zh": 250}


def main(arguments: Sequence[str] | None = None) -> None:
    """Build if need be, serve in a fresh process, report."""
    parser = argparse.ArgumentParser(description="search in many chunks")
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "text")
    parser.add_argument("--embedded", type=int, default=5_000)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--fresh", action="store_true")
    settable(parser)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    overrides = assigned(options)
    settings = load(overrides=overrides).retrieval
    if options.serve:
        print(json.dumps(serve(options.serve, settings, options.queries)))
        return
    home = ROOT / ".runs" / f"scale-{options.chunks}"
    if options.fresh:
        shutil.rmtree(home, ignore_errors=True)
    note = home / "filled.json"
    built = json.loads(note.read_text()) if note.exists() else {}
    name = encoder(settings).id
    if built.get("encoder") != name:  # nothing yet, or of another encoder
        shutil.rmtree(home, ignore_errors=True)
        built = {"encoder": name, "fill_s": fill_store(home, options, settings)}
        note.write_text(json.dumps(built))
    built["build_s"] = build(home, settings)
    command = [sys.executable, "-m", "bench.scale", "--serve", str(home)]
    command += ["--queries", str(options.queries)]
    command += [word for pair in options.set for word in ("--set", pair)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    recall = compare(home, found.pop("near"), settings)
    values = {
        "chunks": options.chunks,
        "p50_ms": found["p50_ms"],
        "p95_ms": found["p95_ms"],
        "recall10": recall,
        "rss_gib": found["rss_gib"],
        "build_s": built["build_s"],
        "open_s": found["open_s"],
        "dense_ms": found["dense_ms"],
        "lexical_ms": found["lexical_ms"],
        "index": found["index"],
    }
    rows = [
        ("search p50, p95", f"{values['p50_ms']}, {values['p95_ms']} ms", found["index"]),
        ("dense, lexical p50", f"{values['dense_ms']}, {values['lexical_ms']} ms", "each alone"),
        ("recall@10", str(recall), "against exact search, dense"),
        ("memory", f"{values['rss_gib']} GiB", f"{found['mapped_gib']} GiB of it mapped files"),
        ("build", f"{built['build_s']} s", f"store filled in {built['fill_s']} s"),
        ("open", f"{values['open_s']} s", "hashes compared, log replayed"),
    ]
    report(f"{options.chunks:,} chunks", rows, values)


def pool(data: Path, limit: int) -> list[tuple[str, str]]:
    """Chunks (text, language) of the texts, file by file in turn."""
    files = [cut(path) for path in sorted(data.glob("*.txt.gz"))]
    found: list[tuple[str, str]] = []
    while files and len(found) < limit:
        for texts in list(files):
            part = next(texts, None)
            if part is None:
                files.remove(texts)
            else:
                found.append(part)
    if not found:
        raise SystemExit(f"no *.txt.gz with text in {data}; name a folder by --data")
    random.Random(0).shuffle(found)
    return found


def cut(path: Path) -> Iterator[tuple[str, str]]:
    """Stretches of whole paragraphs of one file."""
    tongue = path.name[:2]
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            held = ""
            for paragraph in json.loads(line)["text"].split("\n"):
                held = f"{held}\n{paragraph}"[-2_000:]
                if len(held) >= SIZE[tongue]:
                    yield held.strip(), tongue
                    held = ""


def build(home: Path, settings: RetrievalSettings) -> float:
    """Write the index; returns the seconds it took."""
    embedder = encoder(settings)
    store = Store(home / "knowledge.db", embedder.id, embedder.dim)
    began = time.monotonic()
    compact(store, Snapshots(home / "index"), store.model, settings.search.index)
    store.close()
    return round(time.monotonic() - began, 1)


def fill_store(home: Path, options: argparse.Namespace, settings: RetrievalSettings) -> float:
    """Fill the store; returns the seconds it took."""
    embedder = encoder(settings)
    texts = pool(options.data, max(1_000, options.chunks // 20))
    readable = [text for text, _ in texts if embedder.reads(text)][: options.embedded]
    models = embedder.embed(readable, "passage")
    asked = questions(texts, options.queries)
    (home).mkdir(parents=True)
    (home / "questions.json").write_text(json.dumps(asked, ensure_ascii=False), encoding="utf-8")
    store = Store(home / "knowledge.db", embedder.id, embedder.dim)
    began = time.monotonic()
    copies = Copies(texts, models)
    for first in range(0, options.chunks, BATCH):
        numbers = range(first, min(first + BATCH, options.chunks))
        write(store, copies, numbers)
        print(f"\r{numbers.stop:,} chunks", end="", file=sys.stderr, flush=True)
    store.close()
    return round(time.monotonic() - began, 1)


class Copies:
    """Perturbed copies of real chunks, by number; the same every time."""

    def __init__(self, texts: Sequence[tuple[str, str]], models: Vectors) -> None:
        self.texts = texts
        self.terms = [terms(text) for text, _ in texts]
        self.models = models

    def words(self, number: int) -> list[str]:
        """Terms of copy `number`: a tenth of them another chunk's, and one of its own."""
        dice = random.Random(number)
        mine = list(self.terms[number % len(self.terms)])
        other = self.terms[dice.randrange(len(self.terms))]
        for _ in range(len(mine) // 10 if other else 0):
            mine[dice.randrange(len(mine))] = dice.choice(other)
        return [*mine, f"copy{number}"]

    def vectors(self, numbers: range) -> Vectors:
        """Vectors of copies, (len(numbers), dim), unit length."""
        dice = np.random.default_rng(numbers.start)
        count, dim = len(numbers), self.models.shape[1]
        near = self.models[np.arange(numbers.start, numbers.stop) % len(self.models)]
        far = self.models[dice.integers(0, len(self.models), count)]
        noise = dice.standard_normal((count, dim)).astype(np.float32) * 0.4 / dim**0.5
        vectors: Vectors = near + far / 6 + noise
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors


def write(store: Store, copies: Copies, numbers: range) -> None:
    """Write copies as documents of `EACH` chunks, in one transaction."""
    made = time.time()
    documents: list[dict[str, Any]] = []
    contents: list[dict[str, Any]] = []
    chunks: list[dict[str, Any]] = []
    rows: list[tuple[int, str, str]] = []
    for number in numbers:
        text, tongue = copies.texts[number % len(copies.texts)]
        document, place = divmod(number, EACH)
        if place == 0:
            documents.append({
                "id": document + 1, "source": f"/scale/{document}", "root": "/scale",
                "title": f"Document {document}", "lang": tongue, "version": "1", "made_by": "bench",
                "modified": float(document), "stamp": "1", "indexed": made, "date": float(document),
            })  # fmt: skip
            contents.append({"document_id": document + 1, "text": ""})
        start = len(contents[-1]["text"])
        contents[-1]["text"] += text + "\n"
        chunks.append({
            "id": number + 1, "document_id": document + 1, "start": start,
            "end": start + len(text), "headings": [], "ordinal": place, "code": [], "digest": "",
        })  # fmt: skip
        rows.append((number + 1, f"document{document}", " ".join(copies.words(number))))
    log = [{"op": "add", "chunk_id": c["id"], "document_id": c["document_id"]} for c in chunks]
    vectors = copies.vectors(numbers)
    with store.write() as connection:
        for table, values in ((DOCUMENT, documents), (CONTENT, contents), (CHUNK, chunks)):
            connection.execute(sa.insert(table), values)
        connection.exec_driver_sql("INSERT INTO lexical(rowid, head, body) VALUES (?, ?, ?)", rows)
        ids = [chunk["id"] for chunk in chunks]
        fill(connection, store.model, list(zip(ids, vectors, strict=True)))
        connection.execute(sa.insert(CHANGE), log)


def questions(texts: Sequence[tuple[str, str]], number: int) -> list[str]:
    """Sentences of the texts, half in either language."""
    found: dict[str, list[str]] = {"en": [], "zh": []}
    for text, _ in texts:
        for start, end in sentences(text)[:1]:
            asked = " ".join(text[start:end].split())
            if 12 <= len(asked) <= 160 and len(found[language(asked)]) < number // 2:
                found[language(asked)].append(asked)
    return [asked for pair in zip(found["en"], found["zh"], strict=False) for asked in pair]


def encoder(settings: RetrievalSettings) -> Embedder:
    """The configured encoder."""
    built: Embedder = menu.load("retrieval.embed", settings.embed.backend).build(settings.embed)
    return built


def serve(home: Path, settings: RetrievalSettings, number: int) -> dict[str, object]:
    """Open, search, and say how long each search took and what the dense side found."""
    embedder = encoder(settings)
    embedder.embed(["warm-up"], "query")
    began = time.monotonic()
    store = Store(home / "knowledge.db", embedder.id, embedder.dim)
    serving = Serving(store, embedder, settings.search.index, Snapshots(home / "index"))
    opened = time.monotonic() - began
    retriever = Retriever(serving, settings.search)
    asked: list[str] = json.loads((home / "questions.json").read_text(encoding="utf-8"))[:number]
    for question in asked[: len(asked) // 4]:
        retriever.search(question, 10)
    times: dict[str, list[float]] = {}
    for mode in ("fused", "dense", "lexical"):
        for question in asked:
            began = time.perf_counter()
            retriever.search(question, 10, mode=mode)
            times.setdefault(mode, []).append((time.perf_counter() - began) * 1000)
    view = serving.view()
    near = []
    for question in asked[:200]:
        vector = embedder.embed([question], "query")
        near.append((vector[0].tolist(), list(view.search(vector, 10, None))))
    status = serving.status()
    store.close()
    resident, mapped = memory()
    return {
        "p50_ms": round(float(np.median(times["fused"])), 1),
        "p95_ms": round(float(np.percentile(times["fused"], 95)), 1),
        "dense_ms": round(float(np.median(times["dense"])), 1),
        "lexical_ms": round(float(np.median(times["lexical"])), 1),
        "open_s": round(opened, 2),
        "rss_gib": resident,
        "mapped_gib": mapped,
        "index": status.index,
        "near": near,
    }


def memory() -> tuple[float, float]:
    """Resident memory of this process and what of it lies in mapped files, GiB."""
    lines = Path("/proc/self/status")
    if not lines.exists():  # not Linux: the peak is what there is
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2), 0.0
    fields = dict(line.split(":", 1) for line in lines.read_text().splitlines())
    resident, mapped = (int(fields[name].split()[0]) / 2**20 for name in ("VmRSS", "RssFile"))
    return round(resident, 2), round(mapped, 2)


def compare(
    home: Path, near: Sequence[tuple[list[float], list[int]]], settings: RetrievalSettings
) -> float:
    """Share of the ten nearest chunks by exact search that were found."""
    vectors = np.array([vector for vector, _ in near], dtype=np.float32)
    embedder = encoder(settings)
    store = Store(home / "knowledge.db", embedder.id, embedder.dim)
    scores = np.full((len(near), 10), -np.inf, dtype=np.float32)
    ids: NDArray[np.int64] = np.full((len(near), 10), -1, dtype=np.int64)
    with store.read() as connection:
        for keys, halves in store_log.vectors(connection, store.model):
            both = np.concatenate([scores, vectors @ halves.astype(np.float32).T], axis=1)
            names = np.concatenate([ids, np.broadcast_to(keys, (len(near), len(keys)))], axis=1)
            top = np.argpartition(-both, 9, axis=1)[:, :10]
            scores = np.take_along_axis(both, top, axis=1)
            ids = np.take_along_axis(names, top, axis=1)
    store.close()
    hits = [len(set(found) & set(row.tolist())) for (_, found), row in zip(near, ids, strict=True)]
    return round(float(np.mean(hits)) / 10, 4)


if __name__ == "__main__":
    main()
